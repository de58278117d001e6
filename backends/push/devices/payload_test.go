package devices

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/config"
)

// TestDocumentedPayloads: what docs/push-apps.md says that applications receive is what the
// providers get.
func TestDocumentedPayloads(t *testing.T) {
	docs, err := os.ReadFile(filepath.FromSlash("../../../docs/push-apps.md"))
	if err != nil {
		t.Fatal(err)
	}
	c := appleConfig(t)
	block, _ := pem.Decode([]byte(c.Key.Reveal()))
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	account := pushtest.APNsAccount{KeyID: c.KeyID, TeamID: c.TeamID, Topics: c.Topics, Key: &private.(*ecdsa.PrivateKey).PublicKey}
	apple, google, web := pushtest.StartAPNs(t, account), pushtest.StartFCM(t, time.Hour), pushtest.StartWebPush(t, "")
	c.URL, c.CACertFile = apple.URL, apple.CAFile
	apps, err := NewApps([]config.PushApp{{
		Name: "chat", APNs: c, FCM: &config.PushFCM{Credentials: google.ServiceAccount(t), URL: google.URL, CACertFile: google.CAFile},
		WebPush: &config.PushWebPush{Allow: []string{"127.0.0.1"}, CACertFile: web.CAFile},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := apps[0].close(); err != nil {
			t.Error(err)
		}
	})
	m := &Message{EventID: "5f0c6f0e7a0b4c1f8d2e3a4b5c6d7e8f", Summary: Summary{
		field("message-count", "2"), field("last-message-sender", "alice@example.org"), field("last-message-body", "Tea?"), field("x-app", "y"),
	}}
	n := m.notification("NODE", notify.ContentBody, time.Hour)
	sealed := (&Message{EventID: m.EventID, Owner: "bob@example.org", Summary: Summary{field("encrypted", "4LSZkbaW…"), field("iv", "ZGVmZ2hpamtsbW5v")}}).notification("NODE", notify.ContentBody, time.Hour)
	for _, to := range []notify.Target{
		{Kind: notify.APNs, Address: "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff"}, {Kind: notify.FCM, Address: "TOKEN"}, web.Subscribe(t, "/x"),
	} {
		for _, n := range []notify.Notification{n, sealed} {
			if err := apps[0].senders[to.Kind].Send(context.Background(), to, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	sent := []string{apple.Requests()[0].Payload, google.Requests()[0].Message, web.Requests()[0].Plaintext, apple.Requests()[1].Payload, google.Requests()[1].Message}
	for _, payload := range sent {
		payload = regexp.MustCompile(`"apns-expiration":"\d+"`).ReplaceAllString(payload, `"apns-expiration":"1767229200"`)
		if !bytes.Contains(docs, []byte("\n"+payload+"\n")) {
			t.Errorf("docs/push-apps.md has not got\n%s", payload)
		}
	}
}

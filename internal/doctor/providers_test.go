//go:build linux

package doctor_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/webpush"
	"eventpusher/internal/xmppserver"
)

// p8 returns a key as Apple hands them out.
func p8(t *testing.T) (key *ecdsa.PrivateKey, file []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TestProviders asks the providers of two applications: of one everything is right, the
// other's key, account and topic are not.
func TestProviders(t *testing.T) {
	known, good := p8(t)
	_, bad := p8(t)
	apple := pushtest.StartAPNs(t, pushtest.APNsAccount{KeyID: "ABC123DEFG", TeamID: "DEF123GHIJ", Key: &known.PublicKey, Topics: []string{"org.example.chat"}})
	google := pushtest.StartFCM(t, time.Hour)
	vapid, err := webpush.GenerateVAPIDKey()
	if err != nil {
		t.Fatal(err)
	}
	apns := func(p8 []byte, team string) string {
		return fmt.Sprintf("[push.app.apns]\nkey = %q\nkey_id = \"ABC123DEFG\"\nteam_id = %q\ntopics = [\"org.example.chat\"]\nurl = %q\ncacertfile = %q\n", p8, team, apple.URL, apple.CAFile)
	}
	fcm := func(url string) string {
		return fmt.Sprintf("[push.app.fcm]\ncredentials = %q\nurl = %q\ncacertfile = %q\n", google.ServiceAccount(t).Reveal(), url, google.CAFile)
	}
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	answering := make(chan struct{})
	go answer(server, answering)
	defer func() {
		server.Close()
		<-answering
	}()
	url, _ := sink(t)
	cfg := configure(t, server.Addr(), "secret", url, `"localhost"`, pushSection+
		"[[push.app]]\nname = \"good\"\n"+apns(good, "DEF123GHIJ")+fcm(google.URL)+fmt.Sprintf("[push.app.webpush]\nvapid_key = %q\nsubject = \"mailto:hostmaster@example.org\"\n", vapid.Reveal())+
		"[[push.app]]\nname = \"bad\"\n"+apns(bad, "XXXXXXXXXX")+fcm("https://127.0.0.1:1"))
	got := examine(t, cfg)
	wantLines(t, got, "WARN localhost can register for push; right if the server's own push module (Prosody mod_cloud_notify, ejabberd mod_push) publishes here; else let it",
		"OK push application good: apns (", "OK push takes key ABC123DEFG of team DEF123GHIJ, and notifications for org.example.chat",
		"OK push application good: fcm (", "OK push application good: webpush: the VAPID key signs for mailto:hostmaster@example.org",
		"FAIL push answered 403 InvalidProviderToken: key ABC123DEFG of team XXXXXXXXXX is not known; check that key_id and team_id",
		"FAIL push application bad: fcm: https://127.0.0.1:1 cannot be reached")
	if n := len(apple.Requests()) + len(google.Requests()); n != 0 {
		t.Errorf("%d devices were notified", n)
	}
}

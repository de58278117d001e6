package devices

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/webpush"
	"eventpusher/config"
)

func appleConfig(t *testing.T) *config.PushAPNs {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p8 := config.Secret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	return &config.PushAPNs{Key: p8, KeyID: "ABC123DEFG", TeamID: "DEF123GHIJ", Topics: []string{"org.example.chat", "org.example.chat.voip"}}
}

func TestRegister(t *testing.T) {
	web := pushtest.StartWebPush(t, "")
	dev := appleConfig(t)
	dev.Sandbox = true
	apps, err := NewApps([]config.PushApp{
		{Name: "chat", APNs: appleConfig(t), FCM: &config.PushFCM{Credentials: pushtest.StartFCM(t, time.Hour).ServiceAccount(t)}, WebPush: &config.PushWebPush{Allow: []string{"127.0.0.1"}}},
		{Name: "chat-dev", APNs: dev},
	})
	if err != nil {
		t.Fatal(err)
	}
	names, kinds := NewRegistry(nil, apps).Choices()
	if diff := cmp.Diff([][]string{{"chat", "chat-dev"}, {"apns", "fcm", "webpush"}}, [][]string{names, kinds}); diff != "" {
		t.Errorf("choices (-want +got):\n%s", diff)
	}
	sub := web.Subscribe(t, "/x")
	subscription := func(change func(*Request)) Request {
		q := Request{Kind: "webpush", Endpoint: sub.Address.Reveal(), P256DH: sub.P256DH, Auth: sub.Auth.Reveal()}
		if change != nil {
			change(&q)
		}
		return q
	}
	for name, tc := range map[string]struct {
		q    Request
		app  string
		want notify.Target
		bad  string // the field that is wrong
	}{
		"apns":                     {Request{Kind: "apns", App: "chat", Token: "C0FFEE"}, "chat", notify.Target{Kind: "apns", Address: "c0ffee"}, ""},
		"apns for calls":           {Request{Kind: "apns", App: "chat", Token: "c0", Topic: "org.example.chat.voip"}, "chat", notify.Target{Kind: "apns", Address: "c0", Topic: "org.example.chat.voip"}, ""},
		"sandbox":                  {Request{Kind: "apns", App: "chat-dev", Token: "c0"}, "chat-dev", notify.Target{Kind: "apns", Address: "c0", Sandbox: true}, ""},
		"the only app with it":     {Request{Kind: "fcm", Token: "abc:DEF"}, "chat", notify.Target{Kind: "fcm", Address: "abc:DEF"}, ""},
		"webpush":                  {subscription(nil), "chat", sub, ""},
		"which app":                {Request{Kind: "apns", Token: "c0"}, "", notify.Target{}, "app"},
		"no such app":              {Request{Kind: "apns", App: "mail", Token: "c0"}, "", notify.Target{}, "app"},
		"an app without the kind":  {Request{Kind: "fcm", App: "chat-dev", Token: "c0"}, "", notify.Target{}, "kind"},
		"no kind":                  {Request{Token: "c0"}, "", notify.Target{}, "kind"},
		"mongoosepush":             {Request{Kind: "mongoosepush", Token: "c0"}, "", notify.Target{}, "kind"},
		"no token":                 {Request{Kind: "fcm"}, "", notify.Target{}, "token"},
		"a token with a line":      {Request{Kind: "fcm", Token: "a\nb"}, "", notify.Target{}, "token"},
		"an endless token":         {Request{Kind: "fcm", Token: strings.Repeat("a", maxToken+1)}, "", notify.Target{}, "token"},
		"a token of another kind":  {Request{Kind: "apns", App: "chat", Token: "abc:DEF"}, "", notify.Target{}, "token"},
		"another's topic":          {Request{Kind: "apns", App: "chat", Token: "c0", Topic: "com.other"}, "", notify.Target{}, "topic"},
		"a topic for fcm":          {Request{Kind: "fcm", Token: "c0", Topic: "x"}, "", notify.Target{}, "topic"},
		"an endpoint for fcm":      {Request{Kind: "fcm", Token: "c0", Endpoint: "https://x"}, "", notify.Target{}, "endpoint"},
		"a token for webpush":      {subscription(func(q *Request) { q.Token = "x" }), "", notify.Target{}, "token"},
		"no keys":                  {subscription(func(q *Request) { q.P256DH = "" }), "", notify.Target{}, "p256dh"},
		"short auth":               {subscription(func(q *Request) { q.Auth = "AAAA" }), "", notify.Target{}, "p256dh"},
		"an endpoint inside":       {subscription(func(q *Request) { q.Endpoint = "https://[::1]:9200/" }), "", notify.Target{}, "endpoint"},
		"the cloud's own endpoint": {subscription(func(q *Request) { q.Endpoint = "https://169.254.169.254/latest" }), "", notify.Target{}, "endpoint"},
		"an endpoint without TLS":  {subscription(func(q *Request) { q.Endpoint = "http://8.8.8.8/" }), "", notify.Target{}, "endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t, 0)
			tc.q.Owner = bob
			c, err := NewRegistry(store, apps).Register(t.Context(), tc.q)
			var invalid *InvalidError
			if tc.bad != "" {
				if !errors.As(err, &invalid) || invalid.Field != tc.bad {
					t.Errorf("%v, want a complaint of %s", err, tc.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d, err := store.Verify(t.Context(), c.Node, c.Secret)
			if diff := cmp.Diff([]any{tc.app, tc.want, bob}, []any{d.App, d.Target, d.Owner}); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestKindIsNotConfigured says what is.
func TestKindIsNotConfigured(t *testing.T) {
	apps, err := NewApps([]config.PushApp{{Name: "web", WebPush: &config.PushWebPush{}}, {Name: "ios", APNs: appleConfig(t)}})
	if err != nil {
		t.Fatal(err)
	}
	r := NewRegistry(newStore(t, 0), apps)
	for q, want := range map[Request]string{
		{Kind: "fcm", Token: "x"}:             "kind fcm is not configured; configured: apns, webpush",
		{Kind: "fcm", App: "web", Token: "x"}: `kind fcm is not configured for application "web"; configured: webpush`,
		{Kind: "gcm", Token: "x"}:             "kind is none of apns, fcm, webpush; configured: apns, webpush",
		{App: "ios", Token: "x"}:              "kind is missing; configured: apns",
	} {
		if _, err := r.Register(t.Context(), q); err == nil || err.Error() != want {
			t.Errorf("%+v: %v, want %s", q, err, want)
		}
	}
}

// TestNewAppsRefuses names each key and hides what it holds.
func TestNewAppsRefuses(t *testing.T) {
	apple := func(change func(*config.PushAPNs)) *config.PushAPNs {
		c := appleConfig(t)
		change(c)
		return c
	}
	google := pushtest.StartFCM(t, time.Hour).ServiceAccount(t)
	private, err := webpush.GenerateVAPIDKey()
	if err != nil {
		t.Fatal(err)
	}
	apps, err := NewApps([]config.PushApp{
		{Name: "a", APNs: apple(func(c *config.PushAPNs) { c.Key = "hunter2" })},
		{Name: "b", FCM: &config.PushFCM{Credentials: "{hunter2}"}, WebPush: &config.PushWebPush{VAPIDKey: private, Subject: "mailto:x@localhost"}},
		{Name: "c", WebPush: &config.PushWebPush{VAPIDKey: "hunter2", Subject: "mailto:x@example.org"}}, {Name: "d", WebPush: &config.PushWebPush{Allow: []string{"10.0.0.1/33"}}},
		{Name: "fine", WebPush: &config.PushWebPush{}},
		{Name: "f", APNs: apple(func(c *config.PushAPNs) { c.KeyID = "x" })}, {Name: "g", APNs: apple(func(c *config.PushAPNs) { c.TeamID = "x" })},
		{Name: "h", APNs: apple(func(c *config.PushAPNs) { c.Topics = nil })},
		{Name: "i", APNs: apple(func(c *config.PushAPNs) { c.URL = "http://x.example" }), FCM: &config.PushFCM{Credentials: google, CACertFile: "/nonexistent"}},
	})
	var invalid *InvalidAppsError
	if !errors.As(err, &invalid) || apps != nil {
		t.Fatalf("%v, %v", apps, err)
	}
	var paths []string
	for _, p := range invalid.Problems {
		if p.Severity != config.Error || p.Text == "" {
			t.Errorf("%+v", p)
		}
		paths = append(paths, p.Path)
	}
	want := []string{
		"push.app[1].apns.key", "push.app[2].fcm.credentials", "push.app[2].webpush.subject", "push.app[3].webpush.vapid_key", "push.app[4].webpush.allow",
		"push.app[6].apns.key_id", "push.app[7].apns.team_id", "push.app[8].apns.topics", "push.app[9].apns.url", "push.app[9].fcm.cacertfile",
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

package webpush

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/sendtest"
	"eventpusher/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const subject = "mailto:operator@example.org"

func newVAPID(t testing.TB) *VAPID {
	t.Helper()
	key, err := GenerateVAPIDKey()
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVAPID(key, subject)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// start runs a stand-in whose subscriptions are bound to the sender's key.
func start(t testing.TB, change func(*Options)) (*pushtest.WebPush, *Sender) {
	t.Helper()
	o := Options{VAPID: newVAPID(t), Guard: newGuard(t, []string{"127.0.0.1"})}
	service := pushtest.StartWebPush(t, o.VAPID.PublicKey())
	o.CACertFile = service.CAFile
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return service, s
}

func notification() notify.Notification {
	return notify.Notification{
		ID: "e1", Title: "Alice", Body: "1 < 2", Sender: "alice@localhost", Thread: "t1",
		Badge: new(4), MessageCount: 2, Priority: notify.High, Data: map[string]string{"zulu": "z"},
	}
}

func TestSend(t *testing.T) {
	for _, tc := range []struct {
		name    string
		change  func(*notify.Notification)
		options func(*Options)
		header  map[string]string
		want    string
		size    int
	}{
		{
			name:   "now or never",
			header: map[string]string{"Ttl": "0", "Urgency": "high", "Topic": "", "Content-Encoding": "aes128gcm", "Content-Type": "application/octet-stream"},
			want:   `{"badge":"4","event-id":"e1","last-message-body":"1 < 2","last-message-sender":"alice@localhost","message-count":"2","thread":"t1","title":"Alice","zulu":"z"}`,
			size:   86 + 256 + 1 + 16,
		},
		{
			name: "later, collapsed",
			change: func(n *notify.Notification) {
				*n = notify.Notification{Title: "New message", TTL: 60 * 24 * time.Hour, CollapseID: "bob@localhost"}
			},
			header: map[string]string{"Ttl": "2419200", "Urgency": "normal", "Topic": "QFAQ1sFsFt7Dbz16dZbC11e6e1eQStxI"},
			want:   `{"title":"New message"}`,
			size:   86 + 256 + 1 + 16,
		},
		{
			name:    "silent, without padding",
			change:  func(n *notify.Notification) { *n = notify.Notification{ID: "e", Silent: true, CollapseID: "chat_1"} },
			options: func(o *Options) { o.Padding = 1 },
			header:  map[string]string{"Urgency": "low", "Topic": "chat_1"},
			want:    `{"event-id":"e"}`,
			size:    86 + len(`{"event-id":"e"}`) + 1 + 16,
		},
		{
			name:    "padded in full",
			options: func(o *Options) { o.Padding = maxPlaintext },
			change:  func(n *notify.Notification) { *n = notify.Notification{ID: "e"} },
			want:    `{"event-id":"e"}`,
			size:    4096,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			service, s := start(t, tc.options)
			n := notification()
			if tc.change != nil {
				tc.change(&n)
			}
			if err := s.Send(t.Context(), service.Subscribe(t, "/push/1"), n); err != nil {
				t.Fatal(err)
			}
			got := service.Requests()[0]
			if diff := cmp.Diff(tc.want, got.Plaintext); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got.Size != tc.size {
				t.Errorf("%d bytes, want %d", got.Size, tc.size)
			}
			for name, want := range tc.header {
				if value := got.Header.Get(name); value != want {
					t.Errorf("%s: %q, want %q", name, value, want)
				}
			}
		})
	}
}

func TestOversize(t *testing.T) {
	service, s := start(t, nil)
	to := service.Subscribe(t, "/1")
	n := notification()
	n.Body = strings.Repeat("日\"", 4000)
	if err := s.Send(t.Context(), to, n); err != nil {
		t.Fatal(err)
	}
	var fields map[string]string
	if err := json.Unmarshal([]byte(service.Requests()[0].Plaintext), &fields); err != nil {
		t.Fatal(err)
	}
	if kept, cut := strings.CutSuffix(fields[notify.KeyBody], "…"); !cut || !strings.HasPrefix(n.Body, kept) || len(kept) < 2800 {
		t.Errorf("%d bytes of the body", len(kept))
	}
	n.Data = map[string]string{"large": strings.Repeat("x", 4096)}
	if err := s.Send(t.Context(), to, n); backends.Reason(err) != "too_large" {
		t.Errorf("%v, want too large", err)
	}
}

func TestUnifiedPushWithoutVAPID(t *testing.T) {
	service := pushtest.StartWebPush(t, "")
	s, err := New(Options{Guard: newGuard(t, nil, "127.0.0.0/8"), CACertFile: service.CAFile})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send(t.Context(), service.Subscribe(t, "/UP"), notification()); err != nil {
		t.Fatal(err)
	}
	if service.Tokens() != 0 || len(service.Requests()) != 1 {
		t.Errorf("%d tokens, %d requests", service.Tokens(), len(service.Requests()))
	}
}

func TestAnotherVAPIDKey(t *testing.T) {
	service, _ := start(t, nil)
	_, s := start(t, func(o *Options) { o.CACertFile = service.CAFile })
	if err := s.Send(t.Context(), service.Subscribe(t, "/1"), notification()); backends.Reason(err) != "permanent" || !strings.Contains(err.Error(), "VapidPkHashMismatch") {
		t.Errorf("%v, want permanent with the reason", err)
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		status     int
		retryAfter string
		body       string
		want       string
	}{
		{200, "", "", ""}, {202, "", "", ""}, {204, "", "", ""},
		{301, "", "", "permanent"}, {307, "", "", "permanent"},
		{400, "", "", "permanent"}, {401, "", "", "permanent"}, {403, "", `{"reason":"BadJwtToken"}`, "permanent"},
		{404, "", "", "gone"}, {410, "", `{"errno":106,"error":"Gone"}`, "gone"}, {413, "", "", "too_large"},
		{408, "", "", "transient"}, {429, "", "", "retry_after 30s"}, {429, "90", "", "retry_after 1m30s"},
		{500, "", "", "transient"}, {502, "", "<html>", "transient"}, {503, "", "", "transient"}, {503, "20", "", "retry_after 20s"},
	} {
		t.Run(fmt.Sprintf("%d %s", tc.status, tc.retryAfter), func(t *testing.T) {
			service, s := start(t, nil)
			to := service.Subscribe(t, "/s3cret")
			a := pushtest.Answer{Status: tc.status, Body: tc.body, Header: map[string]string{"Location": service.URL + "/other"}}
			if tc.retryAfter != "" {
				a.Header["Retry-After"] = tc.retryAfter
			}
			service.Script("/s3cret", a)
			err := s.Send(t.Context(), to, notification())
			if got := describe(err); got != tc.want {
				t.Errorf("%v (%s), want %s", err, got, tc.want)
			}
			if err == nil {
				return
			}
			for _, secret := range []string{"s3cret", "alice", to.P256DH, to.Auth.Reveal(), "vapid"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%v shows %s", err, secret)
				}
			}
			if strings.Contains(tc.body, "BadJwtToken") && !strings.Contains(err.Error(), "BadJwtToken") {
				t.Errorf("%v hides the reason", err)
			}
		})
	}
}

// describe is the reason of an error, with a pause rounded to seconds.
func describe(err error) string {
	text := backends.Reason(err)
	var after *backends.RetryAfterError
	if errors.As(err, &after) {
		text += " " + after.After.Round(time.Second).String()
	}
	return text
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	service, s := start(t, nil)
	one, two := service.Subscribe(t, "/1"), service.Subscribe(t, "/2")
	service.Script("/1", pushtest.Answer{Status: http.StatusTemporaryRedirect, Header: map[string]string{"Location": two.Address.Reveal()}})
	if err := s.Send(t.Context(), one, notification()); backends.Reason(err) != "permanent" {
		t.Errorf("%v, want permanent", err)
	}
	if n := len(service.Requests()); n != 0 {
		t.Error("followed")
	}
}

func TestRefusedWithoutARequest(t *testing.T) {
	service, s := start(t, func(o *Options) { o.Guard = newGuard(t, nil) })
	for name, tc := range map[string]struct {
		target func(*notify.Target)
		change func(*notify.Notification)
		want   string
	}{
		"loopback": {nil, nil, "permanent"},
		"a name of it": {func(t *notify.Target) {
			t.Address = config.Secret(strings.Replace(t.Address.Reveal(), "127.0.0.1", "localhost", 1))
		}, nil, "permanent"},
		"no endpoint": {func(t *notify.Target) { t.Address = "" }, nil, "permanent"},
		"no keys":     {func(t *notify.Target) { t.P256DH = "" }, nil, "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			to, n := service.Subscribe(t, "/s3cret"), notification()
			if tc.target != nil {
				tc.target(&to)
			}
			if tc.change != nil {
				tc.change(&n)
			}
			err := s.Send(t.Context(), to, n)
			if describe(err) != tc.want || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v (%s), want %s", err, describe(err), tc.want)
			}
		})
	}
	if n := service.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestCheck(t *testing.T) {
	service, s := start(t, nil)
	good := service.Subscribe(t, "/1")
	bad := good
	bad.Auth = "x"
	inside := good
	inside.Address = "https://10-0-0-1.example/"
	if err := s.Check(t.Context(), good); err != nil {
		t.Error(err)
	}
	if err := s.Check(t.Context(), bad); !errors.Is(err, ErrKeys) {
		t.Errorf("%v, want %v", err, ErrKeys)
	}
	if err := s.Check(t.Context(), inside); !errors.Is(err, ErrEndpoint) {
		t.Errorf("%v, want %v", err, ErrEndpoint)
	}
}

func TestManyShareToken(t *testing.T) {
	service, s := start(t, nil)
	to := service.Subscribe(t, "/1")
	if err := s.Send(t.Context(), to, notification()); err != nil {
		t.Fatal(err)
	}
	var senders sync.WaitGroup
	for range 20 {
		senders.Go(func() {
			if err := s.Send(t.Context(), to, notification()); err != nil {
				t.Error(err)
			}
		})
	}
	senders.Wait()
	if n := service.Tokens(); n != 1 {
		t.Errorf("%d tokens", n)
	}
	if n := len(service.Requests()); n != 21 {
		t.Errorf("%d requests", n)
	}
}

func TestVAPIDToken(t *testing.T) {
	v := newVAPID(t)
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	at := func(origin string, at time.Time) string {
		t.Helper()
		header, err := v.authorization(origin, at)
		if err != nil {
			t.Fatal(err)
		}
		return header
	}
	first := at("https://a.example", noon)
	if at("https://a.example", noon.Add(tokenUse-time.Second)) != first {
		t.Error("not kept")
	}
	if at("https://b.example", noon) == first {
		t.Error("another origin gets the same token")
	}
	if at("https://a.example", noon.Add(tokenUse)) == first {
		t.Error("kept for too long")
	}
}

func TestNewVAPIDRefuses(t *testing.T) {
	good, err := GenerateVAPIDKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, accepted := range []string{subject, "https://example.org/contact", "https://example.org:8443", "mailto:o'neil+push@chat.example.org"} {
		if _, err := NewVAPID(good, accepted); err != nil {
			t.Errorf("%s: %v", accepted, err)
		}
	}
	for _, refused := range []string{
		"", "operator@example.org", "http://example.org", "mailto:", "mailto:operator", "mailto:operator@localhost", "mailto:operator@chat.local",
		"mailto:operator@a.invalid", "mailto:<operator@example.org>", "mailto:Operator <operator@example.org>", "mailto:operator@[10.0.0.1]",
		"https://localhost", "https://127.0.0.1", "https://[::1]", "https://chat", "https://a.test/", "https://", "https://u@example.org",
	} {
		if _, err := NewVAPID(good, refused); err == nil {
			t.Errorf("subject %q is accepted", refused)
		}
	}
	for _, key := range []config.Secret{"", "s3cret", good + "AAAA", config.Secret(strings.Repeat("_", 43)), config.Secret(strings.Repeat("A", 43))} {
		if _, err := NewVAPID(key, subject); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("key %q: %v", key.Reveal(), err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no file":          {CACertFile: "/nonexistent"},
		"negative padding": {Padding: -1},
		"too much padding": {Padding: maxPlaintext + 1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestContract is what every sender does.
func TestContract(t *testing.T) {
	sendtest.Run(t, func(t *testing.T) sendtest.Destination {
		service, s := start(t, nil)
		to := service.Subscribe(t, "/s3cret")
		answer := func(status int) func() {
			return func() { service.Script("/s3cret", pushtest.Answer{Status: status}) }
		}
		return sendtest.Destination{
			Sender: s, Target: to, Notification: notification(),
			Taken: func() int { return len(service.Requests()) }, Hold: service.Holder("/s3cret"),
			Secrets: []string{"s3cret", "alice", to.P256DH, to.Auth.Reveal(), "vapid"},
			Answers: map[string]func(){
				"gone": answer(410), "permanent": answer(401), "transient": answer(500), "retry_after": answer(429), "too_large": answer(413),
			},
		}
	})
}

package http_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/http"
	"eventpusher/config"
	"eventpusher/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// request is what a receiver got.
type request struct {
	Method, Path, RawBody string
	Header                nethttp.Header
	Form                  url.Values
}

// receiver is a webhook; answer may be nil for 200.
type receiver struct {
	server *httptest.Server

	mu      sync.Mutex
	refused map[string]bool // event ids answered 400
	got     []request       // those answered 200
}

func startReceiver(t testing.TB) *receiver {
	r := &receiver{refused: map[string]bool{}}
	r.server = httptest.NewServer(nethttp.HandlerFunc(r.serve))
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) serve(w nethttp.ResponseWriter, req *nethttp.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		w.WriteHeader(nethttp.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused[req.Header.Get("webhook-id")] {
		w.WriteHeader(nethttp.StatusBadRequest)
		return
	}
	r.got = append(r.got, request{req.Method, req.URL.RequestURI(), string(body), req.Header, form})
}

func (r *receiver) requests() []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]request(nil), r.got...)
}

func (r *receiver) address() string { return r.server.Listener.Addr().String() }

func pool(host string) config.HTTPPool {
	return config.HTTPPool{Host: host, PathPrefix: "/", PoolOptions: config.PoolOptions{Workers: 4}}
}

// build builds the backend of a handler of MongooseIM's.
func build(handler config.HTTPHandler, pool config.HTTPPool) (*http.Backend, error) {
	target, err := http.JoinURL(pool.Host, pool.PathPrefix, handler.Path.Reveal())
	if err != nil {
		return nil, err
	}
	return http.New(http.Options{
		Name: "http", URL: target, Workers: pool.Workers, Timeout: pool.RequestTimeout, TLS: pool.TLS, Choice: handler.Choice,
	})
}

func newBackend(t testing.TB, handler config.HTTPHandler, pool config.HTTPPool) *http.Backend {
	t.Helper()
	b, err := build(handler, pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestConformance(t *testing.T) {
	const password, token, secretPath = "hunter2", "tok3n", "B0-s3cret"
	backendtest.Run(t, func(t *testing.T) backendtest.Service {
		r := startReceiver(t)
		return backendtest.Service{
			Address: r.address(),
			New: func(address string, _ *slog.Logger) (backends.Backend, error) {
				p := pool("http://hook:" + password + "@" + address)
				p.RequestTimeout = 1 << 40 // the suite's own patience counts
				return build(config.HTTPHandler{Path: "services/" + secretPath + "?token=" + token}, p)
			},
			Deliveries: func() []backendtest.Delivery {
				var all []backendtest.Delivery
				for _, req := range r.requests() {
					d := backendtest.Delivery{ID: req.Header.Get("webhook-id"), Body: req.Form.Get("message"), Metadata: map[string]string{}}
					for key := range req.Form {
						if !strings.Contains("author server receiver message", key) {
							d.Metadata[key] = req.Form.Get(key)
						}
					}
					all = append(all, d)
				}
				return all
			},
			Refuse: func(e *event.Event) string {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.refused[e.ID] = true
				return "permanent"
			},
			Secrets: []string{password, token, secretPath},
		}
	})
}

func TestGoldenSession(t *testing.T) {
	for _, step := range backendtest.Golden(t) {
		t.Run(step.Name, func(t *testing.T) {
			r := startReceiver(t)
			p := pool(r.server.URL)
			p.PathPrefix = "/webservice"
			b := newBackend(t, config.HTTPHandler{Path: "/notifications"}, p)
			for _, err := range b.Publish(t.Context(), backendtest.Wanted(b.Wants, step.Events)) {
				if err != nil {
					t.Error(err)
				}
			}
			var got []url.Values
			for _, req := range r.requests() {
				if req.Path != "/webservice/notifications" {
					t.Errorf("path %q", req.Path)
				}
				got = append(got, req.Form)
			}
			if diff := cmp.Diff(step.HTTP, got); diff != "" {
				t.Errorf("(-MongooseIM +got):\n%s", diff)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	r := startReceiver(t)
	b := newBackend(t, config.HTTPHandler{Path: "push"}, pool(strings.Replace(r.server.URL, "//", "//joe:secret@", 1)))
	e := backendtest.Message(7)
	e.From, e.To, e.Body = "alice@localhost/res1", "bob@localhost/desk", "Hi, Bob! ~*&=+%"
	e.Metadata = event.Metadata{"zulu": true, "alpha": "ä&", "count": int64(3), "receiver": "override"}
	if err := b.Publish(t.Context(), []event.Event{e})[0]; err != nil {
		t.Fatal(err)
	}
	req := r.requests()[0]
	want := "author=alice&server=localhost&receiver=override&message=Hi%2C+Bob%21+~%2A%26%3D%2B%25&alpha=%C3%A4%26&count=3&zulu=true"
	if req.Method != "POST" || req.Path != "/push" || req.RawBody != want {
		t.Errorf("%s %s %s\nwant body %s", req.Method, req.Path, req.RawBody, want)
	}
	for name, want := range map[string]string{
		"Content-Type":  "application/x-www-form-urlencoded",
		"User-Agent":    "eventpusher",
		"Webhook-Id":    e.ID,
		"Authorization": "Basic am9lOnNlY3JldA==",
	} {
		if got := req.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestWants(t *testing.T) {
	chat := backendtest.Message(0)
	change := func(f func(*event.Event)) event.Event {
		e := chat
		f(&e)
		return e
	}
	for name, tc := range map[string]struct {
		e    event.Event
		want bool
	}{
		"chat in":        {chat, true},
		"out":            {change(func(e *event.Event) { e.Direction = event.Out }), false},
		"groupchat":      {change(func(e *event.Event) { e.Type = "groupchat" }), false},
		"normal":         {change(func(e *event.Event) { e.Type = "normal" }), false},
		"headline":       {change(func(e *event.Event) { e.Type = "headline" }), false},
		"empty body":     {change(func(e *event.Event) { e.Body = "" }), false},
		"status":         {change(func(e *event.Event) { e.Kind = event.UserStatus }), false},
		"unacknowledged": {change(func(e *event.Event) { e.Kind = event.Unack }), false},
		"notification":   {change(func(e *event.Event) { e.Kind = event.Notification }), false},
		"stored":         {change(func(e *event.Event) { e.Kind = event.Stored }), false},
		"account gone":   {change(func(e *event.Event) { e.Kind = event.Removed }), false},
		"missed":         {change(func(e *event.Event) { e.Kind = event.Missed }), false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBackend(t, config.HTTPHandler{}, pool("http://localhost"))
			if got := b.Wants(&tc.e); got != tc.want {
				t.Errorf("Wants: %t, want %t", got, tc.want)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	r := startReceiver(t)
	for target, shown := range map[string]string{
		r.server.URL + "/moved/s3cret?token=tok3n": " to " + r.server.URL + ";",
		"/moved/s3cret?token=tok3n":                " to another path;",
	} {
		elsewhere := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Location", target)
			w.WriteHeader(nethttp.StatusTemporaryRedirect)
		}))
		t.Cleanup(elsewhere.Close)
		b := newBackend(t, config.HTTPHandler{Path: "hook/s3cret"}, pool(elsewhere.URL))
		err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
		if backends.Reason(err) != "paused" || !strings.Contains(err.Error(), shown) || strings.Contains(err.Error(), "tok3n") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v (%q), want paused with the new host and no path", err, backends.Reason(err))
		}
	}
	if n := len(r.requests()); n != 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
}

// TestLargeResponses: a receiver that answers with a header without end is read up to a bound,
// and so is a body. Each is an attempt that has failed, or is none of our business.
func TestLargeResponses(t *testing.T) {
	large := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		conn, buffered, err := nethttp.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(buffered, "HTTP/1.1 204 No Content\r\n")
		for i := range 64 << 20 / 1000 {
			_, err := fmt.Fprintf(buffered, "X-%d: %s\r\n", i, strings.Repeat("x", 990))
			if err != nil {
				return
			}
		}
	}))
	t.Cleanup(large.Close)
	p := pool(large.URL)
	p.RequestTimeout = time.Minute
	b := newBackend(t, config.HTTPHandler{}, p)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
	runtime.ReadMemStats(&after)
	if backends.Reason(err) != "transient" || len(err.Error()) > 500 {
		t.Errorf("%.500v (%q)", err, backends.Reason(err))
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
}

func TestRequestTimeout(t *testing.T) {
	r := startReceiver(t)
	proxy := backendtest.StartProxy(t, r.address())
	proxy.Hang()
	p := pool("http://" + proxy.Address())
	p.RequestTimeout = 1
	b := newBackend(t, config.HTTPHandler{}, p)
	if err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]; backends.Reason(err) != "timeout" {
		t.Errorf("%v (%q), want a timeout", err, backends.Reason(err))
	}
}

func TestHTTPS(t *testing.T) {
	r := &receiver{refused: map[string]bool{}}
	r.server = httptest.NewUnstartedServer(nethttp.HandlerFunc(r.serve))
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.server.StartTLS()
	t.Cleanup(r.server.Close)
	for _, tc := range []struct {
		mode   string
		reason string
	}{{"none", ""}, {"selfsigned_peer", ""}, {"peer", "transient"}} {
		t.Run(tc.mode, func(t *testing.T) {
			p := pool(r.server.URL)
			p.TLS = &config.TLS{VerifyMode: tc.mode}
			b := newBackend(t, config.HTTPHandler{}, p)
			if err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]; backends.Reason(err) != tc.reason {
				t.Errorf("%v (%q), want %q", err, backends.Reason(err), tc.reason)
			}
		})
	}
}

// TestForms: what a receiver gets in each form.
func TestForms(t *testing.T) {
	for _, tc := range []struct {
		choice      config.Choice
		contentType string
		ce          string // the header ce-type
		body        string // part of it
	}{
		{config.Choice{}, "application/x-www-form-urlencoded", "", "author=alice&"},
		{config.Choice{Format: config.FormatJSON}, "application/json", "", `"body":"A sample"`},
		{config.Choice{Format: config.FormatCloudEvents}, "application/cloudevents+json; charset=UTF-8", "", `"type":"eventpusher.chat.in"`},
		{config.Choice{Format: config.FormatCloudEventsBinary}, "application/json", "eventpusher.chat.in", `"body":"A sample"`},
		{config.Choice{Format: config.FormatTemplate, Template: "{{.user}}!", ContentType: "text/plain"}, "text/plain", "", "alice@example.org!"},
	} {
		r := startReceiver(t)
		b := newBackend(t, config.HTTPHandler{Choice: tc.choice}, pool(r.server.URL))
		events, err := event.ParseSelection([]string{"chat.in"})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(b.Publish(t.Context(), events.Samples())...); err != nil {
			t.Fatal(err)
		}
		got := r.requests()[0]
		if got.Header.Get("Content-Type") != tc.contentType || got.Header.Get("ce-type") != tc.ce || !strings.Contains(got.RawBody, tc.body) {
			t.Errorf("%+v: %v %s", tc.choice, got.Header, got.RawBody)
		}
	}
}

// TestEvents: what is chosen is wanted, as far as the form has words for it.
func TestEvents(t *testing.T) {
	all, err := event.ParseSelection([]string{"all"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		choice config.Choice
		want   string
	}{
		{config.Choice{}, "chat.in"},
		{config.Choice{Events: []string{"chat", "groupchat.in"}}, "chat.in chat.out groupchat.in"},
		{config.Choice{Events: []string{"user_status", "unack"}, Format: config.FormatJSON}, "user_status.online user_status.offline unack"},
	} {
		b := newBackend(t, config.HTTPHandler{Choice: tc.choice}, pool("http://localhost"))
		var got []string
		for _, e := range all.Samples() {
			if b.Wants(&e) {
				got = append(got, e.Sort())
			}
			if e.Body = ""; tc.choice.Format == "" && b.Wants(&e) {
				t.Errorf("%s without a body is wanted", e.Sort())
			}
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%+v: %q", tc.choice, got)
		}
	}
}

package provider

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"eventpusher/backends"
)

// proxied holds the hosts that were asked for by the environment's proxy, which net/http
// reads once. All other tests are about this machine, which has none.
var proxied = make(chan string, 10)

func TestMain(m *testing.M) {
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { proxied <- r.Host }))
	os.Setenv("HTTP_PROXY", proxy.URL)
	os.Unsetenv("NO_PROXY")
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

// TestProxy: what operators configure goes by the environment's proxy, what users choose
// past it, since a proxy would reach what the guard forbids.
func TestProxy(t *testing.T) {
	for name, tc := range map[string]struct {
		dial Dial
		want string
	}{
		"any address": {nil, "provider.invalid"},
		"guarded":     {(&net.Dialer{}).DialContext, ""},
	} {
		c, err := New(Options{}, nil, "", tc.dial)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, err = c.Post(t.Context(), &url.URL{Scheme: "http", Host: "provider.invalid"}, http.Header{}, nil)
		got := ""
		select {
		case got = <-proxied:
		default:
		}
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: the proxy saw %q, %v", name, got, err)
		}
	}
}

func start(t *testing.T, o Options, handle http.HandlerFunc) (*Client, *url.URL) {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	c, err := New(o, nil, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	target, err := url.Parse(server.URL + "/s3cret?token=tok3n")
	if err != nil {
		t.Fatal(err)
	}
	return c, target
}

func TestPost(t *testing.T) {
	c, target := start(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Method != "POST" || r.RequestURI != "/s3cret?token=tok3n" || string(body) != "body" ||
			r.Header.Get("User-Agent") != "eventpusher" || r.Header.Get("X-Own") != "1" || r.ContentLength != 4 {
			t.Errorf("%s %s %v %q", r.Method, r.RequestURI, r.Header, body)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
		_, _ = io.WriteString(w, strings.Repeat("x", 2*maxAnswer))
	})
	a, err := c.Post(t.Context(), target, http.Header{"X-Own": {"1"}}, []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != http.StatusTemporaryRedirect || len(a.Body) != maxAnswer || time.Since(a.At) > time.Minute {
		t.Errorf("status %d, %d bytes, at %v", a.Status, len(a.Body), a.At)
	}
}

// TestEndlessHeader: of an answer's header a bound is read, and no answer comes of more.
func TestEndlessHeader(t *testing.T) {
	written := make(chan int, 1)
	c, target := start(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		n, _ := io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for line := []byte("X: " + strings.Repeat("x", 990) + "\r\n"); n < 64<<20; {
			k, err := conn.Write(line)
			if n += k; err != nil {
				break
			}
		}
		written <- n
	})
	a, err := c.Post(t.Context(), target, http.Header{}, nil)
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("%v, %.400v", a, err)
	}
	if n := <-written; n > 32<<20 { // most of it is in the buffers of the system
		t.Errorf("%d bytes were taken", n)
	}
}

// TestUserOfURL: user and password of an address are sent, as what stands before MongoosePush
// may ask for them.
func TestUserOfURL(t *testing.T) {
	users := make(chan string, 2)
	c, target := start(t, Options{}, func(_ http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		users <- user + ":" + password
	})
	for _, want := range []string{":", "joe:hunter2"} {
		if _, err := c.Post(t.Context(), target, http.Header{}, nil); err != nil {
			t.Fatal(err)
		}
		if got := <-users; got != want {
			t.Errorf("user %q, want %q", got, want)
		}
		target.User = url.UserPassword("joe", "hunter2")
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	const bound = 3
	var now, most atomic.Int64
	c, target := start(t, Options{Concurrency: bound}, func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		for {
			seen := most.Load()
			if n <= seen || most.CompareAndSwap(seen, n) {
				break
			}
		}
		now.Add(-1)
	})
	var posts sync.WaitGroup
	for range 50 {
		posts.Go(func() {
			if _, err := c.Post(t.Context(), target, http.Header{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	posts.Wait()
	if most.Load() > bound {
		t.Errorf("%d requests at once", most.Load())
	}
}

func TestNoPlace(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	c, target := start(t, Options{Concurrency: 1, Timeout: time.Minute}, func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	})
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := c.Post(t.Context(), target, http.Header{}, nil); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Post(ctx, target, http.Header{}, nil); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no place among 1") {
		t.Errorf("%v, want to wait in vain", err)
	}
	close(release)
	first.Wait()
}

func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	c, target := start(t, Options{Timeout: 20 * time.Millisecond}, func(http.ResponseWriter, *http.Request) { <-release })
	_, err := c.Post(t.Context(), target, http.Header{}, nil)
	close(release)
	if backends.Reason(err) != "timeout" || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "tok3n") {
		t.Errorf("%v, want a timeout without the URL", err)
	}
}

func TestErrShowsOnlyPlainReasons(t *testing.T) {
	a := &Answer{Status: 400}
	for reason, want := range map[string]string{
		"BadDeviceToken":         "answered 400 BadDeviceToken",
		"SENDER_ID_MISMATCH":     "answered 400 SENDER_ID_MISMATCH",
		"":                       "answered 400 Bad Request",
		"hi alice@localhost":     "answered 400 Bad Request",
		"a\nb":                   "answered 400 Bad Request",
		strings.Repeat("x", 65):  "answered 400 Bad Request",
		"https://push.example/x": "answered 400 Bad Request",
	} {
		if got := a.Err(reason).Error(); got != want {
			t.Errorf("%q: %q, want %q", reason, got, want)
		}
	}
}

func TestParseBase(t *testing.T) {
	for _, tc := range []struct{ base, want string }{
		{"", "https://fallback.example/"},
		{"https://api.example", "https://api.example/"},
		{"https://api.example:8443/prefix", "https://api.example:8443/prefix"},
		{"http://localhost:1", "http://localhost:1/"},
		{"http://127.0.0.1:1/x", "http://127.0.0.1:1/x"},
		{"http://api.example", ""},
		{"https://u:p@api.example", ""},
		{"https://api.example?x", ""},
		{"https://api.example#x", ""},
		{"api.example", ""},
		{"https://", ""},
		{"https://a b", ""},
	} {
		u, err := ParseBase(tc.base, "https://fallback.example")
		if tc.want == "" {
			if err == nil {
				t.Errorf("%q is accepted as %v", tc.base, u)
			}
		} else if err != nil || u.String() != tc.want {
			t.Errorf("%q: %v, %v, want %s", tc.base, u, err, tc.want)
		}
	}
}

func TestJSON(t *testing.T) {
	got, err := JSON(map[string]string{"b": "<&>", "a": "😀"})
	if want := `{"a":"😀","b":"<&>"}`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	if _, err := JSON(make(chan int)); err == nil {
		t.Error("a channel is JSON")
	}
}

package admin

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"eventpusher/config"
	"eventpusher/pusher/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = config.Secret("s3cret-t0ken")

// start runs a server until the test ends and returns its address.
func start(t *testing.T, cfg config.Admin, o Options) string {
	t.Helper()
	if o.Gatherer == nil {
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "test_gauge", Help: "A gauge."}, func() float64 { return 7 }))
		o.Gatherer = registry
	}
	s, err := New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr() != nil {
		t.Errorf("Addr before Listen = %v, want nil", s.Addr())
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil after its context ended", err)
		}
	})
	return s.Addr().String()
}

// loopbackOf returns where to dial a server that listens on all interfaces.
func loopbackOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return net.JoinHostPort("127.0.0.1", port)
}

type answer struct {
	code   int
	body   string
	header http.Header
}

// ask sends one request; header holds "Name: value" lines, Host among them.
func ask(t *testing.T, method, addr, path string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
			continue
		}
		req.Header.Add(name, value)
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(body), resp.Header}
}

func TestEndpoints(t *testing.T) {
	addr := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{
		Status: func() any { return map[string]any{"component": map[string]bool{"connected": true}} },
	})
	for _, tc := range []struct {
		method, path string
		code         int
		contentType  string
		contains     string
	}{
		{"GET", "/healthz", 200, "text/plain; charset=utf-8", "ok\n"},
		{"GET", "/readyz", 200, "text/plain; charset=utf-8", "ready\n"},
		{"GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "test_gauge 7"},
		{"GET", "/api/status", 200, "application/json", `{"component":{"connected":true}}`},
		{"GET", "/", 200, "text/html; charset=utf-8", `<th scope="row">connected</th><td>true</td>`},
		{"HEAD", "/healthz", 200, "text/plain; charset=utf-8", ""},
		{"HEAD", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", ""},
		{"HEAD", "/", 200, "text/html; charset=utf-8", ""},
		{"POST", "/healthz", 405, "text/plain; charset=utf-8", "only GET and HEAD"},
		{"DELETE", "/metrics", 405, "text/plain; charset=utf-8", "only GET and HEAD"},
		{"OPTIONS", "/", 405, "text/plain; charset=utf-8", "only GET and HEAD"},
		{"GET", "/metrics/", 404, "text/plain; charset=utf-8", "there is nothing here"},
		{"GET", "//metrics", 404, "text/plain; charset=utf-8", "there is nothing here"},
		{"GET", "/../etc/passwd", 404, "text/plain; charset=utf-8", "there is nothing here"},
		{"GET", "/debug/pprof/", 404, "text/plain; charset=utf-8", "there is nothing here"},
		{"POST", "/nothing", 404, "text/plain; charset=utf-8", "there is nothing here"},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			a := ask(t, tc.method, addr, tc.path)
			if a.code != tc.code {
				t.Errorf("code %d, want %d", a.code, tc.code)
			}
			if got := a.header.Get("Content-Type"); got != tc.contentType {
				t.Errorf("Content-Type %q, want %q", got, tc.contentType)
			}
			if !strings.Contains(a.body, tc.contains) {
				t.Errorf("body %q lacks %q", a.body, tc.contains)
			}
			if tc.method == "HEAD" && a.body != "" {
				t.Errorf("HEAD has a body: %q", a.body)
			}
			if allow := a.header.Get("Allow"); (a.code == 405) != (allow == "GET, HEAD") {
				t.Errorf("Allow = %q with code %d", allow, a.code)
			}
			for name, want := range map[string]string{
				"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
				"X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin",
			} {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
			if csp := a.header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
				t.Errorf("Content-Security-Policy = %q", csp)
			}
		})
	}
}

func TestGuard(t *testing.T) {
	open := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{})
	closed := start(t, config.Admin{Listen: "127.0.0.1:0", Token: token}, Options{})
	exposed := loopbackOf(start(t, config.Admin{Listen: ":0", Token: token}, Options{}))
	for _, tc := range []struct {
		name       string
		addr, path string
		header     []string
		want       int
	}{
		{"loopback by address", open, "/metrics", nil, 200},
		{"localhost", open, "/metrics", []string{"Host: localhost:1"}, 200},
		{"LOCALHOST without port", open, "/metrics", []string{"Host: LOCALHOST"}, 200},
		{"IPv6", open, "/metrics", []string{"Host: [::1]:9090"}, 200},
		{"IPv6 without port", open, "/metrics", []string{"Host: [::1]"}, 200},
		{"rebound name", open, "/metrics", []string{"Host: evil.example"}, 421},
		{"rebound name on a probe", open, "/readyz", []string{"Host: evil.example:9090"}, 421},
		{"name that begins like localhost", open, "/metrics", []string{"Host: localhost.evil.example"}, 421},
		{"name that begins like an address", open, "/metrics", []string{"Host: 127.0.0.1.evil.example"}, 421},
		{"other address", open, "/metrics", []string{"Host: 192.0.2.1"}, 421},
		{"own page", open, "/", []string{"Host: localhost:9090", "Origin: http://localhost:9090"}, 200},
		{"foreign page", open, "/", []string{"Origin: https://evil.example"}, 403},
		{"other port", open, "/", []string{"Host: localhost:9090", "Origin: http://localhost:8080"}, 403},
		{"opaque origin", open, "/", []string{"Origin: null"}, 403},
		{"extension", open, "/", []string{"Host: localhost", "Origin: chrome-extension://localhost"}, 403},
		{"two origins", open, "/", []string{"Host: localhost", "Origin: http://localhost", "Origin: http://evil.example"}, 403},
		{"unreadable origin", open, "/", []string{"Origin: http://[::1"}, 403},

		{"token missing on loopback", closed, "/metrics", nil, 401},
		{"token on loopback", closed, "/metrics", []string{"Authorization: Bearer s3cret-t0ken"}, 200},
		{"token does not excuse the host", closed, "/metrics", []string{"Host: evil.example", "Authorization: Bearer s3cret-t0ken"}, 421},

		{"any host off loopback", exposed, "/metrics", []string{"Host: pod-7.example", "Authorization: Bearer s3cret-t0ken"}, 200},
		{"scheme in lower case", exposed, "/metrics", []string{"Authorization: bearer s3cret-t0ken"}, 200},
		{"health needs no token", exposed, "/healthz", []string{"Host: 10.0.0.7"}, 200},
		{"readiness needs no token", exposed, "/readyz", nil, 200},
		{"the empty page", exposed, "/", nil, 200},
		{"its files", exposed, "/page/live.js", nil, 200},
		{"the page's source is no file of it", exposed, "/page/page.html", nil, 401},
		{"metrics", exposed, "/metrics", nil, 401},
		{"status", exposed, "/api/status", nil, 401},
		{"unknown path looks like any other", exposed, "/nothing", nil, 401},
		{"unknown path with the token", exposed, "/nothing", []string{"Authorization: Bearer s3cret-t0ken"}, 404},
		{"wrong token", exposed, "/metrics", []string{"Authorization: Bearer s3cret-t0keN"}, 401},
		{"prefix of the token", exposed, "/metrics", []string{"Authorization: Bearer s3cret"}, 401},
		{"empty token", exposed, "/metrics", []string{"Authorization: Bearer "}, 401},
		{"basic", exposed, "/metrics", []string{"Authorization: Basic czNjcmV0LXQwa2Vu"}, 401},
		{"bare token", exposed, "/metrics", []string{"Authorization: s3cret-t0ken"}, 401},
		{"token in the query", exposed, "/metrics?token=s3cret-t0ken", nil, 401},
		{"foreign page with the token", exposed, "/metrics", []string{"Origin: http://evil.example", "Authorization: Bearer s3cret-t0ken"}, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := ask(t, "GET", tc.addr, tc.path, tc.header...)
			if a.code != tc.want {
				t.Errorf("code %d (%s), want %d", a.code, strings.TrimSpace(a.body), tc.want)
			}
			if challenge := a.header.Get("WWW-Authenticate"); (a.code == 401) != (challenge == `Bearer realm="eventpusher"`) {
				t.Errorf("WWW-Authenticate = %q with code %d", challenge, a.code)
			}
			if strings.Contains(a.body, token.Reveal()) {
				t.Error("the answer shows the token")
			}
		})
	}
}

// TestAPI: further paths answer all methods, and nobody without the token, wherever the
// server listens.
func TestAPI(t *testing.T) {
	api := map[string]http.Handler{"/api/x": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { writeText(w, http.StatusOK, r.Method) })}
	guarded := start(t, config.Admin{Listen: "127.0.0.1:0", Token: "s3cret"}, Options{API: api})
	open := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{API: api})
	const right = "Authorization: Bearer s3cret"
	for name, tc := range map[string]struct {
		addr, method, path string
		header             []string
		want               int
	}{
		"post":            {guarded, "POST", "/api/x", []string{right}, http.StatusOK},
		"delete":          {guarded, "DELETE", "/api/x", []string{right}, http.StatusOK},
		"get":             {guarded, "GET", "/api/x", []string{right}, http.StatusOK},
		"below":           {guarded, "POST", "/api/x/y", []string{right}, http.StatusNotFound},
		"without token":   {guarded, "POST", "/api/x", nil, http.StatusUnauthorized},
		"a foreign page":  {guarded, "POST", "/api/x", []string{right, "Origin: https://evil.example"}, http.StatusForbidden},
		"no token is set": {open, "POST", "/api/x", nil, http.StatusForbidden},
		"nor for reading": {open, "GET", "/api/x", nil, http.StatusForbidden},
		"others as ever":  {guarded, "POST", "/metrics", []string{right}, http.StatusMethodNotAllowed},
	} {
		if got := ask(t, tc.method, tc.addr, tc.path, tc.header...); got.code != tc.want {
			t.Errorf("%s: %d %s, want %d", name, got.code, got.body, tc.want)
		}
	}
}

func TestReady(t *testing.T) {
	ready := func() []string { return []string{"not connected to\nthe XMPP server", "queue of rabbit is full"} }
	closed := loopbackOf(start(t, config.Admin{Listen: ":0", Token: token}, Options{Ready: ready}))
	open := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{Ready: ready})
	const reasons = "not connected to the XMPP server\nqueue of rabbit is full\n"
	const withheld = "the reasons are in the log and shown with the token\n"
	for _, tc := range []struct {
		name, addr string
		header     []string
		want       string
	}{
		{"no token needed", open, nil, reasons},
		{"token shown", closed, []string{"Authorization: Bearer s3cret-t0ken"}, reasons},
		{"token missing", closed, nil, withheld},
		{"JSON", open, []string{"Accept: application/json"}, `{"ready":false,"reasons":["not connected to the XMPP server","queue of rabbit is full"]}` + "\n"},
		{"JSON without a token", closed, []string{"Accept: application/json"}, `{"ready":false,"reasons":["` + strings.TrimSpace(withheld) + `"]}` + "\n"},
		{"wrong token", closed, []string{"Authorization: Bearer wrong"}, withheld},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := ask(t, "GET", tc.addr, "/readyz", tc.header...)
			if a.code != http.StatusServiceUnavailable || a.body != tc.want {
				t.Errorf("%d %q, want 503 %q", a.code, a.body, tc.want)
			}
		})
	}
	if page := ask(t, "GET", open, "/").body; !strings.Contains(page, `<li class="bad">queue of rabbit is full</li>`) {
		t.Errorf("the page lacks the reasons: %s", page)
	}
}

func TestStatusThatCannotBeMarshalled(t *testing.T) {
	addr := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{Status: func() any { return func() {} }})
	for _, path := range []string{"/", "/api/status"} {
		if a := ask(t, "GET", addr, path); a.code != 500 || strings.Contains(a.body, "func") {
			t.Errorf("%s: %d %q, want 500 without details", path, a.code, a.body)
		}
	}
	if a := ask(t, "GET", addr, "/healthz"); a.code != 200 {
		t.Errorf("healthz = %d", a.code)
	}
}

func TestNew(t *testing.T) {
	gatherer := prometheus.NewRegistry()
	for _, tc := range []struct {
		name string
		cfg  config.Admin
		want string // part of the error, empty: none
	}{
		{"loopback", config.Admin{Listen: "127.0.0.1:9090"}, ""},
		{"IPv6 loopback", config.Admin{Listen: "[::1]:9090"}, ""},
		{"localhost", config.Admin{Listen: "localhost:9090"}, ""},
		{"all interfaces with token", config.Admin{Listen: ":9090", Token: token}, ""},
		{"all interfaces", config.Admin{Listen: ":9090"}, "needs a token; set token or token_file in [admin]"},
		{"all IPv4 interfaces", config.Admin{Listen: "0.0.0.0:9090"}, "needs a token"},
		{"all IPv6 interfaces", config.Admin{Listen: "[::]:9090"}, "needs a token"},
		{"public address", config.Admin{Listen: "192.0.2.1:9090"}, "needs a token"},
		{"no port", config.Admin{Listen: "127.0.0.1"}, "is not host:port"},
		{"empty", config.Admin{}, "is not host:port"},
		{"port that is none", config.Admin{Listen: "127.0.0.1:http"}, `"http" is no port`},
		{"port too high", config.Admin{Listen: "127.0.0.1:70000"}, `"70000" is no port`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.cfg, Options{Gatherer: gatherer})
			checkError(t, err, tc.want)
		})
	}
	if _, err := New(config.Admin{Listen: "127.0.0.1:0"}, Options{}); err == nil {
		t.Error("New without a gatherer succeeds")
	}
}

func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, tc := range []struct{ name, listen, want string }{
		{"taken", taken.Addr().String(), "is taken by another process"},
		{"not ours", "192.0.2.1:9", "this machine has no address"},
		{"unknown host", "no such host:9", "cannot be resolved"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := New(config.Admin{Listen: tc.listen, Token: token}, Options{Gatherer: prometheus.NewRegistry()})
			if err != nil {
				t.Fatal(err)
			}
			checkError(t, s.Listen(), tc.want)
			checkError(t, s.Run(t.Context()), tc.want)
		})
	}
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error %q, want none", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("error %v, want one with %q", err, want)
	}
}

func TestRunEndsWithItsListener(t *testing.T) {
	s, err := New(config.Admin{Listen: "127.0.0.1:0"}, Options{Gatherer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	s.listener.Close()
	if err := s.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run on a closed listener = %v, want net.ErrClosed", err)
	}
}

// A request that is being answered when the process stops gets its answer.
func TestStopWaitsForRequests(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, err := New(config.Admin{Listen: "127.0.0.1:0"}, Options{
		Gatherer: prometheus.NewRegistry(),
		Ready:    func() []string { close(entered); <-release; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	answers := make(chan error, 1)
	go func() { answers <- Probe(context.Background(), s.Addr().String(), "/readyz", "") }()
	<-entered
	cancel()
	close(release)
	if err := <-answers; err != nil {
		t.Errorf("the running request got %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestHugeHeaderIsRefused(t *testing.T) {
	addr := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{})
	a := ask(t, "GET", addr, "/healthz", "X-Padding: "+strings.Repeat("x", 64<<10))
	if a.code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("code %d, want 431", a.code)
	}
}

// HTTP/1.0 has no Host header, and OPTIONS * no path: both reach the guard.
func TestRawRequests(t *testing.T) {
	addr := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{})
	for _, tc := range []struct{ name, request, want string }{
		{"no host", "GET /metrics HTTP/1.0\r\n\r\n", "421"},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
		{"absolute form", "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "421"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, tc.request); err != nil {
				t.Fatal(err)
			}
			reply, err := io.ReadAll(conn)
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Fields(string(reply))
			if len(fields) < 2 || fields[1] != tc.want {
				t.Errorf("answer %q, want %s", reply, tc.want)
			}
		})
	}
}

func TestParseNode(t *testing.T) {
	for _, tc := range []struct {
		name, json string
		want       node
	}{
		{"text", `"a"`, node{Text: "a"}},
		{"number as written", `10000000000000000`, node{Text: "10000000000000000"}},
		{"bool", `false`, node{Text: "false"}},
		{"null", `null`, node{Text: "-"}},
		{"empty object", `{}`, node{}},
		{"order kept", `{"z":1,"a":2}`, node{Fields: []field{{"z", node{Text: "1"}}, {"a", node{Text: "2"}}}}},
		{"list", `["a","b"]`, node{Items: []node{{Text: "a"}, {Text: "b"}}}},
		{"mixed list", `[{"a":1},2]`, node{Items: []node{{Fields: []field{{"a", node{Text: "1"}}}}, {Text: "2"}}}},
		{"table", `[{"name":"sns","n":1},{"name":"http","err":"x"}]`, node{
			Columns: []string{"name", "n", "err"},
			Rows:    [][]node{{{Text: "sns"}, {Text: "1"}, {}}, {{Text: "http"}, {}, {Text: "x"}}},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseNode([]byte(tc.json))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, bad := range []string{"", "{", `{"a"`, `[1`, "1 2"} {
		if n, err := parseNode([]byte(bad)); err == nil {
			t.Errorf("parseNode(%q) = %v, want an error", bad, n)
		}
	}
}

func TestPageEscapes(t *testing.T) {
	const evil = `</td><script>alert("1")</script>`
	addr := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{
		Ready:  func() []string { return []string{evil} },
		Status: func() any { return map[string]any{evil: []map[string]string{{evil: evil}}, "list": []string{evil}} },
	})
	a := ask(t, "GET", addr, "/")
	if strings.Contains(a.body, "<script>") || !strings.Contains(a.body, "&lt;script&gt;") {
		t.Errorf("the page does not escape: %s", a.body)
	}
	for _, external := range []string{"http://", "https://", "@import", "url("} {
		if strings.Contains(a.body, external) {
			t.Errorf("the page refers to something outside: %s", external)
		}
	}
}

// TestPageFiles: the page and its files refer to nothing elsewhere, and nothing that is
// written into the page can become a script or a style.
func TestPageFiles(t *testing.T) {
	addr := start(t, config.Admin{Listen: "127.0.0.1:0"}, withEvents(trace.New(), &fakeLetters{}))
	page := ask(t, "GET", addr, "/")
	want := "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"
	if got := page.header.Get("Content-Security-Policy"); got != want {
		t.Errorf("Content-Security-Policy %q, want %q", got, want)
	}
	texts := map[string]string{"/": page.body}
	for path := range pageFiles() {
		a := ask(t, "GET", addr, path)
		if a.code != http.StatusOK || a.header.Get("Content-Type") == "" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", path, a.code, a.header)
		}
		texts[path] = a.body
	}
	for path, text := range texts {
		text = strings.ReplaceAll(text, "http://www.w3.org/2000/svg", "") // a name, not an address
		for _, bad := range []string{"http://", "https://", "@import", "url(", "innerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", "localStorage", "sessionStorage", "cookie"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %s", path, bad)
			}
		}
		for _, m := range regexp.MustCompile(`(?:src|href|from) ?=?"([^"]+)"`).FindAllStringSubmatch(text, -1) {
			target := m[1]
			if strings.HasPrefix(target, "./") {
				target = "/page/" + target[2:]
			}
			if a := ask(t, "GET", addr, target); a.code != http.StatusOK && a.code != http.StatusServiceUnavailable {
				t.Errorf("%s refers to %s, which answers %d", path, target, a.code)
			}
		}
	}
}

// TestEmptyPage: without the token the page says nothing about this instance.
func TestEmptyPage(t *testing.T) {
	o := withEvents(trace.New(), &fakeLetters{})
	o.Ready = func() []string { return []string{"the server is away"} }
	o.Status = func() any { return map[string]string{"component": "events.example.org"} }
	addr := start(t, config.Admin{Listen: "127.0.0.1:0", Token: token}, o)
	page := ask(t, "GET", addr, "/").body
	if !strings.Contains(page, `id="sign-in"`) || strings.Contains(page, "away") || strings.Contains(page, "events.example.org") || strings.Contains(page, "eady<") {
		t.Errorf("without the token: %s", page)
	}
	page = ask(t, "GET", addr, "/", authorization).body
	if strings.Contains(page, `id="sign-in"`) || !strings.Contains(page, "the server is away") || !strings.Contains(page, "<td>events.example.org</td>") {
		t.Errorf("with the token: %s", page)
	}
}

package http_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/http"
	"eventpusher/config"
	"eventpusher/internal/finding"
)

// newDestination returns the backend of a [[destination]].
func newDestination(t *testing.T, target string, o config.HTTPDestination) *http.Backend {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	b, err := http.New(http.Options{Name: "crm", URL: u, Workers: 2, Timeout: 10 * time.Second, HTTP: o})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func publish(t *testing.T, b *http.Backend) error {
	t.Helper()
	return b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
}

// TestSignatures are verified by the official library (v1), and by the specification's
// rule (v1a), for which that has none.
func TestSignatures(t *testing.T) {
	secret := func(n byte) string {
		return config.SigningSecret + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(rune('a'+n)), 32)))
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, encoded := range [][]byte{private, private.Seed()} {
		r := startReceiver(t)
		b := newDestination(t, r.server.URL, config.HTTPDestination{SigningKeys: []config.SigningKey{
			{Key: config.Secret(secret(0))}, {Key: config.Secret(config.SigningPrivate + base64.StdEncoding.EncodeToString(encoded))}, {Key: config.Secret(secret(1))},
		}})
		if err := publish(t, b); err != nil {
			t.Fatal(err)
		}
		got := r.requests()[0]
		for n := range byte(3) {
			verifier, err := standardwebhooks.NewWebhook(secret(n))
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier.Verify([]byte(got.RawBody), got.Header); (err == nil) != (n < 2) {
				t.Errorf("key %d: %v", n, err)
			}
			if err := verifier.Verify([]byte(got.RawBody+" "), got.Header); err == nil {
				t.Errorf("key %d: another body passes", n)
			}
		}
		_, rest, _ := strings.Cut(got.Header.Get("webhook-signature"), "v1a,")
		signature, err := base64.StdEncoding.DecodeString(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		signed := got.Header.Get("webhook-id") + "." + got.Header.Get("webhook-timestamp") + "." + got.RawBody
		if !ed25519.Verify(public, []byte(signed), signature) {
			t.Errorf("the v1a signature of %q does not verify", signed)
		}
	}
}

func TestAuthorization(t *testing.T) {
	for want, o := range map[string]config.HTTPDestination{
		"Basic am9lOnMzY3JldDp4": {Username: "joe", Password: "s3cret:x"},
		"Bearer t0ken":           {BearerToken: "t0ken"},
		"":                       {Headers: []config.Header{{Name: "x-api-key", Value: "k3y"}, {Name: "X-Other", Value: "b"}}},
	} {
		r := startReceiver(t)
		if err := publish(t, newDestination(t, r.server.URL, o)); err != nil {
			t.Fatal(err)
		}
		h := r.requests()[0].Header
		if got := h.Get("Authorization"); got != want || (want == "") != (h.Get("X-Api-Key") == "k3y") {
			t.Errorf("%q: %v", want, h)
		}
	}
}

// authority issues access tokens, which receive takes until they are revoked.
type authority struct {
	issued, requests atomic.Int64
	revoked          atomic.Int64 // tokens up to this one
	fail             atomic.Value // what it answers instead, as "400 invalid_client"
	server           *httptest.Server
}

func startAuthority(t *testing.T) *authority {
	a := &authority{}
	a.fail.Store("")
	a.server = httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		a.requests.Add(1)
		w.Header().Set("Content-Type", "application/json")
		if said := a.fail.Load().(string); said != "" {
			var code int
			var name string
			fmt.Sscan(said, &code, &name)
			w.WriteHeader(code)
			fmt.Fprintf(w, `{"error":%q,"error_description":"hunter2 is wrong"}`, name)
			return
		}
		id, secret, _ := r.BasicAuth()
		if id != "crm" || secret != "hunter2" || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "a b" {
			w.WriteHeader(nethttp.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_request"}`)
			return
		}
		fmt.Fprintf(w, `{"access_token":"t%d","token_type":"bearer","expires_in":3600}`, a.issued.Add(1))
	}))
	t.Cleanup(a.server.Close)
	return a
}

func (a *authority) receive(w nethttp.ResponseWriter, r *nethttp.Request) {
	io.Copy(io.Discard, r.Body)
	var n int64
	if _, err := fmt.Sscanf(r.Header.Get("Authorization"), "Bearer t%d", &n); err != nil || n <= a.revoked.Load() {
		w.WriteHeader(nethttp.StatusUnauthorized)
	}
}

func (a *authority) options() config.HTTPDestination {
	return config.HTTPDestination{OAuth2: &config.OAuth2{TokenURL: a.server.URL, ClientID: "crm", ClientSecret: "hunter2", Scopes: []string{"a", "b"}}}
}

func TestOAuth2(t *testing.T) {
	a := startAuthority(t)
	receiver := httptest.NewServer(nethttp.HandlerFunc(a.receive))
	defer receiver.Close()
	b := newDestination(t, receiver.URL, a.options())
	for range 3 {
		if err := publish(t, b); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.requests.Load(); n != 1 {
		t.Errorf("%d tokens were fetched for 3 events", n)
	}
	// A token that was just issued and is refused is not worth another one.
	a.revoked.Store(1)
	if err := publish(t, b); backends.Reason(err) != "paused" {
		t.Errorf("%v", err)
	}
}

// TestOAuth2OverTLS: the token comes from another host than the one that takes events, with
// another certificate.
func TestOAuth2OverTLS(t *testing.T) {
	a := startAuthority(t)
	secured, ca, _ := certified(t, time.Hour)
	secured.Config.Handler = a.server.Config.Handler
	receiver := httptest.NewUnstartedServer(nethttp.HandlerFunc(a.receive))
	receiver.StartTLS()
	defer receiver.Close()
	both := filepath.Join(t.TempDir(), "ca.pem")
	authority, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: receiver.Certificate().Raw})
	if err := os.WriteFile(both, append(authority, own...), 0o600); err != nil {
		t.Fatal(err)
	}
	o := a.options()
	o.OAuth2.TokenURL = secured.URL // its certificate is for 127.0.0.1 alone
	u, err := url.Parse(strings.Replace(receiver.URL, "127.0.0.1", "localhost", 1))
	if err != nil {
		t.Fatal(err)
	}
	b, err := http.New(http.Options{
		Name: "crm", URL: u, HTTP: o,
		TLS: &config.TLS{CACertFile: both, ServerName: "example.com"}, // as the receiver's certificate has it
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := publish(t, b); err != nil {
		t.Error(err)
	}
}

// TestOAuth2Refused: who has to act, and nothing that the endpoint says of secrets.
func TestOAuth2Refused(t *testing.T) {
	for said, want := range map[string]string{
		"401 invalid_client": "paused", "400 invalid_scope": "paused", "403 x": "paused", "429 slow_down": "transient", "500 x": "transient", "503 temporarily_unavailable": "transient",
	} {
		a := startAuthority(t)
		a.fail.Store(said)
		err := publish(t, newDestination(t, "http://localhost:1", a.options()))
		if backends.Reason(err) != want || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "token from "+a.server.URL) {
			t.Errorf("%s: %v (%s)", said, err, backends.Reason(err))
		}
	}
	gone := startAuthority(t)
	gone.server.Close()
	if err := publish(t, newDestination(t, "http://localhost:1", gone.options())); backends.Reason(err) != "transient" {
		t.Errorf("%v", err)
	}
}

// TestProxy: the proxy sees what goes elsewhere, and nothing that stays on this machine.
func TestProxy(t *testing.T) {
	var seen atomic.Value
	seen.Store("")
	proxy := httptest.NewServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) { seen.Store(r.URL.Host) }))
	defer proxy.Close()
	if err := publish(t, newDestination(t, "http://hooks.invalid/x", config.HTTPDestination{Proxy: proxy.URL})); err != nil || seen.Load() != "hooks.invalid" {
		t.Errorf("%v, the proxy saw %q", err, seen.Load())
	}
	seen.Store("")
	r := startReceiver(t)
	if err := publish(t, newDestination(t, r.server.URL, config.HTTPDestination{Proxy: proxy.URL})); err != nil || seen.Load() != "" || len(r.requests()) != 1 {
		t.Errorf("%v, the proxy saw %q", err, seen.Load())
	}
	var refused *url.Error
	if err := publish(t, newDestination(t, "http://hooks.invalid/x", config.HTTPDestination{Proxy: config.ProxyNone})); err == nil || errors.As(err, &refused) || seen.Load() != "" {
		t.Errorf("%v, the proxy saw %q", err, seen.Load())
	}
}

func TestHTTP2(t *testing.T) {
	var proto atomic.Value
	server := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) { proto.Store(r.Proto) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	b, err := http.New(http.Options{Name: "crm", URL: u, TLS: &config.TLS{VerifyMode: "none"}})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := publish(t, b); err != nil || proto.Load() != "HTTP/2.0" {
		t.Errorf("%v over %v", err, proto.Load())
	}
}

// TestRateLimit: 100 events at 10 a second take ten seconds, but for the first one.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, err := url.Parse("http://hooks.invalid")
		if err != nil {
			t.Fatal(err)
		}
		b, err := http.New(http.Options{Name: "crm", URL: u, HTTP: config.HTTPDestination{RateLimit: 10, Proxy: "http://127.0.0.1:1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		began := time.Now()
		for range 100 {
			if err := publish(t, b); backends.Reason(err) != "transient" { // nobody listens there
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 9900*time.Millisecond || took > 11*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestProbeByProxy: doctor looks at the proxy, since the receiver cannot be reached by
// another way.
func TestProbeByProxy(t *testing.T) {
	proxy := httptest.NewServer(nethttp.NotFoundHandler())
	b := newDestination(t, "https://hooks.invalid/hunter2", config.HTTPDestination{Proxy: proxy.URL})
	if f := b.Probe(t.Context())[0]; f.Level != finding.OK || !strings.Contains(f.Text, "https://hooks.invalid goes by the proxy 127.0.0.1, which takes connections") || strings.Contains(f.Text, "hunter2") {
		t.Errorf("%+v", f)
	}
	proxy.Close()
	if f := b.Probe(t.Context())[0]; f.Level != finding.Fail || !strings.Contains(f.Text, "which cannot be reached") {
		t.Errorf("%+v", f)
	}
}

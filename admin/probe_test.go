package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"eventpusher/config"
)

func TestProbe(t *testing.T) {
	reasons := func() []string { return []string{"not connected to the XMPP server", "queue of rabbit is full"} }
	ready := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{})
	unready := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{Ready: reasons})
	wildcard := start(t, config.Admin{Listen: ":0", Token: token}, Options{Ready: reasons})
	_, wildcardPort, err := net.SplitHostPort(wildcard)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, listen, path string
		token              config.Secret
		want               string // part of the error, empty: none
	}{
		{"ready", ready, "/readyz", "", ""},
		{"not ready", unready, "/readyz", "", "not ready: not connected to the XMPP server; queue of rabbit is full"},
		{"all interfaces", ":" + wildcardPort, "/healthz", "", ""},
		{"all IPv4 interfaces", "0.0.0.0:" + wildcardPort, "/healthz", "", ""},
		{"all IPv6 interfaces", "[::]:" + wildcardPort, "/healthz", "", ""},
		{"reasons withheld", ":" + wildcardPort, "/readyz", "", "not ready: the reasons are in the log"},
		{"reasons with the token", ":" + wildcardPort, "/readyz", token, "not ready: not connected"},
		{"token missing", ":" + wildcardPort, "/metrics", "", "wants another token"},
		{"unknown path", ready, "/nothing", "", "answered 404"},
		{"nobody there", "127.0.0.1:1", "/readyz", "", "nothing listens on"},
		{"no address", "9090", "/readyz", "", "is not host:port"},
		{"port chosen by the system", "127.0.0.1:0", "/readyz", "", "set a port"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Probe(t.Context(), tc.listen, tc.path, tc.token)
			checkError(t, err, tc.want)
			if err != nil && strings.Contains(err.Error(), token.Reveal()) {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
	if err := Probe(t.Context(), ready, "/readyz", ""); err != nil {
		t.Errorf("Probe = %v", err)
	}
}

func TestProbeOfSomethingElse(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/readyz", http.StatusFound)
		case "/controls":
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "a\x1b[31mb\r\nc\x00")
		}
	}))
	defer other.Close()
	addr := other.Listener.Addr().String()
	checkError(t, Probe(t.Context(), addr, "/redirect", ""), "answered 302")
	checkError(t, Probe(t.Context(), addr, "/controls", ""), "not ready: a[31mb; c")
}

func TestProbeEndsWithItsContext(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	expired, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	checkError(t, Probe(expired, silent.Addr().String(), "/readyz", ""), "no answer from")
}

package webpush

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func newGuard(t testing.TB, hosts []string, networks ...string) *Guard {
	t.Helper()
	var prefixes []netip.Prefix
	for _, n := range networks {
		prefixes = append(prefixes, netip.MustParsePrefix(n))
	}
	g, err := NewGuard(hosts, prefixes)
	if err != nil {
		t.Fatal(err)
	}
	// Names resolve to what they say, so that no test asks a DNS.
	g.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if addr, err := netip.ParseAddr(host); err == nil {
			return []netip.Addr{addr}, nil
		}
		var all []netip.Addr
		for part := range strings.SplitSeq(strings.TrimSuffix(host, ".example"), "--") {
			if addr, err := netip.ParseAddr(strings.ReplaceAll(part, "-", ".")); err == nil {
				all = append(all, addr)
			}
		}
		if len(all) == 0 {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return all, nil
	}
	return g
}

func TestGuardCheck(t *testing.T) {
	for _, tc := range []struct {
		name     string
		endpoint string
		hosts    []string
		networks []string
		want     string // ok, refused or unknown
	}{
		{"public", "https://9-9-9-9.example/push/1", nil, nil, "ok"},
		{"another port", "https://9-9-9-9.example:8443/push", nil, nil, "ok"},
		{"public address", "https://9.9.9.9/", nil, nil, "ok"},
		{"public IPv6", "https://[2620:fe::fe]/", nil, nil, "ok"},
		{"unknown host", "https://nowhere.example/", nil, nil, "unknown"},
		{"http", "http://9-9-9-9.example/", nil, nil, "refused"},
		{"another scheme", "gopher://9-9-9-9.example/", nil, nil, "refused"},
		{"no host", "https:///push", nil, nil, "refused"},
		{"no scheme", "9-9-9-9.example/push", nil, nil, "refused"},
		{"opaque", "https:9-9-9-9.example", nil, nil, "refused"},
		{"a user", "https://u:p@9-9-9-9.example/", nil, nil, "refused"},
		{"port 0", "https://9-9-9-9.example:0/", nil, nil, "refused"},
		{"no port", "https://9-9-9-9.example:99999/", nil, nil, "refused"},
		{"long", "https://9-9-9-9.example/" + strings.Repeat("x", maxEndpoint), nil, nil, "refused"},
		{"loopback", "https://127.0.0.1/", nil, nil, "refused"},
		{"loopback IPv6", "https://[::1]/", nil, nil, "refused"},
		{"private", "https://10-1-2-3.example/", nil, nil, "refused"},
		{"public and private", "https://9-9-9-9--10-1-2-3.example/", nil, nil, "refused"},
		{"carrier's", "https://100.64.0.1/", nil, nil, "refused"},
		{"metadata of clouds", "https://169.254.169.254/latest", nil, nil, "refused"},
		{"metadata by IPv6", "https://[fd00:ec2::254]/", nil, nil, "refused"},
		{"mapped", "https://[::ffff:10.0.0.1]/", nil, nil, "refused"},
		{"mapped loopback", "https://[::ffff:127.0.0.1]/", nil, nil, "refused"},
		{"mapped public", "https://[::ffff:9.9.9.9]/", nil, nil, "ok"},
		{"mapped into the allowed network", "https://[::ffff:10.1.2.3]/", nil, []string{"10.1.0.0/16"}, "ok"},
		{"NAT64 of a private address", "https://[64:ff9b::a00:1]/", nil, nil, "refused"},
		{"6to4 of a private address", "https://[2002:a00:1::1]/", nil, nil, "refused"},
		{"unspecified", "https://0.0.0.0/", nil, nil, "refused"},
		{"broadcast", "https://255.255.255.255/", nil, nil, "refused"},
		{"allowed network", "https://10-1-2-3.example/", nil, []string{"10.1.0.0/16"}, "ok"},
		{"beside the allowed network", "https://10-2-2-3.example/", nil, []string{"10.1.0.0/16"}, "refused"},
		{"allowed network, http", "http://10-1-2-3.example/", nil, []string{"10.1.0.0/16"}, "refused"},
		{"allowed network of IPv6", "https://[fd12::1]/", nil, []string{"fd12::/16"}, "ok"},
		{"allowed host", "https://10-1-2-3.example/", []string{"10-1-2-3.example"}, nil, "ok"},
		{"allowed host, http", "http://10-1-2-3.example/", []string{"10-1-2-3.example"}, nil, "ok"},
		{"allowed host, written otherwise", "http://10-1-2-3.EXAMPLE.:80/", []string{"10-1-2-3.Example"}, nil, "ok"},
		{"allowed address", "http://[::1]:8080/", []string{"[::1]"}, nil, "ok"},
		{"below the allowed host", "https://a.10-1-2-3.example/", []string{"10-1-2-3.example"}, nil, "unknown"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := "ok"
			if err := newGuard(t, tc.hosts, tc.networks...).Check(t.Context(), tc.endpoint); errors.Is(err, ErrEndpoint) {
				got = "refused"
			} else if err != nil {
				got = "unknown"
			}
			if got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// TestGuardDials shows that the check at a connection does not depend on Check: a name
// may have got another address since.
func TestGuardDials(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		guard *Guard
		host  string
		good  bool
	}{
		"address":          {newGuard(t, nil), "127.0.0.1", false},
		"name":             {newGuard(t, nil), "localhost", false},
		"allowed network":  {newGuard(t, nil, "127.0.0.0/8"), "127.0.0.1", true},
		"allowed name":     {newGuard(t, []string{"LocalHost"}), "localhost", true},
		"another name":     {newGuard(t, []string{"localhost"}), "127.0.0.1", false},
		"mapped address":   {newGuard(t, nil), "::ffff:127.0.0.1", false},
		"unspecified":      {newGuard(t, nil), "0.0.0.0", false},
		"unspecified IPv6": {newGuard(t, nil), "::", false},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := tc.guard.DialContext(t.Context(), "tcp", net.JoinHostPort(tc.host, port))
			if err == nil {
				conn.Close()
			}
			if (err == nil) != tc.good || !tc.good && !errors.Is(err, ErrEndpoint) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestNewGuardRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		hosts    []string
		networks []netip.Prefix
	}{
		"URL":      {[]string{"https://push.example"}, nil},
		"wildcard": {[]string{"*.example"}, nil},
		"empty":    {[]string{""}, nil},
		"nothing":  {nil, []netip.Prefix{{}}},
		"mapped":   {nil, []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewGuard(tc.hosts, tc.networks); err == nil {
				t.Error("accepted")
			}
		})
	}
}

func TestOriginOf(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://Push.Example/a?b":       "https://push.example",
		"https://push.example:443/":      "https://push.example",
		"https://push.example.:8443/":    "https://push.example:8443",
		"http://push.example:80/":        "http://push.example",
		"https://[2620:FE::fe]:8443/x":   "https://[2620:fe::fe]:8443",
		"https://push.example:80/secret": "https://push.example:80",
	} {
		u, err := newGuard(t, []string{"push.example"}).parse(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if got := originOf(u); got != want {
			t.Errorf("originOf(%s) = %s, want %s", endpoint, got, want)
		}
	}
}

func FuzzGuardParse(f *testing.F) {
	f.Add("https://push.example/abc")
	f.Add("https://[::1%25eth0]:443")
	f.Add("http://a\\@b")
	g := newGuard(f, []string{"localhost"})
	f.Fuzz(func(t *testing.T, endpoint string) {
		u, err := g.parse(endpoint)
		if err != nil {
			if !errors.Is(err, ErrEndpoint) {
				t.Errorf("%v", err)
			}
			return
		}
		if u.Host == "" || u.User != nil || u.Scheme != "https" && !g.hosts[foldHost(u.Hostname())] {
			t.Errorf("%q is accepted as %q", endpoint, u)
		}
	})
}

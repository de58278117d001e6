package admin

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/config"
)

// dial opens a connection that says this and is closed at the end of the test.
func dial(t *testing.T, addr, first string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, first); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestIdleConnections: connections that say nothing, say half of a request or wait for the
// next one keep neither a probe nor a scrape out, and are closed above the bound.
func TestIdleConnections(t *testing.T) {
	for name, first := range map[string]string{
		"silent":   "",
		"half":     "GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
		"answered": "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"pipeline": strings.Repeat("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 100),
	} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			addr := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{Gatherer: registry, Registerer: registry})
			const more = 40
			conns := make([]net.Conn, maxConnections+more)
			for i := range conns {
				conns[i] = dial(t, addr, first)
			}
			for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
				if a := ask(t, "GET", addr, path); a.code != http.StatusOK {
					t.Errorf("%s answers %d", path, a.code)
				}
			}
			conns[0].SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.Copy(io.Discard, conns[0]); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the oldest connection is open: %v", err)
			}
			if n := counted(t, registry); n < more || n > more+3 {
				t.Errorf("%v connections were closed", n)
			}
		})
	}
}

// counted returns how many connections were closed in favour of others.
func counted(t *testing.T, g prometheus.Gatherer) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "eventpusher_admin_connections_closed_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
}

// TestServedConnections: what is being served is not closed for others, is bounded, and does
// not keep a probe out.
func TestServedConnections(t *testing.T) {
	var serving atomic.Int32
	release := make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		serving.Add(1)
		<-release
		fmt.Fprint(w, "done")
	})
	addr := start(t, config.Admin{Listen: "127.0.0.1:0", Token: token}, Options{API: map[string]http.Handler{"/slow": slow}})
	request := "POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nAuthorization: Bearer " + token.Reveal() + "\r\n\r\n"
	served := make([]net.Conn, maxRequests)
	for i := range served {
		served[i] = dial(t, addr, request)
	}
	for deadline := time.Now().Add(time.Minute); serving.Load() < maxRequests; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests are served", serving.Load())
		}
	}
	for range maxConnections {
		dial(t, addr, "")
	}
	if a := ask(t, "GET", addr, "/healthz"); a.code != http.StatusOK {
		t.Errorf("/healthz answers %d", a.code)
	}
	if a := ask(t, "POST", addr, "/slow", "Authorization: Bearer "+token.Reveal()); a.code != http.StatusServiceUnavailable {
		t.Errorf("one more request is answered %d", a.code)
	}
	close(release)
	for _, conn := range served {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(answer.Body); string(body) != "done" {
			t.Errorf("a request that was being served is answered %q", body)
		}
	}
	if a := ask(t, "POST", addr, "/slow", "Authorization: Bearer "+token.Reveal()); a.code != http.StatusOK {
		t.Errorf("after that a request is answered %d", a.code)
	}
}

// TestClosedConnectionsAreForgotten: connections that have ended take no place.
func TestClosedConnectionsAreForgotten(t *testing.T) {
	c := newConnections(slog.New(slog.DiscardHandler))
	registry := prometheus.NewRegistry()
	registry.MustRegister(c.closed)
	for range 3 * maxConnections {
		ours, theirs := net.Pipe()
		theirs.Close()
		c.changed(ours, http.StateNew)
		c.changed(ours, http.StateClosed)
	}
	if n := counted(t, registry); n != 0 || len(c.open) != 0 || c.order.Len() != 0 {
		t.Errorf("%v were closed, %d are kept", n, len(c.open))
	}
}

// TestHalfARequest: a connection on which a request does not come to its end is closed after
// readHeaderTimeout, also if no other one comes.
func TestHalfARequest(t *testing.T) {
	addr := start(t, config.Admin{Listen: "127.0.0.1:0"}, Options{})
	began := time.Now()
	conn := dial(t, addr, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
	conn.SetReadDeadline(began.Add(time.Minute))
	if _, err := io.Copy(io.Discard, conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("it is open: %v", err)
	}
	if took := time.Since(began); took < readHeaderTimeout-time.Second {
		t.Errorf("closed after %v", took)
	}
}

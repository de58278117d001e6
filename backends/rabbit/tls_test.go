//go:build linux

package rabbit_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/config"
	"eventpusher/internal/harness"
)

// terminateTLS returns the address of a TLS listener in front of target.
func terminateTLS(t *testing.T, target string) string {
	t.Helper()
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	defer certificates.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificates.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		tasks.Wait()
	})
	tasks.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{server, client}, {client, server}} {
				tasks.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					way[0].Close()
					way[1].Close()
				})
			}
		}
	})
	return l.Addr().String()
}

func TestTLS(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	secured := terminateTLS(t, broker.Addr())
	for _, tc := range []struct {
		name, address  string
		options        *config.TLS
		reason, detail string
	}{
		{"verified", secured, &config.TLS{VerifyMode: "selfsigned_peer"}, "", ""},
		{"unknown authority", secured, &config.TLS{}, "transient", "unknown authority"},
		{"plain to a TLS port", secured, nil, "transient", "configure the pool's tls"},
		{"TLS to a plain port", broker.Addr(), &config.TLS{}, "transient", "does this port speak TLS"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pool := poolFor(t, broker, tc.address)
			pool.TLS = tc.options
			b := newBackend(t, config.Rabbit{Chat: exchange()}, pool, nil)
			err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
			if backends.Reason(err) != tc.reason || err != nil && !strings.Contains(err.Error(), tc.detail) {
				t.Errorf("%v (%q), want %q with %q", err, backends.Reason(err), tc.reason, tc.detail)
			}
		})
	}
}

//go:build linux

package rabbit_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestTLSCommonName: a certificate that names its host only as common name is refused with the
// library's reason, and with no guess beside it.
func TestTLSCommonName(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer l.Close()
	tasks.Go(func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	pool := config.RabbitPool{Addresses: []string{net.JoinHostPort("localhost", port)}, TLS: &config.TLS{CACertFile: authority}}
	err = newBackend(t, config.Rabbit{Chat: exchange()}, pool, nil).Prepare(t.Context())
	if err == nil || !strings.Contains(err.Error(), "use SANs instead") || strings.Contains(err.Error(), "speak TLS") {
		t.Errorf("%v", err)
	}
}

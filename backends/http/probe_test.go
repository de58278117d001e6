package http_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/finding"
)

// certified returns a TLS server whose certificate ends after that time, the file of its
// authority, and how many requests it has had.
func certified(t *testing.T, left time.Duration) (server *httptest.Server, ca string, requests *atomic.Int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "probe"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int64)
	server = httptest.NewUnstartedServer(nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) { requests.Add(1) }))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return server, ca, requests
}

func TestProbe(t *testing.T) {
	plain := startReceiver(t)
	long, longCA, longRequests := certified(t, 1000*time.Hour)
	soon, soonCA, soonRequests := certified(t, 24*time.Hour)
	handler := config.HTTPHandler{PoolName: "p", Path: "/hunter2?token=hunter2"}
	for _, tc := range []struct {
		name, host, ca string
		level          finding.Level
		text           string
	}{
		{"plain", "http://" + plain.address(), "", finding.OK, "takes connections"},
		{"TLS", long.URL, longCA, finding.OK, "certificate is good until " + time.Now().Add(1000*time.Hour).UTC().Format(time.DateOnly)},
		{"a certificate that ends", soon.URL, soonCA, finding.Warn, "ends on"},
		{"an authority that is not trusted", long.URL, soonCA, finding.Fail, "TLS with"},
		{"no TLS there", "https://" + plain.address(), longCA, finding.Fail, "TLS with"},
		{"nobody there", "http://127.0.0.1:1", "", finding.Fail, "refused"},
		{"no such name", "http://nowhere.invalid", "", finding.Fail, "cannot be reached"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := pool(tc.host)
			if tc.ca != "" {
				p.TLS = &config.TLS{CACertFile: tc.ca}
			}
			b := newBackend(t, handler, p)
			got := b.Probe(t.Context())
			if len(got) != 1 || got[0].Level != tc.level || !strings.Contains(got[0].Text, tc.text) {
				t.Errorf("%v, want %s %s", got, tc.level, tc.text)
			}
			if strings.Contains(got[0].String(), "hunter2") {
				t.Errorf("the path is shown: %s", got[0])
			}
		})
	}
	if n := len(plain.requests()) + int(longRequests.Load()) + int(soonRequests.Load()); n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // and never a TLS handshake
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := newBackend(t, config.HTTPHandler{PoolName: "p"}, pool("https://"+l.Addr().String()))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got := b.Probe(ctx); len(got) != 1 || got[0].Level != finding.Fail || !strings.Contains(got[0].Text, "no answer in time") {
		t.Errorf("%v", got)
	}
}

// A probe beside the first request: net/http completes its transport then.
func TestProbeBesideTheFirstRequest(t *testing.T) {
	server, ca, requests := certified(t, time.Hour)
	for range 20 {
		p := pool(server.URL)
		p.TLS = &config.TLS{CACertFile: ca}
		b := newBackend(t, config.HTTPHandler{PoolName: "p"}, p)
		var both sync.WaitGroup
		both.Go(func() { b.Probe(t.Context()) })
		both.Go(func() {
			b.Publish(t.Context(), []event.Event{{ID: "e", Kind: event.Chat, Type: "chat", Direction: event.In, Body: "hi", HasBody: true}})
		})
		both.Wait()
	}
	if requests.Load() == 0 {
		t.Error("nothing was requested")
	}
}

package tlsconfig_test

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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/internal/tlsconfig"
)

// authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // the certificate in PEM form
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	tmpl := template(name, 1)
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = writePEM(t, "CERTIFICATE", der)
	return a
}

// issue returns a certificate; a nil authority makes it self-signed.
func (a *authority) issue(t *testing.T, tmpl *x509.Certificate) tls.Certificate {
	t.Helper()
	key := newKey(t)
	parent, signer := tmpl, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// revoke returns the file of a list that revokes the serial numbers.
func (a *authority) revoke(t *testing.T, next time.Time, serials ...int64) string {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: next}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, "X509 CRL", der)
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	return writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// connect shakes hands between the client's options and a server; it returns the
// client's error, and the server's view.
func connect(t *testing.T, server *tls.Config, options *config.TLS, name string) (tls.ConnectionState, string, error) {
	t.Helper()
	client, err := tlsconfig.Client(options, name)
	if err != nil {
		t.Fatal(err)
	}
	var sni string
	server = server.Clone()
	server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		sni = hello.ServerName
		return nil, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan tls.ConnectionState)
	go func() {
		defer b.Close()
		conn := tls.Server(b, server)
		_ = conn.Handshake() // its failure is the client's to report
		state := conn.ConnectionState()
		_, _ = io.WriteString(conn, "x")
		done <- state
	}()
	conn := tls.Client(a, client)
	_, err = conn.Read(make([]byte, 1)) // TLS 1.3 servers refuse after the client's handshake
	a.Close()
	return <-done, sni, err
}

func TestVerification(t *testing.T) {
	ca, stranger := newAuthority(t, "ca"), newAuthority(t, "stranger")
	expired := template("sink.example", 3)
	expired.NotAfter = time.Now().Add(-time.Minute)
	good := ca.issue(t, template("sink.example", 2))
	var (
		alone        *authority
		selfSigned   = alone.issue(t, template("sink.example", 2))
		selfExpired  = alone.issue(t, expired)
		fromStranger = stranger.issue(t, template("sink.example", 2))
	)
	next := time.Now().Add(time.Hour)
	for _, tc := range []struct {
		name    string
		cert    tls.Certificate
		options *config.TLS
		host    string
		fails   string // empty: succeeds
	}{
		{"no options", good, nil, "sink.example", "unknown authority"},
		{"peer", good, &config.TLS{CACertFile: ca.file}, "sink.example", ""},
		{"peer by name", good, &config.TLS{VerifyMode: "peer", CACertFile: ca.file}, "other.example", "other.example"},
		{"peer under another name", good, &config.TLS{CACertFile: ca.file, ServerName: "sink.example"}, "10.0.0.1", ""},
		{"peer of a stranger", fromStranger, &config.TLS{CACertFile: ca.file}, "sink.example", "unknown authority"},
		{"peer, expired", ca.issue(t, expired), &config.TLS{CACertFile: ca.file}, "sink.example", "expired"},
		{"peer, self-signed", selfSigned, &config.TLS{CACertFile: ca.file}, "sink.example", "unknown authority"},
		{"selfsigned_peer", selfSigned, &config.TLS{VerifyMode: "selfsigned_peer"}, "sink.example", ""},
		{"selfsigned_peer by name", selfSigned, &config.TLS{VerifyMode: "selfsigned_peer"}, "other.example", "other.example"},
		{"selfsigned_peer, expired", selfExpired, &config.TLS{VerifyMode: "selfsigned_peer"}, "sink.example", "expired"},
		{"selfsigned_peer from the authority", good, &config.TLS{VerifyMode: "selfsigned_peer", CACertFile: ca.file}, "sink.example", ""},
		{"selfsigned_peer of a stranger", fromStranger, &config.TLS{VerifyMode: "selfsigned_peer", CACertFile: ca.file}, "sink.example", "unknown authority"},
		{"none", fromStranger, &config.TLS{VerifyMode: "none"}, "other.example", ""},
		{"without SNI", good, &config.TLS{DisableSNI: true, CACertFile: ca.file}, "sink.example", ""},
		{"without SNI by name", good, &config.TLS{DisableSNI: true, CACertFile: ca.file}, "other.example", "other.example"},
		{"without SNI of a stranger", fromStranger, &config.TLS{DisableSNI: true, CACertFile: ca.file}, "sink.example", "unknown authority"},
		{"not revoked", good, &config.TLS{CACertFile: ca.file, CRLFiles: []string{ca.revoke(t, next, 7)}}, "sink.example", ""},
		{"revoked", good, &config.TLS{CACertFile: ca.file, CRLFiles: []string{ca.revoke(t, next, 7, 2)}}, "sink.example", "revoked"},
		{"revoked, without SNI", good, &config.TLS{DisableSNI: true, CACertFile: ca.file, CRLFiles: []string{ca.revoke(t, next, 2)}}, "sink.example", "revoked"},
		{"revoked by a stranger", good, &config.TLS{CACertFile: ca.file, CRLFiles: []string{stranger.revoke(t, next, 2)}}, "sink.example", ""},
		{"list out of date", good, &config.TLS{CACertFile: ca.file, CRLFiles: []string{ca.revoke(t, time.Now().Add(-time.Minute))}}, "sink.example", "renewal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, sni, err := connect(t, &tls.Config{Certificates: []tls.Certificate{tc.cert}}, tc.options, tc.host)
			switch {
			case tc.fails == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.fails != "" && (err == nil || !strings.Contains(err.Error(), tc.fails)):
				t.Errorf("%v, want an error about %q", err, tc.fails)
			}
			want := tc.host
			if tc.options != nil && tc.options.ServerName != "" {
				want = tc.options.ServerName
			}
			if tc.options != nil && tc.options.DisableSNI {
				want = ""
			}
			if sni != want {
				t.Errorf("SNI %q, want %q", sni, want)
			}
		})
	}
}

func TestClientCertificate(t *testing.T) {
	ca := newAuthority(t, "ca")
	clientCert := ca.issue(t, template("eventpusher", 9))
	certFile := writePEM(t, "CERTIFICATE", clientCert.Certificate[0])
	der, err := x509.MarshalPKCS8PrivateKey(clientCert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	server := &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, template("sink.example", 2))},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
	state, _, err := connect(t, server, &config.TLS{CACertFile: ca.file, CertFile: certFile, KeyFile: writePEM(t, "PRIVATE KEY", der)}, "sink.example")
	if err != nil || len(state.PeerCertificates) != 1 || state.PeerCertificates[0].Subject.CommonName != "eventpusher" {
		t.Errorf("%v, certificates %v", err, state.PeerCertificates)
	}
	if _, _, err := connect(t, server, &config.TLS{CACertFile: ca.file}, "sink.example"); err == nil {
		t.Error("the server takes a client without certificate: the test proves nothing")
	}
}

// Keys as `openssl pkcs8 -topk8 -v2 ... -v2prf ...` writes them, with the password "hunter2".
func TestEncryptedKey(t *testing.T) {
	for _, name := range []string{"aes256-sha256", "aes128-sha1", "aes192-sha512"} {
		t.Run(name, func(t *testing.T) {
			options := &config.TLS{CertFile: "testdata/client.pem", KeyFile: "testdata/" + name + ".pem", KeyPassword: "hunter2"}
			cfg, err := tlsconfig.Client(options, "sink.example")
			if err != nil || len(cfg.Certificates) != 1 {
				t.Fatalf("%v", err)
			}
			for password, detail := range map[config.Secret]string{"": "set password", "hunter3": ""} {
				options.KeyPassword = password
				_, err := tlsconfig.Client(options, "sink.example")
				if err == nil || !strings.Contains(err.Error(), detail) || strings.Contains(err.Error(), "hunter") {
					t.Errorf("password %q: %v", password.Reveal(), err)
				}
			}
		})
	}
}

func TestVersionsAndCiphers(t *testing.T) {
	for _, tc := range []struct {
		name            string
		options         config.TLS
		least, greatest uint16
		suites          []uint16
	}{
		{"defaults", config.TLS{}, tls.VersionTLS12, 0, nil},
		{"one version", config.TLS{Versions: []string{"tlsv1.2"}}, tls.VersionTLS12, tls.VersionTLS12, nil},
		{"a range", config.TLS{Versions: []string{"tlsv1.3", "tlsv1.2"}}, tls.VersionTLS12, tls.VersionTLS13, nil},
		{"old", config.TLS{Versions: []string{"tlsv1", "tlsv1.1"}}, tls.VersionTLS10, tls.VersionTLS11, nil},
		{"ciphers", config.TLS{Ciphers: "TLS_AES_256_GCM_SHA384:ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-SHA:!aNULL:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
			tls.VersionTLS12, 0, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}},
		{"ciphers of TLS 1.3 only", config.TLS{Ciphers: "TLS_AES_128_GCM_SHA256"}, tls.VersionTLS13, 0, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg, err := tlsconfig.Client(&tc.options, "sink.example")
			if err != nil {
				t.Fatal(err)
			}
			if cfg.MinVersion != tc.least || cfg.MaxVersion != tc.greatest || !slices.Equal(cfg.CipherSuites, tc.suites) {
				t.Errorf("versions %x to %x, suites %x; want %x to %x, %x", cfg.MinVersion, cfg.MaxVersion, cfg.CipherSuites, tc.least, tc.greatest, tc.suites)
			}
		})
	}
}

func TestErrorsNameTheOption(t *testing.T) {
	garbage := writeFile(t, "garbage")
	damaged := writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("damaged")})))
	for _, tc := range []struct {
		options config.TLS
		detail  string
	}{
		{config.TLS{VerifyMode: "maybe"}, "verify_mode"},
		{config.TLS{Versions: []string{"sslv3"}}, "sslv3"},
		{config.TLS{Versions: []string{"tlsv1.1", "tlsv1.3"}}, "TLS 1.2"},
		{config.TLS{Ciphers: "DHE-RSA-AES128-SHA"}, "ciphers"},
		{config.TLS{Ciphers: "TLS_AES_128_GCM_SHA256", Versions: []string{"tlsv1.2"}}, "TLS 1.3"},
		{config.TLS{CACertFile: "/nonexistent"}, "cacertfile"},
		{config.TLS{CACertFile: garbage}, "cacertfile " + garbage + ": holds no certificate in PEM form"},
		{config.TLS{CACertFile: damaged}, "cacertfile " + damaged + ": x509: malformed certificate"},
		{config.TLS{CertFile: garbage}, "keyfile"},
		{config.TLS{KeyFile: garbage}, "certfile"},
		{config.TLS{CertFile: "/nonexistent", KeyFile: garbage}, "certfile"},
		{config.TLS{CertFile: garbage, KeyFile: "/nonexistent"}, "keyfile"},
		{config.TLS{CertFile: garbage, KeyFile: garbage}, "keyfile"},
		{config.TLS{CertFile: "testdata/client.pem", KeyFile: "testdata/client.pem"}, "keyfile"},
		{config.TLS{CRLFiles: []string{"/nonexistent"}}, "crl_files"},
		{config.TLS{CRLFiles: []string{garbage}}, "crl_files"},
	} {
		if _, err := tlsconfig.Client(&tc.options, "sink.example"); err == nil || !strings.Contains(err.Error(), tc.detail) {
			t.Errorf("%+v: %v, want an error about %s", tc.options, err, tc.detail)
		}
	}
}

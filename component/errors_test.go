package component

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/internal/xmppserver"
)

// header is how a server opens its stream.
const header = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'>"

// clockTime is a time in an error of crypto/x509.
var clockTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`)

// refusal is a stream error as servers send it.
func refusal(condition, text string) string {
	return "<stream:error>" + condition + "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>" + text + "</text></stream:error></stream:stream>"
}

func TestRefusedHandshakes(t *testing.T) {
	// For servers that say nothing that would end the wait.
	impatient := func(c *config.Component) { c.HandshakeTimeout = 3 * time.Second }
	for _, tc := range []struct {
		name   string
		fault  xmppserver.Fault
		cfg    func(*config.Component)
		reason Reason
		config bool
		text   string
	}{
		{"wrong secret", xmppserver.Fault{}, func(c *config.Component) { c.Secret = "other" }, NotAuthorized, true,
			`ADDR does not accept the secret of "events.example.org" (the server says "Given token does not match calculated token"): make [component] secret equal to the server's (Prosody: component_secret; ejabberd: the password under hosts of the listener, which must list this name)`},
		{"other stream id", xmppserver.Fault{OtherID: true}, nil, NotAuthorized, true,
			`ADDR does not accept the secret of "events.example.org" (the server says "Given token does not match calculated token"): make [component] secret equal to the server's (Prosody: component_secret; ejabberd: the password under hosts of the listener, which must list this name)`},
		{"unknown component", xmppserver.Fault{}, func(c *config.Component) { c.Name = "other.example.org" }, HostUnknown, true,
			`ADDR knows no component "other.example.org" (the server says "other.example.org does not match any configured external components"): declare it there (Prosody: Component "other.example.org", which must not be a VirtualHost), or correct [component] name`},
		{"local host on ejabberd", xmppserver.Fault{StreamError: "conflict"}, nil, Conflict, false,
			`"events.example.org" is taken at ADDR: another component is connected under this name (Prosody), or it is one of the server's own hosts (ejabberd); stop the other one, or choose another [component] name`},
		{"invalid namespace", xmppserver.Fault{StreamError: "invalid-namespace"}, nil, WrongPort, true,
			`ADDR refuses the namespace of components, so it is another kind of port: set [component] address to the component port (5347 by default in Prosody)`},
		{"improper addressing", xmppserver.Fault{StreamError: "improper-addressing"}, nil, ImproperAddressing, true,
			`ADDR cannot use "events.example.org" as a component's domain: correct [component] name`},
		{"shutting down", xmppserver.Fault{StreamError: "system-shutdown"}, nil, Shutdown, false,
			`the server at ADDR is shutting down: it will be tried again`},
		{"other stream error", xmppserver.Fault{StreamError: "resource-constraint"}, nil, StreamError, false,
			`ADDR ended the stream with resource-constraint: look into the server's log`},
		{"see other host", xmppserver.Fault{Raw: header + refusal("<see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>xmpp2.example.org:5347</see-other-host>", "")}, nil, SeeOtherHost, true,
			`ADDR sends us to "xmpp2.example.org:5347": set [component] address to that host`},
		{"Prosody's client port", xmppserver.Fault{Raw: header + refusal("<host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>", "This server does not serve events.example.org")}, nil, WrongPort, true,
			`ADDR is not a component port, it answers like a client port (the server says "This server does not serve events.example.org"): set [component] address to the component port (5347 by default in Prosody)`},
		{"a client port that offers features", xmppserver.Fault{Raw: header + "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"}, nil, WrongPort, true,
			`ADDR is not a component port, it answers like a client port: set [component] address to the component port (5347 by default in Prosody)`},
		{"a web server", xmppserver.Fault{Raw: "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"}, impatient, WrongPort, true,
			`ADDR is not a component port, it answers like a web server: set [component] address to the component port (5347 by default in Prosody)`},
		{"a TLS port", xmppserver.Fault{Raw: "\x15\x03\x01\x00\x02\x02\x46"}, impatient, TLSFailed, true,
			`ADDR speaks TLS on this port: add tls to [component], or set its address to the plain component port`},
		{"silence", xmppserver.Fault{Silent: true}, impatient, Silent, false,
			`ADDR took the connection but did not answer the handshake within 3s: check that [component] address is the server's component port, not its client port`},
		{"drop", xmppserver.Fault{Drop: true}, nil, Closed, false,
			`ADDR closed the connection during the handshake: look into the server's log`},
		{"no stream id", xmppserver.Fault{NoStreamID: true}, nil, BrokenStream, false,
			`ADDR does not answer as XEP-0114 says (component: expected server stream to contain stream ID): check that [component] address is the server's component port`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel() // some wait for a timeout
			o := serverOptions()
			o.Fault = func(int) xmppserver.Fault { return tc.fault }
			server := startServer(t, o)
			cfg := testConfig(server.Addr())
			if tc.cfg != nil {
				tc.cfg(&cfg)
			}
			w := newWatched(t, cfg, nil)
			defer w.stop()
			checkExplained(t, w.attempt(), server.Addr(), tc.reason, tc.config, tc.text)
		})
	}
}

func checkExplained(t *testing.T, err *LinkError, address string, reason Reason, config bool, text string) {
	t.Helper()
	got := clockTime.ReplaceAllString(strings.ReplaceAll(err.Error(), address, "ADDR"), "TIME")
	if err.Reason != reason || err.Config != config || got != text {
		t.Errorf("%s, configuration %t: %s\nwant %s, %t: %s\ncause: %v", err.Reason, err.Config, got, reason, config, text, err.Err)
	}
}

func TestSecondComponentIsAConflict(t *testing.T) {
	server := startServer(t, serverOptions())
	first := newWatched(t, testConfig(server.Addr()), nil).start()
	send(t, accept(t, server), logged("attached"))
	first.wantFact("attached")
	second := newWatched(t, testConfig(server.Addr()), nil)
	defer second.stop()
	checkExplained(t, second.attempt(), server.Addr(), Conflict, false,
		`"events.example.org" is taken at ADDR (the server says "Component already connected"): another component is connected under this name (Prosody), or it is one of the server's own hosts (ejabberd); stop the other one, or choose another [component] name`)
	if !first.Connected() {
		t.Error("the first one lost its link")
	}
	first.end()
}

func TestFailedDials(t *testing.T) {
	for _, tc := range []struct {
		name   string
		err    error
		reason Reason
		text   string
	}{
		{"DNS", &net.OpError{Op: "dial", Err: &net.DNSError{Name: "xmpp.example.org", Err: "no such host", IsNotFound: true}}, DNS,
			`the name "xmpp.example.org" does not resolve (no such host): correct [component] address, or the DNS`},
		{"timeout", &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, Timeout,
			"no answer from ADDR within 10s: check [component] address and firewalls"},
		{"no route", &net.OpError{Op: "dial", Net: "tcp", Err: syscall.EHOSTUNREACH}, Unreachable,
			"ADDR cannot be reached (dial tcp: no route to host): check [component] address, the network and firewalls"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkExplained(t, explainDial("host:5347", 10*time.Second, tc.err), "host:5347", tc.reason, false, tc.text)
		})
	}
	t.Run("refused", func(t *testing.T) {
		const nobody = "127.0.0.1:1"
		w := newWatched(t, testConfig(nobody), nil)
		defer w.stop()
		checkExplained(t, w.attempt(), nobody, Refused, false,
			"nothing listens at ADDR: start the XMPP server, or set [component] address to its component port (Prosody: component_ports; ejabberd: the listener with module ejabberd_service)")
	})
}

func TestTLS(t *testing.T) {
	ca := newAuthority(t)
	other := newAuthority(t)
	good := ca.issue(t, time.Now().Add(time.Hour), "xmpp.example.org")
	expired := ca.issue(t, time.Now().Add(-time.Hour), "xmpp.example.org")
	unnamed := ca.issue(t, time.Now().Add(time.Hour), "xmpp.example.org", func(c *x509.Certificate) { c.DNSNames = nil })
	for _, tc := range []struct {
		name    string
		server  *tls.Certificate // nil: plain TCP
		client  config.TLS
		trouble string
		config  bool
	}{
		{"good", &good, config.TLS{CACertFile: ca.file, ServerName: "xmpp.example.org"}, "", false},
		{"good, TLS 1.2", &good, config.TLS{CACertFile: ca.file, ServerName: "xmpp.example.org", Versions: []string{"tlsv1.2"}, Ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256"}, "", false},
		{"not checked", &expired, config.TLS{VerifyMode: "none"}, "", false},
		{"wrong authority", &good, config.TLS{CACertFile: other.file, ServerName: "xmpp.example.org"},
			"the certificate of ADDR comes from an authority that is not trusted here (tls: failed to verify certificate: x509: certificate signed by unknown authority (possibly because of \"x509: ECDSA verification failure\" while trying to verify candidate authority certificate \"test authority\")): name its CA file in [component] tls.cacertfile", true},
		{"wrong name", &good, config.TLS{CACertFile: ca.file, ServerName: "chat.example.org"},
			`the certificate of ADDR is not for "chat.example.org" (tls: failed to verify certificate: x509: certificate is valid for xmpp.example.org, not chat.example.org): set [component] tls.server_name_indication.host to a name that it holds`, true},
		{"expired", &expired, config.TLS{CACertFile: ca.file, ServerName: "xmpp.example.org"},
			"the certificate of ADDR is expired or not valid yet (tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time TIME is after TIME): renew it, or correct the clock of this machine", true},
		{"common name only", &unnamed, config.TLS{CACertFile: ca.file, ServerName: "xmpp.example.org"},
			`the certificate of ADDR has no subjectAltName (tls: failed to verify certificate: x509: certificate relies on legacy Common Name field, use SANs instead): have one issued with the subjectAltName "DNS:xmpp.example.org"; the common name does not count (RFC 9525)`, true},
		{"common name only, without SNI", &unnamed, config.TLS{CACertFile: ca.file, ServerName: "xmpp.example.org", DisableSNI: true},
			`the certificate of ADDR has no subjectAltName (tls: failed to verify certificate: x509: certificate relies on legacy Common Name field, use SANs instead): have one issued with the subjectAltName "DNS:xmpp.example.org"; the common name does not count (RFC 9525)`, true},
		{"plain port", nil, config.TLS{},
			"ADDR does not speak TLS on this port (tls: first record does not look like a TLS handshake): use the port with direct TLS, or remove tls from [component]", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := serverOptions()
			o.NoPongs = true
			if tc.server != nil {
				o.TLS = &tls.Config{Certificates: []tls.Certificate{*tc.server}}
			} else {
				o.Fault = func(int) xmppserver.Fault { return xmppserver.Fault{Raw: "not TLS at all"} }
			}
			server := startServer(t, o)
			cfg := testConfig(server.Addr())
			cfg.TLS = &tc.client
			if tc.trouble == "" {
				cfg.PingInterval = 10 * time.Millisecond // a read deadline must not harm TLS
				w := newWatched(t, cfg, nil).start()
				session := accept(t, server)
				send(t, session, logged("one"))
				w.wantFact("one")
				for range 2 {
					receive(t, session) // a ping
					send(t, session, " ")
				}
				send(t, session, logged("two"))
				w.wantFact("two")
				w.end()
				return
			}
			w := newWatched(t, cfg, nil)
			defer w.stop()
			checkExplained(t, w.attempt(), server.Addr(), TLSFailed, tc.config, tc.trouble)
		})
	}
}

func TestTLSHandshakeThatBreaksOff(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			conn.Close()
		}
	}()
	cfg := testConfig(listener.Addr().String())
	cfg.TLS = &config.TLS{}
	w := newWatched(t, cfg, nil)
	defer w.stop()
	checkExplained(t, w.attempt(), cfg.Address, TLSFailed, false,
		"ADDR closed the connection during the TLS handshake (EOF): check that the port speaks direct TLS and that its listener has a certificate (ejabberd: certfile inside the listener)")
}

func TestLinkErrorUnwraps(t *testing.T) {
	cause := errors.New("cause")
	var failed *LinkError
	if err := fmt.Errorf("start: %w", error(&LinkError{Reason: Closed, Text: "text", Err: cause})); !errors.As(err, &failed) || !errors.Is(err, cause) {
		t.Errorf("%v does not unwrap", err)
	}
}

// authority is a certificate authority with its file for cacertfile.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	file        string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, file: filepath.Join(t.TempDir(), "ca.pem")}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(t *testing.T, until time.Time, name string, change ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, c := range change {
		c(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

package http

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"time"

	"eventpusher/backends"
	"eventpusher/internal/finding"
)

var _ backends.Probing = (*Backend)(nil)

// expiresSoon is from when on the end of a certificate is worth a word.
const expiresSoon = 14 * 24 * time.Hour

// Probe implements backends.Probing. It connects and, for https, makes the TLS handshake
// and checks the certificate as for an event. It sends no request: RFC 9110 calls HEAD
// and OPTIONS safe, but a webhook is often a function that is called whatever the
// method is, and what it says to another method than POST proves nothing. So neither the
// path nor the receiver's access control is tried.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	target, err := url.Parse(b.target)
	if err != nil { // New has parsed it
		return []finding.Finding{finding.Failf(b.name, "", "the address is no URL")}
	}
	port := target.Port()
	if port == "" {
		port = target.Scheme // the name of a port as well
	}
	conn, err := b.transfer.DialContext(ctx, "tcp", net.JoinHostPort(target.Hostname(), port))
	if err != nil {
		return []finding.Finding{finding.Failf(b.name, "start the receiver, or correct connection.host of the pool", "%s cannot be reached: %s", b.shown, explain(err))}
	}
	defer conn.Close()
	const rest = "whether it takes events shows with the first"
	if target.Scheme != "https" {
		return []finding.Finding{finding.Okf(b.name, "%s takes connections; %s", b.shown, rest)}
	}
	secured := tls.Client(conn, b.transfer.TLSClientConfig)
	if err := secured.HandshakeContext(ctx); err != nil {
		return []finding.Finding{finding.Failf(b.name, "correct the receiver's certificate, or connection.tls of the pool", "TLS with %s failed: %s", b.shown, explain(err))}
	}
	defer secured.Close()
	until := secured.ConnectionState().PeerCertificates[0].NotAfter
	if left := time.Until(until); left < expiresSoon {
		return []finding.Finding{finding.Warnf(b.name, "renew it", "the certificate of %s ends on %s", b.shown, until.UTC().Format(time.DateOnly))}
	}
	return []finding.Finding{finding.Okf(b.name, "%s takes TLS connections, its certificate is good until %s; %s", b.shown, until.UTC().Format(time.DateOnly), rest)}
}

// explain reduces a failure to what happened.
func explain(err error) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &dns):
		return "the name does not resolve"
	}
	return err.Error()
}

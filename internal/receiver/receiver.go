// Package receiver looks at the HTTP servers that take what we post.
package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"eventpusher/internal/finding"
)

// expiresSoon is from when on the end of a certificate is worth a word.
const expiresSoon = 14 * 24 * time.Hour

// Receiver is where requests go to.
type Receiver struct {
	Subject string // whom the findings are about
	Target  *url.URL
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)
	TLS     *tls.Config // for https
	// Proxy returns the proxy of a request as net/http's Transport asks for it; nil: none.
	Proxy func(*http.Request) (*url.URL, error)
	// Rest says what a probe cannot tell.
	Rest string
}

// Probe connects and, for https, makes the TLS handshake and checks the certificate as
// for a request. It sends none: RFC 9110 calls HEAD and OPTIONS safe, but a webhook
// is often a function that is called whatever the method is, and what it says to another
// method than POST proves nothing. So neither the path, which is not shown, nor the
// receiver's access control is tried.
func (r Receiver) Probe(ctx context.Context) finding.Finding {
	shown := (&url.URL{Scheme: r.Target.Scheme, Host: r.Target.Host}).String()
	if r.Proxy != nil {
		proxy, err := r.Proxy(&http.Request{URL: r.Target})
		if err != nil || proxy != nil {
			return r.throughProxy(ctx, shown, proxy, err)
		}
	}
	port := r.Target.Port()
	if port == "" {
		port = r.Target.Scheme // the name of a port as well
	}
	conn, err := r.Dial(ctx, "tcp", net.JoinHostPort(r.Target.Hostname(), port))
	if err != nil {
		return finding.Failf(r.Subject, "start the receiver, or correct its address (connection.host of a pool, url of a destination)", "%s cannot be reached: %s", shown, explain(err))
	}
	defer conn.Close()
	if r.Target.Scheme != "https" {
		return finding.Okf(r.Subject, "%s takes connections; %s", shown, r.Rest)
	}
	secured := tls.Client(conn, r.TLS)
	if err := secured.HandshakeContext(ctx); err != nil {
		return finding.Failf(r.Subject, "correct the receiver's certificate, or the tls section (connection.tls of a pool)", "TLS with %s failed: %s", shown, explain(err))
	}
	defer secured.Close()
	until := secured.ConnectionState().PeerCertificates[0].NotAfter
	if left := time.Until(until); left < expiresSoon {
		return finding.Warnf(r.Subject, "renew it", "the certificate of %s ends on %s", shown, until.UTC().Format(time.DateOnly))
	}
	return finding.Okf(r.Subject, "%s takes TLS connections, its certificate is good until %s; %s", shown, until.UTC().Format(time.DateOnly), r.Rest)
}

// throughProxy looks at the proxy alone.
func (r Receiver) throughProxy(ctx context.Context, shown string, proxy *url.URL, err error) finding.Finding {
	const remedy = "correct HTTPS_PROXY, HTTP_PROXY and NO_PROXY, or the destination's proxy"
	if err != nil {
		return finding.Failf(r.Subject, remedy, "%s goes by a proxy whose address is no URL", shown)
	}
	host, port := proxy.Hostname(), proxy.Port()
	if port == "" {
		port = proxy.Scheme
	}
	conn, err := r.Dial(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return finding.Failf(r.Subject, remedy, "%s goes by the proxy %s, which cannot be reached: %s", shown, host, explain(err))
	}
	conn.Close()
	return finding.Okf(r.Subject, "%s goes by the proxy %s, which takes connections; whether it lets them through, and %s", shown, host, r.Rest)
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

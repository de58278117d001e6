// Package provider is the HTTP client that all senders share: a bound on the
// requests under way, timeouts, and answers that are read no further than needed.
package provider

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/internal/finding"
	"eventpusher/internal/loopback"
	"eventpusher/internal/receiver"
	"eventpusher/internal/tlsconfig"
)

const (
	defaultConcurrency = 128
	defaultTimeout     = 10 * time.Second
	// maxAnswer is read of a body; no provider's verdict is longer.
	maxAnswer = 16 << 10
	maxHeader = 64 << 10
	// idleTimeout closes what nobody uses. Providers allow more, and dislike
	// connections that come and go.
	idleTimeout = 10 * time.Minute
	// pingAfter and pingTimeout find out that a quiet HTTP/2 connection is dead
	// before a request has to wait for it.
	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
)

// Options are the limits that every sender has.
type Options struct {
	// Concurrency is the number of requests under way at once; default 128. Calls
	// beyond it wait. Over HTTP/2 they share connections.
	Concurrency int
	// Timeout bounds each request, the time for connecting included; default 10 s.
	Timeout time.Duration
	// Connections is the number of connections to a host; default Concurrency. Small
	// for services that speak HTTP/2: it keeps a burst of first requests from opening
	// one each, and net/http still adds some when a host allows few streams on each.
	Connections int
}

// Client sends requests. It is safe for concurrent use.
type Client struct {
	transport *http.Transport
	tls       *tls.Config // for probes: net/http changes that of transport at the first request
	timeout   time.Duration
	places    chan struct{}
}

// Dial connects as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// New returns a client whose TLS options are t, for serverName, or for the host of
// each request when that is empty. A nil dial connects to any address, by the proxies of the
// environment. Behind another one they are not used: they would hide from it where a
// request goes.
func New(o Options, t *config.TLS, serverName string, dial Dial) (*Client, error) {
	tlsConfig, err := tlsconfig.Client(t, serverName)
	if err != nil {
		return nil, err
	}
	var proxy func(*http.Request) (*url.URL, error)
	if dial == nil {
		proxy = http.ProxyFromEnvironment
		dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	if o.Concurrency < 1 {
		o.Concurrency = defaultConcurrency
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Connections < 1 {
		o.Connections = o.Concurrency
	}
	c := &Client{tls: tlsConfig.Clone(), timeout: o.Timeout, places: make(chan struct{}, o.Concurrency)}
	c.transport = &http.Transport{
		Proxy:           proxy,
		DialContext:     dial,
		TLSClientConfig: tlsConfig,
		// With a dialer of one's own net/http asks for HTTP/2 only when told to.
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
		MaxConnsPerHost:     o.Connections,
		MaxIdleConns:        o.Concurrency,
		MaxIdleConnsPerHost: o.Connections,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true, // a small answer must not unpack to a large one
		// Endpoints of Web Push are anybody's; the default is 10 MiB.
		MaxResponseHeaderBytes: maxHeader,
	}
	return c, nil
}

// Timeout returns how long a request may take.
func (c *Client) Timeout() time.Duration { return c.timeout }

// Probe connects to target as for a request, and sends none. The finding is about
// subject.
func (c *Client) Probe(ctx context.Context, subject string, target *url.URL) finding.Finding {
	return receiver.Receiver{
		Subject: subject, Target: target, Dial: c.transport.DialContext, TLS: c.tls, Proxy: c.transport.Proxy,
		Rest: "whether it takes notifications shows with the first",
	}.Probe(ctx)
}

// Answer is what a provider said.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte // at most 16 KiB
	At     time.Time
}

// UserAgent is the header by which requests say whose they are.
const UserAgent = "eventpusher"

// Post sends body to target with the given headers, once there is a place. It adds User-Agent
// to them if they lack it.
// User and password of target are sent as they would be by a browser (RFC 7617). Redirects
// are answers like any other. An error means that there was no answer; it does not
// show target.
func (c *Client) Post(ctx context.Context, target *url.URL, header http.Header, body []byte) (*Answer, error) {
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-ctx.Done():
		return nil, fmt.Errorf("no place among %d requests: %w", cap(c.places), ctx.Err())
	}
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > c.timeout { // most callers have set it, and a second one costs
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	// net/http takes a request apart itself; as text its URL would be parsed again.
	req := (&http.Request{
		Method: http.MethodPost, URL: target, Host: target.Host, Header: header,
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		// Lets it repeat what a connection that is going away has not looked at
		// (GOAWAY, RFC 9113 section 6.8).
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}).WithContext(ctx)
	if header["User-Agent"] == nil {
		header["User-Agent"] = []string{UserAgent}
	}
	if u := target.User; u != nil {
		password, _ := u.Password()
		req.Header = header.Clone()
		req.SetBasicAuth(u.Username(), password)
	}
	resp, err := c.transport.RoundTrip(req) // an http.Client copies the headers, for redirects
	if err != nil {
		return nil, backends.WithoutURL(err)
	}
	defer resp.Body.Close()
	// Once the status is known it counts; a body that breaks off costs its details.
	return &Answer{Status: resp.StatusCode, Header: resp.Header, At: time.Now(), Body: readBody(resp)}, nil
}

// readBody reads the first 16 KiB of an answer's body. Most have none.
func readBody(resp *http.Response) []byte {
	var b bytes.Buffer
	if resp.ContentLength != 0 {
		_, _ = b.ReadFrom(io.LimitReader(resp.Body, maxAnswer)) // as said in Post
	}
	return b.Bytes()
}

// Err returns the answer's status as an error, with what the provider gave as the
// reason, of which only what is short and plain is shown.
func (a *Answer) Err(reason string) error {
	if reason = plain(reason); reason != "" {
		return fmt.Errorf("answered %d %s", a.Status, reason)
	}
	return fmt.Errorf("answered %d %s", a.Status, http.StatusText(a.Status))
}

// maxReason is enough for every documented reason, and too little for a request to be
// echoed in an error.
const maxReason = 64

// plain returns s if it is a word such as providers use for a reason, else "".
func plain(s string) string {
	if len(s) > maxReason {
		return ""
	}
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' {
			return ""
		}
	}
	return s
}

// Verdict classifies err by the answer's status, as backends.OfStatus.
func (a *Answer) Verdict(err error) error {
	return backends.OfStatus(a.Status, a.Header, a.At, err)
}

// Close releases the connections that are not in use.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// ParseBase returns the URL that requests are made under: base, or fallback when
// that is empty. It must be https, or http when it is this machine's own.
func ParseBase(base, fallback string) (*url.URL, error) {
	if base == "" {
		base = fallback
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !loopback.Host(u.Hostname())) {
		// It may hold a password, so that it is not shown.
		return nil, errors.New("must be https://name[:port], optionally with a path, and nothing else")
	}
	if u.Path == "" {
		u.Path = "/" // what is joined to an empty path would be relative
	}
	return u, nil
}

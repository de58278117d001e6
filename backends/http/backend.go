// Package http posts events to a webhook, by default in the form of MongooseIM's
// mod_event_pusher_http_defaults.
package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/backends/gather"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/loopback"
	"eventpusher/internal/tlsconfig"
	"eventpusher/internal/tracing"
)

const (
	defaultWorkers = 10
	defaultTimeout = 2 * time.Second
	// idleTimeout is shorter than the keep-alive of most servers, so that few
	// requests meet a connection that is being closed.
	idleTimeout = 55 * time.Second
	// maxDrain bounds what is read of a response to keep its connection.
	maxDrain = 64 << 10
	// maxHeader bounds the header of a response.
	maxHeader = 64 << 10
)

// Options are what one destination needs.
type Options struct {
	Name string
	// URL is where events are posted. It is never shown but for its scheme and host.
	URL     *url.URL
	Workers int           // requests at once; default 10
	Timeout time.Duration // of one request; default 2 s
	TLS     *config.TLS
	Choice  config.Choice
	// HTTP is what only [[destination]] has.
	HTTP config.HTTPDestination
}

// Backend posts events to one URL, one in each request or several as a batch.
type Backend struct {
	name     string
	chosen   form.Chosen
	headers  nethttp.Header // of each request
	tokens   *tokens        // nil without oauth2
	signer   signer
	limiter  *rate.Limiter // nil without a limit
	target   *url.URL
	shown    string // as errors may show it
	timeout  time.Duration
	limits   backends.Limits
	client   *nethttp.Client
	transfer *nethttp.Transport
	tls      *tls.Config // for probes: net/http changes that of transfer at the first request

	// Of batches.
	calls     *gather.Gatherer[item] // nil without
	batchType string
}

var _ backends.Backend = (*Backend)(nil)

// New returns the backend of a destination. It connects to nothing. The error says what is
// wrong with the options.
func New(o Options) (*Backend, error) {
	chosen, err := form.Choose(o.Choice, mongooseIM{}, usual)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	b := &Backend{
		name:    o.Name,
		chosen:  chosen,
		target:  o.URL,
		shown:   redact(o.URL),
		timeout: o.Timeout,
	}
	if b.timeout <= 0 {
		b.timeout = defaultTimeout
	}
	if o.Workers < 1 {
		o.Workers = defaultWorkers
	}
	b.limits = backends.Limits{Lanes: o.Workers, Batch: 1}
	if b.signer, err = newSigner(o.HTTP.SigningKeys); err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	if o.HTTP.RateLimit > 0 {
		b.limiter = rate.NewLimiter(rate.Limit(o.HTTP.RateLimit), max(1, o.HTTP.RateLimit/10))
	}
	b.headers = headersOf(&o.HTTP)
	b.transfer = &nethttp.Transport{
		Proxy:                  proxyOf(o.HTTP.Proxy),
		ForceAttemptHTTP2:      true,
		DialContext:            (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext,
		MaxConnsPerHost:        o.Workers,
		MaxIdleConns:           o.Workers,
		MaxIdleConnsPerHost:    o.Workers,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // answers are not read
	}
	if o.URL.Scheme == "https" {
		if b.transfer.TLSClientConfig, err = tlsconfig.Client(o.TLS, o.URL.Hostname()); err != nil {
			return nil, fmt.Errorf("http: %w", err)
		}
		b.tls = b.transfer.TLSClientConfig.Clone()
	}
	b.client = &nethttp.Client{
		Transport: b.transfer,
		// A redirect would turn the POST into a GET, or carry it to strangers.
		CheckRedirect: func(*nethttp.Request, []*nethttp.Request) error { return nethttp.ErrUseLastResponse },
	}
	if o.HTTP.OAuth2 != nil {
		if b.tokens, err = newTokens(o.HTTP.OAuth2, b.transfer, o.TLS); err != nil {
			return nil, fmt.Errorf("http: %w", err)
		}
	}
	if o.HTTP.BatchSize > 1 {
		err = b.batches(&o.HTTP)
	}
	return b, err
}

// headersOf returns the headers that are the same in each request.
func headersOf(o *config.HTTPDestination) nethttp.Header {
	h := nethttp.Header{"User-Agent": {"eventpusher"}}
	for _, own := range o.Headers {
		h.Set(own.Name, own.Value.Reveal())
	}
	if o.BearerToken != "" {
		h.Set("Authorization", "Bearer "+o.BearerToken.Reveal())
	}
	if o.Username != "" {
		credentials := o.Username + ":" + o.Password.Reveal()
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(credentials)))
	}
	return h
}

// proxyOf returns how a proxy is found. net/http asks for none on loopback.
func proxyOf(configured string) func(*nethttp.Request) (*url.URL, error) {
	switch configured {
	case "", config.ProxyEnvironment:
		return nethttp.ProxyFromEnvironment
	case config.ProxyNone:
		return nil
	}
	return func(req *nethttp.Request) (*url.URL, error) {
		if loopback.Host(req.URL.Hostname()) {
			return nil, nil
		}
		return url.Parse(configured)
	}
}

// Name implements backends.Backend.
func (b *Backend) Name() string { return b.name }

// Limits implements backends.Backend: as many lanes as there are workers, and more that
// bring events for batches.
func (b *Backend) Limits() backends.Limits { return b.limits }

// Wants implements backends.Backend.
func (b *Backend) Wants(e *event.Event) bool { return b.chosen.Wants(e) }

// Publish implements backends.Backend: one request for each event, in order, or batches.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	if b.calls != nil {
		return b.publishBatches(ctx, batch)
	}
	errs := make([]error, len(batch))
	for i := range batch {
		m, err := b.chosen.Form.Write(&batch[i])
		if err != nil {
			errs[i] = backends.Permanent(fmt.Errorf("http: %w", err))
			continue
		}
		errs[i] = b.post(ctx, batch[i].ID, tracing.Parent(batch[i].ID), &m)
	}
	return errs
}

// post sends one request with that id, which belongs to that trace or to none, and judges the
// answer.
func (b *Backend) post(ctx context.Context, id, parent string, m *form.Message) error {
	if b.limiter != nil {
		if err := b.limiter.Wait(ctx); err != nil {
			return backends.Wait(time.Second, fmt.Errorf("http: rate_limit: %w", err))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	req, err := b.request(ctx, id, m)
	if err != nil {
		return err
	}
	if parent != "" {
		req.Header.Set(tracing.Header, parent)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return fmt.Errorf("http: POST %s: %w", b.shown, backends.WithoutURL(err))
	}
	defer resp.Body.Close()
	// Once the status is known the verdict stands; a body that breaks off costs
	// only the connection.
	_, _ = io.CopyN(io.Discard, resp.Body, maxDrain)
	backends.Answer(ctx, func() string { return described(resp) })
	if resp.StatusCode == nethttp.StatusUnauthorized && b.tokens != nil && b.tokens.refused(req.Header.Get("Authorization")) {
		return wrapVerdict(b.shown, errors.New("answered 401 Unauthorized: another access token will be tried"))
	}
	if err := verdict(resp, time.Now()); err != nil {
		return wrapVerdict(b.shown, err)
	}
	return nil
}

// request makes the request of one attempt. Its errors are those of Publish.
func (b *Backend) request(ctx context.Context, id string, m *form.Message) (*nethttp.Request, error) {
	req, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, "", bytes.NewReader(m.Body))
	if err != nil {
		return nil, backends.Permanent(fmt.Errorf("http: POST %s: %w", b.shown, err))
	}
	req.URL, req.Host = b.target, b.target.Host // which need not be parsed again for each
	for name, values := range b.headers {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", m.ContentType)
	for _, a := range m.Attributes { // CloudEvents HTTP binding 1.0.2, section 3.1.3
		req.Header.Set("ce-"+a.Name, form.HeaderValue(a.Value))
	}
	// Named as in Standard Webhooks 1.0.0, where the id of an event stays the same
	// over all attempts.
	req.Header.Set("webhook-id", id)
	if len(b.signer) > 0 {
		timestamp, signatures := b.signer.sign(id, m.Body, time.Now())
		req.Header.Set("webhook-timestamp", timestamp)
		req.Header.Set("webhook-signature", signatures)
	}
	if epoch := backends.Epoch(ctx); epoch != 0 {
		req.Header.Set("eventpusher-epoch", strconv.FormatUint(epoch, 10))
	}
	if b.tokens != nil {
		authorization, err := b.tokens.authorization(ctx)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", authorization)
	}
	return req, nil
}

// Close implements backends.Backend.
func (b *Backend) Close() error {
	if b.calls != nil {
		b.calls.Close()
	}
	b.transfer.CloseIdleConnections()
	if b.tokens != nil {
		b.tokens.close()
	}
	return nil
}

// Package mongoosepush hands notifications to a MongoosePush server, with the requests
// of MongooseIM's mod_push_service_mongoosepush.
package mongoosepush

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/dataform"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/internal/finding"
)

// MongooseIM's defaults.
const (
	defaultVersion     = "v3"
	defaultConnections = 100
	defaultTimeout     = 2 * time.Second
)

// Client posts to one MongoosePush. It implements notify.Sender.
type Client struct {
	client  *provider.Client
	base    *url.URL // with the version
	version string
}

var _ notify.Sender = (*Client)(nil)

// New returns the client for the module's options and those of its pool. It connects
// to nothing.
func New(module config.MongoosePush, pool config.HTTPPool) (*Client, error) {
	base, err := baseURL(pool.Host, pool.PathPrefix)
	if err != nil {
		return nil, fmt.Errorf("mongoosepush: pool %s: %w", module.PoolName, err)
	}
	version := module.APIVersion
	if version == "" {
		version = defaultVersion
	}
	if version != "v2" && version != "v3" {
		return nil, fmt.Errorf("mongoosepush: api_version %q is neither v2 nor v3", version)
	}
	limits := provider.Options{Concurrency: module.MaxHTTPConnections, Timeout: pool.RequestTimeout}
	if limits.Concurrency < 1 {
		limits.Concurrency = defaultConnections
	}
	if limits.Timeout <= 0 {
		limits.Timeout = defaultTimeout
	}
	tls := pool.TLS
	if base.Scheme == "http" {
		tls = nil
	}
	client, err := provider.New(limits, tls, base.Hostname(), nil)
	if err != nil {
		return nil, fmt.Errorf("mongoosepush: pool %s: %w", module.PoolName, err)
	}
	return &Client{client: client, base: base.JoinPath(version, "notification"), version: version}, nil
}

// Send implements notify.Sender: it posts the summary of the notification's element
// (XEP-0357 section 8.1) to the device that registered with the target's options. The
// priority and the time to live are those of the registration, as in MongooseIM.
//
// The answers mean:
//
//	2xx                 nil
//	410                 dead; only v3 says so, v2 answers 500 for dead devices too
//	3xx, 401, 403       paused
//	408, 425, 429, 5xx  transient, after Retry-After where it is given
//	500 of v2           the same, and no evidence about other devices: this one may be dead
//	413                 too large
//	other 4xx           permanent: the API is another one, or a publish-option is wrong
//
// MongooseIM tries nothing twice.
func (c *Client) Send(ctx context.Context, t notify.Target, n notify.Notification) error {
	if err := c.send(ctx, &t, &n); err != nil {
		return fmt.Errorf("%v: %w", t, err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, t *notify.Target, n *notify.Notification) error {
	if t.Kind != notify.MongoosePush {
		return backends.Permanent(errors.New("not a device of mongoosepush"))
	}
	if _, _, err := n.Expiry(time.Now()); err != nil {
		return backends.Permanent(err)
	}
	read, err := notify.ReadElement(n.Element)
	if err != nil {
		return backends.Permanent(errors.New("the notification is no XML"))
	}
	summary := make([]notify.Field, 0, len(read.Form.Fields))
	for _, f := range read.Form.Fields {
		if len(f.Values) > 0 && f.Name != dataform.FormType {
			summary = append(summary, notify.Field{Name: f.Name, Value: f.Values[0]})
		}
	}
	return c.publish(ctx, t.Address.Reveal(), t.Options, summary)
}

// headers are those of all requests, which share them.
var headers = http.Header{"Content-Type": {"application/json"}, "User-Agent": {provider.UserAgent}}

func (c *Client) publish(ctx context.Context, deviceID string, options, summary []notify.Field) error {
	target, err := c.target(deviceID)
	if err != nil {
		return backends.Permanent(err)
	}
	text, err := body(options, summary)
	if err != nil {
		return backends.Permanent(err)
	}
	header := headers
	if epoch := backends.Epoch(ctx); epoch != 0 {
		header = headers.Clone()
		header.Set("eventpusher-epoch", strconv.FormatUint(epoch, 10))
	}
	answer, err := c.client.Post(ctx, target, header, text)
	if err != nil {
		return err
	}
	return c.verdict(answer)
}

// target returns the URL of a device.
func (c *Client) target(deviceID string) (*url.URL, error) {
	segment, err := pathOf(deviceID)
	if err != nil {
		return nil, err
	}
	u := *c.base
	u.Path += "/" + deviceID
	if segment != deviceID || u.RawPath != "" {
		u.RawPath = c.base.EscapedPath() + "/" + segment
	}
	return &u, nil
}

func (c *Client) verdict(a *provider.Answer) error {
	err := a.Err("")
	switch {
	case a.Status == http.StatusGone:
		return &notify.DeadError{Err: err}
	case a.Status >= 300 && a.Status <= 399:
		err = fmt.Errorf("%w; redirects are not followed: set the pool's host and path_prefix to the final address", err)
	case a.Status == http.StatusUnauthorized, a.Status == http.StatusForbidden:
		err = fmt.Errorf("%w: MongoosePush refuses our access; check what stands before it", err)
	case a.Status == http.StatusNotFound:
		err = fmt.Errorf("%w: check path_prefix, and whether it speaks %s", err, c.version)
	}
	verdict := a.Verdict(err)
	if a.Status == http.StatusInternalServerError && c.version == "v2" {
		return backends.Elsewhere(verdict)
	}
	return verdict
}

// Timeout returns how long Send may take, once it has a place among the requests.
func (c *Client) Timeout() time.Duration { return c.client.Timeout() }

// Probe connects to MongoosePush and sends no request. The finding is about subject.
func (c *Client) Probe(ctx context.Context, subject string) []finding.Finding {
	return []finding.Finding{c.client.Probe(ctx, subject, c.base)}
}

// Close releases the connections that are not in use.
func (c *Client) Close() error {
	c.client.Close()
	return nil
}

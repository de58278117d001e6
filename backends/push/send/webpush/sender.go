// Package webpush delivers notifications to browsers and to UnifiedPush distributors:
// Web Push (RFC 8030) with message encryption (RFC 8291) and VAPID (RFC 8292).
package webpush

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
	"eventpusher/config"
)

const (
	defaultConcurrency = 128
	defaultPadding     = 256
	// maxTTL is what the large push services keep a message for at most.
	maxTTL = 28 * 24 * time.Hour
	// connections to one push service. Those that speak HTTP/2, as all large ones do,
	// need no more than one.
	connections = 8
	// maxTopic is the limit of RFC 8030 section 5.4.
	maxTopic = 32
)

// Options configure a Sender.
type Options struct {
	// VAPID identifies the sender. Browsers demand it; without it only UnifiedPush
	// works, and not with every distributor.
	VAPID *VAPID
	// Guard decides where requests may go; default: the public Internet only.
	Guard *Guard
	// Padding hides the length of messages: plaintexts are padded to a multiple of
	// these bytes; default 256, 1 for none.
	Padding int

	Concurrency int           // requests at once; default 128
	Timeout     time.Duration // of each; default 10 s

	CACertFile string // authorities to trust instead of the system's
}

// Sender sends to the endpoints of subscriptions. It implements notify.Sender.
type Sender struct {
	client  *provider.Client
	guard   *Guard
	vapid   *VAPID
	padding int
}

var _ notify.Sender = (*Sender)(nil)

// New returns a sender. It connects to nothing.
func New(o Options) (*Sender, error) {
	if o.Guard == nil {
		var err error
		if o.Guard, err = NewGuard(nil, nil); err != nil {
			return nil, err
		}
	}
	if o.Padding < 0 || o.Padding > maxPlaintext {
		return nil, fmt.Errorf("webpush: padding %d must be between 1 and %d bytes", o.Padding, maxPlaintext)
	}
	if o.Padding == 0 {
		o.Padding = defaultPadding
	}
	if o.Concurrency < 1 {
		o.Concurrency = defaultConcurrency
	}
	limits := provider.Options{Concurrency: o.Concurrency, Timeout: o.Timeout, Connections: connections}
	client, err := provider.New(limits, &config.TLS{CACertFile: o.CACertFile}, "", o.Guard.DialContext)
	if err != nil {
		return nil, provider.WrongOption("cacertfile", fmt.Errorf("webpush: %w", err))
	}
	return &Sender{
		client: client, guard: o.Guard, vapid: o.VAPID, padding: o.Padding,
	}, nil
}

// Check says whether a subscription may be registered: ErrKeys says no because of its
// keys, and for its endpoint the error is that of Guard.Check.
func (s *Sender) Check(ctx context.Context, t notify.Target) error {
	if _, err := parseReceiver(&t); err != nil {
		return err
	}
	return s.guard.Check(ctx, t.Address.Reveal())
}

// Send implements notify.Sender. The plaintext is the notification's Summary as one
// JSON object with texts as values.
//
// The answers mean:
//
//	2xx            nil; RFC 8030 has 201, some services answer 200, 202 or 204
//	404, 410       dead (RFC 8030 section 7.3)
//	413            too large
//	429            after Retry-After, else 30 seconds
//	408, 425, 5xx  transient, after Retry-After where it is given
//	401, 403       permanent: the subscription was made for another VAPID key, or the service
//	               does not like the subject (Apple: BadJwtToken)
//	3xx            permanent: redirects are not followed, they could lead inside
//	other 4xx      permanent
//
// Nothing pauses the sender as a whole: any user's own push service could do that.
func (s *Sender) Send(ctx context.Context, t notify.Target, n notify.Notification) error {
	if err := s.send(ctx, &t, &n); err != nil {
		return fmt.Errorf("%v: %w", t, err)
	}
	return nil
}

func (s *Sender) send(ctx context.Context, t *notify.Target, n *notify.Notification) error {
	if t.Kind != notify.WebPush {
		return backends.Permanent(errors.New("not a subscription of Web Push"))
	}
	to, err := parseReceiver(t)
	if err != nil {
		return &notify.DeadError{Err: err}
	}
	endpoint, err := s.guard.parse(t.Address.Reveal())
	if err != nil {
		return backends.Permanent(err)
	}
	now, origin := time.Now(), originOf(endpoint)
	header, err := s.header(n, origin, now)
	if err != nil {
		return err
	}
	plaintext, err := notify.Fit(*n, maxPlaintext, func(n *notify.Notification) ([]byte, error) {
		return provider.JSON(n.Summary())
	})
	if err != nil {
		return backends.Permanent(err)
	}
	body, err := to.encrypt(plaintext, padding(len(plaintext), s.padding))
	if err != nil {
		return backends.Permanent(fmt.Errorf("encrypt: %w", err))
	}
	return s.post(ctx, endpoint, origin, header, body)
}

func (s *Sender) header(n *notify.Notification, origin string, now time.Time) (http.Header, error) {
	_, left, err := n.Expiry(now)
	if err != nil {
		return nil, backends.Permanent(err)
	}
	urgency := "normal"
	switch {
	case n.Silent:
		urgency = "low"
	case n.Priority == notify.High:
		urgency = "high"
	}
	h := http.Header{
		"Content-Type":     {"application/octet-stream"},
		"Content-Encoding": {"aes128gcm"},
		// By its canonical name; RFC 8030 writes TTL.
		"Ttl":     {strconv.FormatInt(int64(min(left, maxTTL)/time.Second), 10)},
		"Urgency": {urgency},
	}
	if n.CollapseID != "" {
		h["Topic"] = []string{n.CollapseKey(maxTopic)}
	}
	if s.vapid != nil {
		authorization, err := s.vapid.authorization(origin, now)
		if err != nil {
			return nil, backends.Paused(err)
		}
		h["Authorization"] = []string{authorization}
	}
	return h, nil
}

func (s *Sender) post(ctx context.Context, endpoint *url.URL, origin string, h http.Header, body []byte) error {
	answer, err := s.client.Post(ctx, endpoint, h, body)
	if errors.Is(err, ErrEndpoint) {
		return backends.Permanent(err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	if err = verdict(answer); err != nil {
		return fmt.Errorf("%s: %w", origin, err)
	}
	return nil
}

// Close releases the connections that are not in use.
func (s *Sender) Close() error {
	s.client.Close()
	return nil
}

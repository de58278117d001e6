// Package fcm delivers notifications through Firebase Cloud Messaging, by the HTTP v1
// API with a service account.
package fcm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
	"eventpusher/config"
)

const service = "https://fcm.googleapis.com"

// connections are more than enough: each carries hundreds of requests at once.
const connections = 4

// Options configure a Sender.
type Options struct {
	// ServiceAccount is the content of the account's JSON file; required. It names the
	// project, and needs the role that may send messages.
	ServiceAccount config.Secret
	// DataOnly sends everything as data for the application to show. Else Android
	// shows title and body itself while the application is in the background, and only
	// silent notifications are data alone.
	DataOnly    bool
	ChannelID   string // Android's notification channel; empty: the application's default
	ClickAction string // what a tap opens; empty: the application
	Sound       string // default "default"
	LocKey      string // names the application's text in place of notify.GenericBody; empty: that text

	Concurrency int           // requests at once; default 128
	Timeout     time.Duration // of each; default 10 s

	URL string      // instead of Google's, with https
	TLS *config.TLS // default: the system's authorities
}

// Sender sends to the devices of one Firebase project. It implements notify.Sender.
type Sender struct {
	client   *provider.Client
	account  *account
	target   *url.URL
	dataOnly bool
	channel  string
	click    string
	sound    string
	locKey   string
}

var _ notify.Sender = (*Sender)(nil)

// New returns a sender. It connects to nothing.
func New(o Options) (*Sender, error) {
	base, err := provider.ParseBase(o.URL, service)
	if err != nil {
		return nil, provider.WrongOption("url", fmt.Errorf("fcm: url %w", err))
	}
	limits := provider.Options{Concurrency: o.Concurrency, Timeout: o.Timeout, Connections: connections}
	client, err := provider.New(limits, o.TLS, base.Hostname(), nil)
	if err != nil {
		return nil, provider.WrongOption("cacertfile", fmt.Errorf("fcm: %w", err))
	}
	account, err := parseAccount(o.ServiceAccount, provider.Options{Concurrency: 1, Timeout: o.Timeout}, o.TLS)
	if err != nil {
		return nil, provider.WrongOption("credentials", fmt.Errorf("fcm: %w", err))
	}
	s := &Sender{
		client: client, account: account,
		target:   base.JoinPath("v1", "projects", account.project, "messages:send"),
		dataOnly: o.DataOnly, channel: o.ChannelID, click: o.ClickAction, sound: o.Sound, locKey: o.LocKey,
	}
	if s.sound == "" {
		s.sound = "default"
	}
	return s, nil
}

// Send implements notify.Sender.
//
// The answers mean:
//
//	200                            nil
//	400 INVALID_ARGUMENT           dead when the registration token is named as the cause,
//	                               else permanent: a defect of ours, or of data that is configured
//	401 UNAUTHENTICATED            once more with another access token, then paused
//	401 THIRD_PARTY_AUTH_ERROR     permanent: the project lacks the key for Apple or Web Push, while
//	                               Android goes on
//	403 SENDER_ID_MISMATCH         permanent: the token belongs to another project. It stays, since a
//	                               service account of the wrong project would make all tokens look so
//	403 others                     paused: the account may not send, or the API is off
//	404 UNREGISTERED               dead
//	404 others                     permanent: no such project
//	413                            too large
//	429 QUOTA_EXCEEDED and others  after Retry-After, at least a minute: the project's or the device's rate
//	503 UNAVAILABLE                after Retry-After, else 10 seconds
//	500 INTERNAL and others        transient
func (s *Sender) Send(ctx context.Context, t notify.Target, n notify.Notification) error {
	if err := s.send(ctx, &t, &n); err != nil {
		return fmt.Errorf("%v: %w", t, err)
	}
	return nil
}

func (s *Sender) send(ctx context.Context, t *notify.Target, n *notify.Notification) error {
	if t.Kind != notify.FCM {
		return backends.Permanent(errors.New("not a device of fcm"))
	}
	if t.Address == "" {
		return &notify.DeadError{Err: errors.New("the registration token is empty")}
	}
	body, err := s.request(t, n)
	if err != nil {
		return backends.Permanent(err)
	}
	access, err := s.account.access(ctx, "")
	if err != nil {
		return err
	}
	answer, err := s.post(ctx, access, body)
	if err != nil {
		return err
	}
	if answer.Status == http.StatusUnauthorized && answer.code != "THIRD_PARTY_AUTH_ERROR" {
		// Revoked before its time, which another token can set right.
		if access, err = s.account.access(ctx, access); err != nil {
			return err
		}
		if answer, err = s.post(ctx, access, body); err != nil {
			return err
		}
	}
	return answer.verdict()
}

// request encodes n for t within the limit, to which the token does not count.
func (s *Sender) request(t *notify.Target, n *notify.Notification) ([]byte, error) {
	at, left, err := n.Expiry(time.Now())
	if err != nil {
		return nil, err
	}
	var fitting *message
	if _, err := notify.Fit(*n, maxMessage, func(n *notify.Notification) ([]byte, error) {
		var err error
		if fitting, err = s.message(n, left, at); err != nil {
			return nil, err
		}
		return fitting.encode("")
	}); err != nil {
		return nil, err
	}
	return fitting.encode(t.Address.Reveal())
}

func (s *Sender) post(ctx context.Context, access string, body []byte) (*answer, error) {
	header := http.Header{
		"Authorization": {"Bearer " + access},
		"Content-Type":  {"application/json"},
	}
	got, err := s.client.Post(ctx, s.target, header, body)
	if err != nil {
		return nil, err
	}
	return read(got), nil
}

// Close releases the connections that are not in use.
func (s *Sender) Close() error {
	s.client.Close()
	s.account.client.Close()
	return nil
}

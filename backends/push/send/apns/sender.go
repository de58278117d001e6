// Package apns delivers notifications to Apple devices through the Apple Push
// Notification service: HTTP/2, authenticated by provider tokens.
package apns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
	"eventpusher/config"
)

// Apple's services.
const (
	production = "https://api.push.apple.com"
	sandbox    = "https://api.sandbox.push.apple.com"
)

// connections are more than enough: each carries hundreds of requests at once.
const connections = 4

// Options configure a Sender.
type Options struct {
	// Key signs; required. Share it between the senders of an account.
	Key *Key
	// Sandbox chooses the service for builds that a developer's machine installed.
	// A token is good for one of the services only: see notify.Target.
	Sandbox bool
	// Topics are the bundle ids that may be sent to; required. The first is that of
	// targets without a topic. One that ends in .voip gets calls alone: iOS ends an
	// application that does not show a call for each notification there.
	Topics []string

	Sound          string // of what is shown; default "default"
	Category       string // of what is shown, for its actions; empty: none
	Interruption   string // interruption-level of what is shown; empty: Apple's
	LocKey         string // names the application's text in place of notify.GenericBody; empty: that text
	MutableContent bool   // lets a service extension of the application change it

	Concurrency int           // requests at once; default 128
	Timeout     time.Duration // of each; default 10 s

	URL string      // instead of Apple's, with https
	TLS *config.TLS // default: the system's authorities
}

// Sender sends to one of Apple's services. It implements notify.Sender.
type Sender struct {
	client   *provider.Client
	base     *url.URL
	key      *Key
	sandbox  bool
	topics   []string
	sound    string
	category string
	level    string
	locKey   string
	mutable  bool
}

var _ notify.Sender = (*Sender)(nil)

// New returns a sender. It connects to nothing.
func New(o Options) (*Sender, error) {
	if o.Key == nil {
		return nil, errors.New("apns: no key")
	}
	if len(o.Topics) == 0 || slices.Contains(o.Topics, "") {
		return nil, provider.WrongOption("topics", errors.New("apns: topics must name the bundle id of each application"))
	}
	fallback := production
	if o.Sandbox {
		fallback = sandbox
	}
	base, err := provider.ParseBase(o.URL, fallback)
	if err != nil {
		return nil, provider.WrongOption("url", fmt.Errorf("apns: url %w", err))
	}
	limits := provider.Options{Concurrency: o.Concurrency, Timeout: o.Timeout, Connections: connections}
	client, err := provider.New(limits, o.TLS, base.Hostname(), nil)
	if err != nil {
		return nil, provider.WrongOption("cacertfile", fmt.Errorf("apns: %w", err))
	}
	s := &Sender{
		client: client, base: base, key: o.Key, sandbox: o.Sandbox, topics: slices.Clone(o.Topics),
		sound: o.Sound, category: o.Category, level: o.Interruption, locKey: o.LocKey, mutable: o.MutableContent,
	}
	if s.sound == "" {
		s.sound = "default"
	}
	return s, nil
}

// Send implements notify.Sender. The event's id goes along as apns-id.
//
// The answers mean:
//
//	200                                  nil
//	400 BadDeviceToken                   dead, doubtful: also said to the other service's tokens
//	400 DeviceTokenNotForTopic           dead, doubtful: also said when topics name another application
//	400 TopicDisallowed, BadTopic,
//	    MissingTopic                     permanent: the key's account does not own the topic
//	400 IdleTimeout                      transient
//	400 others                           permanent: a defect of ours, or of data that is configured
//	403 ExpiredProviderToken             once more with another token, then paused
//	403 others                           paused: key id, team id, key or its environment are wrong
//	404 BadPath, 405 MethodNotAllowed    permanent
//	410 Unregistered, ExpiredToken       dead, since the timestamp
//	410 without such a reason            permanent: not from Apple
//	413 PayloadTooLarge                  too large
//	429 TooManyRequests                  transient: too many for this device
//	429 TooManyProviderTokenUpdates      after 5 minutes: others use the key as well
//	500, 503                             transient
//
// Retry-After counts wherever the result is transient.
func (s *Sender) Send(ctx context.Context, t notify.Target, n notify.Notification) error {
	if err := s.send(ctx, &t, &n); err != nil {
		return fmt.Errorf("%v: %w", t, err)
	}
	return nil
}

func (s *Sender) send(ctx context.Context, t *notify.Target, n *notify.Notification) error {
	if t.Kind != notify.APNs {
		return backends.Permanent(errors.New("not a device of apns"))
	}
	if t.Sandbox != s.sandbox {
		// Apple would call the token bad, and it would be thought dead.
		return backends.Permanent(errors.New("a device of Apple's other service (sandbox or production)"))
	}
	token := t.Address.Reveal()
	if !IsToken(token) {
		return &notify.DeadError{Err: errors.New("the device token is not hexadecimal")}
	}
	topic := t.Topic
	if topic == "" {
		topic = s.topics[0]
	} else if !slices.Contains(s.topics, topic) {
		// A registration says what it likes; Apple would hold it against the key.
		return backends.Permanent(errors.New("its topic is not among the topics that are configured"))
	}
	if strings.HasSuffix(topic, callTopic) && !n.Call {
		return backends.Permanent(errors.New("no call, for a topic of calls"))
	}
	header, body, err := s.request(n, topic)
	if err != nil {
		return err
	}
	target := s.base.JoinPath("3", "device", token)
	provided, err := s.key.current()
	if err != nil {
		return backends.Paused(err)
	}
	answer, err := s.post(ctx, target, header, provided, body)
	if err != nil {
		return err
	}
	if answer.reason == "ExpiredProviderToken" {
		if provided, err = s.key.afterExpiry(provided); err != nil {
			return backends.Paused(err)
		}
		if answer, err = s.post(ctx, target, header, provided, body); err != nil {
			return err
		}
	}
	return answer.verdict()
}

// request returns what does not depend on the provider token.
func (s *Sender) request(n *notify.Notification, topic string) (http.Header, []byte, error) {
	pushType, limit, priority := typeAlert, maxPayload, "5"
	switch {
	case strings.HasSuffix(topic, callTopic):
		pushType, limit, priority = typeVoIP, maxVoIPPayload, "10"
	case n.Silent:
		pushType = typeBackground // which Apple takes with priority 5 only
	case n.Priority == notify.High:
		priority = "10"
	}
	at, left, err := n.Expiry(time.Now())
	if err != nil {
		return nil, nil, backends.Permanent(err)
	}
	expiration := "0"
	if left > 0 {
		expiration = strconv.FormatInt(at.Unix(), 10)
	}
	body, err := notify.Fit(*n, limit, func(n *notify.Notification) ([]byte, error) { return s.payload(n, pushType) })
	if err != nil {
		return nil, nil, backends.Permanent(err)
	}
	header := http.Header{
		"Content-Type":    {"application/json"},
		"Apns-Topic":      {topic},
		"Apns-Push-Type":  {pushType},
		"Apns-Priority":   {priority},
		"Apns-Expiration": {expiration},
		"Apns-Id":         {uuid(n.ID)},
	}
	if n.CollapseID != "" && pushType == typeAlert {
		header["Apns-Collapse-Id"] = []string{n.CollapseKey(maxCollapseKey)}
	}
	return header, body, nil
}

func (s *Sender) post(ctx context.Context, target *url.URL, header http.Header, token string, body []byte) (*answer, error) {
	header = header.Clone() // net/http may still read the last one's
	header["Authorization"] = []string{"bearer " + token}
	got, err := s.client.Post(ctx, target, header, body)
	if err != nil {
		return nil, err
	}
	a := &answer{Answer: got}
	if got.Status != http.StatusOK {
		var says struct {
			Reason    string `json:"reason"`
			Timestamp int64  `json:"timestamp"`
		}
		if json.Unmarshal(got.Body, &says) == nil {
			a.reason, a.timestamp = says.Reason, says.Timestamp
		}
	}
	return a, nil
}

// callTopic ends the topics of calls.
const callTopic = ".voip"

// OnlyCalls reports whether a target is notified of nothing but calls.
func OnlyCalls(t *notify.Target) bool {
	return t.Kind == notify.APNs && strings.HasSuffix(t.Topic, callTopic)
}

// maxToken bounds tokens. Apple's have 64 digits today; it allows itself up to 100
// bytes.
const maxToken = 200

// IsToken reports whether s has the form of a device token.
func IsToken(s string) bool {
	for i := range len(s) {
		if b := s[i]; (b < '0' || b > '9') && (b < 'a' || b > 'f') && (b < 'A' || b > 'F') {
			return false
		}
	}
	return s != "" && len(s) <= maxToken
}

// Close releases the connections that are not in use.
func (s *Sender) Close() error {
	s.client.Close()
	return nil
}

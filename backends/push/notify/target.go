package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"time"

	"eventpusher/backends"
	"eventpusher/config"
)

// Kind names the provider of a target, as stores and metrics write it.
type Kind string

// The kinds.
const (
	APNs         Kind = "apns"
	FCM          Kind = "fcm"
	WebPush      Kind = "webpush" // UnifiedPush too
	MongoosePush Kind = "mongoosepush"
	XMPP         Kind = "xmpp" // a push service of the XMPP network
)

// Target is one registration: a device as its provider knows it. Whoever has it can
// annoy the user, so that it prints as its fingerprint, never itself; as JSON its
// secrets are hidden, so that stores write them one by one.
type Target struct {
	Kind Kind
	// Address is the device token (apns), the registration token (fcm), the endpoint
	// (webpush), the device id (mongoosepush), or the JID of the push service (xmpp).
	Address config.Secret
	// Node is the device's name at the push service, for xmpp only.
	Node string
	// Topic is the bundle id, for apns only; empty means the sender's first.
	Topic string
	// Sandbox says that a development build registered, for apns only: its token is
	// good for Apple's sandbox and nowhere else.
	Sandbox bool
	// P256DH and Auth are the keys of a Web Push subscription, base64url as browsers
	// hand them out (RFC 8291 section 2).
	P256DH string
	Auth   config.Secret
	// Options are the publish-options of the registration, for mongoosepush and xmpp.
	Options []Field
}

// Fingerprint returns 12 characters that tell targets apart in logs and errors.
func (t *Target) Fingerprint() string {
	digest := sha256.Sum256([]byte(t.Address.Reveal()))
	return hex.EncodeToString(digest[:6])
}

// String returns kind and fingerprint.
func (t Target) String() string { return string(t.Kind) + ":" + t.Fingerprint() }

// Format writes String for every verb, so that no way of printing shows options.
func (t Target) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, t.String()) }

// LogValue is String, for log/slog.
func (t Target) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Sender delivers notifications through one provider.
//
// Send is safe for concurrent use. It blocks until the provider has answered, its own
// timeout has passed or ctx ends. It repeats nothing but a request that only lacked a
// fresh access token. A target of another kind and a notification that has outlived its
// TTL are permanent errors. The errors are those of package backends; Reason tells them
// apart:
//
//	nil          the provider has taken it, which is no promise of delivery
//	gone         the registration is dead: a *DeadError says since when and how surely
//	retry_after  the provider asked for a pause
//	permanent    this notification will never be taken; the registration stays
//	too_large    the same, because of its size
//	paused       our access is refused: nothing gets through before an operator acts
//	timeout      no answer in time; the provider may have taken it
//	transient    anything else, such as a connection that broke
//
// What is not permanent and yet says nothing of other targets is a *backends.ElsewhereError.
// No error shows a token, an endpoint's path or a text of the notification.
type Sender interface {
	Send(ctx context.Context, t Target, n Notification) error
}

// DeadError says that a registration is dead. errors.Is finds backends.ErrGone in it.
type DeadError struct {
	// Since is when the provider noticed, or zero when it does not say: a registration
	// that was renewed later is alive.
	Since time.Time
	// Doubtful means that the provider answers the same when we are the ones who are
	// set up wrongly, as with the sandbox's tokens in production. When many targets of
	// a sender die so and none succeeds, they should be kept.
	Doubtful bool
	Err      error // the provider's answer
}

// Error returns what the cause says, and what follows.
func (e *DeadError) Error() string { return fmt.Sprintf("%v: %v", e.Err, backends.ErrGone) }

// Unwrap returns the cause and backends.ErrGone.
func (e *DeadError) Unwrap() []error { return []error{e.Err, backends.ErrGone} }

// Package notify says what a push notification is, whom it is for and what became
// of it. One package beside it implements each provider.
package notify

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Notification is what one device is to be told about one event. It is a value:
// senders change nothing in it.
//
// Its texts leave the operator's systems. What must not, is taken out before:
// see Redacted.
type Notification struct {
	// ID is the event's id, the same over all attempts, so that providers and
	// applications can recognise a repetition.
	ID string
	// Time is when the event happened, and TTL how long after it the notification is
	// still worth delivering. A TTL of 0 means now or never: a provider that cannot
	// reach the device at once forgets it. A zero Time counts from the attempt.
	Time time.Time
	TTL  time.Duration

	Title  string // shown first; may be empty
	Body   string // shown below; may be empty
	Sender string // the sender's JID, for the application to find the conversation
	// Thread names the conversation, so that devices group what belongs together.
	// Providers can read it: it is an opaque id and not a JID.
	Thread string
	// Badge is the number beside the application's icon over all conversations:
	// nil leaves it as it is, 0 takes it away.
	Badge *int
	// MessageCount is the number of unread messages of the conversation, the
	// message-count of XEP-0357; 0 when nobody counts.
	MessageCount int

	Priority Priority
	// Call says that somebody is calling. Only such notifications go to applications that
	// show each one as a call.
	Call bool
	// Silent wakes the application without showing anything. Providers hold such
	// notifications back more than others, however high their priority.
	Silent bool
	// Sealed says that the application has to decrypt Data before it shows something.
	Sealed bool
	// CollapseID replaces an earlier notification of the same id that the device has
	// not shown yet; empty replaces none. Any text will do: see CollapseKey.
	CollapseID string
	// Data is what the application gets besides: flat, sent in the order of its keys.
	// A key of Summary takes the summary's place.
	Data map[string]string

	// Element is the notification element for a push service (see Element). It is all that
	// the senders of kind xmpp and mongoosepush send.
	Element string
}

const (
	// NS is the namespace of push notifications (XEP-0357).
	NS = "urn:xmpp:push:0"
	// NSPubSub is the namespace of the requests that publish them (XEP-0060).
	NSPubSub = "http://jabber.org/protocol/pubsub"
	// FormOptions is the FORM_TYPE of publish-options (XEP-0060 section 7.1.5).
	FormOptions = NSPubSub + "#publish-options"
)

// Field is one field of a form (XEP-0004).
type Field struct{ Name, Value string }

// Value returns the value of the field of that name, empty if there is none.
func Value(fields []Field, name string) string {
	for i := range fields {
		if fields[i].Name == name {
			return fields[i].Value
		}
	}
	return ""
}

// Priority says whether a device may be woken at once.
type Priority uint8

// Normal lets the provider wait for a moment that saves power; High does not, and
// is for what the user sees.
const (
	Normal Priority = iota
	High
)

// Content says how much of a message a notification may carry.
type Content string

// The content modes, as the configuration names them. The text of an encrypted message
// never leaves.
const (
	ContentNone   Content = "none"   // that something has come
	ContentSender Content = "sender" // who has written
	ContentBody   Content = "body"   // what was written
)

// GenericBody stands for a body that is not told. Services such as MongoosePush insist on
// one.
const GenericBody = "New message"

// ErrExpired says that a notification has outlived its TTL. Senders return it as
// permanent.
var ErrExpired = errors.New("notification has expired")

// Redacted returns n without what content mode c keeps back: without a body in mode
// sender, and in mode none without title and sender too, with generic as the title.
// Data and the ids stay, since only the caller knows what they say.
func (n Notification) Redacted(c Content, generic string) Notification {
	if c != ContentBody {
		n.Body = ""
	}
	if c == ContentNone {
		n.Title, n.Sender = generic, ""
	}
	return n
}

// Expiry returns the time after which nobody needs the notification any more and
// what is left until then: 0 means now or never. The error is ErrExpired when a TTL
// has passed.
func (n *Notification) Expiry(now time.Time) (at time.Time, left time.Duration, err error) {
	start := n.Time
	if start.IsZero() {
		start = now
	}
	if n.TTL <= 0 {
		return now, 0, nil
	}
	at = start.Add(n.TTL)
	if left = at.Sub(now); left <= 0 {
		return at, 0, ErrExpired
	}
	return at, left, nil
}

// The keys of Summary. Those of XEP-0357 section 8.1 are what MongooseIM sends.
const (
	KeyMessageCount = "message-count"
	KeySender       = "last-message-sender"
	KeyBody         = "last-message-body"
	KeyEventID      = "event-id"
	KeyThread       = "thread"
	KeyTitle        = "title"
	KeyBadge        = "badge"
)

// The keys of Data for what was encrypted, as Siskin reads them: the text and its nonce in
// base64, and whose key it is.
const (
	KeyEncrypted = "encrypted"
	KeyIV        = "iv"
	KeyAccount   = "account"
)

// Summary returns the notification as fields for an application that shows it by
// itself: those that are not empty, and then Data. The map is the caller's.
func (n *Notification) Summary() map[string]string {
	fields := make(map[string]string, 7+len(n.Data))
	for _, f := range [...]struct{ key, value string }{
		{KeyTitle, n.Title}, {KeySender, n.Sender}, {KeyBody, n.Body}, {KeyThread, n.Thread}, {KeyEventID, n.ID},
	} {
		if f.value != "" {
			fields[f.key] = f.value
		}
	}
	if n.MessageCount > 0 {
		fields[KeyMessageCount] = strconv.Itoa(n.MessageCount)
	}
	if n.Badge != nil {
		fields[KeyBadge] = strconv.Itoa(*n.Badge)
	}
	maps.Copy(fields, n.Data)
	return fields
}

// CollapseKey returns CollapseID as one of at most limit characters that every
// provider takes (A-Z a-z 0-9 - _): as it is if it is one, else its digest. limit is
// between 1 and 43; keys of fewer than 22 characters may meet by chance.
func (n *Notification) CollapseKey(limit int) string {
	if len(n.CollapseID) <= limit && !slices.ContainsFunc([]byte(n.CollapseID), notInKeys) {
		return n.CollapseID
	}
	digest := sha256.Sum256([]byte(n.CollapseID))
	return base64.RawURLEncoding.EncodeToString(digest[:])[:limit]
}

func notInKeys(b byte) bool {
	return (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') && (b < '0' || b > '9') && b != '-' && b != '_'
}

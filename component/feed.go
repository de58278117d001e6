package component

import (
	"time"

	"eventpusher/internal/jid"
)

// Position is a place in the sequence of a source of the event-feed; see
// docs/feed-protocol.md.
type Position struct {
	Source, Epoch string
	Seq           uint64
}

// MaxUndecodable is how many bytes of a stanza that cannot be decoded are handed over
// at most.
const MaxUndecodable = 64 << 10

// Undecodable is a message or presence that cannot be decoded, or an event of the
// event-feed that does not hold what its kind needs.
type Undecodable struct {
	// At is the event's place, nil for what did not come by the event-feed.
	At *Position
	// User is whom the event was about, empty as At is nil.
	User jid.JID
	// From and To are the addresses of the element as the server delivered it, empty
	// where they lie behind the damage.
	From, To jid.JID
	// Element is message or presence.
	Element string
	// Reason says in a few constant words what is wrong.
	Reason string
	// Bytes is its beginning, at most MaxUndecodable bytes, and valid until the call
	// that brings it returns. It may be anything but a well-formed element.
	Bytes []byte
	// Received is when the component read it.
	Received time.Time
}

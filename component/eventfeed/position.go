package eventfeed

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// Position is a place in the sequence of a source.
type Position struct {
	Source, Epoch string
	Seq           uint64
	// Complete says that everything up to here has been reported of the source's
	// sessions: a snapshot has ended since the last loss. The Sink sets it.
	Complete bool
}

// Continuity says whether a source goes on where it was left.
type Continuity uint8

// The continuities.
const (
	// Missed: events may have been missed, or come again.
	Missed Continuity = iota
	// Complete: no event was missed since the last one taken, by this process or by the
	// one before it.
	Complete
	// Overtaken: another process has committed events since this one did, and everything
	// has been reported of the sessions. What this process remembers of them is out of date.
	Overtaken
)

// String returns the continuity as the log names it.
func (c Continuity) String() string {
	switch c {
	case Complete:
		return "complete"
	case Overtaken:
		return "overtaken"
	}
	return "missed"
}

// Sink takes what the sources report. The goroutine that reads the stream calls all
// methods, one after the other, in the order of the stream; Positions is called by any
// goroutine. Positions and Resumed must not block.
//
// Take and Bury hand over one event each and return whether it was accepted. The Sink
// tells later what has become of accepted ones, by any goroutine: Sources.Kept names the
// last position of a source that is on disk, with everything before it; Sources.Refused
// says that everything accepted of a source and not kept until now is given up. The
// source is then asked to send those events again.
type Sink interface {
	// Take takes a fact, and at as the position of its source. fact is nil where only the
	// position is to be kept. It is valid until Take returns; its strings may be kept.
	Take(fact *trust.Fact, at Position) bool
	// Bury takes an event that cannot be decoded.
	Bury(u *Undecodable) bool
	// Resumed says that a source goes on, before it hands over what follows.
	Resumed(source string, c Continuity)
	// Positions returns the position of every source that is on disk.
	Positions() []Position
}

// MaxUndecodable is how many bytes of a stanza that cannot be decoded are handed over
// at most.
const MaxUndecodable = 64 << 10

// Undecodable is a message or presence that cannot be decoded, or an event of the
// event-feed that does not hold what its kind needs.
type Undecodable struct {
	// At is the event's place, zero for a stanza that did not come by the event-feed.
	At Position
	// User is the user that the event was about, empty as At is zero.
	User jid.JID
	// From and To are the addresses of the element as the server delivered it, empty
	// where they lie after the damage.
	From, To jid.JID
	// Element is message or presence.
	Element string
	// Reason says in a few words what is wrong, and where; nothing of the content is in it.
	Reason string
	// Bytes is its beginning, at most MaxUndecodable bytes, and valid until the call
	// that brings it returns. It may be anything but a well-formed element.
	Bytes []byte
	// Received is when the component read it.
	Received time.Time
}

// undecodable makes what cannot be decoded ready for the sink.
func undecodable(env *stanza.Envelope, at Position, b []byte, reason string, now time.Time) *Undecodable {
	outer := &env.Outer
	u := &Undecodable{
		At: at, From: outer.From, To: outer.To, Element: outer.Kind.String(), Reason: reason,
		Bytes: b[:min(len(b), MaxUndecodable)], Received: now,
	}
	if at.Source != "" {
		u.User = env.Feed.User
	}
	return u
}

package component

import (
	"eventpusher/component/eventfeed"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// Sink takes what a Link hears: the facts of all feeds, and when some may have been missed.
//
// The goroutine that reads the stream calls the methods, one after the other in the order
// of the stream: while one runs, nothing is read. See eventfeed.Sink for which others may
// be called elsewhere. A fact of a feed that does not acknowledge comes with the zero
// position, and what Take returns of it means nothing. So does an Undecodable.
type Sink interface {
	eventfeed.Sink
	// Attached says that a connection was set up. What feeds that do not acknowledge
	// reported since the end of the last one is missed.
	Attached()
	// Settled says that the server has said all it knows about who is online since the
	// connection was set up: a session that was online before, and of which nothing was
	// said, has ended. users are the bare JIDs that this holds for; nil means every
	// session of the host. Both may come, in this order.
	Settled(host jid.JID, users []jid.JID)
}

// Discard is the Sink of a Link that is there to be asked, not to listen.
type Discard struct{}

var _ Sink = Discard{}

// Take implements Sink.
func (Discard) Take(*trust.Fact, eventfeed.Position) bool { return false }

// Bury implements Sink.
func (Discard) Bury(*eventfeed.Undecodable) bool { return false }

// Resumed implements Sink.
func (Discard) Resumed(string, eventfeed.Continuity) {}

// Positions implements Sink.
func (Discard) Positions() []eventfeed.Position { return nil }

// Attached implements Sink.
func (Discard) Attached() {}

// Settled implements Sink.
func (Discard) Settled(jid.JID, []jid.JID) {}

package translator

import "sync/atomic"

// Reason says why a stanza made no event.
type Reason uint8

// The reasons. A stanza counts under one of them, or under Stats.Events.
const (
	// SkippedType: a message or presence of a type that makes no event, such as
	// error, subscribe or an unknown one.
	SkippedType Reason = iota
	// SkippedServerMade: the server wrote it in a user's name (carbons, PEP, MAM
	// results come from the bare JID).
	SkippedServerMade
	// SkippedReceiveCopy: a local user's message on its way to another; its events
	// came with the send copy.
	SkippedReceiveCopy
	// SkippedDuplicate: the same, told apart by counting copies.
	SkippedDuplicate
	// SkippedRedelivered: a stored message handed over later.
	SkippedRedelivered
	// SkippedArchive: an archive's answer to a query (XEP-0313).
	SkippedArchive
	// SkippedForwarded: a stranger's message to us that carries another stanza.
	SkippedForwarded
	// SkippedForeign: neither sent by a local session nor on its way to a local user.
	SkippedForeign
	// SkippedUnmarked: the feed does not say which copy this is, and it cannot be inferred.
	SkippedUnmarked
	// SkippedDirected: a presence that is not a user's own undirected one.
	SkippedDirected
	// SkippedUnchanged: a presence that changes nothing about being online, or a session
	// in a snapshot that is known.
	SkippedUnchanged
	// SkippedFact: a fact of the event-feed that is no event: bound and hibernating
	// sessions, what happens in rooms, the frame of a snapshot, a message that failed.
	SkippedFact
	// SkippedUnknownFact: a fact of the event-feed that this version does not know.
	SkippedUnknownFact
	// SkippedCrowded: a presence of a session beyond the thousand that are kept of one user.
	SkippedCrowded
	// SkippedElsewhere: what a node says of a session that has gone on at another one
	// since.
	SkippedElsewhere

	// Reasons is their number.
	Reasons
)

var reasonNames = [Reasons]string{
	"type", "server_made", "receive_copy", "duplicate", "redelivered", "archive",
	"forwarded", "foreign", "unmarked", "directed", "unchanged",
	"fact", "unknown_fact", "crowded", "elsewhere",
}

// String returns the reason as metrics name it.
func (r Reason) String() string {
	if r < Reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// why says to people why a stanza made no event.
var why = [Reasons]string{
	SkippedType:        "its type makes no event",
	SkippedServerMade:  "the server has written it, in a user's name",
	SkippedReceiveCopy: "it is the copy that is received; the one that was sent makes the events",
	SkippedDuplicate:   "it is a second copy",
	SkippedRedelivered: "it was stored, and made its events when it came first",
	SkippedArchive:     "it is an answer of the archive",
	SkippedForwarded:   "a stranger has forwarded it to the component",
	SkippedForeign:     "it was neither sent by a local user nor is it on its way to one",
	SkippedUnmarked:    "its feed does not say whether it was sent or received",
	SkippedDirected:    "the presence is directed at somebody",
	SkippedUnchanged:   "it changes nothing about who is online",
	SkippedFact:        "facts of its kind make no event",
	SkippedUnknownFact: "this version does not know its kind",
	SkippedCrowded:     "its user has more sessions than are kept",
	SkippedElsewhere:   "its session goes on at another node",
}

// Skipped says why the last stanza that made no event made none. The goroutine that calls
// Translate may call it.
func (t *Translator) Skipped() string { return why[t.skipped] }

// Stats are counts since the start, except for Users, Resources and Sessions.
type Stats struct {
	Stanzas, Events int
	// AmbiguousSends are messages without an id on a feed that marks no direction,
	// taken for sent ones by counting.
	AmbiguousSends int
	// Unmasked are messages that posed as redelivered and were found out.
	Unmasked int
	// Ghosts are available resources dropped without a word about their end: they had
	// to give way to newer ones, or were stale for too long.
	Ghosts int
	// Users, Resources and Sessions are what the presence table holds: users,
	// available sessions, and bound ones, available or not.
	Users, Resources, Sessions int
	// Skipped counts the stanzas that made no event, by reason.
	Skipped [Reasons]int
}

// counters are what Stats is read from, by other goroutines than the one that
// translates.
type counters struct {
	stanzas, events, ambiguous, unmasked atomic.Int64
	ghosts, users, resources, sessions   atomic.Int64
	skipped                              [Reasons]atomic.Int64
}

// table notes what the presence table holds.
func (c *counters) table(t *sessions) {
	c.users.Store(int64(len(t.users)))
	c.resources.Store(int64(t.resources))
	c.sessions.Store(int64(t.bound))
	c.ghosts.Store(int64(t.ghosts))
}

// Crowded returns the count of SkippedCrowded. It may be called by any goroutine.
func (t *Translator) Crowded() int { return int(t.counters.skipped[SkippedCrowded].Load()) }

// Stats returns the counts as they stand.
// Unlike Translate it may be called by any goroutine at any time.
func (t *Translator) Stats() Stats {
	c := &t.counters
	s := Stats{
		Stanzas: int(c.stanzas.Load()), Events: int(c.events.Load()),
		AmbiguousSends: int(c.ambiguous.Load()), Unmasked: int(c.unmasked.Load()),
		Ghosts: int(c.ghosts.Load()), Users: int(c.users.Load()), Resources: int(c.resources.Load()),
		Sessions: int(c.sessions.Load()),
	}
	for r := range c.skipped {
		s.Skipped[r] = int(c.skipped[r].Load())
	}
	return s
}

package component

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// The rhythm of what is said to a source.
const (
	ackEvents = 100                    // so many committed events are acknowledged at once
	ackDelay  = 200 * time.Millisecond // fewer after that time
	askPause  = 2 * time.Second        // between two resumes that a failure made necessary
	gapRetry  = 10 * time.Second       // until a missing event is asked for again
)

// source is what is known of one source: a server process that numbers its events. It
// outlives connections, since what was handed over before one may be committed after.
//
// sources.mu guards all of it.
type source struct {
	name string

	// What it said of itself last, and on this connection: since is zero if it has not
	// said hello on it.
	host  jid.JID // where it said so, and takes what we say
	epoch string
	hello stanza.Hello
	since time.Time
	quiet bool // nothing of it has come since
	heard time.Time

	// The sequence as far as it was handed over: the epoch and its last number. fresh
	// says that nothing of the epoch was handed over yet, empty that there was nothing
	// when the epoch was taken up.
	inEpoch  string
	received uint64
	fresh    bool
	empty    bool
	pending  int // handed over, and neither committed nor refused yet
	refused  bool

	committed Position // the last one that we know of
	acked     uint64   // the last number of inEpoch that it was told

	// owed: it is to be sent a resume, as soon as nothing is pending and at askAt at the
	// earliest. answered: it has got one on this connection, so what comes is in sequence.
	owed, answered bool
	askAt, askedAt time.Time
	greeting       bool // the resume is the answer to hello
	gap            bool // a number is missing
	// untold: the reader has yet to say that something was missed.
	untold bool

	wantSnapshot bool
	snapshot     string // id of the one that was asked for and has not ended

	judged                                string // epoch whose unknown loss was counted
	holes, lost, unknownLosses, duplicate uint64
}

// verdict is what the place of an element in its source's sequence makes of it; the
// label of eventpusher_feed_events_total.
type verdict uint8

const (
	accepted   verdict = iota // handed over to be kept
	unreadable                // the same, as a dead letter
	unwanted                  // only its place is kept: its kind, its host or another feed
	duplicated                // seen before
	missing                   // a number before it is missing
	unexpected                // not of a sequence that is open
	turnedAway                // not taken, since one before it could not be kept
	malformed                 // no element of the protocol
	numVerdicts
)

var verdictNames = [numVerdicts]string{
	"accepted", "undecodable", "ignored", "duplicate", "gap", "unexpected", "turned_away", "malformed",
}

// place judges an event, or the lost ones, of the numbers from..to.
func (src *source) place(epoch string, from, to uint64, lost bool) verdict {
	switch {
	case src == nil || !src.answered || epoch != src.inEpoch:
		return unexpected
	case src.refused:
		return turnedAway
	case from > src.received+1:
		return missing
	case to <= src.received && !(lost && src.fresh): // what was lost before the oldest that is kept
		return duplicated
	}
	return accepted
}

// greet takes a hello and reports whether it says nothing new, since modules repeat it
// until they have heard the answer, whether what follows misses nothing, and whether that
// goes on behind what another process has told. kept is the position on disk, nil if there is
// none or something is pending; told says that what it knew of sessions when that was
// written was complete.
func (src *source) greet(f *stanza.Feed, host jid.JID, kept *Position, told bool, now time.Time) (repeated, complete, overtaken bool) {
	repeated = src.quiet && !src.since.IsZero() && f.Epoch == src.epoch
	cold := src.inEpoch == ""
	// Another process has handed over what came before, and told of its sessions.
	whole := told && kept != nil && continues(&f.Hello, f.Epoch, kept.Epoch, kept.Seq)
	others := kept != nil && (kept.Epoch != src.inEpoch || kept.Seq > src.received ||
		src.refused && src.committed.Epoch != "" && *kept != src.committed)
	switch {
	case cold:
		complete = whole
	case others && whole:
		complete, overtaken = true, true
		src.refused = false // the other one has taken it
	case src.refused:
	case others:
		// What it has told is not known.
	default:
		complete = continues(&f.Hello, f.Epoch, src.inEpoch, src.received)
	}
	if !repeated {
		src.since = now
	}
	src.host, src.epoch, src.hello, src.quiet, src.heard = host, f.Epoch, f.Hello, true, now
	src.owed, src.greeting, src.answered, src.gap = true, true, false, false
	src.askAt = time.Time{}
	src.wantSnapshot = src.wantSnapshot || !complete || cold || overtaken || src.snapshot != ""
	src.snapshot = ""
	return repeated, complete, overtaken
}

// continues reports whether what follows a hello in that epoch follows the event of
// that place, with nothing missed.
func continues(h *stanza.Hello, epoch, before string, seq uint64) bool {
	if epoch == before {
		return h.First <= seq+1 && seq < h.Next
	}
	return h.First == 1 && follows(h, before, seq)
}

// follows reports whether the epoch of h comes after this one without a loss of what
// was behind seq.
func follows(h *stanza.Hello, epoch string, seq uint64) bool {
	return h.PrevEpoch == epoch && (h.Clean || h.PrevLast > 0 && h.PrevLast <= seq)
}

// ask says what the source is to be told as the last event that is kept: nothing if
// known is false. It opens the sequence behind that.
func (src *source) ask(at Position, known bool, now time.Time) {
	if known && at.Epoch == src.epoch {
		src.inEpoch, src.received, src.acked, src.fresh = at.Epoch, at.Seq, at.Seq, false
		src.committed = at
	} else {
		// It begins with the oldest that it has.
		src.inEpoch, src.received, src.acked, src.fresh = src.epoch, src.hello.First-1, 0, true
		src.empty = src.hello.First == src.hello.Next
		src.committed = Position{}
	}
	if src.refused {
		src.untold, src.wantSnapshot = true, true
	}
	src.owed, src.greeting, src.answered, src.refused = false, false, true, false
	src.askedAt, src.askAt = now, now.Add(askPause)
}

// disconnected forgets what holds for one connection only.
func (src *source) disconnected() {
	src.since, src.quiet = time.Time{}, false
	src.owed, src.greeting, src.answered, src.gap = false, false, false, false
}

// unacked returns how many committed events it has not been told of.
func (src *source) unacked() uint64 {
	if !src.answered || src.committed.Epoch != src.inEpoch || src.committed.Seq < src.acked {
		return 0
	}
	return src.committed.Seq - src.acked
}

// due reports whether it has to be told something, now or later.
func (src *source) due() bool {
	return src.owed || src.gap || src.unacked() > 0 || src.wantSnapshot && src.answered
}

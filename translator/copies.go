package translator

import (
	"hash/maphash"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
)

const (
	// copiesKept bounds the memory of copies seen. The copies of one message arrive
	// within milliseconds of each other, so it spans seconds at full load.
	copiesKept = 1 << 16
	// copyWindow is how long an equal stanza counts as a copy of the first.
	copyWindow = time.Minute
	// unknownWindow is the same for copies of a message with an id beyond those that the
	// presence table accounts for, if the table knows of no session that gets one, since
	// those that were there before this process are not in it, or of as many as it keeps.
	// It spans the delay of a busy server, and is shorter than people or devices repeat
	// themselves.
	unknownWindow = 500 * time.Millisecond
	// suspectWindow is the same for stanzas that look redelivered. A server may hand
	// over the same stored message again after another failed session, so it is
	// shorter.
	suspectWindow = 10 * time.Second
	// backWindow is how long after a user came back ejabberd may still be handing
	// over what it stored; it does so in one go.
	backWindow = time.Minute
)

// copies remembers the stanzas of a feed that does not mark what was sent and
// what was received: ejabberd's mod_service_log reports a message between two
// local users once for the sender and once for each session that gets it, byte
// by byte the same.
type copies struct {
	// The seed keeps anybody from making up a stanza that passes for a copy of
	// another's. The addresses are among the bytes that are hashed.
	seed maphash.Seed
	runs *simplelru.LRU[copyKey, copyRun]
}

type copyKey struct {
	sum  uint64
	size int
}

// copyRun is one stanza and the copies of it still to come.
type copyRun struct {
	at   time.Time // of the first
	left int
	// unknown says that there may be copies beyond those that the presence table
	// accounts for.
	unknown bool
	// server says that the server itself is the sender.
	server bool
	// suspect says that it looked redelivered, and has made no event.
	suspect bool
}

func newCopies() *copies {
	// It fails for no size but one below 1.
	runs, _ := simplelru.NewLRU[copyKey, copyRun](copiesKept, nil)
	return &copies{seed: maphash.MakeSeed(), runs: runs}
}

func (c *copies) key(s *trust.Fact) copyKey {
	return copyKey{maphash.String(c.seed, s.Raw), len(s.Raw)}
}

// find returns the run that a stanza seen at the given time belongs to.
func (c *copies) find(key copyKey, at time.Time) (copyRun, bool) {
	run, ok := c.runs.Peek(key)
	if !ok {
		return run, false
	}
	window := copyWindow
	if run.suspect {
		window = suspectWindow
	}
	age := at.Sub(run.at)
	return run, -window < age && age < window
}

// copied reports whether a stanza of a run that was seen is one of the copies still to
// come, and takes note of it. An id proves nothing: devices send the same one again and
// again. It counts only for recipients of whom the presence table knows nothing. Beside
// that, only the server repeats itself within unknownWindow, and only as copies.
func (c *copies) copied(s *trust.Fact, key copyKey, run copyRun, at time.Time) bool {
	if run.left > 0 {
		run.left--
		c.runs.Add(key, run)
		return true
	}
	return run.unknown && (s.ID != "" || run.server) && at.Sub(run.at) < unknownWindow
}

// firstSent reports whether a message from one user of a host to another is the
// send copy.
//
// Of equal stanzas every (1+k)-th is, where k sessions receive it: as far as the
// presence table is right, a user may send the same words twice in a row. It is best
// effort, and counted.
func (t *Translator) firstSent(s *trust.Fact, at time.Time, to *address, kind string) (Reason, bool) {
	key := t.copies.key(s)
	run, seen := t.copies.find(key, at)
	k := t.sessions.receivers(to, kind)
	switch {
	case !seen && t.redelivered(s, at, to):
		t.copies.runs.Add(key, copyRun{at: at, left: k - 1, suspect: true})
		return SkippedRedelivered, false
	case !seen:
		// The send copy comes first.
	case run.suspect && run.left <= 0:
		// One more than there are sessions to get it: the sender had forged the signs
		// of a redelivery, and the copy left out was the sent one.
		t.counters.unmasked.Add(1)
		t.copies.runs.Add(key, copyRun{at: at})
		return 0, true
	case run.suspect:
		run.left--
		t.copies.runs.Add(key, run)
		return SkippedRedelivered, false
	case t.copies.copied(s, key, run, at):
		return SkippedDuplicate, false
	}
	if s.ID == "" || seen {
		t.counters.ambiguous.Add(1)
	}
	t.copies.runs.Add(key, copyRun{at: at, left: k, unknown: t.sessions.unknown(to, k)})
	return 0, true
}

// firstArrived reports whether a message of a sender who is not a local user is the
// first of the copies that its recipient's sessions got.
//
// There is a send copy as well if the server's API sent it in the server's own name. If
// another part of the server did (an announcement), there is none. So the copy that is
// too many counts as one only within unknownWindow.
func (t *Translator) firstArrived(s *trust.Fact, at time.Time, from, to *address, kind string) (Reason, bool) {
	server := !from.named && from.host != nil && !from.host.rooms
	if to.session && t.sessions.online(to) && !server {
		return 0, true // exactly one session gets it
	}
	key := t.copies.key(s)
	run, seen := t.copies.find(key, at)
	if seen && t.copies.copied(s, key, run, at) {
		return SkippedDuplicate, false
	}
	k := t.sessions.receivers(to, kind)
	t.copies.runs.Add(key, copyRun{at: at, left: k - 1, unknown: server || t.sessions.unknown(to, k), server: server})
	return 0, true
}

// redelivered reports whether a message bears the signs that ejabberd stored it
// and hands it over now: a delay stamped by the recipient's host, or the id of
// the recipient's archive, which copies of live messages lack - and the
// recipient has just come back, as nothing is stored for who is there.
//
// A sender can forge both signs. It gains nothing: to a user who is not there,
// or has been there for a while, the message counts as sent at once; to one who
// came back within backWindow there is one copy more than a redelivery has,
// which gives it away. What remains hidden is a forged message in that minute
// that none of the recipient's sessions gets: blocked, or lost on a session that
// has ended unseen.
// Conversely, what the server hands over at another moment (XEP-0013 retrieval,
// mod_stream_mgmt's resend_on_timeout to a second session) counts as sent again.
func (t *Translator) redelivered(s *trust.Fact, at time.Time, to *address) bool {
	stored := s.Flags.Has(stanza.HasDelay) && string(s.DelayFrom) == to.domain && !s.DelayStamp.IsZero()
	archived := s.StanzaIDBy[0] == to.bare || s.StanzaIDBy[1] == to.bare
	return (stored || archived) && t.sessions.justBack(to.bare, at)
}

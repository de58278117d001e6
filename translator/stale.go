package translator

import (
	"slices"
	"time"

	"eventpusher/internal/jid"
)

// DefaultMaxStale is how long a session counts that nothing has confirmed since a
// gap in the feed, unless Options says otherwise.
const DefaultMaxStale = 24 * time.Hour

// sweepStep bounds the users that are looked at with one stanza.
const sweepStep = 16

// staleness tells fresh sessions from those of before a gap in the feed.
//
// Each gap begins a new generation, and a session belongs to the one that it was
// last confirmed in: a gap marks all sessions at once without touching any.
type staleness struct {
	maxStale   time.Duration
	generation uint32
	// confirmed says that the generation has a session; a gap that follows a gap
	// begins none.
	confirmed bool
	// gaps are the times at which the latest generations ended; older generations
	// have no sessions left.
	gaps []time.Time
	// A sweep visits sessions.order from the end to the start, since the place of
	// a user who goes is taken by the last one, who has been visited. It clears the
	// first sweeping generations of gaps; zero is no sweep. hand is the last place
	// visited.
	sweeping, hand int
}

// Gap says that stanzas may have been missed, as when the connection has been set
// up anew: what the table says about every session is stale from now on.
//
// A stale session counts until its end is reported or it has been stale for
// Options.MaxStale, but leaves what is said about its user unverified. Its
// next presence makes an online event marked reconciled, because the session may
// have ended and another begun under its resource: one that lived on and only
// changed its status makes an online too many, where the other way a login would be
// missed. Only the server's own repetition of the presence (a snapshot) confirms the
// session without an event. An unavailable makes an event even if one was told
// before the gap.
//
// No offline is made up here, nor when a session has been stale for too long: a
// silent session is no evidence that it has ended.
//
// Gap belongs to the goroutine that calls Translate.
func (t *Translator) Gap() { t.sessions.gap(t.now()) }

func (t *sessions) gap(at time.Time) {
	t.offline.Purge() // who had gone may have come back
	if t.resources == 0 {
		t.gaps, t.sweeping = nil, 0
		return
	}
	if t.confirmed {
		t.gaps = append(t.gaps, at)
		t.generation++
		t.confirmed = false
	}
}

// confirm makes s a session of the present generation and reports whether it was stale.
func (t *staleness) confirm(s *session) bool {
	stale := t.stale(s)
	s.generation, t.confirmed = t.generation, true
	return stale
}

func (t *staleness) stale(s *session) bool { return s.generation != t.generation }

// aged reports whether s has been stale for too long to count.
func (t *staleness) aged(s *session, at time.Time) bool {
	if !t.stale(s) {
		return false
	}
	i := len(t.gaps) - int(t.generation-s.generation)
	return i < 0 || t.over(t.gaps[i], at)
}

func (t *staleness) over(gap, at time.Time) bool { return at.Sub(gap) >= t.maxStale }

// current returns a user with the sessions that count at the given time, nil if
// none does; the others are dropped.
func (t *sessions) current(bare jid.JID, at time.Time) *user {
	u := t.users[bare]
	if u == nil || len(t.gaps) == 0 || !t.over(t.gaps[0], at) {
		return u
	}
	for i := len(u.available) - 1; i >= 0; i-- {
		if t.aged(&u.available[i], at) {
			t.remove(bare, u, i)
			t.ghosts++
		}
	}
	if len(u.available) == 0 {
		return nil
	}
	return u
}

// sweep drops sessions that have been stale for too long and whose users nothing
// is heard of, a few at a time.
func (t *sessions) sweep(at time.Time) {
	if t.sweeping == 0 {
		for t.sweeping < len(t.gaps) && t.over(t.gaps[t.sweeping], at) {
			t.sweeping++
		}
		if t.sweeping == 0 {
			return
		}
		t.hand = len(t.order)
	}
	for range sweepStep {
		t.hand = min(t.hand, len(t.order)) - 1
		if t.hand < 0 {
			t.gaps = slices.Delete(t.gaps, 0, t.sweeping)
			t.sweeping = 0
			return
		}
		t.current(t.order[t.hand], at)
	}
}

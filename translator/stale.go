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

// Gap says that the link has been set up anew and that stanzas may have been missed:
// what the table says about sessions known from feeds that number nothing is
// stale from now on.
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
// silent session is no evidence that it has ended. Settled has that evidence.
//
// Sessions of a source of the event-feed do not become stale, since the source
// sends what was missed; until it is heard again (Resume) they leave what is said
// about users unverified, and after Options.MaxStale they are given up like stale ones.
//
// Gap belongs to the goroutine that calls Translate.
func (t *Translator) Gap() { t.sessions.gap(t.now()) }

func (t *sessions) gap(at time.Time) {
	t.offline.Purge() // who had gone may have come back
	for i, src := range t.sources {
		if i == lesser {
			src.gap(at)
		} else if src.away.IsZero() {
			src.away = at
		}
	}
	t.settle()
}

func (src *source) gap(at time.Time) {
	if src.sessions == 0 {
		src.gaps, src.expired = nil, 0
		return
	}
	if src.confirmed {
		src.gaps = append(src.gaps, at)
		src.generation++
		src.confirmed = false
	}
}

// confirm makes s a session of the present generation and reports whether it was stale.
func (t *sessions) confirm(s *session) bool {
	src := t.sources[s.source]
	stale := s.generation != src.generation
	s.generation, src.confirmed = src.generation, true
	return stale
}

func (t *sessions) stale(s *session) bool { return s.generation != t.sources[s.source].generation }

// doubtful reports whether s may have ended unheard: it is stale, or its source is away.
func (t *sessions) doubtful(s *session) bool {
	src := t.sources[s.source]
	return s.generation != src.generation || !src.away.IsZero()
}

// aged reports whether s has been in doubt for too long to count.
func (t *sessions) aged(s *session, at time.Time) bool {
	src := t.sources[s.source]
	if !src.away.IsZero() && t.expired(src.away, at) {
		return true
	}
	if s.generation == src.generation {
		return false
	}
	i := len(src.gaps) - int(src.generation-s.generation)
	return i < 0 || t.expired(src.gaps[i], at)
}

func (t *sessions) expired(since, at time.Time) bool { return at.Sub(since) >= t.maxStale }

// due reports whether there may be sessions that have been in doubt for too long.
func (t *sessions) due(at time.Time) bool { return !t.oldest.IsZero() && t.expired(t.oldest, at) }

// current returns a user with the sessions that count at the given time, nil if
// none does; the others are dropped.
func (t *sessions) current(bare jid.JID, at time.Time) *user {
	u := t.users[bare]
	if u == nil || !t.due(at) {
		return u
	}
	for i := len(u.sessions) - 1; i >= 0; i-- {
		if t.aged(&u.sessions[i], at) {
			t.remove(bare, u, i)
			t.ghosts++
		}
	}
	if len(u.sessions) == 0 {
		return nil
	}
	return u
}

// sweep drops sessions that have been in doubt for too long and whose users nothing
// is heard of, a few at a time.
//
// It visits order from the end to the start, since the place of a user who goes is
// taken by the last one, who has been visited.
func (t *sessions) sweep(at time.Time) {
	if !t.sweeping {
		if !t.due(at) {
			return
		}
		for _, src := range t.sources {
			for src.expired < len(src.gaps) && t.expired(src.gaps[src.expired], at) {
				src.expired++
			}
			src.leaving = !src.away.IsZero() && t.expired(src.away, at)
		}
		t.sweeping, t.hand = true, len(t.order)
	}
	for range sweepStep {
		t.hand = min(t.hand, len(t.order)) - 1
		if t.hand < 0 {
			t.swept()
			return
		}
		t.current(t.order[t.hand], at)
	}
}

// swept notes that no session is left of the gaps and sources that a sweep was for.
func (t *sessions) swept() {
	for _, src := range t.sources {
		src.gaps = slices.Delete(src.gaps, 0, src.expired)
		src.expired = 0
		if src.leaving {
			src.leaving, src.over = false, true
			src.whole, src.told = false, false
		}
	}
	t.sweeping = false
	t.settle()
}

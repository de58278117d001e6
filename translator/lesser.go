package translator

import (
	"time"

	"eventpusher/internal/jid"
)

// news is what a presence says that the table did not.
type news uint8

const (
	nothing    news = iota
	cameOnline      // the session was not there
	maybeAgain      // it was, but before a gap
	wentOffline
	crowdedOut // the session is one too many to be remembered
)

// available enters the session a, or confirms it, as a lesser feed tells of it. With
// snapshot set, the presence says that the session has been there for a while; with
// repeats, that the server would say so again; with exact, that it tells of every end.
func (t *sessions) available(a *address, priority int8, at time.Time, snapshot, repeats, exact bool) news {
	u := t.current(a.bare, at)
	i := u.find(a.resource())
	if i < 0 {
		if !t.makeRoom(u, exact) {
			return crowdedOut
		}
		s := t.enter(a, lesser)
		s.priority = priority
		t.cameBack(a.bare, priority, at)
		t.appear(s)
		s.setRepeatable(repeats)
		t.offline.Remove(t.hash(a.full))
		return cameOnline
	}
	s := &u.sessions[i]
	again := t.confirm(s) && !snapshot
	t.move(s, lesser)
	if priority >= 0 && (again || s.priority < 0) {
		t.cameBack(a.bare, priority, at)
	}
	s.priority = priority
	s.setRepeatable(repeats)
	switch {
	case s.marks&available == 0:
		t.appear(s)
		return cameOnline
	case again:
		return maybeAgain
	}
	return nothing
}

// cameBack notes that a session of that priority has made the user able to receive
// messages.
func (t *sessions) cameBack(bare jid.JID, priority int8, at time.Time) {
	if priority >= 0 {
		t.users[bare].back = seconds(at)
	}
}

// maxExact is how many sessions of one user are kept as feeds tell of that tell of every
// end. They cost about 150 bytes each.
const maxExact = 1000

// makeRoom reports whether there is room for one more session of a user. Of one who has as
// many as feeds that miss ends may leave behind it drops a session: the oldest of those in
// doubt, if there are any, else the oldest of all. With exact there are that many sessions,
// so that none but one in doubt gives way: its next presence would be taken for a login.
func (t *sessions) makeRoom(u *user, exact bool) bool {
	if u == nil {
		return true
	}
	n, victim, doubt := 0, -1, false
	for i := range u.sessions {
		s := &u.sessions[i]
		if s.source != lesser {
			continue
		}
		n++
		if stale := t.stale(s); victim < 0 || stale && !doubt {
			victim, doubt = i, stale
		}
	}
	limit := t.limit
	if exact {
		limit = maxExact
	}
	if n < limit {
		return true
	}
	if exact && !doubt {
		return false
	}
	t.removeSession(u, victim)
	t.ghosts++
	return true
}

func (s *session) setRepeatable(repeats bool) {
	if s.marks &^= repeatable; repeats {
		s.marks |= repeatable
	}
}

// unavailable takes the session a out of the table, as a lesser feed tells of it. Its
// end is news unless it has been told.
func (t *sessions) unavailable(a *address, at time.Time) news {
	u := t.current(a.bare, at)
	i := u.find(a.resource())
	key := t.hash(a.full)
	there := i >= 0 && u.sessions[i].marks&available != 0
	if !there && t.offline.Contains(key) {
		return nothing
	}
	t.offline.Add(key, struct{}{})
	switch {
	case !there:
	case u.sessions[i].source == lesser:
		t.remove(a.bare, u, i)
	default:
		t.vanish(&u.sessions[i]) // its source says when it is no longer bound
	}
	return wentOffline
}

package translator

import (
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/internal/jid"
)

// offlineKept bounds the memory of sessions known to have ended.
const offlineKept = 1 << 16

// sessions is the presence table: the available resources of the users of the
// served hosts, oldest first. A resource costs about 150 bytes.
type sessions struct {
	// The values are pointers so that a change never writes the key again: Go would
	// take over the new string, and with it the memory of the stanza it is part of.
	users map[jid.JID]*user
	// order holds the keys of users in any order, for visiting them bit by bit.
	order     []jid.JID
	resources int
	limit     int // of one user
	ghosts    int // dropped without a word about their end
	changed   bool
	staleness
	// offline holds the hashes of full JIDs whose end has been told, so that an
	// unavailable is told once, and still told if the table never knew the session.
	offline *simplelru.LRU[uint64, struct{}]
	seed    maphash.Seed
}

type user struct {
	available []session
	// back is when the user last became able to receive messages, in seconds since
	// the epoch.
	back uint32
	// place is the user's index in sessions.order.
	place uint32
}

type session struct {
	resource   string
	generation uint32 // that it was last confirmed in
	priority   int8
}

func newSessions(limit int, maxStale time.Duration) *sessions {
	// It fails for no size but one below 1.
	offline, _ := simplelru.NewLRU[uint64, struct{}](offlineKept, nil)
	return &sessions{
		users: map[jid.JID]*user{}, limit: limit, offline: offline, seed: maphash.MakeSeed(),
		staleness: staleness{maxStale: maxStale},
	}
}

func (a *address) resource() string { return string(a.full[len(a.bare)+1:]) }

// find returns the place of a session, or -1; a user who is not in the table has none.
func (u *user) find(resource string) int {
	if u == nil {
		return -1
	}
	return slices.IndexFunc(u.available, func(s session) bool { return s.resource == resource })
}

// news is what a presence says that the table did not.
type news uint8

const (
	nothing    news = iota
	cameOnline      // the session was not there
	maybeAgain      // it was, but before a gap
	wentOffline
)

// available enters the session a, or confirms it. With snapshot set, the presence
// says that the session has been there for a while.
func (t *sessions) available(a *address, priority int8, at time.Time, snapshot bool) news {
	u := t.current(a.bare, at)
	if i := u.find(a.resource()); i >= 0 {
		s := &u.available[i]
		again := t.confirm(s) && !snapshot
		if priority >= 0 && (again || s.priority < 0) {
			u.back = seconds(at)
		}
		s.priority = priority
		if again {
			return maybeAgain
		}
		return nothing
	}
	// The stanza's memory must not live as long as the session. Of a user's first
	// session one copy holds both parts.
	var resource string
	if u != nil {
		resource = strings.Clone(a.resource())
	} else {
		own := jid.JID(strings.Clone(string(a.full)))
		resource = string(own[len(a.bare)+1:])
		u = &user{place: uint32(len(t.order))}
		t.order = append(t.order, own[:len(a.bare)])
		t.users[own[:len(a.bare)]] = u
	}
	if priority >= 0 {
		u.back = seconds(at)
	}
	if len(u.available) >= t.limit {
		// The oldest of those in doubt, if there are any, else the oldest of all.
		i := max(0, slices.IndexFunc(u.available, func(s session) bool { return t.stale(&s) }))
		u.available = slices.Delete(u.available, i, i+1)
		t.resources--
		t.ghosts++
	}
	s := session{resource: resource, priority: priority}
	t.confirm(&s)
	u.available = append(u.available, s)
	t.resources++
	t.changed = true
	t.offline.Remove(t.hash(a))
	return cameOnline
}

// unavailable removes the session a, whose end is news unless it has been told.
func (t *sessions) unavailable(a *address, at time.Time) news {
	u := t.current(a.bare, at)
	i := u.find(a.resource())
	key := t.hash(a)
	if i < 0 && t.offline.Contains(key) {
		return nothing
	}
	t.offline.Add(key, struct{}{})
	if i >= 0 {
		t.remove(a.bare, u, i)
	}
	return wentOffline
}

// remove takes the i-th session of u out of the table, and with the last one u,
// whose bare JID is given.
func (t *sessions) remove(bare jid.JID, u *user, i int) {
	t.resources--
	t.changed = true
	u.available = slices.Delete(u.available, i, i+1)
	if len(u.available) > 0 {
		return
	}
	last := len(t.order) - 1
	moved := t.order[last]
	t.order[u.place], t.users[moved].place = moved, u.place
	t.order[last] = ""
	t.order = t.order[:last]
	delete(t.users, bare)
}

func (t *sessions) hash(a *address) uint64 { return maphash.String(t.seed, string(a.full)) }

// count returns the number of a user's available sessions, and whether one of
// them is stale.
func (t *sessions) count(bare jid.JID, at time.Time) (n int, stale bool) {
	u := t.current(bare, at)
	if u == nil {
		return 0, false
	}
	return len(u.available), slices.ContainsFunc(u.available, func(s session) bool { return t.stale(&s) })
}

func (t *sessions) online(a *address) bool { return t.users[a.bare].find(a.resource()) >= 0 }

// receivers returns how many sessions ejabberd hands a message of this type to
// (ejabberd_sm:route_message): the one addressed, if it is there; of a bare JID,
// for headlines all of priority 0 and above, for chat and normal all that share
// the highest. A full JID that is gone counts as bare for chat and normal.
func (t *sessions) receivers(to *address, kind string) int {
	u := t.users[to.bare]
	if to.session {
		if u.find(to.resource()) >= 0 {
			return 1
		}
		if kind == headline {
			return 0
		}
	}
	if kind == groupchat || u == nil {
		return 0
	}
	n, highest := 0, int8(0)
	for _, s := range u.available {
		switch {
		case s.priority > highest && kind != headline:
			n, highest = 1, s.priority
		case s.priority >= highest:
			n++
		}
	}
	return n
}

// cameBack reports whether the user became able to receive messages a short
// while before the given time.
func (t *sessions) cameBack(bare jid.JID, at time.Time) bool {
	u := t.users[bare]
	const window = uint32(backWindow / time.Second)
	return u != nil && seconds(at)-u.back <= window
}

// seconds is good until 2106, for half the space of a full time.
func seconds(t time.Time) uint32 { return uint32(t.Unix()) }

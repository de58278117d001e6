package translator

import (
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/internal/jid"
)

// offlineKept bounds each memory of sessions known to have ended.
const offlineKept = 1 << 16

// sessions is the presence table: the sessions of the users of the served hosts,
// oldest first, those that are available and, where a feed tells of them, those that
// are bound and nothing else. A session costs about 150 bytes.
type sessions struct {
	// The values are pointers so that a change never writes the key again: Go would
	// take over the new string, and with it the memory of the stanza it is part of.
	users map[jid.JID]*user
	// order holds the keys of users in any order, for visiting them bit by bit.
	order []jid.JID
	// bound counts all sessions, resources the available ones.
	bound, resources int
	limit            int // of one user, where the end of sessions can be missed
	ghosts           int // dropped without a word about their end
	changed          bool

	sources []*source // the first one stands for all lesser feeds
	byName  map[string]uint16
	// whole says that all sources of the event-feed know all their sessions.
	whole    bool
	maxStale time.Duration
	// oldest is since when the oldest sessions in doubt have been so, zero for none.
	oldest time.Time
	// hand is the last place in order that a sweep has visited.
	sweeping bool
	hand     int

	// offline holds the hashes of full JIDs whose end has been told, so that an
	// unavailable is told once, and still told if the table never knew the session.
	// Lesser feeds need it; the event-feed tells when a session is bound.
	offline *simplelru.LRU[uint64, struct{}]
	// departed are the latest sessions that have ended at one of several sources.
	departed *simplelru.LRU[uint64, departure]
	seed     maphash.Seed
}

type user struct {
	sessions []session
	// back is when the user last became able to receive messages, in seconds since
	// the epoch.
	back uint32
	// place is the user's index in sessions.order.
	place uint32
}

type session struct {
	resource   string
	generation uint32 // of its source, that it was last confirmed in
	// changed is when the event-feed last said something about it, by the server's
	// clock, in seconds since the epoch.
	changed  uint32
	source   uint16
	priority int8
	marks    marks
}

// marks are what is known of a session beside its being there.
type marks uint8

const (
	// available: it has sent available presence.
	available marks = 1 << iota
	// ended: its unavailable has been told and no available since.
	ended
	// doubled: another session has been bound under the resource, and the end of the
	// one before has not been told yet. Servers replace a session in either order.
	doubled
	// renewed: of the two, the new one has come online.
	renewed
	// owing: it came before the unavailable of the old one, which has been told then
	// and is still to be heard.
	owing
	// repeatable: it is known by presence that the server sends again when we connect
	// or ask (XEP-0356 on Prosody, subscriptions).
	repeatable

	replacing = doubled | renewed | owing
)

func newSessions(limit int, maxStale time.Duration) *sessions {
	// It fails for no size but one below 1.
	offline, _ := simplelru.NewLRU[uint64, struct{}](offlineKept, nil)
	departed, _ := simplelru.NewLRU[uint64, departure](offlineKept, nil)
	return &sessions{
		users: map[jid.JID]*user{}, limit: limit, offline: offline, departed: departed, seed: maphash.MakeSeed(),
		sources: []*source{{}}, byName: map[string]uint16{}, maxStale: maxStale,
	}
}

func (a *address) resource() string { return string(a.full[len(a.bare)+1:]) }

// find returns the place of a session, or -1; a user who is not in the table has none.
func (u *user) find(resource string) int {
	if u == nil {
		return -1
	}
	return slices.IndexFunc(u.sessions, func(s session) bool { return s.resource == resource })
}

// enter puts the session a, which is not there, into the table.
func (t *sessions) enter(a *address, src uint16) *session {
	u := t.users[a.bare]
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
	u.sessions = append(u.sessions, session{resource: resource, source: src})
	s := &u.sessions[len(u.sessions)-1]
	t.sources[src].sessions++
	t.bound++
	t.changed = true
	t.confirm(s)
	return s
}

// move makes s a session of another source.
func (t *sessions) move(s *session, src uint16) {
	if s.source == src {
		return
	}
	t.sources[s.source].sessions--
	t.sources[src].sessions++
	s.source = src
	t.confirm(s)
}

// appear makes s available.
func (t *sessions) appear(s *session) {
	if s.marks&available == 0 {
		t.resources++
		t.changed = true
	}
	s.marks = s.marks&^ended | available
}

// vanish makes s unavailable, which is told.
func (t *sessions) vanish(s *session) {
	if s.marks&available != 0 {
		t.resources--
		t.changed = true
	}
	s.marks = s.marks&^available | ended
}

// remove takes the i-th session of u out of the table, and with the last one u,
// whose bare JID is given.
func (t *sessions) remove(bare jid.JID, u *user, i int) {
	t.removeSession(u, i)
	if len(u.sessions) > 0 {
		return
	}
	last := len(t.order) - 1
	moved := t.order[last]
	t.order[u.place], t.users[moved].place = moved, u.place
	t.order[last] = ""
	t.order = t.order[:last]
	delete(t.users, bare)
}

// removeSession is remove where another session takes the place.
func (t *sessions) removeSession(u *user, i int) {
	s := &u.sessions[i]
	if s.marks&available != 0 {
		t.resources--
	}
	t.sources[s.source].sessions--
	t.bound--
	t.changed = true
	u.sessions = slices.Delete(u.sessions, i, i+1)
}

// drop removes the sessions that gone names by their user's domain and what is known
// of them, calls each with every one, and returns how many there were.
func (t *sessions) drop(gone func(domain string, s *session) bool, each func(bare jid.JID, s session)) int {
	n := 0
	// A removed user's place is taken by the last one, who has been visited.
	for place := len(t.order) - 1; place >= 0; place-- {
		n += t.dropOf(t.order[place], gone, each)
	}
	return n
}

// dropOf is drop for the sessions of one user.
func (t *sessions) dropOf(bare jid.JID, gone func(domain string, s *session) bool, each func(bare jid.JID, s session)) int {
	n := 0
	u := t.users[bare]
	if u == nil {
		return 0
	}
	domain := bare.Domain()
	for i := len(u.sessions) - 1; i >= 0; i-- {
		s := u.sessions[i]
		if !gone(domain, &s) {
			continue
		}
		n++
		t.remove(bare, u, i)
		if each != nil {
			each(bare, s)
		}
	}
	return n
}

func (t *sessions) hash(full jid.JID) uint64 { return maphash.String(t.seed, string(full)) }

// count returns the number of a user's available sessions, and whether one of
// them is in doubt.
func (t *sessions) count(bare jid.JID, at time.Time) (n int, doubt bool) {
	return t.tally(t.current(bare, at))
}

// tally is count of a user who has been looked up, nil for one who is not there.
func (t *sessions) tally(u *user) (n int, doubt bool) {
	if u == nil {
		return 0, false
	}
	for i := range u.sessions {
		if s := &u.sessions[i]; s.marks&available != 0 {
			n++
			doubt = doubt || t.doubtful(s)
		}
	}
	return n, doubt
}

func (t *sessions) online(a *address) bool {
	u := t.users[a.bare]
	i := u.find(a.resource())
	return i >= 0 && u.sessions[i].marks&available != 0
}

package push

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/internal/jid"
)

// Bounds of what is remembered.
const (
	seenKept  = 1 << 17
	seenFor   = 24 * time.Hour
	slotsKept = 1 << 16 // users
	// slotsOfUser is far above the sessions that anybody has at a time.
	slotsOfUser = 128
)

// seen remembers which service has been told of which message, so that the several
// events of a message, and the attempts of an event that failed for another
// service, make one notification.
type seen struct {
	mu   sync.Mutex
	keys *simplelru.LRU[string, time.Time]
}

func newSeen() *seen {
	// It fails for no size but one below 1.
	keys, _ := simplelru.NewLRU[string, time.Time](seenKept, nil)
	return &seen{keys: keys}
}

// enter notes the key and reports whether it is new.
func (s *seen) enter(key string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.keys.Peek(key); ok && now.Sub(at) < seenFor {
		return false
	}
	s.keys.Add(key, now)
	return true
}

func (s *seen) leave(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys.Remove(key)
}

// slot names a registration, and says when it was asked for.
type slot struct {
	pubsub jid.JID
	node   string
	at     time.Time
}

// slots remembers for each session what it has enabled last: that is the device
// that a message is for which the session has not acknowledged. As in MongooseIM
// it is one for each session and not kept over a restart; clients enable on each
// connection.
type slots struct {
	mu sync.Mutex
	of *simplelru.LRU[jid.JID, map[string]slot] // by account and resource
}

func newSlots() *slots {
	of, _ := simplelru.NewLRU[jid.JID, map[string]slot](slotsKept, nil) // no error, as above
	return &slots{of: of}
}

func (s *slots) set(session jid.JID, v slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session = own(session)
	owner, resource := session.Bare(), session.Resource()
	sessions, ok := s.of.Get(owner)
	if !ok {
		sessions = make(map[string]slot, 1)
		s.of.Add(owner, sessions)
	}
	if _, ok := sessions[resource]; !ok && len(sessions) == slotsOfUser {
		clear(sessions) // resources are made up anew with each connection
	}
	sessions[resource] = v
}

func (s *slots) get(session jid.JID) (slot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions, _ := s.of.Get(session.Bare())
	v, ok := sessions[session.Resource()]
	return v, ok
}

// forget removes the slots of sessions of that account which name a registration;
// an empty push service means all of them, an empty node all nodes.
func (s *slots) forget(owner, pubsub jid.JID, node string) {
	s.remove(owner, func(v *slot) bool {
		return (pubsub == "" || v.pubsub == pubsub) && (node == "" || v.node == node)
	})
}

// end removes the slots of that account that were asked for until then.
func (s *slots) end(owner jid.JID, until time.Time) {
	s.remove(owner, func(v *slot) bool { return !v.at.After(until) })
}

func (s *slots) remove(owner jid.JID, gone func(*slot) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions, _ := s.of.Peek(owner)
	for resource, v := range sessions {
		if gone(&v) {
			delete(sessions, resource)
		}
	}
	if len(sessions) == 0 {
		s.of.Remove(owner)
	}
}

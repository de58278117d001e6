package push

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/internal/jid"
)

// Bounds of what is remembered.
const (
	seenKept  = 1 << 17
	seenFor   = 24 * time.Hour
	slotsKept = 1 << 16
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

// slot names a registration.
type slot struct {
	pubsub jid.JID
	node   string
}

// slots remembers for each session what it has enabled last: that is the device
// that a message is for which the session has not acknowledged. As in MongooseIM
// it is one for each session and not kept over a restart; clients enable on each
// connection.
type slots struct {
	mu sync.Mutex
	of *simplelru.LRU[jid.JID, slot]
}

func newSlots() *slots {
	of, _ := simplelru.NewLRU[jid.JID, slot](slotsKept, nil) // no error, as above
	return &slots{of: of}
}

func (s *slots) set(session, pubsub jid.JID, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of.Add(session, slot{pubsub, node})
}

func (s *slots) get(session jid.JID) (slot, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of.Get(session)
}

// forget removes the slots of sessions of that account which name a registration;
// an empty node means all nodes.
func (s *slots) forget(owner, pubsub jid.JID, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, session := range s.of.Keys() {
		v, _ := s.of.Peek(session)
		if session.Bare() == owner && v.pubsub == pubsub && (node == "" || v.node == node) {
			s.of.Remove(session)
		}
	}
}

// outcome is what became of a notification, for one service, or why there was none.
type outcome string

// The outcomes beside the reasons of package decide.
const (
	pushed     outcome = "pushed"
	notEnabled outcome = "not_enabled"
	duplicate  outcome = "duplicate"
	disabled   outcome = "disabled" // the device is gone, the registration removed
	refused    outcome = "refused"  // by an error that a repetition does not change
	timedOut   outcome = "timeout"
	failed     outcome = "failed"

	// What becomes of a notification for a device of ours.
	queued    outcome = "queued"       // on its way to the device
	coalesced outcome = "coalesced"    // a newer one has taken its place
	limited   outcome = "rate_limited" // waits, since the device had too many
	waiting   outcome = "waiting"      // waits for its provider
	dead      outcome = "device_gone"  // the device was removed

	enabled outcome = "registered"
	byUser  outcome = "unregistered"
	tooMany outcome = "too_many_registrations"
)

// tally counts outcomes.
type tally struct {
	mu sync.Mutex
	n  map[outcome]uint64
}

func newTally() *tally { return &tally{n: make(map[outcome]uint64)} }

func (t *tally) add(o outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[o]++
}

func (t *tally) counts() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[string]uint64, len(t.n))
	for o, n := range t.n {
		m[string(o)] = n
	}
	return m
}

// Bounds of what can be explained: the latest decisions for the users latest decided
// about.
const (
	historyUsers     = 4096
	historyDecisions = 16
)

// Decision is what was decided about one message to a user.
type Decision struct {
	Time    time.Time `json:"time"`
	EventID string    `json:"event_id"`
	Outcome string    `json:"outcome"`
}

// history remembers the latest decisions for each user.
type history struct {
	mu sync.Mutex
	of *simplelru.LRU[jid.JID, []Decision]
}

func newHistory() *history {
	of, _ := simplelru.NewLRU[jid.JID, []Decision](historyUsers, nil) // no error, as above
	return &history{of: of}
}

func (h *history) add(user jid.JID, d Decision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list, _ := h.of.Get(user)
	if len(list) == historyDecisions {
		list = slices.Delete(list, 0, 1)
	}
	h.of.Add(user, append(list, d))
}

func (h *history) list(user jid.JID) []Decision {
	h.mu.Lock()
	defer h.mu.Unlock()
	list, _ := h.of.Peek(user)
	return slices.Clone(list)
}

// note records an outcome.
func (b *Backend) note(user jid.JID, eventID string, o outcome) {
	b.tally.add(o)
	b.history.add(user, Decision{Time: b.o.Now(), EventID: eventID, Outcome: string(o)})
	b.o.Log.Debug("push: decided", "user", string(user), "event", eventID, "outcome", string(o))
}

// Decisions lists what was decided lately about messages to a user, oldest first.
func (b *Backend) Decisions(user jid.JID) []Decision { return b.history.list(user) }

package push

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"eventpusher/event"
)

const (
	// memoryKept is how many messages and how many notifications are remembered.
	memoryKept = 1 << 16
	// reportedWithin is how far apart the events of one message are: that it was sent, that
	// it was stored. What comes later is another message with the same sender, id and text.
	reportedWithin = 10 * time.Second
	// resumeWithin is how long a session may wait to be resumed (XEP-0198). When it ends the
	// server stores what the session has not acknowledged.
	resumeWithin = 24 * time.Hour
)

// reports remembers, by a key that messages with the same sender, id and text share, the
// first event of the latest such message.
type reports struct {
	mu sync.Mutex
	of *simplelru.LRU[string, report]
}

// report is the first event of a message.
type report struct {
	event string
	kind  event.Kind
	at    time.Time
}

func newReports() *reports {
	of, _ := simplelru.NewLRU[string, report](memoryKept, nil) // it fails for no size but one below 1
	return &reports{of: of}
}

// first returns the id of the first event of the message that e is of.
func (m *reports) first(key string, e *event.Event) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r, ok := m.of.Get(key); ok && r.same(e) {
		return r.event
	}
	m.of.Add(key, report{e.ID, e.Kind, e.Time})
	return e.ID
}

// has reports whether an event of the message is remembered.
func (m *reports) has(key string, e *event.Event) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.of.Get(key)
	return ok && r.same(e)
}

// same reports whether e is of the message that r is of, if their keys are equal.
func (r *report) same(e *event.Event) bool {
	apart := e.Time.Sub(r.at).Abs()
	return e.ID == r.event || apart <= reportedWithin ||
		r.kind == event.Unack && e.Kind == event.Stored && apart <= resumeWithin
}

// idSet remembers the latest ids.
type idSet struct {
	mu sync.Mutex
	of *simplelru.LRU[string, struct{}]
}

func newIDSet() *idSet {
	of, _ := simplelru.NewLRU[string, struct{}](memoryKept, nil) // it fails for no size but one below 1
	return &idSet{of: of}
}

// add adds an id and reports whether it is new.
func (s *idSet) add(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of.Contains(id) {
		return false
	}
	s.of.Add(id, struct{}{})
	return true
}

func (s *idSet) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of.Remove(id)
}

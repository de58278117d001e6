package push

import (
	"encoding/hex"
	"sync"
	"time"

	"eventpusher/event"
)

const (
	// memoryKept is how many messages and how many notifications are remembered at least.
	memoryKept = 1 << 16
	// reportedWithin is how far apart the events of one message are: that it was sent, that
	// it was stored. What comes later is another message with the same sender, id and text.
	reportedWithin = 10 * time.Second
	// resumeWithin is how long a session may wait to be resumed (XEP-0198). When it ends the
	// server stores what the session has not acknowledged.
	resumeWithin = 24 * time.Hour
)

// recent remembers what was entered last: memoryKept values, and up to as many older ones.
// It is not safe for concurrent use. The garbage collector passes over values without pointers.
type recent[V any] struct{ young, old map[recentKey]V }

// recentKey has room for every key of this package.
type recentKey [32]byte

func keyOfText(text string) (k recentKey) {
	copy(k[:], text)
	return k
}

func newRecent[V any]() recent[V] {
	return recent[V]{make(map[recentKey]V), make(map[recentKey]V)}
}

func (m *recent[V]) get(key recentKey) (V, bool) {
	v, ok := m.young[key]
	if !ok {
		v, ok = m.old[key]
	}
	return v, ok
}

func (m *recent[V]) put(key recentKey, v V) {
	if len(m.young) >= memoryKept {
		m.young, m.old = m.old, m.young
		clear(m.young)
	}
	m.young[key] = v
}

func (m *recent[V]) remove(key recentKey) {
	delete(m.young, key)
	delete(m.old, key)
}

// reports remembers, by a key that messages with the same sender, id and text share, the
// first event of the latest such message. It is safe for concurrent use.
type reports struct {
	mu sync.Mutex
	of recent[report]
}

// report is the first event of a message.
type report struct {
	event mark
	kind  event.Kind
	at    int64 // Unix time in microseconds
}

// mark stands for the id of an event.
type mark [8]byte

func markOf(id string) mark { return digest(id) }

// String returns the mark in hexadecimal.
func (m mark) String() string { return hex.EncodeToString(m[:]) }

func newReports() *reports { return &reports{of: newRecent[report]()} }

// first returns the mark of the first event of the message that e is of.
func (m *reports) first(key string, e *event.Event) mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, own := keyOfText(key), markOf(e.ID)
	if r, ok := m.of.get(k); ok && r.same(own, e) {
		return r.event
	}
	m.of.put(k, report{own, e.Kind, e.Time.UnixMicro()})
	return own
}

// has reports whether an event of the message is remembered.
func (m *reports) has(key string, e *event.Event) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.of.get(keyOfText(key))
	return ok && r.same(markOf(e.ID), e)
}

// same reports whether e, of that mark, is of the message that r is of, if their keys are equal.
func (r *report) same(own mark, e *event.Event) bool {
	apart := e.Time.Sub(time.UnixMicro(r.at)).Abs()
	return own == r.event || apart <= reportedWithin ||
		r.kind == event.Unack && e.Kind == event.Stored && apart <= resumeWithin
}

// idSet remembers the latest ids. It is safe for concurrent use.
type idSet struct {
	mu sync.Mutex
	of recent[struct{}]
}

func newIDSet() *idSet { return &idSet{of: newRecent[struct{}]()} }

// add adds an id and reports whether it is new.
func (s *idSet) add(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := keyOfText(id)
	if _, there := s.of.get(key); there {
		return false
	}
	s.of.put(key, struct{}{})
	return true
}

func (s *idSet) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of.remove(keyOfText(id))
}

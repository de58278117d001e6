package push

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Bounds of what is remembered.
const (
	seenKept = 1 << 17
	seenFor  = 24 * time.Hour
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

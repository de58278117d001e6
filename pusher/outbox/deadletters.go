package outbox

import "sync"

// DeadLetters keeps the events that nobody will take.
type DeadLetters interface {
	// Add keeps d. It is safe for concurrent use and must not block for long.
	Add(d DeadLetter) error
}

// Ring is a DeadLetters in memory that keeps the latest ones.
type Ring struct {
	mu     sync.Mutex
	kept   []DeadLetter
	oldest int // index of the oldest once the ring is full
	limit  int
}

// NewRing returns a Ring of at most limit dead letters, at least one.
func NewRing(limit int) *Ring {
	return &Ring{limit: max(limit, 1)}
}

// Add implements DeadLetters; it never fails.
func (r *Ring) Add(d DeadLetter) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < r.limit {
		r.kept = append(r.kept, d)
		return nil
	}
	r.kept[r.oldest] = d
	r.oldest = (r.oldest + 1) % r.limit
	return nil
}

// List returns what is kept, oldest first.
func (r *Ring) List() []DeadLetter {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]DeadLetter, 0, len(r.kept))
	out = append(out, r.kept[r.oldest:]...)
	return append(out, r.kept[:r.oldest]...)
}

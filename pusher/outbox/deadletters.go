package outbox

import (
	"errors"
	"time"

	"eventpusher/event"
)

// DeadLetter is an event that a backend will not take, with why.
type DeadLetter struct {
	// ID is the number under which it is kept, from 1 upwards and never used
	// twice; the outbox chooses it.
	ID       uint64       `json:"number"`
	Event    *event.Event `json:"event"`
	Backend  string       `json:"backend,omitempty"` // empty: no backend has seen it
	Reason   string       `json:"reason"`            // class, as in metrics: permanent, too_large, gone, max_age, parked_full, filter, when, undecodable
	Err      string       `json:"error,omitempty"`
	Attempts int          `json:"attempts"`
	Accepted time.Time    `json:"accepted"`
	Died     time.Time    `json:"died"`
}

// Reasons of dead letters that the outbox itself gives.
const (
	ReasonMaxAge     = "max_age"     // waited too long
	ReasonParkedFull = "parked_full" // too much of what keeps failing was waiting already
)

// ReasonUndecodable is the reason of dead letters that hold no event: the server sent a
// stanza that cannot be read, and Packet is what came of it.
const ReasonUndecodable = "undecodable"

// NoBackend selects, as LetterFilter.Backend, the dead letters that no backend
// has seen.
const NoBackend = "-"

// LetterFilter selects dead letters; what is zero does not restrict.
type LetterFilter struct {
	ID      uint64 // this one
	Backend string // those of a backend, or NoBackend
	Reason  string
	EventID string
	Since   time.Time // died then or later
	Until   time.Time // died before
	After   uint64    // those with a larger ID, for reading page by page
	Limit   int       // the first so many of those that the rest selects
}

// Selects reports whether d passes everything but the limit.
func (f *LetterFilter) Selects(d *DeadLetter) bool {
	backend := d.Backend
	if backend == "" {
		backend = NoBackend
	}
	switch {
	case f.ID != 0 && d.ID != f.ID, d.ID <= f.After,
		f.Backend != "" && f.Backend != backend,
		f.Reason != "" && f.Reason != d.Reason,
		f.EventID != "" && f.EventID != d.Event.ID,
		!f.Since.IsZero() && d.Died.Before(f.Since),
		!f.Until.IsZero() && !d.Died.Before(f.Until):
		return false
	}
	return true
}

// ErrNoLetter says that no dead letter has the number that was asked for.
var ErrNoLetter = errors.New("outbox: no such dead letter")

// DeadLetters keeps the events that nobody will take. All methods are safe for
// concurrent use; what they return is the caller's, the events excepted.
type DeadLetters interface {
	// List returns what the filter selects, oldest first. There may be many, each
	// with its whole event: read them page by page with After and Limit.
	List(f LetterFilter) ([]DeadLetter, error)
	// Get returns one, or ErrNoLetter.
	Get(id uint64) (DeadLetter, error)
	// Drop forgets what the filter selects and says how many that were.
	Drop(f LetterFilter) (int, error)
}

package push

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"eventpusher/internal/jid"
)

// Bounds of what can be explained. Users share the places evenly, so that where
// fewer are written to than there are places, each has about all decisions of one.
const (
	historyPlaces    = 4096
	historyDecisions = 16 // in a place
	historyID        = 32 // bytes of an event's id
)

// Decision is what was decided about one message to a user.
type Decision struct {
	Time    time.Time `json:"time"`
	EventID string    `json:"event_id"`
	// Outcome is one of the reasons of Counts.
	Outcome string `json:"outcome"`
}

// history remembers the latest decisions for the users latest decided about. It
// is on the way of each message that comes in, so that it holds no pointer into events
// and allocates nothing but its places, about 900 bytes each, when they are first
// used.
type history struct {
	seed   maphash.Seed
	places [historyPlaces]place
}

// place is a ring.
type place struct {
	mu   sync.Mutex
	next int // how many there were, in all
	ring *[historyDecisions]remembered
}

type remembered struct {
	user    uint64 // the hash of the JID
	at      int64  // Unix time in microseconds
	outcome outcome
	id      [historyID]byte
	length  uint8 // of the id
}

func newHistory() *history { return &history{seed: maphash.MakeSeed()} }

func (h *history) place(user jid.JID) (*place, uint64) {
	sum := maphash.String(h.seed, string(user))
	return &h.places[sum%historyPlaces], sum
}

func (h *history) add(user jid.JID, eventID string, o outcome, at time.Time) {
	p, sum := h.place(user)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ring == nil {
		p.ring = new([historyDecisions]remembered)
	}
	r := &p.ring[p.next%historyDecisions]
	p.next++
	r.user, r.at, r.outcome = sum, at.UnixMicro(), o
	r.length = uint8(copy(r.id[:], eventID))
}

// list returns the decisions for a user, oldest first.
func (h *history) list(user jid.JID) (list []Decision) {
	p, sum := h.place(user)
	p.mu.Lock()
	defer p.mu.Unlock()
	for n := max(0, p.next-historyDecisions); n < p.next; n++ {
		if r := &p.ring[n%historyDecisions]; r.user == sum {
			list = append(list, Decision{time.UnixMicro(r.at).UTC(), string(r.id[:r.length]), string(r.outcome)})
		}
	}
	return list
}

// note records an outcome.
func (b *Backend) note(user jid.JID, eventID string, o outcome) {
	b.tally.add(o)
	b.history.add(user, eventID, o, b.o.Now())
	if ctx := context.Background(); b.o.Log.Enabled(ctx, slog.LevelDebug) {
		b.o.Log.LogAttrs(ctx, slog.LevelDebug, "push: decided", slog.String("user", string(user)), slog.String("event", eventID), slog.String("outcome", string(o)))
	}
}

// Decisions lists what was decided lately about messages to a user, oldest first. It
// is safe for concurrent use, as Explain is.
func (b *Backend) Decisions(user jid.JID) []Decision { return b.history.list(user) }

package outbox

import (
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"eventpusher/event"
)

// The bounds of Memory when its options leave them open.
const (
	DefaultQueueEvents = 100_000
	DefaultQueueBytes  = 128 << 20
)

// MemoryOptions bounds a Memory. The bounds hold for each reader by itself.
type MemoryOptions struct {
	QueueEvents int   // events that wait or are in flight; 0: DefaultQueueEvents
	QueueBytes  int64 // their estimated size; 0: DefaultQueueBytes
	// DeadLetters takes what backends refuse for good. Required.
	DeadLetters DeadLetters
	// Shed is told how many events a reader has given up; episode says that this is
	// the first time since the queue was last half empty. It may be nil.
	// It is called by Append, without any lock held.
	Shed func(backend string, events int, episode bool)
}

// Memory is the Outbox that keeps everything in memory. A reader that falls
// behind loses its own oldest events, never those of another.
type Memory struct {
	options MemoryOptions
	seed    maphash.Seed
	readers []*memoryReader

	positions positions

	// Of the pack being appended; Append is called by one goroutine at a time.
	keys  []uint64
	sizes []int
}

// NewMemory returns an empty Memory.
func NewMemory(o MemoryOptions) *Memory {
	if o.QueueEvents <= 0 {
		o.QueueEvents = DefaultQueueEvents
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = DefaultQueueBytes
	}
	return &Memory{options: o, seed: maphash.MakeSeed()}
}

// Reader implements Outbox.
func (m *Memory) Reader(backend string, notify func()) (Reader, error) {
	if len(m.readers) == MaxReaders {
		return nil, fmt.Errorf("outbox: %s would be backend %d, and %d is the most", backend, MaxReaders+1, MaxReaders)
	}
	r := &memoryReader{
		backend: backend, number: len(m.readers), notify: notify, dead: m.options.DeadLetters,
		maxEvents: m.options.QueueEvents, maxBytes: m.options.QueueBytes,
		queue: newSchedule(),
	}
	m.readers = append(m.readers, r)
	return r, nil
}

// Append implements Outbox; it never fails.
func (m *Memory) Append(p Pack) error {
	now := time.Now()
	m.keys, m.sizes = m.keys[:0], m.sizes[:0]
	for i := range p.Entries {
		e := p.Entries[i].Event
		m.keys = append(m.keys, maphash.String(m.seed, e.Key()))
		m.sizes = append(m.sizes, Size(e))
	}
	for n, r := range m.readers {
		added, shed, episode := r.append(p.Entries, n, m.keys, m.sizes, now)
		if added {
			r.notify()
		}
		if shed > 0 && m.options.Shed != nil {
			m.options.Shed(r.backend, shed, episode)
		}
	}
	m.positions.advance(p.Positions)
	return nil
}

// Positions implements Outbox.
func (m *Memory) Positions() []Position { return m.positions.list() }

// Bury implements Outbox.
func (m *Memory) Bury(letters ...DeadLetter) error {
	var first error
	for _, d := range letters {
		if err := m.options.DeadLetters.Add(d); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// DeadLetters implements Outbox.
func (m *Memory) DeadLetters() DeadLetters { return m.options.DeadLetters }

// Replay implements Outbox. A letter goes when its event is queued, so that
// nothing between the two can lose it.
func (m *Memory) Replay(f LetterFilter) (int, error) {
	letters, err := m.options.DeadLetters.List(f)
	if err != nil {
		return 0, err
	}
	replayed := 0
	for _, d := range letters {
		i := slices.IndexFunc(m.readers, func(r *memoryReader) bool { return r.backend == d.Backend })
		if i < 0 {
			continue
		}
		e := *d.Event
		e.Replayed = true
		r := m.readers[i]
		r.mu.Lock()
		// A key of its own: nothing waits for it and it waits for nothing.
		r.queue.add(&e, maphash.Comparable(m.seed, d.ID), Size(&e), time.Now())
		r.mu.Unlock()
		r.notify()
		if _, err := m.options.DeadLetters.Drop(LetterFilter{ID: d.ID}); err != nil {
			return replayed, err
		}
		replayed++
	}
	return replayed, nil
}

// Durable implements Outbox: nothing survives.
func (m *Memory) Durable() bool { return false }

// Err implements Outbox: memory always works.
func (m *Memory) Err() error { return nil }

// Close implements Outbox. What still waits is gone with the process.
func (m *Memory) Close() error { return nil }

// entryOverhead is what an event costs beside its texts: the event itself, its
// place in a queue and in the tables.
const entryOverhead = 640

// Size estimates the memory that an event holds. All texts of a stanza share one
// buffer, of which the packet is by far the most.
func Size(e *event.Event) int {
	n := entryOverhead + len(e.Packet) + len(e.Body) + len(e.From) + len(e.To)
	for k, v := range e.Metadata {
		n += len(k) + 48
		if s, ok := v.(string); ok {
			n += len(s)
		}
	}
	return n
}

// memoryReader is the queue of one backend.
type memoryReader struct {
	backend   string
	number    int
	notify    func()
	dead      DeadLetters
	maxEvents int
	maxBytes  int64

	mu       sync.Mutex
	queue    *schedule
	shed     uint64
	shedding bool // an episode is going on
}

func (r *memoryReader) append(entries []Entry, n int, keys []uint64, sizes []int, now time.Time) (added bool, shed int, episode bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range entries {
		if !entries[i].Subscribers.Has(n) {
			continue
		}
		r.queue.add(entries[i].Event, keys[i], sizes[i], now)
		added = true
		// The event just added stays even when it alone exceeds the bounds.
		for r.full() && r.queue.shed(r.queue.newest) {
			shed++
		}
	}
	if shed > 0 {
		episode = !r.shedding
		r.shedding = true
		r.shed += uint64(shed)
	} else if r.shedding && r.halfEmpty() {
		r.shedding = false
	}
	return added, shed, episode
}

func (r *memoryReader) full() bool {
	return r.queue.waiting+r.queue.busy > r.maxEvents || r.queue.bytes > r.maxBytes
}

func (r *memoryReader) halfEmpty() bool {
	return r.queue.waiting+r.queue.busy <= r.maxEvents/2 && r.queue.bytes <= r.maxBytes/2
}

// Number implements Reader.
func (r *memoryReader) Number() int { return r.number }

// Load implements Reader: everything is in memory.
func (r *memoryReader) Load(items []*Item) []*Item { return items }

// Take implements Reader.
func (r *memoryReader) Take(dst []*Item, limit int, probe bool) (taken []*Item, next time.Time, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var now time.Time
	if len(r.queue.delayed) > 0 {
		now = time.Now()
	}
	had := len(dst)
	dst = r.queue.take(dst, limit, now)
	if probe && len(dst) == had && limit > 0 {
		dst = r.queue.takeProbe(dst)
	}
	if len(r.queue.delayed) > 0 {
		next = r.queue.delayed[0].due
	}
	return dst, next, r.queue.first != nil
}

// Settle implements Reader.
func (r *memoryReader) Settle(settlements []Settlement) error {
	err := r.bury(settlements)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range settlements {
		s := &settlements[i]
		switch s.Outcome {
		case Delivered, Dead:
			r.queue.settled(s.Item)
		case Retry:
			s.Item.Attempts++
			r.queue.retry(s.Item, time.Now().Add(s.Delay), s.Asked)
		case Requeue:
			r.queue.release(s.Item)
		}
	}
	if r.shedding && r.halfEmpty() {
		r.shedding = false
	}
	return err
}

// bury keeps the dead among the settlements, before their items are recycled.
func (r *memoryReader) bury(settlements []Settlement) error {
	var first error
	for i := range settlements {
		s := &settlements[i]
		if s.Outcome != Dead {
			continue
		}
		d := r.letter(s.Item, s.Reason)
		d.Attempts++
		if s.Err != nil {
			d.Err = s.Err.Error()
		}
		if err := r.dead.Add(d); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (r *memoryReader) letter(it *Item, reason string) DeadLetter {
	return DeadLetter{
		Event: it.Event, Backend: r.backend, Reason: reason,
		Attempts: it.Attempts, Accepted: it.Accepted, Died: time.Now(),
	}
}

// expireStep is how many events one call of Expire moves, so that the lock is
// never held for long.
const expireStep = 256

// Expire implements Reader.
func (r *memoryReader) Expire(before time.Time) (int, error) {
	var letters []DeadLetter
	r.mu.Lock()
	r.queue.expire(before, expireStep, func(it *Item) {
		letters = append(letters, r.letter(it, ReasonMaxAge))
	})
	r.mu.Unlock()
	var first error
	for _, d := range letters {
		if err := r.dead.Add(d); err != nil && first == nil {
			first = err
		}
	}
	return len(letters), first
}

// RetryNow implements Reader.
func (r *memoryReader) RetryNow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue.retryNow()
}

// Stats implements Reader.
func (r *memoryReader) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Waiting: r.queue.waiting, InFlight: r.queue.busy, Bytes: r.queue.bytes, Shed: r.shed}
	if r.queue.oldest != nil {
		s.Oldest = r.queue.oldest.Accepted
	}
	return s
}

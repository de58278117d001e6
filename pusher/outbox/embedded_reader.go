package outbox

import (
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/event"
)

// embeddedReader hands out the events of one backend. It keeps the oldest ones
// in a window in memory; what does not fit there is read from the log when there
// is room again. What keeps failing is parked, see embedded_parked.go.
type embeddedReader struct {
	engine  *Embedded
	id      uint8
	backend string
	notify  func()
	wake    chan struct{} // for feed
	failure failure       // what keeps feed from reading

	mu    sync.Mutex
	queue *schedule // the window
	// Events below head have been looked at, those below tail are in the log, and
	// from mark on none is settled. gaps lists the unsettled ones between head and
	// mark: there are such events only after a restart.
	head, tail, mark uint64
	gaps             []uint64
	appended         uint64 // its events in the log, ever
	remaining        int    // those that are not settled, parked or given up
	shed, lost       uint64
	shedding         bool // an episode of giving up is going on

	parking

	out     changes // to be saved
	unsaved int     // settled, which a crash would forget
	stalled bool    // Take found unsaved too high
	dirty   bool
	saved   uint64    // cursor on disk
	looked  time.Time // when makeRoom was last tried
}

// changes is what a transaction has to write beside the cursor.
type changes struct {
	letters []DeadLetter
	puts    []parkedRecord
	tries   []parkedTry // applied after puts
	dels    []parkedID  // applied after tries
}

func newEmbeddedReader(e *Embedded, backend string, notify func(), rec readerRecord) (*embeddedReader, error) {
	r := &embeddedReader{
		engine: e, id: rec.id, backend: backend, notify: notify, wake: make(chan struct{}, 1),
		queue: newSchedule(), parking: newParking(),
		head: rec.cursor, tail: e.seg.Next(), mark: rec.mark, gaps: rec.gaps,
		shed: rec.shed, lost: rec.lost, saved: rec.cursor,
		appended: e.end.appended[rec.id],
	}
	r.remaining = int(r.appended - min(rec.done, r.appended))
	r.settleCount()
	err := e.db.View(func(tx *bolt.Tx) error {
		return eachParked(tx, r.id, r.loadParked)
	})
	if err != nil {
		return nil, err
	}
	r.held = slices.Clone(r.ages)
	r.promoteAll()
	signal(r.wake)
	return r, nil
}

// Take implements Reader.
func (r *embeddedReader) Take(dst []*Item, limit int, early bool) (taken []*Item, next time.Time, more bool) {
	had := len(dst)
	now := time.Now()
	r.mu.Lock()
	if room := r.engine.o.Redelivery - r.unsaved - r.queue.busy - r.parkedQueue.busy; limit > room {
		limit = max(room, 0)
		r.stalled = r.stalled || limit == 0 && r.unsaved > 0
	}
	stalled := limit == 0 && r.stalled
	switch {
	case limit == 0:
	case early:
		dst = r.takeProbe(dst, limit, now)
	default:
		dst = r.takeParked(dst, limit, now)
		dst = r.queue.take(dst, limit-(len(dst)-had), now)
		if len(dst) == had && r.behind() && r.full() {
			next = r.makeRoom(now)
		}
	}
	for _, it := range dst[had:] {
		it.takenAt = now
	}
	if limit > 0 {
		if len(r.queue.delayed) > 0 {
			next = sooner(next, r.queue.delayed[0].due)
		}
		next = sooner(next, r.parkedDue())
		more = r.queue.first != nil || r.parkedReady(now)
	}
	refill := r.behind() && r.halfEmpty()
	r.mu.Unlock()
	if stalled {
		signal(r.engine.urgent)
	}
	if refill {
		signal(r.wake)
	}
	return r.fetch(dst, had), next, more
}

// takeProbe takes what tells most about the service: an event that has not
// failed, else one whose retry is near, and parked ones last.
func (r *embeddedReader) takeProbe(dst []*Item, limit int, now time.Time) []*Item {
	had := len(dst)
	for _, q := range []*schedule{r.queue, r.parkedQueue} {
		if dst = q.take(dst, limit, now); len(dst) == had {
			dst = q.takeEarly(dst)
		}
		if len(dst) > had {
			break
		}
	}
	return dst
}

// sooner returns the earlier of two times; zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Settle implements Reader. What it records is on disk a little later; Err of
// the engine tells when it cannot be.
func (r *embeddedReader) Settle(settlements []Settlement) error {
	now := time.Now()
	r.mu.Lock()
	for i := range settlements {
		r.settle(&settlements[i], now)
	}
	r.dirty = true
	urgent := r.unsaved >= r.engine.o.Redelivery/2
	refill := r.behind() && r.halfEmpty()
	r.mu.Unlock()
	r.touched(urgent, refill)
	return nil
}

// touched tells the other goroutines what a change asks for.
func (r *embeddedReader) touched(urgent, refill bool) {
	if urgent {
		signal(r.engine.urgent)
	} else {
		signal(r.engine.dirty)
	}
	if refill {
		signal(r.wake)
	}
}

func (r *embeddedReader) settle(s *Settlement, now time.Time) {
	it := s.Item
	switch s.Outcome {
	case Delivered:
		r.unsaved++
		r.done(it)
	case Dead:
		d := r.letter(it.Event, it.Accepted, it.Attempts+1, s.Reason, now)
		if s.Err != nil {
			d.Err = s.Err.Error()
		}
		r.out.letters = append(r.out.letters, d)
		r.unsaved++
		r.done(it)
	case Retry:
		it.Attempts++
		due := now.Add(s.Delay)
		if it.since.IsZero() {
			it.since = now
		}
		switch {
		case it.parked != nil:
			r.retryParked(it, due, s.Firm, now)
		case it.Attempts >= r.engine.o.ParkAttempts || now.Sub(it.since) >= r.engine.o.ParkAfter:
			r.park(it.lane, due, s.Firm, now)
		default:
			r.queue.retry(it, due, s.Firm)
		}
	case Release:
		if it.parked != nil {
			r.parkedQueue.release(it)
		} else {
			r.queue.release(it)
		}
	}
}

// done takes a taken item out for good.
func (r *embeddedReader) done(it *Item) {
	if it.parked != nil {
		r.doneParked(it)
		return
	}
	key := it.Key
	r.passed(it.number)
	r.queue.settled(it)
	r.unhold(key)
}

// passed notes that an event of the log is settled, parked or given up.
func (r *embeddedReader) passed(number uint64) {
	r.mark = max(r.mark, number+1)
	r.remaining--
	r.dirty = true
}

func (r *embeddedReader) letter(e *event.Event, accepted time.Time, attempts int, reason string, now time.Time) DeadLetter {
	return DeadLetter{Event: e, Backend: r.backend, Reason: reason, Attempts: attempts, Accepted: accepted, Died: now}
}

// Expire implements Reader.
func (r *embeddedReader) Expire(before time.Time) (int, error) {
	now := time.Now()
	r.mu.Lock()
	if len(r.out.letters) > 16*expireStep {
		r.stalled = true // the disk comes first
		r.mu.Unlock()
		signal(r.engine.urgent)
		return 0, nil
	}
	n := 0
	var keys []uint64
	r.queue.expire(before, expireStep, func(it *Item) {
		r.out.letters = append(r.out.letters, r.letter(it.Event, it.Accepted, it.Attempts, ReasonMaxAge, now))
		r.passed(it.number)
		keys = append(keys, it.Key)
		n++
	})
	for _, k := range keys {
		r.unhold(k)
	}
	parked := r.expiredParked(before, expireStep-n)
	refill := r.behind() && r.halfEmpty()
	r.mu.Unlock()

	m, err := r.buryParked(parked, now)
	n += m
	if n > 0 {
		r.touched(false, refill)
	}
	return n, err
}

// Hasten implements Reader.
func (r *embeddedReader) Hasten() {
	r.mu.Lock()
	defer r.mu.Unlock()
	// What failed while the service was down says nothing about its conversation.
	for _, q := range r.queue.delayed {
		q.head.since = time.Time{}
	}
	r.queue.hasten()
	r.parkedQueue.hasten()
	r.rest = time.Time{}
}

// Stats implements Reader.
func (r *embeddedReader) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy := r.queue.busy + r.parkedQueue.busy
	s := Stats{
		Waiting: r.remaining + r.parkedCount - busy, InFlight: busy, Parked: r.parkedCount,
		Bytes: r.queue.bytes + r.parkedQueue.bytes + r.freshBytes,
		Shed:  r.shed, Lost: r.lost,
		Coming: r.stalled || r.queue.first != nil || r.parkedReady(time.Now()) ||
			r.behind() && r.halfEmpty() && r.failure.get() == nil,
	}
	if r.queue.oldest != nil {
		s.Oldest = r.queue.oldest.Accepted
	}
	s.Oldest = sooner(s.Oldest, r.oldestParked())
	return s
}

// behind reports whether the log holds events that are not in the window.
func (r *embeddedReader) behind() bool { return r.head < r.tail }

// full reports whether the window has no room; parked events that are not saved
// take room too.
func (r *embeddedReader) full() bool {
	return r.queue.waiting+r.queue.busy+r.fresh >= r.engine.o.WindowEvents || r.queue.bytes+r.freshBytes >= r.engine.o.WindowBytes
}

func (r *embeddedReader) halfEmpty() bool {
	return r.queue.waiting+r.queue.busy+r.fresh <= r.engine.o.WindowEvents/2 && r.queue.bytes+r.freshBytes <= r.engine.o.WindowBytes/2
}

// cursor returns the first event that is not settled.
func (r *embeddedReader) cursor() uint64 {
	if r.queue.oldest != nil {
		return r.queue.oldest.number
	}
	return r.head
}

// settleCount corrects the count of what remains where it can be known: holes in
// the log and forgotten backends make it too large.
func (r *embeddedReader) settleCount() {
	if r.head == r.tail {
		r.remaining = r.queue.waiting + r.queue.busy
		r.shedding = r.shedding && !r.halfEmpty()
	}
}

package outbox

import (
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/event"
)

// embeddedReader hands out the events of one backend. It keeps the oldest ones
// in a window in memory; what does not fit there is read from the log when there
// is room again. What keeps failing is parked, see window_parked.go.
type embeddedReader struct {
	Window  // what is not settled of the log up to its head
	engine  *Embedded
	id      uint8 // its bit in the packs and in Subscribers
	backend string
	notify  func()
	wake    chan struct{} // for feed
	closing chan struct{} // closed by Close
	fed     chan struct{} // closed when feed has returned
	failure Failure       // what keeps feed from reading

	// Of mu:
	tail       uint64 // events below it are in the log
	appended   uint64 // its events in the log, ever
	remaining  int    // those that are not settled, parked or given up
	shed, lost uint64
	shedding   bool // an episode of giving up is going on
	saved      readerRecord
	closed     bool // nothing is handed out or settled any more
}

func newEmbeddedReader(e *Embedded, backend string, notify func(), rec readerRecord) (*embeddedReader, error) {
	r := &embeddedReader{
		engine: e, id: rec.id, backend: backend, notify: notify,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), fed: make(chan struct{}),
		tail: e.seg.Next(), shed: rec.shed, lost: rec.lost, saved: rec,
	}
	e.endMu.Lock()
	r.appended = e.end.appended[rec.id]
	e.endMu.Unlock()
	r.init(WindowOptions{
		WindowLimits: e.o.WindowLimits, Backend: backend, Reader: rec.id, Seed: e.seed,
		Progress: rec.Progress,
		Load:     func(id ParkedID) (*event.Event, error) { return loadParked(e.db, id) },
		Failed: func(err error) {
			e.log.Error("a parked event cannot be read", "backend", backend, "err", err)
		},
		Lost: func() {
			r.lost++
			signal(e.dirty)
		},
		Passed: func(uint64) { r.remaining-- },
		Overfull: func() {
			if f := e.full.Load(); f != nil {
				(*f)(backend)
			}
		},
		Changed: func() { signal(e.dirty) },
	})
	r.remaining = int(r.appended - min(rec.done, r.appended))
	r.settleCount()
	err := e.db.View(func(tx *bolt.Tx) error {
		return eachParked(tx, r.id, r.loadParked)
	})
	if err != nil {
		return nil, err
	}
	r.restored()
	signal(r.wake)
	return r, nil
}

// loadParked takes over what a former process has parked.
func (r *embeddedReader) loadParked(id ParkedID, v []byte) error {
	accepted, attempts, key, _, err := parkedHead(v)
	if err == nil {
		r.restore(id, key, accepted, attempts, len(v))
	}
	return err
}

// Number implements Reader.
func (r *embeddedReader) Number() int { return int(r.id) }

// Take implements Reader.
func (r *embeddedReader) Take(dst []*Item, limit int, probe bool) (taken []*Item, next time.Time, more bool) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return dst, next, false
	}
	var urgent bool
	taken, next, more, urgent = r.take(dst, limit, probe, r.behind())
	refill := r.behind() && r.halfEmpty()
	r.mu.Unlock()
	if urgent {
		signal(r.engine.urgent)
	}
	if refill {
		signal(r.wake)
	}
	return taken, next, more
}

// Settle implements Reader. What it records is on disk a little later; Err of
// the engine tells when it cannot be.
func (r *embeddedReader) Settle(settlements []Settlement) error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return fmt.Errorf("outbox: the reader of %s is closed", r.backend)
	}
	urgent := r.settleAll(settlements)
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

// Expire implements Reader.
func (r *embeddedReader) Expire(before time.Time) (int, error) {
	n, busy, err := r.Window.Expire(before)
	if busy {
		signal(r.engine.urgent)
	}
	if n > 0 {
		r.mu.Lock()
		refill := r.behind() && r.halfEmpty()
		r.mu.Unlock()
		r.touched(false, refill)
	}
	return n, err
}

// Stats implements Reader.
func (r *embeddedReader) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats()
	s.Waiting = r.remaining + r.parkedCount - s.InFlight
	s.Shed, s.Lost = r.shed, r.lost
	s.Coming = s.Coming || r.behind() && r.halfEmpty() && r.failure.Get() == nil
	return s
}

// recovery says what waits.
func (r *embeddedReader) recovery() BackendRecovery {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats()
	return BackendRecovery{
		Name: r.backend, Waiting: r.remaining, Parked: r.parkedCount, Shed: r.shed, Lost: r.lost,
		Settled: !r.behind() && s.Waiting+s.InFlight == 0,
	}
}

// behind reports whether the log holds events that are not in the window.
func (r *embeddedReader) behind() bool { return r.head < r.tail }

// settleCount corrects the count of what remains where it can be known: holes in
// the log and forgotten backends make it too large.
func (r *embeddedReader) settleCount() {
	if r.head == r.tail {
		r.remaining = r.queue.waiting + r.queue.busy
		r.shedding = r.shedding && !r.halfEmpty()
	}
}

package outbox

import (
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/pusher/outbox/segment"
)

// Embedded is the Outbox on the local disk (docs/outbox.md has its invariants): packs of events in a log of segment
// files, and everything that changes (ack floors, parked events, dead letters, feed
// positions) in a small database beside them.
//
// An event has been accepted when Append returns: it is on disk. How far the
// backends have come is saved a little later, all backends in one transaction,
// together with what was parked or died; what a crash loses of that is delivered
// again, at most Redelivery events for each backend.
type Embedded struct {
	o       EmbeddedOptions
	log     *slog.Logger
	lock    *os.File
	db      database
	seg     *segment.Log
	letters *Letters
	seed    maphash.Seed

	registry registry
	opened   atomic.Pointer[[]*embeddedReader]
	feeders  sync.WaitGroup
	shed     atomic.Pointer[func(backend string, events int, episode bool)]
	full     atomic.Pointer[func(backend string)]

	positions positions
	endMu     sync.Mutex
	end       endRecord // without positions
	endDirty  bool

	// appending is held by Append, and while a reader is opened, closed or forgotten.
	appending sync.Mutex
	buf       []byte
	keys      []uint64
	sizes     []int
	wanted    []Entry

	dirty, urgent chan struct{} // something is to be saved: soon, now
	closing       chan struct{}
	saverDone     chan struct{}
	trimmed       uint64 // of the saver: what Trim was last called with

	flushMu  sync.Mutex
	flushers []chan error
	buried   []DeadLetter

	saveErr   Failure
	appendErr Failure
}

// readers returns the readers opened so far.
func (e *Embedded) readers() []*embeddedReader {
	if p := e.opened.Load(); p != nil {
		return *p
	}
	return nil
}

// OnShed sets the function that is told how many events a reader has given up;
// episode says that this is the first time since it had caught up. It is called
// without any lock held, by one goroutine at a time.
func (e *Embedded) OnShed(f func(backend string, events int, episode bool)) { e.shed.Store(&f) }

// OnParkedFull sets the function that is told of each event that became a dead
// letter because too much was parked for its backend. It is called with the
// reader's lock held: it must not block and not use the outbox.
func (e *Embedded) OnParkedFull(f func(backend string)) { e.full.Store(&f) }

// Append implements Outbox.
func (e *Embedded) Append(p Pack) error {
	e.appending.Lock()
	defer e.appending.Unlock()
	e.keys, e.sizes, e.wanted = e.keys[:0], e.sizes[:0], e.wanted[:0]
	defer func() { clear(e.wanted) }()
	known := e.registry.known()
	for _, entry := range p.Entries {
		if entry.Subscribers &= known; entry.Subscribers != 0 {
			e.wanted = append(e.wanted, entry)
			e.keys = append(e.keys, KeyHash(e.seed, entry.Event))
			e.sizes = append(e.sizes, Size(entry.Event))
		}
	}
	if len(e.wanted) == 0 {
		if len(p.Positions) == 0 {
			return nil
		}
		e.positions.advance(p.Positions)
		e.markEnd()
		return e.flush()
	}
	h, after := e.encode(p.Positions)
	if err := e.room(len(e.buf), len(p.Positions) > 0); err != nil {
		return err
	}
	first, err := e.seg.Append(e.buf, len(e.wanted))
	if e.appendErr.Set(err); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	next := first + uint64(len(e.wanted))
	e.endMu.Lock()
	e.end.next, e.end.appended, e.endDirty = next, after, true
	e.endMu.Unlock()
	e.positions.advance(p.Positions)
	for _, r := range e.readers() {
		if r.hand(first, next, h.accepted, e.wanted, e.keys, e.sizes) {
			r.notify()
		}
	}
	if cap(e.buf) > 8<<20 {
		e.buf = nil
	}
	return nil
}

// Largest implements Outbox: the event fits into a pack beside others and all positions.
func (e *Embedded) Largest() int { return segment.MaxPayload / 2 }

// encode writes the pack of the wanted events to buf. It returns the pack's header, and
// how many events of each reader the log holds after it.
func (e *Embedded) encode(news []Position) (h packHeader, after [MaxReaders]uint64) {
	h = packHeader{accepted: time.Now(), positions: e.positions.merged(news)}
	e.endMu.Lock()
	h.appended = e.end.appended
	e.endMu.Unlock()
	after = h.appended
	e.buf = h.append(e.buf[:0], len(e.wanted))
	for _, entry := range e.wanted {
		entry.Subscribers.each(func(id int) { after[id]++ })
		e.buf = appendEntry(e.buf, entry.Subscribers, entry.Event)
	}
	return h, after
}

// room decides whether the log may grow by n bytes. A source that can wait has
// to at the limit; for others the slowest backend gives something up, in the
// background and thus with some delay, which is bounded here.
func (e *Embedded) room(n int, canWait bool) error {
	grown := e.seg.Size() + int64(n)
	switch {
	case grown <= e.o.MaxSize:
		return nil
	case canWait:
		return ErrFull
	case grown > e.o.MaxSize+max(e.o.MaxSize/4, 2*e.o.segmentSize):
		signal(e.urgent)
		return fmt.Errorf("%w: %d bytes are in use, and what the slowest backend has under way cannot be given up", ErrFull, grown)
	}
	signal(e.urgent)
	return nil
}

// markEnd makes the next save write the positions.
func (e *Embedded) markEnd() {
	e.endMu.Lock()
	e.endDirty = true
	e.endMu.Unlock()
}

// Positions implements Outbox.
func (e *Embedded) Positions() []Position { return e.positions.list() }

// Bury implements Outbox: it returns when the letters are on disk.
func (e *Embedded) Bury(letters ...DeadLetter) error {
	if len(letters) == 0 {
		return nil
	}
	return e.flush(letters...)
}

// DeadLetters implements Outbox.
func (e *Embedded) DeadLetters() DeadLetters { return e.letters }

// Durable implements Outbox.
func (e *Embedded) Durable() bool { return true }

// Err implements Outbox.
func (e *Embedded) Err() error {
	errs := []error{e.appendErr.Get(), e.saveErr.Get()}
	for _, r := range e.readers() {
		errs = append(errs, r.failure.Get())
	}
	return errors.Join(errs...)
}

// Replay implements Outbox: the letters join what is parked for their backend, in
// the transaction that removes them. What does not fit stays.
func (e *Embedded) Replay(f LetterFilter) (int, error) {
	type moved struct {
		r *embeddedReader
		p ParkedEvent
	}
	var batch []moved
	now, readers := time.Now(), e.readers()
	return e.letters.remove(f, func(tx *bolt.Tx, d DeadLetter) (bool, error) {
		i := slices.IndexFunc(readers, func(r *embeddedReader) bool { return r.backend == d.Backend })
		if i < 0 || !readers[i].roomToPark(len(batch)) {
			return false, nil
		}
		p, err := replay(tx, d, readers[i].id, now)
		batch = append(batch, moved{readers[i], p})
		return true, err
	}, func() {
		for _, m := range batch {
			m.r.AddReplayed(&m.p, Size(m.p.Event))
			m.r.notify()
		}
		batch = nil
	})
}

// Close saves how far everything has come and closes the outbox. What waits is
// there the next time.
func (e *Embedded) Close() error {
	e.stop()
	err := e.save(true)
	return errors.Join(err, e.closeFiles())
}

// stop ends the goroutines.
func (e *Embedded) stop() {
	close(e.closing)
	e.feeders.Wait()
	<-e.saverDone
}

func (e *Embedded) closeFiles() error {
	return errors.Join(e.seg.Close(), e.db.Close(), e.lock.Close())
}

// signal wakes whoever waits on a channel of capacity one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

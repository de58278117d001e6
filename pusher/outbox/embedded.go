package outbox

import (
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/pusher/outbox/segment"
)

// Defaults of EmbeddedOptions.
const (
	DefaultMaxSize        = 10 << 30
	DefaultWindowEvents   = 8192
	DefaultWindowBytes    = 16 << 20
	DefaultRedelivery     = 1024
	DefaultParkedEvents   = 100_000
	DefaultParkedBytes    = 256 << 20
	DefaultParkAttempts   = 5
	DefaultParkAfter      = 30 * time.Second
	defaultSaveInterval   = 50 * time.Millisecond
	smallestSegment       = 128 << 10
	segmentsWithinMaxSize = 8
)

// EmbeddedOptions say where an Embedded lives and what bounds it; what is zero
// has the default of the same name.
type EmbeddedOptions struct {
	// Dir is created when it is not there, for the owner only.
	Dir string
	// Backends are the names of all that will read; a backend that the outbox does
	// not know begins with what is appended from now on.
	Backends []string
	// MaxSize bounds the log in bytes. Beyond it the backend that is furthest behind
	// gives up its oldest events, unless a source can wait.
	MaxSize int64
	// WindowEvents and WindowBytes bound what each backend holds in memory; one
	// pack may exceed them. The rest waits on disk.
	WindowEvents int
	WindowBytes  int64
	// Redelivery bounds, for each backend, how many events can be delivered a
	// second time after a crash.
	Redelivery int
	// ParkedEvents and ParkedBytes bound what is parked for each backend. What
	// would exceed them becomes a dead letter.
	ParkedEvents int
	ParkedBytes  int64
	// An event is parked with all later ones of its key after so many attempts that
	// counted, or when a failure comes so long after its first one.
	ParkAttempts int
	ParkAfter    time.Duration
	// MaxLetters and MaxLetterBytes bound the dead letters: the oldest go.
	MaxLetters     int
	MaxLetterBytes int64
	// LockTimeout is how long to wait for another process; negative: not at all.
	LockTimeout time.Duration
	// SkipCorrupt goes on behind events that cannot be read, counted as lost,
	// instead of stopping in front of them.
	SkipCorrupt bool
	Log         *slog.Logger // nil: silent

	saveInterval time.Duration // shortened by tests
	segmentSize  int64         // the same
}

func (o *EmbeddedOptions) complete() {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def64 := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def64(&o.MaxSize, DefaultMaxSize)
	def(&o.WindowEvents, DefaultWindowEvents)
	def64(&o.WindowBytes, DefaultWindowBytes)
	def(&o.Redelivery, DefaultRedelivery)
	def(&o.ParkedEvents, DefaultParkedEvents)
	def64(&o.ParkedBytes, DefaultParkedBytes)
	def(&o.ParkAttempts, DefaultParkAttempts)
	def64((*int64)(&o.ParkAfter), int64(DefaultParkAfter))
	def(&o.MaxLetters, DefaultMaxLetters)
	def64(&o.MaxLetterBytes, DefaultMaxLetterBytes)
	def64((*int64)(&o.saveInterval), int64(defaultSaveInterval))
	def64(&o.segmentSize, min(max(o.MaxSize/segmentsWithinMaxSize, smallestSegment), segment.DefaultSegmentSize))
	if o.LockTimeout == 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Embedded is the Outbox on the local disk: packs of events in a log of segment
// files, and everything that changes (cursors, parked events, dead letters, feed
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
	db      *bolt.DB
	seg     *segment.Log
	letters *Letters
	seed    maphash.Seed
	records map[string]readerRecord // as loaded

	opened  atomic.Pointer[[]*embeddedReader] // in the order of their bits in Takers
	feeders sync.WaitGroup
	shed    atomic.Pointer[func(backend string, events int, episode bool)]

	positions positions
	endMu     sync.Mutex
	end       endRecord // without positions
	endDirty  bool

	// Of Append, which one goroutine calls at a time.
	buf    []byte
	keys   []uint64
	sizes  []int
	wanted []Entry

	dirty, urgent chan struct{} // something is to be saved: soon, now
	closing       chan struct{}
	saverDone     chan struct{}
	trimmed       uint64 // of the saver: what Trim was last called with

	flushMu  sync.Mutex
	flushers []chan error
	buried   []DeadLetter

	saveErr   failure
	appendErr failure
}

// failure remembers the latest error until things work again.
type failure struct{ err atomic.Pointer[error] }

// set reports whether the state changed.
func (f *failure) set(err error) bool {
	if err == nil {
		return f.err.Swap(nil) != nil
	}
	return f.err.Swap(&err) == nil
}

func (f *failure) get() error {
	if p := f.err.Load(); p != nil {
		return *p
	}
	return nil
}

// OrphanError says that the outbox keeps events for backends that are not
// configured any more.
type OrphanError struct {
	Dir      string
	Backends []string
}

// Error implements error; it says what can be done.
func (e *OrphanError) Error() string {
	return fmt.Sprintf("outbox: %s keeps events for %q, and no such backend is configured: configure it under its old name, or give its events up with: eventpusher outbox forget %s",
		e.Dir, e.Backends[0], e.Backends[0])
}

// Reader implements Outbox; the backend is one of those that were named to
// OpenEmbedded.
func (e *Embedded) Reader(backend string, notify func()) (Reader, error) {
	rec, ok := e.records[backend]
	if !ok || !slices.Contains(e.o.Backends, backend) {
		return nil, fmt.Errorf("outbox: backend %q was not named when the outbox was opened", backend)
	}
	for _, r := range e.readers() {
		if r.backend == backend {
			return nil, fmt.Errorf("outbox: backend %q is read already", backend)
		}
	}
	r, err := newEmbeddedReader(e, backend, notify, rec)
	if err != nil {
		return nil, err
	}
	all := append(slices.Clone(e.readers()), r)
	e.opened.Store(&all)
	e.feeders.Go(r.feed)
	return r, nil
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

// Append implements Outbox.
func (e *Embedded) Append(p Pack) error {
	e.keys, e.sizes, e.wanted = e.keys[:0], e.sizes[:0], e.wanted[:0]
	defer func() { clear(e.wanted) }()
	readers := e.readers()
	for _, entry := range p.Entries {
		if entry.Takers &= 1<<len(readers) - 1; entry.Takers != 0 {
			e.wanted = append(e.wanted, entry)
			e.keys = append(e.keys, maphash.String(e.seed, entry.Event.Key()))
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
	h := packHeader{accepted: time.Now(), positions: e.positions.merged(p.Positions)}
	e.endMu.Lock()
	h.appended = e.end.appended
	e.endMu.Unlock()
	after := h.appended
	e.buf = h.append(e.buf[:0], len(e.wanted))
	for _, entry := range e.wanted {
		var ids Takers
		entry.Takers.each(func(bit int) {
			id := readers[bit].id
			ids.Add(int(id))
			after[id]++
		})
		e.buf = appendEntry(e.buf, ids, entry.Event)
	}
	if err := e.room(len(e.buf), len(p.Positions) > 0); err != nil {
		return err
	}
	first, err := e.seg.Append(e.buf, len(e.wanted))
	if e.appendErr.set(err); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	next := first + uint64(len(e.wanted))
	e.endMu.Lock()
	e.end.next, e.end.appended, e.endDirty = next, after, true
	e.endMu.Unlock()
	e.positions.advance(p.Positions)
	for bit, r := range readers {
		if r.hand(bit, first, next, h.accepted, e.wanted, e.keys, e.sizes) {
			r.notify()
		}
	}
	if cap(e.buf) > 8<<20 {
		e.buf = nil
	}
	return nil
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
	e.flushMu.Lock()
	e.buried = append(e.buried, letters...)
	e.flushMu.Unlock()
	return e.flush()
}

// DeadLetters implements Outbox.
func (e *Embedded) DeadLetters() DeadLetters { return e.letters }

// Durable implements Outbox.
func (e *Embedded) Durable() bool { return true }

// Err implements Outbox.
func (e *Embedded) Err() error {
	errs := []error{e.appendErr.get(), e.saveErr.get()}
	for _, r := range e.readers() {
		errs = append(errs, r.failure.get())
	}
	return errors.Join(errs...)
}

// Replay implements Outbox: the letters join what is parked for their backend, in
// the transaction that removes them. What does not fit stays.
func (e *Embedded) Replay(f LetterFilter) (int, error) {
	type moved struct {
		r *embeddedReader
		p parkedRecord
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
			m.r.addReplayed(&m.p)
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

// openFiles takes the lock and opens everything in the directory.
func (e *Embedded) openFiles() (found segment.Recovery, err error) {
	if err := os.MkdirAll(e.o.Dir, 0o700); err != nil {
		return found, fmt.Errorf("outbox: %w", err)
	}
	if e.lock, err = lockDir(e.o.Dir, e.o.LockTimeout); err != nil {
		return found, err
	}
	if e.db, err = openState(filepath.Join(e.o.Dir, "state.db"), true); err != nil {
		return found, err
	}
	floor := uint64(1)
	err = e.db.View(func(tx *bolt.Tx) (err error) {
		if e.records, err = loadReaders(tx); err != nil {
			return err
		}
		e.end, err = loadEnd(tx)
		floor = e.end.next
		return err
	})
	if err != nil {
		return found, err
	}
	var orphans []string
	for name, r := range e.records {
		floor = max(floor, r.cursor, r.mark)
		if !slices.Contains(e.o.Backends, name) {
			orphans = append(orphans, name)
		}
	}
	if len(orphans) > 0 {
		slices.Sort(orphans)
		return found, &OrphanError{Dir: e.o.Dir, Backends: orphans}
	}
	e.seg, found, err = segment.Open(segment.Options{
		Dir: filepath.Join(e.o.Dir, "segments"), SegmentSize: e.o.segmentSize, Floor: floor, Skip: e.o.SkipCorrupt, Log: e.log,
	})
	return found, err
}

// signal wakes whoever waits on a channel of capacity one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

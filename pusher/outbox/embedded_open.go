package outbox

import (
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/pusher/outbox/segment"
)

// Recovery is what OpenEmbedded has found.
type Recovery struct {
	// Clean says that the outbox was closed in order, so that nothing is delivered
	// a second time; otherwise up to Repeats events of each backend may be.
	Clean   bool
	Repeats int
	Log     segment.Recovery
	// Backends is in the order of their names.
	Backends []BackendRecovery
	Letters  int // dead letters kept
	Took     time.Duration
}

// BackendRecovery is what waits for one backend.
type BackendRecovery struct {
	Name    string
	Waiting int // in the log
	Parked  int
	Shed    uint64 // given up so far because the outbox was full
	Lost    uint64 // passed over so far because they could not be read
	// Settled says that nothing is left: the ack floor is at the end of the log, and nothing is
	// parked. A shared outbox never says so.
	Settled bool
}

// TornBytes returns how much was cut off the log because it was unfinished.
func (r Recovery) TornBytes() (n int64) {
	for _, c := range r.Log.Cuts {
		n += c.Bytes
	}
	return n
}

// Unreadable returns how many events were found to be missing from the log, or
// damaged in the part of it that a start reads.
func (r Recovery) Unreadable() (n uint64) {
	for _, h := range r.Log.Holes {
		n += h.Events()
	}
	return n
}

// LogValue implements slog.LogValuer, for the one line that a start writes.
func (r Recovery) LogValue() slog.Value {
	var waiting []any
	for _, b := range r.Backends {
		waiting = append(waiting, slog.Group(b.Name, "waiting", b.Waiting, "parked", b.Parked))
	}
	return slog.GroupValue(
		slog.Bool("clean", r.Clean), slog.Int("repeats_possible", r.Repeats), slog.Int64("bytes", r.Log.Bytes),
		slog.Int64("torn_bytes_cut", r.TornBytes()), slog.Uint64("events_unreadable", r.Unreadable()),
		slog.Int("dead_letters", r.Letters), slog.Group("backends", waiting...), slog.Duration("took", r.Took))
}

// OpenEmbedded opens the outbox in a directory, or begins one. Errors that callers
// may want to tell apart are *LockedError, *FormatError and
// segment's *CorruptionError and *VersionError.
func OpenEmbedded(o EmbeddedOptions) (*Embedded, Recovery, error) {
	began := time.Now()
	o.complete()
	e := &Embedded{
		o: o, log: o.Log, seed: maphash.MakeSeed(),
		dirty: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
		closing: make(chan struct{}), saverDone: make(chan struct{}),
	}
	found, err := e.openFiles()
	rec := Recovery{Log: found}
	if err == nil {
		err = e.recover(&rec)
	}
	if err != nil {
		if e.seg != nil {
			err = errors.Join(err, e.seg.Close())
		}
		if e.db != nil {
			err = errors.Join(err, e.db.Close())
		}
		if e.lock != nil {
			err = errors.Join(err, e.lock.Close())
		}
		return nil, rec, err
	}
	go e.saveLoop()
	rec.Took = time.Since(began)
	return e, rec, nil
}

// openFiles takes the lock and opens everything in the directory.
func (e *Embedded) openFiles() (found segment.Recovery, err error) {
	if err := os.MkdirAll(e.o.Dir, 0o700); err != nil {
		return found, fmt.Errorf("outbox: %w", err)
	}
	if e.lock, err = lockDir(e.o.Dir, e.o.LockTimeout); err != nil {
		return found, err
	}
	if e.db, err = openState(filepath.Join(e.o.Dir, "state.db")); err != nil {
		return found, err
	}
	floor := uint64(1)
	err = e.db.View(func(tx *bolt.Tx) (err error) {
		if e.registry.records, err = loadReaders(tx); err != nil {
			return err
		}
		e.end, err = loadEnd(tx)
		floor = e.end.next
		return err
	})
	if err != nil {
		return found, err
	}
	for _, r := range e.registry.all() {
		floor = max(floor, r.Floor, r.Top)
	}
	e.seg, found, err = segment.Open(segment.Options{
		Dir: filepath.Join(e.o.Dir, "segments"), SegmentSize: e.o.segmentSize, Floor: floor, Skip: e.o.SkipCorrupt, Log: e.log,
	})
	return found, err
}

// recover finds out where things stand, and registers new backends.
func (e *Embedded) recover(rec *Recovery) error {
	next := e.seg.Next()
	if next > e.end.next {
		if err := e.lastPack(next); err != nil {
			return err
		}
	}
	e.end.next = next
	known := e.registry.known()
	for id := range e.end.appended {
		if !known.Has(id) {
			e.end.appended[id] = 0 // of a backend that was forgotten
		}
	}
	for _, r := range e.registry.all() {
		if first := e.seg.First(); r.Floor < first && !e.o.SkipCorrupt {
			return &segment.CorruptionError{
				File: filepath.Join(e.o.Dir, "segments"), First: r.Floor, Next: first,
				Reason: "files are missing that backend " + r.name + " has not read",
			}
		}
	}
	e.positions.advance(e.end.positions)
	e.letters = &Letters{db: e.db, maxEvents: uint64(e.o.MaxLetters), maxBytes: uint64(e.o.MaxLetterBytes)}
	return e.db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		rec.Clean = meta.Get(keyClean) != nil || known == 0
		if !rec.Clean {
			rec.Repeats = e.o.Redelivery
		}
		if err := meta.Delete(keyClean); err != nil {
			return err
		}
		totals, err := loadTotals(tx)
		if err != nil {
			return err
		}
		rec.Letters = int(totals.kept) + countKeys(tx.Bucket(bucketUnread))
		for _, r := range e.registry.all() {
			b, err := r.recovery(tx, &e.end)
			if err != nil {
				return err
			}
			rec.Backends = append(rec.Backends, b)
		}
		end := e.end
		end.positions = e.positions.recent()
		return end.save(tx)
	})
}

// lastPack takes over what the last pack of the log says, which is newer than
// what was saved.
func (e *Embedded) lastPack(next uint64) (err error) {
	r, err := e.seg.Reader(next - 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	p, err := r.Next()
	var corrupt *segment.CorruptionError
	if errors.As(err, &corrupt) {
		return nil // the log has lost its end, and what was saved is all there is
	}
	if err != nil {
		return err
	}
	pack, err := readPack(p.Payload)
	if err != nil {
		return fmt.Errorf("outbox: last pack: %w", err)
	}
	e.end.appended = pack.header.appended
	e.end.positions = slices.Clone(pack.header.positions)
	for pack.events > 0 {
		ids, _, err := pack.next()
		if err != nil {
			return fmt.Errorf("outbox: last pack: %w", err)
		}
		ids.each(func(id int) { e.end.appended[id]++ })
	}
	return nil
}

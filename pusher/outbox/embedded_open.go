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
	// Backends is in the order of EmbeddedOptions.
	Backends []BackendRecovery
	Letters  int // dead letters kept
	Took     time.Duration
}

// BackendRecovery is what waits for one backend.
type BackendRecovery struct {
	Name    string
	New     bool // it was not known before
	Waiting int  // in the log
	Parked  int
	Shed    uint64 // given up so far because the outbox was full
	Lost    uint64 // passed over so far because they could not be read
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
		waiting = append(waiting, slog.Group(b.Name, "waiting", b.Waiting, "parked", b.Parked, "new", b.New))
	}
	return slog.GroupValue(
		slog.Bool("clean", r.Clean), slog.Int("repeats_possible", r.Repeats), slog.Int64("bytes", r.Log.Bytes),
		slog.Int64("torn_bytes_cut", r.TornBytes()), slog.Uint64("events_unreadable", r.Unreadable()),
		slog.Int("dead_letters", r.Letters), slog.Group("backends", waiting...), slog.Duration("took", r.Took))
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

// OpenEmbedded opens the outbox in a directory, or begins one. Errors that callers
// may want to tell apart are *LockedError, *FormatError, *OrphanError and
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
		if e.db.DB != nil {
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
		floor = max(floor, r.Floor, r.Top)
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

// recover finds out where things stand, and registers new backends.
func (e *Embedded) recover(rec *Recovery) error {
	next := e.seg.Next()
	if next > e.end.next {
		if err := e.lastPack(next); err != nil {
			return err
		}
	}
	for _, name := range e.o.Backends {
		r, known := e.records[name]
		if first := e.seg.First(); known && r.Floor < first && !e.o.SkipCorrupt {
			return &segment.CorruptionError{
				File: filepath.Join(e.o.Dir, "segments"), First: r.Floor, Next: first,
				Reason: "files are missing that backend " + name + " has not read",
			}
		}
	}
	e.positions.advance(e.end.positions)
	e.letters = &Letters{db: e.db, maxEvents: uint64(e.o.MaxLetters), maxBytes: uint64(e.o.MaxLetterBytes)}
	return e.db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		rec.Clean = meta.Get(keyClean) != nil || len(e.records) == 0
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
		rec.Letters = int(totals.kept)
		for _, name := range e.o.Backends {
			r, known := e.records[name]
			if !known {
				if r, err = register(tx, e.records, name, readerRecord{Progress: Progress{Floor: next, Top: next}}); err != nil {
					return err
				}
				e.end.appended[r.id] = 0
			}
			b := BackendRecovery{Name: name, New: !known, Shed: r.shed, Lost: r.lost}
			if r.Floor < next {
				b.Waiting = int(e.end.appended[r.id] - min(r.done, e.end.appended[r.id]))
			}
			err := eachParked(tx, r.id, func(ParkedID, []byte) error {
				b.Parked++
				return nil
			})
			if err != nil {
				return err
			}
			rec.Backends = append(rec.Backends, b)
		}
		e.end.next = next
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

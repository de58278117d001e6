package outbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"
)

// registry is what state.db says of all backends, whether they are read or not. A backend
// that is read may have come further. It is safe for concurrent use.
type registry struct {
	mu      sync.Mutex
	records map[string]readerRecord
	retired Subscribers // numbers that were given up, which packs on their way may still name
}

// namedRecord is the record of one backend.
type namedRecord struct {
	name string
	readerRecord
}

// all returns a copy in the order of the names.
func (g *registry) all() []namedRecord {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]namedRecord, 0, len(g.records))
	for name, r := range g.records {
		list = append(list, namedRecord{name, r})
	}
	slices.SortFunc(list, func(a, b namedRecord) int { return cmp.Compare(a.name, b.name) })
	return list
}

// known returns the numbers of all backends.
func (g *registry) known() (s Subscribers) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range g.records {
		s.Add(int(r.id))
	}
	return s
}

func (g *registry) get(name string) (readerRecord, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, ok := g.records[name]
	return r, ok
}

func (g *registry) set(name string, r readerRecord) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.records[name] = r
}

// retire removes a backend. Its number is not given to another one before the next start.
func (g *registry) retire(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.retired.Add(int(g.records[name].id))
	delete(g.records, name)
}

// register returns the record of a new backend, which begins at next.
func (g *registry) register(name string, next uint64) (r readerRecord, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	used := g.retired
	for r := range maps.Values(g.records) {
		used.Add(int(r.id))
	}
	for id := range MaxReaders {
		if !used.Has(id) {
			return readerRecord{id: uint8(id), Progress: Progress{Floor: next, Top: next}}, nil
		}
	}
	return r, fmt.Errorf("outbox: there is no room for the backend %s: the outbox has had %d since the start, which is the most: restart eventpusher", name, MaxReaders)
}

// reader returns the reader of a backend, nil if it is not read.
func (e *Embedded) reader(backend string) *embeddedReader {
	for _, r := range e.readers() {
		if r.backend == backend {
			return r
		}
	}
	return nil
}

// Reader implements Outbox.
func (e *Embedded) Reader(backend string, notify func()) (Reader, error) {
	e.appending.Lock()
	defer e.appending.Unlock()
	if e.reader(backend) != nil {
		return nil, fmt.Errorf("outbox: backend %q is read already", backend)
	}
	rec, known := e.registry.get(backend)
	if !known {
		var err error
		if rec, err = e.registry.register(backend, e.seg.Next()); err != nil {
			return nil, err
		}
		err = e.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketReaders).Put([]byte(backend), rec.append(nil)) })
		if err != nil {
			return nil, fmt.Errorf("outbox: %w", err)
		}
		e.registry.set(backend, rec)
	}
	if notify == nil {
		notify = func() {}
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

// Close implements Reader.
func (r *embeddedReader) Close() error {
	e := r.engine
	e.appending.Lock()
	defer e.appending.Unlock()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	close(r.closing)
	<-r.fed
	err := e.flush()
	r.mu.Lock()
	r.dirty = false // or a save could write the record after Forget has removed it
	e.registry.set(r.backend, r.saved)
	r.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(e.readers()), func(o *embeddedReader) bool { return o == r })
	e.opened.Store(&all)
	return err
}

// Backends implements Outbox.
func (e *Embedded) Backends() (list []BackendRecovery, err error) {
	e.endMu.Lock()
	end := e.end
	e.endMu.Unlock()
	err = e.db.View(func(tx *bolt.Tx) error {
		for _, rec := range e.registry.all() {
			if r := e.reader(rec.name); r != nil {
				list = append(list, r.recovery())
				continue
			}
			b, err := rec.recovery(tx, &end)
			if err != nil {
				return err
			}
			list = append(list, b)
		}
		return nil
	})
	return list, err
}

// recovery says what waits for a backend that is not read.
func (r *namedRecord) recovery(tx *bolt.Tx, end *endRecord) (BackendRecovery, error) {
	appended := end.appended[r.id]
	b := BackendRecovery{Name: r.name, Shed: r.shed, Lost: r.lost, Waiting: int(appended - min(r.done, appended))}
	err := eachParked(tx, r.id, func(ParkedID, []byte) error {
		b.Parked++
		return nil
	})
	b.Settled = b.Parked == 0 && r.Floor >= end.next
	return b, err
}

// errRead says that something cannot be done while a backend is read.
var errRead = errors.New("outbox: the backend is in use")

// unread returns the record of a backend that must not be read.
func (e *Embedded) unread(backend string) (readerRecord, error) {
	rec, known := e.registry.get(backend)
	switch {
	case !known:
		return rec, fmt.Errorf("outbox: nothing is kept for a backend %q: %w", backend, fs.ErrNotExist)
	case e.reader(backend) != nil:
		return rec, fmt.Errorf("%w: %s", errRead, backend)
	}
	return rec, nil
}

// Rename implements Outbox.
func (e *Embedded) Rename(from, to string) error {
	e.appending.Lock()
	defer e.appending.Unlock()
	rec, err := e.unread(from)
	if err != nil {
		return err
	}
	if _, known := e.registry.get(to); known {
		return fmt.Errorf("outbox: there is a backend %q already", to)
	}
	err = e.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketReaders)
		return errors.Join(b.Delete([]byte(from)), b.Put([]byte(to), rec.append(nil)))
	})
	if err != nil {
		return err
	}
	e.registry.mu.Lock()
	delete(e.registry.records, from)
	e.registry.records[to] = rec
	e.registry.mu.Unlock()
	return nil
}

// Forget implements Outbox.
func (e *Embedded) Forget(backend string) (waiting int, err error) {
	e.appending.Lock()
	defer e.appending.Unlock()
	rec, err := e.unread(backend)
	if err != nil {
		return 0, err
	}
	e.endMu.Lock()
	appended := e.end.appended[rec.id]
	e.endMu.Unlock()
	waiting = int(appended - min(rec.done, appended))
	err = e.db.Update(func(tx *bolt.Tx) error {
		n, err := forgetParked(tx, rec.id)
		waiting += n
		return errors.Join(err, tx.Bucket(bucketReaders).Delete([]byte(backend)))
	})
	if err != nil {
		return 0, err
	}
	e.endMu.Lock()
	e.end.appended[rec.id], e.endDirty = 0, true
	e.endMu.Unlock()
	e.registry.retire(backend)
	signal(e.urgent) // the files that only it needed can go
	return waiting, nil
}

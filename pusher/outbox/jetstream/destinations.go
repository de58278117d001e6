package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// destination is a backend as this process knows it: a bit of Subscribers, which never
// stands for another one.
type destination struct {
	bit  int
	name string
	reg  atomic.Pointer[registered] // nil: not in the registry
}

// destinations are all backends that this process has read, by their bits.
func (e *Engine) destinations() []*destination { return *e.table.Load() }

// destination returns the destination of a backend, a new one if there is none. e.openMu is
// held.
func (e *Engine) destination(backend string) (*destination, error) {
	all := e.destinations()
	for _, d := range all {
		if d.name == backend {
			return d, nil
		}
	}
	if len(all) == outbox.MaxReaders {
		return nil, fmt.Errorf("outbox: there is no room for the backend %s: the outbox has had %d since the start, which is the most: restart eventpusher", backend, outbox.MaxReaders)
	}
	d := &destination{bit: len(all), name: backend}
	all = append(slices.Clone(all), d)
	e.table.Store(&all)
	return d, nil
}

// reader returns the reader of a backend, nil if it is not read.
func (e *Engine) reader(backend string) *reader {
	for _, r := range *e.readers.Load() {
		if r.backend == backend {
			return r
		}
	}
	return nil
}

// setReaders replaces the readers, and the backends that will be read from the start and are
// not yet. The heartbeats name all that this instance delivers to. e.openMu is held.
func (e *Engine) setReaders(all []*reader, awaited []string) {
	e.readers.Store(&all)
	e.awaited = awaited
	names := slices.Clone(awaited)
	for _, r := range all {
		if r.delivers {
			names = append(names, r.backend)
		}
	}
	e.uses.Store(&names)
}

// announce names the backends to the other instances before they are registered, so that
// nobody takes them for unused.
func (e *Engine) announce(ctx context.Context) error {
	if err := e.cluster.Announce(ctx); err != nil {
		return fmt.Errorf("outbox: %w", natsrpc.Explain(err))
	}
	return nil
}

// Reader implements outbox.Outbox. A backend that is new to the outbox begins after what the
// log holds now, or when NATS is reached for the first time.
func (e *Engine) Reader(backend string, notify func()) (outbox.Reader, error) {
	e.openMu.Lock()
	defer e.openMu.Unlock()
	if e.reader(backend) != nil {
		return nil, fmt.Errorf("outbox: backend %q is read already", backend)
	}
	d, err := e.destination(backend)
	if err != nil {
		return nil, err
	}
	before, awaited := *e.readers.Load(), e.awaited
	r := newReader(e, d, notify)
	e.setReaders(append(slices.Clone(before), r), slices.DeleteFunc(slices.Clone(awaited), func(name string) bool { return name == backend }))
	ctx, cancel := e.request()
	defer cancel()
	if s := e.set.Load(); s != nil && d.reg.Load() == nil {
		var m meta
		var seq uint64
		if err = e.announce(ctx); err == nil {
			m, seq, err = s.readMeta(ctx)
		}
		if err == nil {
			err = e.enter(ctx, s, m, seq)
		}
		if err != nil {
			r.stop()
			e.setReaders(before, awaited)
			return nil, err
		}
	} else {
		_ = e.fit(ctx) // follow does it again
	}
	if e.joined {
		e.running.Go(r.feed)
	}
	e.joinLocked()
	return r, nil
}

// Close implements outbox.Reader.
func (r *reader) Close() error {
	e := r.engine
	e.openMu.Lock()
	defer e.openMu.Unlock()
	var err error
	for _, p := range e.parts.all() {
		if err == nil && p.usable() {
			err = p.save(e.ctx, false)
		}
	}
	e.setReaders(slices.DeleteFunc(slices.Clone(*e.readers.Load()), func(o *reader) bool { return o == r }), e.awaited)
	r.stop()
	if e.joined {
		<-r.fed
	}
	ctx, cancel := e.request()
	defer cancel()
	return errors.Join(err, e.fit(ctx)) // follow does it again
}

// follow takes over what other instances have changed in the registry, and returns it.
func (e *Engine) follow(ctx context.Context) (meta, error) {
	e.openMu.Lock()
	defer e.openMu.Unlock()
	s := e.set.Load()
	m, seq, err := s.readMeta(ctx)
	if err == nil && seq != e.metaSeq { // it is smaller after a power cut of the servers
		err = e.enter(ctx, s, m, seq)
	}
	return m, err
}

// enter takes over a registry. Backends that this instance delivers to are registered if they
// are not in it; others that are not in it are gone. e.openMu is held.
func (e *Engine) enter(ctx context.Context, s *layout, m meta, seq uint64) error {
	var missing []string
	for _, r := range *e.readers.Load() {
		if _, known := m.Backends[r.backend]; r.delivers && !known {
			missing = append(missing, r.backend)
		}
	}
	if len(missing) > 0 {
		var err error
		if m, seq, err = s.register(ctx, e.o.Partitions, missing); err != nil {
			return err
		}
	}
	for _, d := range e.destinations() {
		if reg, known := m.Backends[d.name]; known {
			d.reg.Store(&reg)
		} else {
			d.reg.Store(nil)
		}
	}
	if err := e.fit(ctx); err != nil {
		return err
	}
	e.metaSeq = seq
	return nil
}

// fit gives all partitions the lanes that the readers want. If it fails, follow does it again.
func (e *Engine) fit(ctx context.Context) (err error) {
	for _, p := range e.parts.all() {
		err = errors.Join(err, p.refit(ctx))
	}
	if err != nil {
		e.metaSeq = 0
	}
	return err
}

// Backends implements outbox.Outbox. Of a backend that is not read Waiting counts messages of
// the log.
func (e *Engine) Backends() (list []outbox.BackendRecovery, err error) {
	s := e.set.Load()
	if s == nil {
		return nil, nil
	}
	ctx, cancel := e.request()
	defer cancel()
	m, err := e.follow(ctx)
	if err != nil {
		return nil, err
	}
	for name, b := range m.Backends {
		one := outbox.BackendRecovery{Name: name}
		if r := e.reader(name); r != nil {
			s := r.Stats()
			one = outbox.BackendRecovery{Name: name, Waiting: s.Waiting + s.InFlight - s.Parked, Parked: s.Parked, Shed: s.Shed, Lost: s.Lost}
		} else if one.Waiting, err = s.waiting(ctx, &m, &b); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b outbox.BackendRecovery) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Rename implements outbox.Outbox. It is an error if any instance delivers to from.
func (e *Engine) Rename(from, to string) error {
	_, err := e.change(from, func(ctx context.Context, s *layout) (int, error) { return 0, s.rename(ctx, from, to) })
	return err
}

// Forget implements outbox.Outbox. It is an error if any instance delivers to the backend. What it returns
// counts messages of the log.
func (e *Engine) Forget(backend string) (int, error) {
	return e.change(backend, func(ctx context.Context, s *layout) (int, error) { return s.forget(ctx, backend) })
}

// Merge implements outbox.Merger. What it returns counts messages of the log.
func (e *Engine) Merge(from, to string) (int, error) {
	return e.change(from, func(ctx context.Context, s *layout) (int, error) { return s.merge(ctx, from, to) })
}

// change does something to a backend that must not be read here. The other instances see it
// within a second or two.
func (e *Engine) change(backend string, do func(ctx context.Context, s *layout) (int, error)) (int, error) {
	s := e.set.Load()
	if s == nil {
		return 0, e.connection.Get()
	}
	if e.reader(backend) != nil {
		return 0, fmt.Errorf("outbox: the backend is in use: %s", backend)
	}
	ctx, cancel := context.WithTimeout(e.ctx, 6*requestTimeout)
	defer cancel()
	n, err := do(ctx, s)
	if err == nil {
		_, err = e.follow(ctx)
	}
	return n, err
}

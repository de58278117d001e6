// Package jetstream is the outbox in NATS JetStream, which several instances of
// eventpusher share: one of them holds the link to the XMPP server, all of them
// deliver.
//
// Events are divided by key into partitions, each a stream of packs. One instance
// at a time has a partition (cluster.go); it reads the stream once for each
// backend (lane.go), hands the events to the backend's lanes and keeps how far it
// has come, what is parked and what is dead in JetStream as well (save.go). So
// another instance can go on where it stopped.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/pusher/outbox"
)

// Engine implements outbox.Outbox and outbox.Elector.
type Engine struct {
	o    Options
	log  *slog.Logger
	nc   *nats.Conn
	js   js.JetStream
	seed maphash.Seed

	ctx     context.Context // until Close
	stop    context.CancelFunc
	running sync.WaitGroup

	set     atomic.Pointer[setup] // nil until JetStream is there
	isSet   chan struct{}         // closed then, or when it never will be
	never   atomic.Pointer[error] // why it never will be
	cluster *cluster

	openMu  sync.Mutex
	readers atomic.Pointer[[]*reader] // in the order of their bits in Subscribers
	joined  bool

	shed atomic.Pointer[func(backend string, events int, episode bool)]
	full atomic.Pointer[func(backend string)]

	writer    writer
	positions positions
	size      size
	saver     saver

	failures
}

// setup is what exists once JetStream was reached.
type setup struct {
	*layout
	meta meta
}

// failures are the reasons for which the engine does not work as it should.
type failures struct {
	connection, appending, saving, sizing fault
}

// fault remembers the latest error until things work again.
type fault struct{ err atomic.Pointer[error] }

// set reports whether the state changed.
func (f *fault) set(err error) bool {
	if err == nil {
		return f.err.Swap(nil) != nil
	}
	return f.err.Swap(&err) == nil
}

func (f *fault) get() error {
	if p := f.err.Load(); p != nil {
		return *p
	}
	return nil
}

// errNotReached is the state before the first contact.
var errNotReached = errors.New("outbox: NATS has not been reached yet")

// Open connects to NATS and prepares the streams. When NATS cannot be reached, or
// has no quorum yet, that goes on in the background and Open returns all the
// same; what it then finds wrong for good is returned by Lead. Errors that
// callers may want to tell apart are *SettingsError, *PartitionsError,
// *FormatError and *OrphanError.
func Open(o Options) (*Engine, error) {
	o.complete()
	e := &Engine{o: o, log: o.Log, seed: maphash.MakeSeed(), isSet: make(chan struct{})}
	e.readers.Store(new([]*reader))
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.saver.init()
	e.connection.set(errNotReached)
	e.cluster = newCluster(e)
	var reachable bool
	var err error
	if e.nc, reachable, err = dial(&o, e.lost, e.back); err != nil {
		return nil, err
	}
	e.js, err = js.New(e.nc, js.WithDefaultTimeout(requestTimeout), js.WithPublishAsyncTimeout(o.answer()))
	if err == nil && reachable {
		err = e.prepare()
		if err != nil && temporary(err) {
			e.log.Warn("the outbox is not ready yet; it will be tried again", "err", err)
			reachable, err = false, nil
		}
	}
	if err != nil {
		e.stop()
		e.nc.Close()
		return nil, err
	}
	if !reachable {
		e.running.Go(e.keepPreparing)
	}
	e.running.Go(e.saveLoop)
	return e, nil
}

// lost is called when the connection is gone.
func (e *Engine) lost() {
	e.connection.set(errors.New("outbox: the connection to NATS is lost"))
	e.notifyAll()
}

// back is called when it is there again.
func (e *Engine) back() {
	if e.set.Load() != nil {
		e.connection.set(nil)
	}
	for _, r := range *e.readers.Load() {
		for _, l := range *r.lanes.Load() {
			l.reopen()
		}
	}
	e.cluster.watchAgain()
	e.saver.touch()
	e.notifyAll()
}

// prepare makes everything in JetStream.
func (e *Engine) prepare() error {
	ctx, cancel := context.WithTimeout(e.ctx, 6*requestTimeout)
	defer cancel()
	began := time.Now()
	l, err := openLayout(ctx, e.js, &e.o, true)
	if err != nil {
		return err
	}
	m, err := l.register(ctx, e.o.Backends)
	if err != nil {
		return err
	}
	if err := e.positions.load(ctx, l); err != nil {
		return err
	}
	e.log.Info("outbox opened", "prefix", e.o.Prefix, "server", e.nc.ConnectedUrlRedacted(), "version", e.nc.ConnectedServerVersion(),
		"partitions", m.Partitions, "replicas", e.o.Replicas, "took", time.Since(began).Round(time.Millisecond))
	if o := e.writer.largest(e.nc); o < 1<<20-headroom {
		e.log.Warn("NATS takes only small messages: larger events become dead letters", "max_event_bytes", o, "remedy", "raise max_payload of nats-server")
	}
	e.set.Store(&setup{l, m})
	e.connection.set(nil)
	close(e.isSet)
	e.join()
	return nil
}

// keepPreparing goes on until prepare has succeeded or never will.
func (e *Engine) keepPreparing() {
	said := ""
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-time.After(time.Second / 2):
		}
		if !e.nc.IsConnected() {
			continue
		}
		switch err := e.prepare(); {
		case err == nil || e.ctx.Err() != nil:
			return
		case !temporary(err):
			e.never.Store(&err)
			e.connection.set(err)
			close(e.isSet)
			return
		case err.Error() != said:
			said = err.Error()
			e.connection.set(err)
			e.log.Warn("the outbox is not ready yet; it will be tried again", "err", err)
		}
	}
}

// Reader implements outbox.Outbox; the backend is one of those that were named
// to Open.
func (e *Engine) Reader(backend string, notify func()) (outbox.Reader, error) {
	e.openMu.Lock()
	defer e.openMu.Unlock()
	if !slices.Contains(e.o.Backends, backend) {
		return nil, fmt.Errorf("outbox: backend %q was not named when the outbox was opened", backend)
	}
	for _, r := range *e.readers.Load() {
		if r.backend == backend {
			return nil, fmt.Errorf("outbox: backend %q is read already", backend)
		}
	}
	r := &reader{engine: e, backend: backend, notify: notify}
	r.lanes.Store(new([]*lane))
	all := append(slices.Clone(*e.readers.Load()), r)
	r.number = len(all) - 1
	e.readers.Store(&all)
	e.joinLocked()
	return r, nil
}

// join takes part in the delivery as soon as everything is there for it: the
// streams, and all readers.
func (e *Engine) join() {
	e.openMu.Lock()
	defer e.openMu.Unlock()
	e.joinLocked()
}

func (e *Engine) joinLocked() {
	if e.joined || e.set.Load() == nil || len(*e.readers.Load()) < len(e.o.Backends) || e.ctx.Err() != nil {
		return
	}
	e.joined = true
	e.running.Go(e.cluster.watch)
	e.running.Go(e.cluster.run)
	e.running.Go(e.watchReplays)
	e.running.Go(e.sizeLoop)
}

func (e *Engine) notifyAll() {
	for _, r := range *e.readers.Load() {
		r.notify()
	}
}

// OnShed sets the function that is told how many events a reader has given up;
// episode says that this is the first time since the outbox had room again.
func (e *Engine) OnShed(f func(backend string, events int, episode bool)) { e.shed.Store(&f) }

// OnParkedFull sets the function that is told of each event that became a dead
// letter because too much was parked for its backend. It must not block and not
// use the outbox.
func (e *Engine) OnParkedFull(f func(backend string)) { e.full.Store(&f) }

// Durable implements outbox.Outbox.
func (e *Engine) Durable() bool { return true }

// Err implements outbox.Outbox.
func (e *Engine) Err() error {
	errs := []error{e.connection.get(), e.appending.get(), e.saving.get(), e.sizing.get()}
	for _, r := range *e.readers.Load() {
		errs = append(errs, r.failure.get())
	}
	return errors.Join(errs...)
}

// request bounds one request.
func (e *Engine) request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(e.ctx, requestTimeout)
}

// Close saves how far everything has come, gives the partitions up and
// disconnects. What waits is there for other instances, or for the next start.
func (e *Engine) Close() error {
	err := e.cluster.leave()
	e.stop()
	e.nc.Close() // what still waits for an answer need not wait any longer
	e.running.Wait()
	return err
}

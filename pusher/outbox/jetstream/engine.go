// Package jetstream is the outbox in NATS JetStream, which several instances of eventpusher
// share: one of them holds the link to the XMPP server, all of them deliver.
//
//	PREFIX_EVENTS  the log: one message for each group commit, with the feeds' positions
//	PREFIX_STATE   one message a subject: the holder of the link and the heartbeats
//	               (package cluster), the registry of backends, and of each partition a
//	               register (owner, progress of each backend), the list of parked events,
//	               the parked events, dead letters on their way
//	PREFIX_DEAD    the dead letters, copied by the servers from PREFIX_STATE
//
// Nothing rests on leases. Every write names what it comes after, and the servers refuse it
// if something else is there:
//
//	log        expects the last sequence of the log; the holder of the link begins with an
//	           empty message of its own, so a predecessor's messages fit nowhere
//	partition  expects the last sequence of the register, which each save and each new
//	           owner replaces; parked events and dead letters are in the same batch
//	bury       expects the record of the link to be the holder's own
//
// A refusal or a timeout proves nothing: the servers may have stored the write, or store it
// later. So the writer looks what is there, and sends the same again with the same
// expectation until that is its own or another one's.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/cluster"
	"eventpusher/pusher/outbox"
)

// Engine implements outbox.Outbox and outbox.Elector.
type Engine struct {
	*natsrpc.Questions

	o    Options
	log  *slog.Logger
	nc   *nats.Conn
	js   js.JetStream
	seed maphash.Seed

	ctx     context.Context // until Close
	stop    context.CancelFunc
	running sync.WaitGroup

	set     atomic.Pointer[layout] // nil until JetStream was reached
	isSet   chan struct{}          // closed then, or when it never will be
	never   atomic.Pointer[error]  // why it never will be
	cluster *cluster.Cluster

	openMu  sync.Mutex                     // changes the following
	table   atomic.Pointer[[]*destination] // see destinations
	readers atomic.Pointer[[]*reader]
	uses    atomic.Pointer[[]string] // the backends that this instance delivers to
	awaited []string                 // backends that will be read from the start, and are not yet
	metaSeq uint64                   // of the registry that was entered last; 0: enter it again
	joined  bool

	shed atomic.Pointer[func(backend string, events int, episode bool)]
	full atomic.Pointer[func(backend string)]

	writer writer
	cache  cache
	parts  parts
	tip    atomic.Uint64 // the last sequence of the log, as far as is known
	size   size
	short  atomic.Int64 // since when the log ends too early, in nanoseconds; 0: it does not
	// undecodable is when a letter without an event was buried last, in nanoseconds.
	undecodable atomic.Int64

	failures
}

// failures are the reasons for which the engine does not work as it should.
type failures struct {
	connection, appending, seizing, saving, sizing outbox.Failure
}

// errNotReached is the state before the first contact.
var errNotReached = errors.New("outbox: NATS has not been reached yet")

// Open connects to NATS and prepares the streams. When NATS cannot be reached, or has no
// quorum yet, that goes on in the background and Open returns all the same; an error that
// is found then, and that trying again does not mend, is returned by Lead. Errors that callers may want to tell
// apart are *ServerError, *SettingsError, *PartitionsError, *FormatError and *EarlierError.
func Open(o Options) (*Engine, error) {
	o.complete()
	e := &Engine{o: o, log: o.Log, seed: maphash.MakeSeed(), isSet: make(chan struct{})}
	e.table.Store(new([]*destination))
	e.setReaders(nil, o.Backends)
	for _, name := range o.Backends {
		if _, err := e.destination(name); err != nil {
			return nil, err
		}
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.connection.Set(errNotReached)
	e.parts.init()
	var reachable bool
	var err error
	if e.nc, reachable, err = natsrpc.Dial(&o.Options, e.lost, e.back); err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	n := names{o.Prefix}
	e.cluster = cluster.New(cluster.Options{
		Store: &natsrpc.Store{NC: e.nc, Stream: n.state()}, Prefix: n.cluster(), Name: o.Instance, Uses: func() []string { return *e.uses.Load() },
		Leases:  [...]cluster.Lease{cluster.Link: o.linkLease(), cluster.Deliver: o.deliverLease()},
		Watch:   []string{n.parts() + "*"},
		Own:     e.cache.last,
		Changed: e.seen, Log: o.Log,
	})
	e.Questions = &natsrpc.Questions{NC: e.nc, Prefix: o.Prefix, Cluster: e.cluster}
	e.js, err = js.New(e.nc, js.WithDefaultTimeout(requestTimeout))
	if err == nil && reachable {
		err = e.prepare()
		if err != nil && natsrpc.Temporary(err) {
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
	return e, nil
}

// lost is called when the connection is gone.
func (e *Engine) lost() {
	e.connection.Set(errors.New("outbox: the connection to NATS is lost"))
	e.notifyAll()
}

// back is called when it is there again.
func (e *Engine) back() {
	if e.set.Load() != nil {
		e.connection.Set(nil)
	}
	for _, r := range *e.readers.Load() {
		r.lookDue.Store(true)
	}
	e.wakeReaders()
	e.notifyAll()
}

// join takes part in the delivery as soon as everything is there for it: the streams, and
// all readers.
func (e *Engine) join() {
	e.openMu.Lock()
	defer e.openMu.Unlock()
	e.joinLocked()
}

func (e *Engine) joinLocked() {
	if e.joined || e.set.Load() == nil || len(e.awaited) > 0 || e.ctx.Err() != nil {
		return
	}
	e.joined = true
	for _, r := range *e.readers.Load() {
		e.running.Go(r.feed)
	}
	e.parts.open()
	e.running.Go(e.guard)
	e.running.Go(e.sizeLoop)
	e.running.Go(e.replayLoop)
}

func (e *Engine) notifyAll() {
	for _, r := range *e.readers.Load() {
		r.notify()
	}
}

func (e *Engine) wakeReaders() {
	for _, r := range *e.readers.Load() {
		signal(r.wake)
	}
}

// listen hears of what other instances have appended or replayed. Without it the readers
// look once a second.
func (e *Engine) listen() {
	heard := make(chan *nats.Msg, 1)
	sub, err := e.nc.ChanSubscribe(names{e.o.Prefix}.bell(), heard)
	if err != nil {
		return // the connection is closed
	}
	defer func() { _ = sub.Unsubscribe() }() // the same
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case m := <-heard:
			if seq, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
				e.reach(seq)
			} else {
				signal(e.parts.replays)
			}
		case <-tick.C:
			for _, r := range *e.readers.Load() {
				r.lookDue.Store(true)
			}
		}
		e.wakeReaders()
	}
}

// ring tells the other instances how far the log goes.
func (e *Engine) ring(seq uint64) {
	_ = e.nc.Publish(names{e.o.Prefix}.bell(), strconv.AppendUint(nil, seq, 10)) // they look anyway
}

// reach notes that the log goes so far.
func (e *Engine) reach(seq uint64) {
	for tip := e.tip.Load(); seq > tip && !e.tip.CompareAndSwap(tip, seq); tip = e.tip.Load() {
	}
}

// OnShed sets the function that is told how many events a reader has given up; episode says
// that this is the first time since the outbox had room again.
func (e *Engine) OnShed(f func(backend string, events int, episode bool)) { e.shed.Store(&f) }

// OnParkedFull sets the function that is told of each event that became a dead letter because
// too much was parked for its backend. It must not block and not use the outbox.
func (e *Engine) OnParkedFull(f func(backend string)) { e.full.Store(&f) }

// Err implements outbox.Outbox.
func (e *Engine) Err() error {
	errs := []error{e.connection.Get(), e.appending.Get(), e.seizing.Get(), e.saving.Get(), e.sizing.Get()}
	for _, r := range *e.readers.Load() {
		errs = append(errs, r.failure.Get())
	}
	return errors.Join(errs...)
}

// Standing implements outbox.Elector.
func (e *Engine) Standing() outbox.Standing {
	s := e.cluster.Standing()
	s.Partitions, s.Of = e.parts.count(), e.o.Partitions
	return s
}

// Retire acquires no further partition, and has the other instances acquire those that are
// free: this one is about to be closed. It keeps what it has, and does not block.
func (e *Engine) Retire() { e.cluster.Retire() }

// request bounds one request.
func (e *Engine) request() (context.Context, context.CancelFunc) {
	return context.WithTimeout(e.ctx, requestTimeout)
}

// Close saves how far everything has come, releases the partitions and disconnects. What
// waits is there for other instances, or for the next start.
func (e *Engine) Close() error {
	var err error
	if e.set.Load() != nil && e.nc.IsConnected() {
		err = e.releaseAll()
		ctx, cancel := e.request()
		err = errors.Join(err, e.cluster.Leave(ctx))
		cancel()
	}
	e.stop()
	e.nc.Close() // whatever still waits for an answer need not wait any longer
	e.running.Wait()
	return err
}

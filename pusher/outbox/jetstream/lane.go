package jetstream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	js "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// The numbers of events in a Window: the sequence of the pack in its stream, and
// the place in the pack.
const (
	placeBits = 12
	ackWait   = 2 * time.Minute
	// maxAckPending bounds the packs of which some event is not settled, unless the window
	// may hold more of them: it, and not the server, decides what has to be parked.
	maxAckPending = 4096
	// pulled is how many packs wait in the client, beside those in the window.
	pulled = 8
)

func numberOf(seq uint64, place int) uint64 { return seq<<placeBits | uint64(place) }

// owned is a partition that this instance has.
type owned struct {
	e       *Engine
	n       int
	leaving atomic.Bool // nothing more is handed out
	trimmed uint64      // of sizeLoop: up to where the stream was purged
	goal    uint64      // of sizeLoop: before which events are given up

	mu    sync.Mutex
	lanes []*lane // of all backends, once they are open
}

func newOwned(e *Engine, n int) *owned { return &owned{e: e, n: n} }

// run serves all backends until ctx ends.
func (o *owned) run(ctx context.Context) {
	var lanes sync.WaitGroup
	for _, r := range *o.e.readers.Load() {
		lanes.Go(func() { o.serve(ctx, r) })
	}
	lanes.Wait()
}

// serve reads the partition for one backend.
func (o *owned) serve(ctx context.Context, r *reader) {
	for ctx.Err() == nil {
		l, err := r.openLane(ctx, o)
		if err == nil {
			o.mu.Lock()
			o.lanes = append(o.lanes, l)
			o.mu.Unlock()
			r.failure.set(nil)
			l.run(ctx)
			r.remove(l)
			return
		}
		if ctx.Err() == nil && r.failure.set(err) {
			o.e.log.Warn("a partition cannot be taken over yet", "backend", r.backend, "partition", o.n, "err", err)
		}
		pause(ctx, time.Second)
	}
}

// settle waits until nothing of the partition is on its way, and saves that.
func (o *owned) settle(ctx context.Context) {
	for ctx.Err() == nil {
		idle := true
		o.mu.Lock()
		for _, l := range o.lanes {
			idle = idle && l.w.Idle()
		}
		o.mu.Unlock()
		if idle {
			if err := o.e.save(); err == nil {
				return
			}
		}
		pause(ctx, saveInterval)
	}
}

// lane is one partition as one backend reads it.
type lane struct {
	r      *reader
	o      *owned
	number uint8
	token  string // tells it from every other that ever had the partition
	w      *outbox.Window
	wake   chan struct{} // there may be room in the window
	open   atomic.Bool   // something may be handed out

	mu       sync.Mutex
	packs    []*waitingPack             // not acknowledged, ascending
	next     uint64                     // the sequence that comes next
	saved    uint64                     // below it all is settled and saved
	revision uint64                     // of the progress record
	pending  uint64                     // packs in the stream behind next
	waited   uint64                     // what next was when stalled looked, if it may have been
	packed   float64                    // events of the backend in a pack, on average
	places   map[outbox.ParkedID]uint64 // where parked events are kept
	again    context.CancelFunc         // ends consume, to begin it anew; nil while it does not run
}

// waitingPack is a pack in the window.
type waitingPack struct {
	seq     uint64
	msg     js.Msg
	touched time.Time // when the server last heard of it
}

// openLane takes over a partition: whoever had it before can not write any more.
func (r *reader) openLane(ctx context.Context, o *owned) (*lane, error) {
	e := r.engine
	s := e.set.Load()
	reg := s.meta.Backends[r.backend]
	l := &lane{
		r: r, o: o, number: reg.Number, token: nuid.Next(), wake: make(chan struct{}, 1),
		places: make(map[outbox.ParkedID]uint64), packed: 1,
	}
	start, err := l.seize(ctx, s, reg.From[o.n])
	if err != nil {
		return nil, err
	}
	l.next = start.Floor >> placeBits
	l.saved = l.next
	l.w = outbox.NewWindow(outbox.WindowOptions{
		WindowLimits: e.o.lane(), Backend: r.backend, Reader: reg.Number, Seed: e.seed,
		Progress: outbox.Progress{Floor: numberOf(l.next, 0), Top: start.Top, Pending: start.Pending},
		Load:     func(id outbox.ParkedID) (*event.Event, error) { return l.load(ctx, id) },
		Lost: func() {
			r.lost.Add(1)
			e.saver.touch()
		},
		Failed: func(err error) {
			e.log.Error("a parked event cannot be read", "backend", r.backend, "partition", o.n, "err", err)
		},
		Overfull: func() {
			if f := e.full.Load(); f != nil {
				(*f)(r.backend)
			}
		},
		Changed: e.saver.touch,
	})
	parked, err := l.parked(ctx, s, ">")
	if err != nil {
		return nil, err
	}
	l.w.Restore(parked)
	r.add(l)
	// What was replayed since then, and not told to a lane that was not there.
	replayed, err := l.parked(ctx, s, "replay.>")
	if err != nil {
		r.remove(l)
		return nil, err
	}
	for _, p := range replayed {
		l.replayed(p)
	}
	l.open.Store(true)
	r.notify()
	return l, nil
}

// seize reads how far the backend has come and writes it again, so that the
// write of a predecessor that is still on its way fails.
func (l *lane) seize(ctx context.Context, s *setup, from uint64) (outbox.Cut, error) {
	key := keyProgress(l.o.n, l.number)
	for ctx.Err() == nil {
		cut := outbox.Cut{Progress: outbox.Progress{Floor: numberOf(from, 0), Top: numberOf(from, 0)}}
		entry, err := s.state.Get(ctx, key)
		revision := uint64(0)
		switch {
		case err == nil:
			if _, cut, err = decodeProgress(entry.Value()); err != nil {
				return cut, fmt.Errorf("outbox: key %s of %s: %w", key, s.names.state(), err)
			}
			revision = entry.Revision()
			if begin := numberOf(from, 0); cut.Floor < begin { // of a backend that had our number
				cut = outbox.Cut{Progress: outbox.Progress{Floor: begin, Top: begin}}
			}
		case !errors.Is(err, js.ErrKeyNotFound):
			return cut, fmt.Errorf("outbox: %s: %w", s.names.state(), err)
		}
		value := encodeProgress(l.token, &cut)
		if revision == 0 { // or was removed with a backend that had our number
			l.revision, err = s.state.Create(ctx, key, value)
		} else {
			l.revision, err = s.state.Update(ctx, key, value, revision)
		}
		if err == nil || !errors.Is(err, js.ErrKeyRevisionMismatch) && !errors.Is(err, js.ErrKeyExists) {
			return cut, err
		}
		pause(ctx, saveInterval) // a predecessor has written meanwhile
	}
	return outbox.Cut{}, ctx.Err()
}

// encodeProgress writes a progress record: who has written it, then the cut.
func encodeProgress(token string, c *outbox.Cut) []byte {
	b := append(binary.AppendUvarint(nil, uint64(len(token))), token...)
	return outbox.AppendCut(b, c)
}

func decodeProgress(b []byte) (token string, c outbox.Cut, err error) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return "", c, errors.New("outbox: damaged entry")
	}
	token = string(b[used : used+int(n)])
	c, err = outbox.DecodeCut(b[used+int(n):])
	return token, c, err
}

// run reads the stream until ctx ends.
func (l *lane) run(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { l.open.Store(false) })()
	for ctx.Err() == nil {
		err := l.consume(ctx)
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, errMissed) && !errors.Is(err, context.Canceled) {
			if l.r.failure.set(err) {
				l.r.engine.log.Warn("the events that wait for a backend cannot be read; it will be tried again", "backend", l.r.backend, "partition", l.o.n, "err", err)
			}
			pause(ctx, time.Second/2)
		}
	}
}

// reopen makes consume begin anew: what was on the way when the connection broke
// is not sent again for as long as ackWait.
func (l *lane) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.again != nil {
		l.again()
	}
}

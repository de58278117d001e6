package jetstream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/cluster"
)

// parts are the partitions that this instance has, or is about to have.
type parts struct {
	replays chan struct{} // letters may have been replayed

	mu      sync.Mutex
	opened  bool // this instance takes part
	closing bool
	held    map[int]*part // nil values: being acquired
}

func (p *parts) init() {
	p.held, p.replays = make(map[int]*part), make(chan struct{}, 1)
}

func (p *parts) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened = true
}

// count returns how many partitions this instance delivers.
func (p *parts) count() (n int) {
	for _, one := range p.all() {
		if one.usable() {
			n++
		}
	}
	return n
}

// all returns what this instance has.
func (p *parts) all() (list []*part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.held {
		if one != nil {
			list = append(list, one)
		}
	}
	slices.SortFunc(list, func(a, b *part) int { return a.n - b.n })
	return list
}

// part is a partition that this instance has.
type part struct {
	e     *Engine
	n     int
	gen   uint64 // of the right to deliver
	epoch uint64 // the sequence with which it was acquired
	// ctx ends when the right is lost, or the calls under way are to end.
	ctx     context.Context
	cancel  context.CancelFunc
	open    atomic.Bool // its lanes are there
	leaving atomic.Bool // nothing more is handed out

	dirty, urgent chan struct{} // something is to be saved: soon, now

	mu    sync.Mutex  // one save at a time
	seq   uint64      // of the register
	reg   register    // as it was saved last
	list  parkedList  // as it was saved last
	freed []*nats.Msg // tombstones that are still to be written
	lanes []*lane
}

// usable reports whether events may be handed out now.
func (p *part) usable() bool {
	gen, ok := p.e.cluster.Grant(cluster.Deliver)
	return ok && p.usableBy(gen)
}

// usableBy is usable for callers that have just asked for the right.
func (p *part) usableBy(gen uint64) bool {
	return gen == p.gen && p.open.Load() && !p.leaving.Load() && p.ctx.Err() == nil
}

// touch asks for a save: soon, so that many changes share it, or now.
func (p *part) touch(urgent bool) {
	if urgent {
		signal(p.urgent)
	} else {
		signal(p.dirty)
	}
}

// seen decides after each snapshot which partitions to acquire and which to hand over.
func (e *Engine) seen(v cluster.View) {
	registers := make(map[int]natsrpc.Record)
	for p := range e.o.Partitions {
		subject := names{e.o.Prefix}.part(p)
		if i := slices.IndexFunc(v.Records, func(r natsrpc.Record) bool { return r.Subject == subject }); i >= 0 {
			registers[p] = v.Records[i]
		}
	}
	e.checkOwners(registers)
	gen, ok := e.cluster.Grant(cluster.Deliver)
	rank := slices.Index(v.Alive, e.cluster.ID())
	e.parts.mu.Lock()
	defer e.parts.mu.Unlock()
	if !ok || rank < 0 || !e.parts.opened || e.parts.closing {
		return
	}
	mine, excess := 0, []*part(nil)
	for _, p := range e.parts.held {
		if p == nil || !p.leaving.Load() {
			mine++
		}
		if p != nil && p.open.Load() && !p.leaving.Load() {
			excess = append(excess, p)
		}
	}
	even := shareOf(rank, len(v.Alive), e.o.Partitions)
	for i := range e.o.Partitions {
		n := (i + rank*e.o.Partitions/len(v.Alive)) % e.o.Partitions // they begin at different places
		r, known := registers[n]
		if _, held := e.parts.held[n]; held || known && !e.free(&r) {
			continue
		}
		// What its register says is ours nobody else acquires while we live, so we do, even
		// if that is too much: then it is handed over.
		if mine >= even && !(known && e.ours(&r)) {
			continue
		}
		mine++
		e.parts.held[n] = nil
		e.running.Go(func() { e.acquire(n, r, gen) })
	}
	for ; mine > even && len(excess) > 0; mine, excess = mine-1, excess[1:] {
		p := excess[0]
		p.leaving.Store(true)
		e.running.Go(func() { _ = e.release(p) }) // others acquire it when our lease is over
	}
}

// shareOf returns how many partitions an instance should have.
func shareOf(rank, instances, partitions int) int {
	n := partitions / instances
	if rank < partitions%instances {
		n++
	}
	return n
}

// free reports whether a partition that this instance does not have can be acquired.
func (e *Engine) free(r *natsrpc.Record) bool {
	reg, err := decodeRegister(r.Data)
	if err != nil {
		return false
	}
	return reg.owner == "" || reg.owner == e.cluster.ID() || e.cluster.Expired(reg.owner, cluster.Deliver)
}

// ours reports whether a partition is this instance's by its register. It may have lost it
// without letting go, or not know of it: a write without an answer can be stored.
func (e *Engine) ours(r *natsrpc.Record) bool {
	reg, err := decodeRegister(r.Data)
	return err == nil && reg.owner == e.cluster.ID()
}

// checkOwners drops the partitions that another instance has acquired.
func (e *Engine) checkOwners(registers map[int]natsrpc.Record) {
	for _, p := range e.parts.all() {
		r, ok := registers[p.n]
		if !ok || r.Seq <= p.epoch {
			continue // a replica that lags
		}
		if reg, err := decodeRegister(r.Data); err == nil && (reg.owner != e.cluster.ID() || reg.epoch != p.epoch) && !p.leaving.Load() {
			e.drop(p, "another instance has acquired it")
		}
	}
}

// guardPause is the time between two looks at the lease.
const guardPause = 100 * time.Millisecond

// guard drops everything when the lease is over.
func (e *Engine) guard() {
	for e.ctx.Err() == nil {
		for _, p := range e.parts.all() {
			if !e.cluster.Valid(cluster.Deliver, p.gen) {
				e.drop(p, "the lease is over")
			}
		}
		pause(e.ctx, guardPause)
	}
}

// drop gives a partition up at once. What was not saved is delivered again by its next
// owner; whatever we still write is refused.
func (e *Engine) drop(p *part, why string) {
	e.parts.mu.Lock()
	mine := e.parts.held[p.n] == p
	if mine {
		delete(e.parts.held, p.n)
	}
	e.parts.mu.Unlock()
	p.cancel()
	p.open.Store(false)
	for _, r := range *e.readers.Load() {
		for _, l := range *r.lanes.Load() {
			if l.p == p {
				r.remove(l)
			}
		}
	}
	if mine && why != "" {
		e.log.Warn("a partition is not delivered by this instance any more", "partition", p.n, "reason", why)
	}
}

// release hands a partition over in order: it waits for the calls under way for a while,
// cancels them, saves, and lets go.
func (e *Engine) release(p *part) error {
	p.leaving.Store(true)
	for deadline := time.Now().Add(callsGrace); !p.idle() && time.Now().Before(deadline) && p.ctx.Err() == nil; {
		pause(e.ctx, 5*time.Millisecond)
	}
	p.cancel()
	var err error
	for deadline := time.Now().Add(requestTimeout); ; {
		err = p.save(e.ctx, true)
		if err == nil || errors.Is(err, errNotOurs) || time.Now().After(deadline) || e.ctx.Err() != nil || !e.cluster.Valid(cluster.Deliver, p.gen) {
			break
		}
		pause(e.ctx, saveInterval)
	}
	e.drop(p, "")
	if errors.Is(err, errNotOurs) {
		return nil
	}
	return err
}

// idle reports whether no call is under way.
func (p *part) idle() bool {
	for _, r := range *p.e.readers.Load() {
		for _, l := range *r.lanes.Load() {
			if l.p == p && !l.w.Idle() {
				return false
			}
		}
	}
	return true
}

// releaseAll hands everything over.
func (e *Engine) releaseAll() error {
	e.parts.mu.Lock()
	e.parts.closing = true
	e.parts.mu.Unlock()
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	for _, p := range e.parts.all() {
		all.Go(func() {
			if err := e.release(p); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	if len(errs) > 0 {
		return errs[0] // the others say the same
	}
	return nil
}

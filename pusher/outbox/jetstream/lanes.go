package jetstream

import (
	"context"
	"maps"
	"sync/atomic"

	"eventpusher/event"
	"eventpusher/pusher/cluster"
	"eventpusher/pusher/outbox"
)

// lane is one partition as one backend reads it.
type lane struct {
	p       *part
	r       *reader
	backend registration
	w       *outbox.Window

	// next is the first sequence that was not looked at; below told the window knows so.
	// Only feed changes them.
	next, told atomic.Uint64
	blocked    bool          // of feed: there was no room for more
	packed     atomic.Uint64 // of feed: thousandths of events in a message, on average

	saved    outbox.Progress // of part.mu: what the register says
	replayed map[uint64]bool // of part.mu: letters whose replay the window knows
}

// behind reports whether the log holds messages that the lane has not looked at.
func (l *lane) behind() bool { return l.next.Load() <= l.r.engine.tip.Load() }

// refit is fit for a partition that is delivered.
func (p *part) refit(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open.Load() || p.ctx.Err() != nil {
		return nil // start does it, or drop has
	}
	if err := p.fit(ctx, p.e.set.Load()); p.ctx.Err() == nil {
		return err
	}
	return nil // it was lost meanwhile
}

// The list of what is parked in a partition has to fit into one message.
const (
	listed   = 10 // bytes of an event in it
	fewLanes = 4  // share it, although there are fewer
)

// fit opens the lanes of what the readers read, and takes away those of what they do not read
// any more. What a window has not saved is read again. p.mu is held.
func (p *part) fit(ctx context.Context, s *layout) error {
	type source struct {
		r   *reader
		reg registered
	}
	wanted := make(map[registration]source)
	for _, r := range *p.e.readers.Load() {
		if reg := r.reg.Load(); reg != nil {
			for _, one := range reg.all() {
				wanted[one.registration()] = source{r, one}
			}
		}
	}
	var lanes, gone []*lane
	for _, l := range p.lanes {
		if wanted[l.backend].r == l.r {
			lanes = append(lanes, l)
			delete(wanted, l.backend)
		} else {
			gone = append(gone, l)
		}
	}
	if err := p.prune(ctx, s); err != nil {
		return err
	}
	parked, err := p.readParked(ctx, s, func(b registration) bool { return wanted[b].r != nil })
	if err != nil {
		return err
	}
	for _, l := range gone {
		l.r.remove(l)
	}
	p.open.Store(true)
	limits := p.e.o.lane()
	limits.ParkedEvents = min(limits.ParkedEvents, (int(p.e.nc.MaxPayload())-headroom)/listed/max(len(lanes)+len(wanted), fewLanes))
	for _, w := range wanted {
		l := p.newLane(s, w.r, w.reg, limits, parked)
		lanes = append(lanes, l)
		l.r.lookDue.Store(true)
		l.r.add(l)
		l.r.notify()
	}
	p.lanes = lanes
	if p.ctx.Err() != nil {
		p.e.drop(p, "") // it was lost meanwhile, and whoever dropped it has not seen all lanes
	}
	signal(p.e.parts.replays)
	return nil
}

// prune takes out what the partition has of registrations that are gone. None comes back: an
// ID is never given twice. p.mu is held.
func (p *part) prune(ctx context.Context, s *layout) error {
	records, err := p.fenced(ctx, s, s.names.meta()) // it knows whatever our register does
	if err != nil || len(records) == 0 {
		return err
	}
	m, err := s.decodeMeta(&records[0])
	if err != nil {
		return err
	}
	known := make(map[registration]bool)
	for _, b := range m.Backends {
		for _, one := range b.all() {
			known[one.registration()] = true
		}
	}
	maps.DeleteFunc(p.list, func(b registration, _ map[uint64]int) bool { return !known[b] })
	maps.DeleteFunc(p.reg.progress, func(b registration, _ outbox.Progress) bool { return !known[b] })
	return nil
}

// newLane returns the lane of a backend, or of one that was merged into it, with what is
// parked for it.
func (p *part) newLane(s *layout, r *reader, reg registered, limits outbox.WindowLimits, parked map[uint8][]outbox.Restored) *lane {
	e := p.e
	l := &lane{p: p, r: r, backend: reg.registration(), replayed: make(map[uint64]bool)}
	progress, ok := p.reg.progress[l.backend]
	if !ok {
		progress = reg.start()
	}
	l.saved = progress
	// A message is admitted as a whole, so reading begins with the one of the floor.
	next := progress.Floor >> placeBits
	l.next.Store(next)
	l.told.Store(next)
	l.packed.Store(1000)
	l.w = outbox.NewWindow(outbox.WindowOptions{
		WindowLimits: limits, Backend: r.backend, Reader: reg.Number, Seed: e.seed,
		Progress: outbox.Progress{Floor: numberOf(next, 0), Top: progress.Top, Pending: progress.Pending},
		Load:     func(id outbox.ParkedID) (*event.Event, error) { return p.load(s, id) },
		Lost:     func() { r.lost.Add(1); p.touch(false) },
		Failed: func(err error) {
			e.log.Error("a parked event cannot be read", "backend", r.backend, "partition", p.n, "err", err)
		},
		Overfull: func() {
			if f := e.full.Load(); f != nil {
				(*f)(r.backend)
			}
		},
		Changed: func() { p.touch(false) },
		Right:   p.ctx, Epoch: p.epoch,
		Valid: func() bool { return p.ctx.Err() == nil && e.cluster.Valid(cluster.Deliver, p.gen) },
	})
	l.w.Restore(parked[reg.Number])
	return l
}

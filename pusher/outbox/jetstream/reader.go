package jetstream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/cluster"
	"eventpusher/pusher/outbox"
)

// reader implements outbox.Reader over the partitions that this instance has.
type reader struct {
	*destination
	engine   *Engine
	backend  string
	delivers bool // else the backend is not configured
	notify   func()
	wake     chan struct{}   // for feed
	ctx      context.Context // of feed
	stop     context.CancelFunc
	fed      chan struct{} // closed when feed has returned
	failure  outbox.Failure

	turn    atomic.Uint32 // which lane is asked first
	tellDue atomic.Bool   // feed is to tell the windows how far it is
	lookDue atomic.Bool   // feed is to look for messages that nobody has told of
	lanes   atomic.Pointer[[]*lane]

	mu         sync.Mutex // changes lanes
	shed, lost atomic.Uint64
	shedding   atomic.Bool
}

// newReader returns a reader without lanes; notify is nil if the backend is not configured.
func newReader(e *Engine, d *destination, notify func()) *reader {
	r := &reader{destination: d, engine: e, backend: d.name, delivers: notify != nil, notify: notify, wake: make(chan struct{}, 1), fed: make(chan struct{})}
	if !r.delivers {
		r.notify = func() {}
	}
	r.ctx, r.stop = context.WithCancel(e.ctx)
	r.lanes.Store(new([]*lane))
	return r
}

func (r *reader) add(l *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := append(slices.Clone(*r.lanes.Load()), l)
	r.lanes.Store(&all)
	signal(r.wake)
}

func (r *reader) remove(l *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*r.lanes.Load()), func(o *lane) bool { return o == l })
	r.lanes.Store(&all)
	r.notify()
}

// of returns the lane of a window, nil if it was removed.
func (r *reader) of(w *outbox.Window) *lane {
	for _, l := range *r.lanes.Load() {
		if l.w == w {
			return l
		}
	}
	return nil
}

// Number implements outbox.Reader.
func (r *reader) Number() int { return r.bit }

// Take implements outbox.Reader. All events of one call are of one partition, so that the
// call has one epoch, and ends when this instance loses the partition. While there is no
// connection nothing is handed out: that it was delivered could not be recorded.
func (r *reader) Take(dst []*outbox.Item, limit int, probe bool) (taken []*outbox.Item, next time.Time, more bool) {
	gen, ok := r.engine.cluster.Grant(cluster.Deliver)
	if !ok || r.engine.connection.Get() != nil {
		return dst, next, false
	}
	had := len(dst)
	lanes := *r.lanes.Load()
	first := int(r.turn.Add(1))
	for i := range lanes {
		l := lanes[(first+i)%len(lanes)]
		if !l.p.usableBy(gen) {
			continue
		}
		var due time.Time
		var ready, urgent bool
		dst, due, ready, urgent = l.w.Take(dst, limit, probe, l.behind())
		if next.IsZero() || !due.IsZero() && due.Before(next) {
			next = due
		}
		more = more || ready
		if urgent {
			signal(l.p.urgent)
		}
		if len(dst) > had {
			signal(r.wake) // there may be room
			return dst, next, more || len(lanes) > 1
		}
	}
	return dst, next, more
}

// Load implements outbox.Reader.
func (r *reader) Load(items []*outbox.Item) []*outbox.Item {
	if len(items) == 0 {
		return items
	}
	return items[0].Window().Load(items)
}

// Settle implements outbox.Reader. What it records is saved a little later; Err of the engine
// tells when it cannot be. What was taken from a partition that this instance has lost
// meanwhile is delivered again by another.
func (r *reader) Settle(settlements []outbox.Settlement) error {
	for len(settlements) > 0 {
		w, n := settlements[0].Item.Window(), 1
		for n < len(settlements) && settlements[n].Item.Window() == w {
			n++
		}
		urgent := w.Settle(settlements[:n])
		if l := r.of(w); l != nil {
			l.p.touch(urgent)
		}
		settlements = settlements[n:]
	}
	signal(r.wake)
	return nil
}

// Expire implements outbox.Reader.
func (r *reader) Expire(before time.Time) (n int, err error) {
	for _, l := range *r.lanes.Load() {
		if !l.p.usable() {
			continue
		}
		m, busy, fault := l.w.Expire(before)
		n += m
		if fault != nil {
			err = fault
		}
		if busy || m > 0 {
			l.p.touch(busy)
		}
	}
	signal(r.wake)
	return n, err
}

// RetryNow implements outbox.Reader.
func (r *reader) RetryNow() {
	for _, l := range *r.lanes.Load() {
		l.w.RetryNow()
	}
}

// Find implements outbox.Reader, for the partitions of this instance.
func (r *reader) Find(match func(*event.Event) bool) (found []outbox.Found) {
	for _, l := range *r.lanes.Load() {
		found = append(found, l.w.Find(match)...)
	}
	return found
}

// Stats implements outbox.Reader, for the partitions of this instance. How many events wait
// in messages that were not read yet is an estimate.
func (r *reader) Stats() outbox.Stats {
	sum := outbox.Stats{Shed: r.shed.Load(), Lost: r.lost.Load()}
	gen, ok := r.engine.cluster.Grant(cluster.Deliver)
	able := ok && r.engine.connection.Get() == nil
	tip := r.engine.tip.Load()
	for _, l := range *r.lanes.Load() {
		s := l.w.Stats()
		estimate := 0
		if next := l.next.Load(); next <= tip {
			estimate = max(int((tip-next+1)*l.packed.Load()/1000), 1)
		}
		sum.Waiting += s.Waiting + estimate
		sum.InFlight += s.InFlight
		sum.Parked += s.Parked
		sum.Bytes += s.Bytes
		if sum.Oldest.IsZero() || !s.Oldest.IsZero() && s.Oldest.Before(sum.Oldest) {
			sum.Oldest = s.Oldest
		}
		sum.Coming = sum.Coming || able && l.p.usableBy(gen) && (s.Coming || estimate > 0)
	}
	return sum
}

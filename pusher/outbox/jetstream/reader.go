package jetstream

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"eventpusher/pusher/outbox"
)

// reader implements outbox.Reader over the partitions that this instance has.
type reader struct {
	engine  *Engine
	number  int // its bit in Subscribers
	backend string
	notify  func()
	failure fault

	turn  atomic.Uint32 // which lane is asked first
	lanes atomic.Pointer[[]*lane]

	mu         sync.Mutex // changes lanes
	shed, lost atomic.Uint64
	shedding   atomic.Bool
}

func (r *reader) add(l *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := append(slices.Clone(*r.lanes.Load()), l)
	r.lanes.Store(&all)
}

func (r *reader) remove(l *lane) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(*r.lanes.Load()), func(o *lane) bool { return o == l })
	r.lanes.Store(&all)
	r.notify()
}

// Number implements outbox.Reader. It is the place at which the reader was opened.
func (r *reader) Number() int { return r.number }

// usable reports whether events may be handed out.
func (l *lane) usable() bool { return l.open.Load() && !l.o.leaving.Load() }

// Take implements outbox.Reader. Nothing is handed out once this instance may
// have lost its partitions, nor while there is no connection: what would be
// delivered then could not be recorded.
func (r *reader) Take(dst []*outbox.Item, limit int, probe bool) (taken []*outbox.Item, next time.Time, more bool) {
	if !r.engine.cluster.touch() || r.engine.connection.get() != nil {
		return dst, next, false
	}
	had := len(dst)
	lanes := *r.lanes.Load()
	first := int(r.turn.Add(1))
	for i := range lanes {
		l := lanes[(first+i)%len(lanes)]
		if !l.usable() {
			continue
		}
		left := limit - (len(dst) - had)
		if left <= 0 {
			more = true // perhaps; whoever looks will see
			break
		}
		var due time.Time
		var ready, urgent bool
		dst, due, ready, urgent = l.w.Take(dst, left, probe, l.behind())
		if next.IsZero() || !due.IsZero() && due.Before(next) {
			next = due
		}
		more = more || ready
		if urgent {
			r.engine.saver.hurry()
		}
		l.refill()
		if probe && len(dst) > had {
			break
		}
	}
	return dst, next, more
}

// Load implements outbox.Reader.
func (r *reader) Load(items []*outbox.Item) []*outbox.Item {
	kept := items[:0]
	for len(items) > 0 {
		w, n := items[0].Window(), 1
		for n < len(items) && items[n].Window() == w {
			n++
		}
		kept = append(kept, w.Load(items[:n])...)
		items = items[n:]
	}
	return kept
}

// refill lets the lane read on when there is room.
func (l *lane) refill() {
	if l.w.HalfEmpty() {
		signal(l.wake)
	}
}

// Settle implements outbox.Reader. What it records is saved a little later; Err
// of the engine tells when it cannot be. What was taken from a partition that
// this instance has lost meanwhile is delivered again by another.
func (r *reader) Settle(settlements []outbox.Settlement) error {
	urgent := false
	for i := range settlements {
		w := settlements[i].Item.Window()
		urgent = w.Settle(settlements[i:i+1]) || urgent
	}
	if urgent {
		r.engine.saver.hurry()
	} else {
		r.engine.saver.touch()
	}
	for _, l := range *r.lanes.Load() {
		l.refill()
	}
	return nil
}

// Expire implements outbox.Reader.
func (r *reader) Expire(before time.Time) (n int, err error) {
	for _, l := range *r.lanes.Load() {
		if !l.usable() {
			continue
		}
		m, busy, fault := l.w.Expire(before)
		n += m
		if fault != nil {
			err = fault
		}
		if busy {
			r.engine.saver.hurry()
		}
		l.refill()
	}
	if n > 0 {
		r.engine.saver.touch()
	}
	return n, err
}

// RetryNow implements outbox.Reader.
func (r *reader) RetryNow() {
	for _, l := range *r.lanes.Load() {
		l.w.RetryNow()
	}
}

// Stats implements outbox.Reader, for the partitions of this instance. How many
// events wait in packs that were not read yet is an estimate.
func (r *reader) Stats() outbox.Stats {
	sum := outbox.Stats{Shed: r.shed.Load(), Lost: r.lost.Load()}
	connected := r.engine.connection.get() == nil && r.engine.cluster.touch()
	for _, l := range *r.lanes.Load() {
		s := l.w.Stats()
		l.mu.Lock()
		estimate := 0
		if l.pending > 0 {
			estimate = max(int(float64(l.pending)*l.packed), 1)
		}
		l.mu.Unlock()
		sum.Waiting += s.Waiting + estimate
		sum.InFlight += s.InFlight
		sum.Parked += s.Parked
		sum.Bytes += s.Bytes
		if sum.Oldest.IsZero() || !s.Oldest.IsZero() && s.Oldest.Before(sum.Oldest) {
			sum.Oldest = s.Oldest
		}
		sum.Coming = sum.Coming || connected && l.usable() && (s.Coming || estimate > 0)
	}
	return sum
}

// missing notes packs that are not in the stream any more although this backend
// has not had them.
func (r *reader) missing(l *lane, from, to uint64) {
	r.lost.Add(to - from)
	r.engine.log.Error("packs of events are missing from a stream: somebody has deleted them, or the servers have lost them",
		"backend", r.backend, "stream", r.engine.set.Load().names.log(l.o.n), "first", from, "packs", to-from)
}

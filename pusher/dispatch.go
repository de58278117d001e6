package pusher

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/internal/tracing"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

// dispatcher delivers the events of one backend through its lanes. It shares
// nothing with other dispatchers but the outbox, whose readers do not wait for
// each other.
type dispatcher struct {
	backend backends.Backend
	name    string
	limits  backends.Limits
	reader  outbox.Reader
	metrics *backendMetrics
	panics  func()
	log     *slog.Logger
	trace   *trace.Recorder
	spans   *tracing.Tracer
	maxAge  time.Duration
	timeout time.Duration
	seed    maphash.Seed // of senders

	condition *filter.Condition  // nil: always
	declined  backends.Declining // nil if the backend does not care
	begun     bool               // run was called; of Pusher.mu
	ended     chan struct{}      // closed when run has returned
	waker     *waker

	added time.Time

	idle atomic.Int32 // lanes in next

	mu       sync.Mutex
	wake     sync.Cond // on mu: something may have become possible
	gate     *gate
	timer    *time.Timer
	timerAt  time.Time
	draining bool
	stopped  bool
	cancel   context.CancelFunc // of the calls; nil before run
	giveUp   *time.Timer        // set while the end waits for calls that look hopeless
	frozen   *time.Timer        // set while the end waits for any call to return
	answered time.Time          // when the last call returned, or the end began
	usual    time.Duration      // about the longest that calls which got an answer take

	redact     func(string) string
	failureLog throttle
	outageLog  throttle
	fullLog    throttle
	whenLog    throttle
	told       atomic.Bool // the log says that the service is down or refuses us

	delivered, failed, dead atomic.Uint64
	lastError               atomic.Pointer[lastError]
}

type lastError struct {
	text string
	when time.Time
}

// call is one Publish on its way, with what a lane uses again for each.
type call struct {
	items       []*outbox.Item
	batch       []event.Event
	settlements []outbox.Settlement
	probe       bool
	round       int // of the gate
	began       time.Time
}

func newDispatcher(b backends.Backend, o *Options) *dispatcher {
	d := &dispatcher{
		backend: b, name: b.Name(), limits: b.Limits(),
		metrics: o.Metrics.backend(b.Name()),
		panics:  func() { o.Metrics.panics.WithLabelValues("backend").Inc() },
		log:     o.Log.With("backend", b.Name()),
		trace:   o.Trace, spans: o.Spans,
		redact: o.Redact,
		maxAge: o.MaxAge, timeout: o.PublishTimeout,
		added: time.Now(), gate: new(gate), seed: maphash.MakeSeed(), ended: make(chan struct{}),
	}
	d.limits.Lanes = max(d.limits.Lanes, 1)
	d.limits.Batch = max(d.limits.Batch, 1)
	d.wake.L = &d.mu
	return d
}

// notify wakes a lane when one might be waiting. A lane counts as idle from
// before it looks into the outbox until it has found something, so an event that
// it has missed finds it counted.
func (d *dispatcher) notify() {
	if d.idle.Load() == 0 {
		return
	}
	d.mu.Lock()
	d.wake.Signal()
	d.mu.Unlock()
}

// run runs the lanes until stop, or until drain has found nothing left.
func (d *dispatcher) run(ctx context.Context) {
	defer close(d.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.mu.Lock()
	d.cancel = cancel
	if d.draining {
		d.answered = time.Now()
		d.leaveFrozen()
	}
	d.mu.Unlock()
	var lanes sync.WaitGroup
	for range d.limits.Lanes {
		lanes.Go(func() { d.lane(ctx) })
	}
	lanes.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range []*time.Timer{d.timer, d.giveUp, d.frozen} {
		if t != nil {
			t.Stop()
		}
	}
}

// lane takes batches and publishes them, one after the other.
func (d *dispatcher) lane(ctx context.Context) {
	c := &call{}
	within, release := deadlines(d.timeout)
	defer release()
	for d.next(c) {
		if !d.load(c) {
			continue
		}
		calling, end := c.bind(ctx)
		errs := d.publish(within(calling), c.batch)
		d.finish(calling, c, errs)
		end()
	}
}

// deadlines returns a function that gives calls, one after the other, the timeout, or down to
// three quarters of it: calls of one parent share a context for as long, since one for each
// costs as much as a quick backend. release ends the last context.
func deadlines(timeout time.Duration) (within func(parent context.Context) context.Context, release func()) {
	var of, ctx context.Context
	var until time.Time
	end := func() {}
	within = func(parent context.Context) context.Context {
		if parent != of || time.Until(until) < timeout-timeout/4 {
			end()
			of, until = parent, time.Now().Add(timeout)
			ctx, end = context.WithDeadline(parent, until)
		}
		return ctx
	}
	return within, func() { end() }
}

// bind returns the context for a call. It ends when the outbox loses the right to deliver
// the events, and has the epoch of that right.
func (c *call) bind(ctx context.Context) (calling context.Context, end func()) {
	w := c.items[0].Window()
	if w == nil {
		return ctx, func() {}
	}
	right, epoch := w.Right()
	if right == nil {
		return ctx, func() {}
	}
	calling, cancel := context.WithCancel(backends.WithEpoch(ctx, epoch))
	if !w.Valid() {
		cancel() // publish does not call the backend
	}
	stop := context.AfterFunc(right, cancel)
	return calling, func() { stop(); cancel() }
}

// load reads what of the call's items is not in memory, and fills its batch. It reports
// whether there is anything to publish.
func (d *dispatcher) load(c *call) bool {
	c.items = d.reader.Load(c.items)
	c.batch = c.batch[:0]
	for _, it := range c.items {
		c.batch = append(c.batch, *it.Event)
	}
	if len(c.items) > 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gate.leave(c.round, c.probe, noEvidence, nil, 0, time.Now())
	if d.draining {
		d.wake.Broadcast()
	}
	return false
}

// stop makes the lanes return after what they are doing.
func (d *dispatcher) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	d.wake.Broadcast()
}

// next waits until the lane may send something and fills c with it; false means
// that the lane is to end.
func (d *dispatcher) next(c *call) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle.Add(1)
	defer d.idle.Add(-1)
	for !d.stopped {
		now := time.Now()
		stats := d.reader.Stats()
		if d.expired(stats, now) && d.expire(now) {
			continue
		}
		limit, probe, again := d.gate.permit(now, d.limits.Batch)
		if limit > 0 {
			items, due, more := d.reader.Take(c.items[:0], limit, probe)
			c.items = items
			if len(items) > 0 {
				c.probe, c.round, c.began = probe, d.gate.enter(probe), now
				d.arm(due, now) // this lane may not be back by then
				if more && !probe && d.idle.Load() > 1 {
					d.wake.Signal() // one lane wakes the next for as long as there is work
				}
				return true
			}
			again = due
		}
		if d.draining && d.drained(d.reader.Stats(), limit == 0) {
			d.stopped = true
			d.wake.Broadcast()
			return false
		}
		if dies := stats.Oldest.Add(d.maxAge + 1); d.maxAge > 0 && stats.Waiting > 0 && dies.After(now) {
			again = earlier(again, dies)
		}
		d.arm(again, now)
		d.wake.Wait()
	}
	return false
}

// earlier returns the earlier of two times; zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// arm makes sure that a lane wakes at the given time.
func (d *dispatcher) arm(at, now time.Time) {
	if at.IsZero() || d.timerAt.After(now) && !at.Before(d.timerAt) {
		return
	}
	wait := at.Sub(now)
	d.timerAt = now.Add(wait) // by the clock that the timer goes by, unlike times from the disk
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.notify)
		return
	}
	d.timer.Reset(wait)
}

// expired reports whether something may have waited for longer than maxAge.
func (d *dispatcher) expired(s outbox.Stats, now time.Time) bool {
	return d.maxAge > 0 && s.Waiting > 0 && now.Sub(s.Oldest) > d.maxAge
}

// expire moves what has waited for too long to the dead letters. It gives up the
// lock meanwhile, and reports whether there was anything.
func (d *dispatcher) expire(now time.Time) bool {
	d.mu.Unlock()
	defer d.mu.Lock()
	n, err := d.reader.Expire(now.Add(-d.maxAge))
	if err != nil {
		d.log.Error("dead letters cannot be kept", "err", err)
	}
	if n == 0 {
		return false
	}
	d.dead.Add(uint64(n))
	d.metrics.dead(outbox.ReasonMaxAge).Add(float64(n))
	d.log.Error("events waited too long and went to the dead letters", "events", n, "max_age", d.maxAge)
	return true
}

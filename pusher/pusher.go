// Package pusher takes events from the translator to the backends: through the
// filter chain, into the outbox, and out of it by each backend's lanes.
//
// What it promises is the delivery contract of the design: order within a key,
// at least one delivery of what was accepted, and no backend or conversation
// that delays another.
package pusher

import (
	"context"
	"errors"
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

// Defaults of Options.
const (
	DefaultMaxAge         = 72 * time.Hour
	DefaultPublishTimeout = 60 * time.Second
)

// The reasons of dead letters whose filter failed, and of those that the outbox, or the
// service, does not take because of their size.
const (
	reasonFilter   = "filter"
	reasonTooLarge = "too_large"
)

// Options say what a Pusher works with.
type Options struct {
	Chain    *filter.Chain      // nil: every event is kept
	Backends []backends.Backend // at most outbox.MaxReaders, with different names; closed by their owner, not by the Pusher
	// Conditions say by the names of backends which of the events that they want they
	// get; one without gets all.
	Conditions map[string]*filter.Condition
	// MaxAge is how long an event may wait for a backend before it becomes a dead
	// letter; 0: DefaultMaxAge, negative: forever.
	MaxAge time.Duration
	// PublishTimeout is how long one call of a backend may take, or down to three quarters of
	// it. 0: DefaultPublishTimeout.
	PublishTimeout time.Duration
	// Outbox keeps the accepted events. It is required, and belongs to the caller, who
	// closes it after Run has returned.
	Outbox outbox.Outbox
	// Feeds hears what became of what PushFeed and BuryFeed have accepted; nil: nobody
	// needs to know.
	Feeds Feeds
	// Redact returns the text of a backend's error without secrets that are in it; nil: there
	// are none.
	Redact  func(string) string
	Metrics *Metrics // nil: counted but not shown
	// Trace remembers what becomes of events; nil: nothing is remembered.
	Trace *trace.Recorder
	// Spans exports what becomes of events; nil: nothing is exported.
	Spans *tracing.Tracer
	Log   *slog.Logger // nil: silent
}

// Pusher filters events and delivers them.
//
// Its life: New, then Run in a goroutine of the owner, Push by one goroutine,
// at the end Drain (or the end of Run's context), then the backends are closed.
type Pusher struct {
	chain       *filter.Chain
	box         outbox.Outbox
	options     Options
	dispatchers atomic.Pointer[[]*dispatcher]
	metrics     *Metrics
	log         *slog.Logger
	feeds       Feeds
	trace       *trace.Recorder

	intake  *intake
	flushed chan struct{} // closed when the intake is empty for good
	flush   sync.Once     // runs commitLoop
	pack    []outbox.Entry

	pushing sync.Mutex  // Push and Replay
	scratch event.Event // the event being filtered
	entries []outbox.Entry
	letters []outbox.DeadLetter
	now     time.Time
	traced  trace.Arrival
	at      [1]outbox.Position // the position of the batch being handed over

	largeLog throttle // of events that are too large

	closed  atomic.Bool // Drain has begun, or Run has ended
	failure atomic.Pointer[error]

	draining chan struct{} // closed when Drain begins

	done chan struct{} // closed when Run ends

	changing sync.Mutex // held while backends are added, removed, moved or forgotten

	mu        sync.Mutex
	leftovers []*leftover
	cancel    context.CancelFunc // of Run; nil before it
	start     func(*dispatcher)  // of Run; nil before it
}

// New builds a Pusher. It refuses two backends of the same name.
func New(o Options) (*Pusher, error) {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.PublishTimeout <= 0 {
		o.PublishTimeout = DefaultPublishTimeout
	}
	if o.Feeds == nil {
		o.Feeds = noFeeds{}
	}
	if o.Redact == nil {
		o.Redact = func(s string) string { return s }
	}
	p := &Pusher{
		box: o.Outbox, options: o, metrics: o.Metrics, log: o.Log, feeds: o.Feeds, trace: o.Trace, intake: newIntake(), flushed: make(chan struct{}),
		draining: make(chan struct{}), done: make(chan struct{}),
	}
	p.dispatchers.Store(new([]*dispatcher))
	if b, ok := p.box.(interface {
		OnShed(func(backend string, events int, episode bool))
	}); ok {
		b.OnShed(p.shed)
	}
	if b, ok := p.box.(interface{ OnParkedFull(func(backend string)) }); ok {
		b.OnParkedFull(p.parkedFull)
	}
	if err := p.Change(context.Background(), o.Chain, o.Backends, o.Conditions); err != nil {
		return nil, err
	}
	return p, nil
}

// parkedFull is told by the outbox that an event became a dead letter because too
// much was parked for its backend.
func (p *Pusher) parkedFull(backend string) {
	d := p.find(backend)
	if d == nil {
		return // a leftover: nothing of it is tried
	}
	d.dead.Add(1)
	d.metrics.dead(outbox.ReasonParkedFull).Inc()
	if n, ok := d.fullLog.allow(time.Now(), time.Minute); ok {
		d.log.Error("too much is parked for the backend: events go to the dead letters", "since_last_line", n)
	}
}

// shed is told by the outbox that a backend has lost its oldest events.
func (p *Pusher) shed(backend string, events int, episode bool) {
	p.metrics.shed.WithLabelValues(backend).Add(float64(events))
	if !episode {
		return
	}
	r := p.reader(backend)
	if r == nil {
		return
	}
	s := r.Stats()
	p.log.Error("too much waits for the backend: its oldest events are given up", "backend", backend,
		"waiting", s.Waiting, "bytes", s.Bytes, "oldest_age", time.Since(s.Oldest).Round(time.Millisecond), "shed_before", s.Shed-uint64(events))
}

// Run delivers until ctx ends or Drain is through. It returns when every lane
// has returned; what is on its way when ctx ends is cancelled and stays in the
// outbox. It is called once.
func (p *Pusher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.mu.Lock()
	if p.cancel != nil {
		p.mu.Unlock()
		return errors.New("pusher: Run called twice")
	}
	p.cancel = cancel
	p.mu.Unlock()

	var running sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		p.shut() // no lanes begin any more
		for _, d := range p.all() {
			d.stop()
		}
		p.intake.close()
	})
	running.Go(func() { p.flush.Do(p.commitLoop) })
	running.Go(func() { p.watchLeftovers(ctx) })
	p.mu.Lock()
	p.start = func(d *dispatcher) { running.Go(func() { d.run(ctx) }) }
	for _, d := range p.all() {
		p.begin(d)
	}
	p.mu.Unlock()
	running.Wait()
	stop()
	p.shut()
	close(p.done)
	return nil
}

// shut refuses new events and new backends, and returns what cancels Run, nil before that.
func (p *Pusher) shut() context.CancelFunc {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed.Swap(true) {
		close(p.draining)
	}
	return p.cancel
}

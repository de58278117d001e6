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
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// Defaults of Options.
const (
	DefaultMaxAge         = 72 * time.Hour
	DefaultPublishTimeout = 60 * time.Second
	DefaultDeadLetters    = 1000
)

// reasonFilter is the reason of dead letters whose filter failed.
const reasonFilter = "filter"

// Options say what a Pusher works with.
type Options struct {
	Chain    *Chain             // nil: every event is kept
	Backends []backends.Backend // at most outbox.MaxReaders, with different names; closed by their owner, not by the Pusher
	// QueueEvents and QueueBytes bound what waits for each backend in memory;
	// 0: outbox.DefaultQueueEvents and outbox.DefaultQueueBytes.
	QueueEvents int
	QueueBytes  int64
	// MaxAge is how long an event may wait for a backend before it becomes a dead
	// letter; 0: DefaultMaxAge, negative: forever.
	MaxAge time.Duration
	// PublishTimeout is the deadline of one call of a backend; 0: DefaultPublishTimeout.
	PublishTimeout time.Duration
	// Outbox keeps the accepted events, and belongs to the caller, who closes it
	// after Run has returned. Nil: memory, bounded by QueueEvents and QueueBytes.
	Outbox outbox.Outbox
	// DeadLetters takes what nobody will deliver, when Outbox is nil; nil: the
	// latest DefaultDeadLetters in memory.
	DeadLetters outbox.DeadLetters
	Metrics     *Metrics     // nil: counted but not shown
	Log         *slog.Logger // nil: silent
}

// Pusher filters events and delivers them.
//
// Its life: New, then Run in a goroutine of the owner, Push by one goroutine,
// at the end Drain (or the end of Run's context), then the backends are closed.
type Pusher struct {
	chain       *Chain
	box         outbox.Outbox
	dispatchers []*dispatcher
	metrics     *Metrics
	log         *slog.Logger

	intake  *intake       // nil: the outbox is in memory
	flushed chan struct{} // closed when the intake is empty for good
	flush   sync.Once     // runs commitLoop
	pack    []outbox.Entry

	pushing sync.Mutex  // Push and Replay
	scratch event.Event // the event being filtered
	entries []outbox.Entry
	letters []outbox.DeadLetter

	closed  atomic.Bool // Drain has begun, or Run has ended
	failure atomic.Pointer[error]

	draining chan struct{} // closed when Drain begins

	done chan struct{} // closed when Run ends

	mu     sync.Mutex
	cancel context.CancelFunc // of Run; nil before it
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
	if o.DeadLetters == nil {
		o.DeadLetters = outbox.NewRing(DefaultDeadLetters)
	}
	p := &Pusher{chain: o.Chain, metrics: o.Metrics, log: o.Log, draining: make(chan struct{}), done: make(chan struct{})}
	p.box = o.Outbox
	if p.box == nil {
		p.box = outbox.NewMemory(outbox.MemoryOptions{
			QueueEvents: o.QueueEvents, QueueBytes: o.QueueBytes, DeadLetters: o.DeadLetters, Shed: p.shed,
		})
	}
	if p.box.Durable() {
		p.intake, p.flushed = newIntake(), make(chan struct{})
	}
	if b, ok := p.box.(interface {
		OnShed(func(backend string, events int, episode bool))
	}); ok {
		b.OnShed(p.shed)
	}
	names := make(map[string]bool)
	for _, b := range o.Backends {
		name := b.Name()
		if name == "" || names[name] {
			return nil, fmt.Errorf("pusher: backend name %q is empty or used twice", name)
		}
		names[name] = true
		d := newDispatcher(b, &o)
		d.durable = p.box.Durable()
		r, err := p.box.Reader(name, d.notify)
		if err != nil {
			return nil, err
		}
		d.reader = r
		o.Metrics.backlog.add(name, r)
		p.dispatchers = append(p.dispatchers, d)
	}
	return p, nil
}

// Push filters the events and hands what a backend wants to the outbox. It never
// waits for a backend, and for the disk only when very much waits for it already.
// The slice and its events stay the caller's; the texts that the events point to
// must not change any more. Push and PushAcked are called by one goroutine.
func (p *Pusher) Push(events []event.Event) { p.push(events, nil, nil) }

// PushAcked is Push for a feed that wants to know what was accepted: positions is
// where the feed stands with these events. committed is called once, by another
// goroutine or by this one, in the order of the calls of PushAcked: with nil when
// the events and the positions are on disk, else with why they are not, in
// which case the feed has to send them again. It must not block.
func (p *Pusher) PushAcked(events []event.Event, positions []outbox.Position, committed func(error)) {
	p.push(events, positions, committed)
}

func (p *Pusher) push(events []event.Event, positions []outbox.Position, committed func(error)) {
	p.pushing.Lock()
	defer p.pushing.Unlock()
	b := batch{positions: positions, committed: committed}
	if p.closed.Load() {
		p.refuse(b, dropStopped, len(events))
		return
	}
	p.entries, p.letters = p.entries[:0], p.letters[:0]
	for i := range events {
		p.scratch = events[i]
		p.metrics.event(&p.scratch)
		p.route(&p.scratch)
	}
	p.scratch = event.Event{}
	b.entries, b.letters = p.entries, p.letters
	p.hand(b)
	clear(p.entries)
	clear(p.letters)
}

// route filters one event and finds those who want it.
func (p *Pusher) route(e *event.Event) {
	if p.chain != nil && len(p.chain.steps) > 0 && !p.filter(e) {
		return
	}
	var takers outbox.Takers
	for n, d := range p.dispatchers {
		if d.wants(e) {
			takers.Add(n)
		}
	}
	if takers == 0 {
		p.metrics.droppedBy[dropUnwanted].Inc()
		return
	}
	kept := new(event.Event)
	*kept = *e
	p.entries = append(p.entries, outbox.Entry{Event: kept, Takers: takers})
}

// hand gives a batch to the committer or, when the outbox is in memory and never
// makes anybody wait, to the outbox itself.
func (p *Pusher) hand(b batch) {
	if len(b.entries)+len(b.letters)+len(b.positions) == 0 && b.committed == nil {
		return
	}
	if p.intake != nil {
		if why, ok := p.intake.put(b); !ok {
			p.refuse(b, why, len(b.entries))
		}
		return
	}
	if err := p.box.Bury(b.letters...); err != nil {
		p.log.Error("a dead letter cannot be kept", "err", err)
	}
	var err error
	if len(b.entries)+len(b.positions) > 0 {
		err = p.box.Append(outbox.Pack{Entries: b.entries, Positions: b.positions})
		if err != nil {
			p.metrics.droppedBy[dropOutbox].Add(float64(len(b.entries)))
		}
		p.appended(err)
	}
	if b.committed != nil {
		b.committed(err)
	}
}

// refuse says that a batch was not accepted.
func (p *Pusher) refuse(b batch, why dropReason, events int) {
	if b.committed != nil {
		b.committed(errRefused) // the source keeps it
		return
	}
	p.metrics.droppedBy[why].Add(float64(events))
}

// filter runs the chain and reports whether the event goes on.
func (p *Pusher) filter(e *event.Event) bool {
	switch f, err := p.chain.run(e); f {
	case fateDrop:
		p.metrics.droppedBy[dropFilter].Inc()
	case fateDropOnError:
		p.metrics.droppedBy[dropFilterError].Inc()
	case fateDead:
		p.metrics.deadByFilter.Inc()
		dead := new(event.Event)
		*dead = *e
		now := time.Now()
		p.letters = append(p.letters, outbox.DeadLetter{Event: dead, Reason: reasonFilter, Err: err.Error(), Accepted: now, Died: now})
	default:
		return true
	}
	return false
}

// wants asks the backend. One that panics gets the event, so that Publish
// decides about it and nothing is lost in silence.
func (d *dispatcher) wants(e *event.Event) (yes bool) {
	defer func() {
		if v := recover(); v != nil {
			d.panics()
			yes = true
		}
	}()
	return d.backend.Wants(e)
}

// shed is told by the outbox that a backend has lost its oldest events.
func (p *Pusher) shed(backend string, events int, episode bool) {
	for _, d := range p.dispatchers {
		if d.name != backend {
			continue
		}
		d.metrics.shed.Add(float64(events))
		if episode {
			s := d.reader.Stats()
			d.log.Error("too much waits for the backend: its oldest events are given up",
				"waiting", s.Waiting, "bytes", s.Bytes, "oldest_age", time.Since(s.Oldest).Round(time.Millisecond), "shed_before", s.Shed-uint64(events))
		}
	}
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
		for _, d := range p.dispatchers {
			d.stop()
		}
		if p.intake != nil {
			p.intake.close()
		}
	})
	if p.intake != nil {
		running.Go(func() { p.flush.Do(p.commitLoop) })
	}
	for _, d := range p.dispatchers {
		running.Go(func() { d.run(ctx) })
	}
	if len(p.dispatchers) == 0 { // nothing to do, which must not look like an end
		select {
		case <-ctx.Done():
		case <-p.draining:
		}
	}
	running.Wait()
	stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed.Swap(true) {
		close(p.draining)
	}
	close(p.done)
	return nil
}

// LeftError says that events were still waiting when Drain had to end.
type LeftError struct {
	Left map[string]int // by backend, those in flight included
}

func (e *LeftError) Error() string {
	parts := make([]string, 0, len(e.Left))
	for _, name := range slices.Sorted(maps.Keys(e.Left)) {
		parts = append(parts, fmt.Sprintf("%s: %d", name, e.Left[name]))
	}
	return "events left undelivered (" + strings.Join(parts, ", ") + ")"
}

// lastGrace is how long Drain waits, after its context has ended, for calls to
// notice that they are cancelled, so that their results still count.
const lastGrace = time.Second

// Drain refuses new events (the owner stops pushing first: what is pushed at the
// same moment may be left), lets the lanes deliver what is waiting until ctx
// ends, and ends Run; a Run that begins later only drains. With a durable outbox
// it does not wait for what cannot be delivered now: that is kept. It returns a
// *LeftError when something was left and is lost with the process.
func (p *Pusher) Drain(ctx context.Context) error {
	p.mu.Lock()
	if !p.closed.Swap(true) {
		close(p.draining)
	}
	cancel := p.cancel
	p.mu.Unlock()
	p.flushIntake(ctx, cancel != nil)
	for _, d := range p.dispatchers {
		d.drain()
	}
	if cancel == nil && (p.box.Durable() || p.left() == nil) {
		return nil // never run, and nothing to do
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.abandon()
	}
	return p.left()
}

// flushIntake lets the outbox take what was pushed.
func (p *Pusher) flushIntake(ctx context.Context, running bool) {
	if p.intake == nil {
		return
	}
	p.intake.close()
	if !running {
		p.flush.Do(p.commitLoop)
	}
	select {
	case <-p.flushed:
	case <-ctx.Done():
	}
}

// Replay gives dead letters back to their backends; see outbox.Outbox. Those that
// no backend has seen go through the filters again, as if they had just come, to
// all that want them. It is safe for concurrent use, while Run runs.
func (p *Pusher) Replay(f outbox.LetterFilter) (int, error) {
	replayed, err := p.box.Replay(f)
	if err != nil || f.Backend != "" && f.Backend != outbox.NoBackend {
		return replayed, err
	}
	f.Backend = outbox.NoBackend
	letters, err := p.box.DeadLetters().List(f)
	for _, d := range letters {
		if err == nil {
			err = p.replay(d)
		}
		if err == nil {
			replayed++
		}
	}
	return replayed, err
}

// replay pushes the event of a letter and drops the letter once the outbox has
// taken it.
func (p *Pusher) replay(d outbox.DeadLetter) error {
	taken := make(chan error, 1)
	p.pushing.Lock()
	if p.closed.Load() {
		p.pushing.Unlock()
		return errStopped
	}
	p.entries, p.letters = p.entries[:0], p.letters[:0]
	p.scratch = *d.Event
	p.scratch.Replayed = true
	p.route(&p.scratch)
	p.scratch = event.Event{}
	p.hand(batch{entries: p.entries, letters: p.letters, committed: func(err error) { taken <- err }})
	clear(p.entries)
	clear(p.letters)
	p.pushing.Unlock()
	if err := <-taken; err != nil {
		return err
	}
	_, err := p.box.DeadLetters().Drop(outbox.LetterFilter{ID: d.ID})
	return err
}

// abandon cancels what is on its way.
func (p *Pusher) abandon() {
	p.mu.Lock()
	cancel := p.cancel
	p.mu.Unlock()
	if cancel == nil {
		return // never run
	}
	cancel()
	grace := time.NewTimer(lastGrace)
	defer grace.Stop()
	select {
	case <-p.done:
	case <-grace.C: // a backend that ignores its context
	}
}

// left returns what is not delivered as a *LeftError, nil when that is nothing or
// when the outbox keeps it.
func (p *Pusher) left() error {
	if p.box.Durable() {
		return nil
	}
	left := make(map[string]int)
	for _, d := range p.dispatchers {
		if s := d.reader.Stats(); s.Waiting+s.InFlight > 0 {
			left[d.name] = s.Waiting + s.InFlight
		}
	}
	if len(left) > 0 {
		return &LeftError{Left: left}
	}
	return nil
}

package pusher

import (
	"context"
	"time"

	"eventpusher/pusher/outbox"
)

// lastGrace is how long Drain waits, after its context has ended, for calls to
// notice that they are cancelled, so that their results still count.
const lastGrace = time.Second

// Drain refuses new events (the owner stops pushing first: what is pushed at the
// same moment may be left), lets the lanes deliver what is waiting until ctx
// ends, and ends Run; a Run that begins later only drains. It does not wait for what
// cannot be delivered now: the outbox keeps that.
func (p *Pusher) Drain(ctx context.Context) {
	cancel := p.shut()
	if b, ok := p.box.(interface{ Retire() }); ok {
		b.Retire() // what it acquired now it would only have to give away again
	}
	p.flushIntake(ctx, cancel != nil)
	for _, d := range p.all() {
		d.drain()
	}
	if cancel == nil {
		return // never run
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.abandon(cancel)
	}
}

// flushIntake lets the outbox take what was pushed.
func (p *Pusher) flushIntake(ctx context.Context, running bool) {
	p.intake.close()
	if !running {
		p.flush.Do(p.commitLoop)
	}
	select {
	case <-p.flushed:
	case <-ctx.Done():
	}
}

// abandon cancels what is on its way.
func (p *Pusher) abandon(cancel context.CancelFunc) {
	cancel()
	grace := time.NewTimer(lastGrace)
	defer grace.Stop()
	select {
	case <-p.done:
	case <-grace.C: // a backend that ignores its context
	}
}

// hopelessGrace is how long the end waits for calls to a service that is down or
// refuses us: the outbox keeps their events.
const hopelessGrace = time.Second

// drain makes the lanes return when nothing is left, or nothing that could be
// delivered now.
func (d *dispatcher) drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining = true
	d.leaveHopeless()
	if d.cancel != nil {
		d.answered = time.Now()
		d.leaveFrozen()
	}
	d.wake.Broadcast()
}

// drained reports whether a lane that has found nothing to do, or may send
// nothing, need not wait for more.
func (d *dispatcher) drained(s outbox.Stats, shut bool) bool {
	return s.InFlight == 0 && (s.Waiting == 0 || shut || !s.Coming)
}

// leaveHopeless sees to it that the end is not held up by a call that hangs while
// the gate is shut: what it would deliver is on disk and goes out after the next
// start, so it is cancelled unless the service recovers at once. The lock is held.
func (d *dispatcher) leaveHopeless() {
	if !d.draining || d.stopped || d.giveUp != nil || d.gate.state() == Closed {
		return
	}
	d.giveUp = time.AfterFunc(hopelessGrace, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.giveUp = nil
		if d.gate.state() != Closed {
			d.leave()
		}
	})
}

// The end leaves calls of which none has returned for frozenGrace, or frozenFactor times
// what calls usually take if that is longer.
const (
	frozenGrace  = 3 * time.Second
	frozenFactor = 3
)

// leaveFrozen sees to it that the end is not held up by a service that has ceased to
// answer, which opens no breaker before the calls run out of time. The lock is held.
func (d *dispatcher) leaveFrozen() {
	if d.stopped {
		return
	}
	left := time.Until(d.answered.Add(max(frozenGrace, frozenFactor*d.usual)))
	if left <= 0 {
		d.leave()
		return
	}
	d.frozen = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.leaveFrozen()
	})
}

// leave ends the lanes and cancels what they are doing. The lock is held.
func (d *dispatcher) leave() {
	d.stopped = true
	d.wake.Broadcast()
	if d.cancel != nil {
		d.cancel()
	}
}

package pusher

import (
	"context"
	"errors"
	"hash/maphash"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

// errNoAnswer stands for an error that a backend should have returned.
var errNoAnswer = errors.New("the backend did not say what became of the event")

// publish calls the backend, unless ctx has ended, and returns one error for each event.
func (d *dispatcher) publish(ctx context.Context, batch []event.Event) (errs []error) {
	if ctx.Err() != nil {
		errs = make([]error, len(batch))
		for i := range errs {
			errs[i] = ctx.Err()
		}
		return errs
	}
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		d.panics()
		err := filter.NewPanic(p)
		d.log.Error("the backend panicked; its events will be tried again", "err", err, "stack", err.Stack)
		errs = make([]error, len(batch))
		for i := range errs {
			errs[i] = err
		}
	}()
	errs = d.backend.Publish(ctx, batch)
	if len(errs) != len(batch) {
		d.log.Error("the backend answered for a wrong number of events; the missing ones will be tried again",
			"events", len(batch), "answers", len(errs))
		full := make([]error, len(batch))
		for i := copy(full, errs); i < len(full); i++ {
			full[i] = errNoAnswer
		}
		errs = full
	}
	for i := range errs {
		errs[i] = d.said(errs[i])
	}
	return errs
}

// isFinal reports whether an event with such an error belongs to the dead letters.
func isFinal(reason string) bool {
	return reason == "permanent" || reason == reasonTooLarge || reason == "gone"
}

// finish settles a call: it tells the gate how it went, then the outbox what
// became of each event.
func (d *dispatcher) finish(ctx context.Context, c *call, errs []error) {
	now := time.Now()
	v, longest := judge(ctx, errs)
	evidence := v
	if v == failing && !c.probe && allParked(c.items) {
		evidence = noEvidence // that they fail is known, and says nothing about the service
	}

	d.mu.Lock()
	ch := d.gate.leave(c.round, c.probe, evidence, d.parties(c, errs, v), longest, now)
	draining := d.draining
	d.answered = now
	if v == reachable {
		d.usual = max(now.Sub(c.began), d.usual-d.usual/8)
	}
	d.leaveHopeless()
	d.mu.Unlock()

	c.settlements = c.settlements[:0]
	delivered := 0
	for i, it := range c.items {
		s := outbox.Settlement{Item: it}
		if err := errs[i]; err == nil {
			delivered++
			d.metrics.seconds.Observe(now.Sub(it.Accepted).Seconds())
		} else {
			d.judgeEvent(&s, err, v, ch, now)
		}
		c.settlements = append(c.settlements, s)
	}
	if delivered > 0 {
		d.delivered.Add(uint64(delivered))
		d.metrics.deliveries.Add(float64(delivered))
	}
	d.remember(ctx, c, errs, now)
	d.announce(ch, errs)
	d.back(ch, delivered)
	if err := d.reader.Settle(c.settlements); err != nil {
		d.log.Error("the outbox could not record what became of events; they may be delivered again", "err", err)
	}
	if ch.from != Closed && ch.to == Closed {
		d.reader.RetryNow() // what failed because the service was down need not wait any more
	}
	clear(c.items)
	clear(c.batch) // events must not outlive their delivery in an idle lane
	clear(c.settlements)
	if draining {
		d.mu.Lock()
		d.wake.Broadcast()
		d.mu.Unlock()
	}
}

// remember notes in the trace, in spans, and at level debug in the log, what has become of a
// call's events.
func (d *dispatcher) remember(ctx context.Context, c *call, errs []error, now time.Time) {
	if d.log.Enabled(ctx, slog.LevelDebug) {
		for i, it := range c.items {
			d.log.Debug("called", "event_id", c.batch[i].ID, "attempt", it.Attempts+1, "took", now.Sub(c.began).Round(10*time.Microsecond), "err", errs[i])
		}
	}
	if d.spans != nil {
		for i, it := range c.items {
			if s := &c.settlements[i]; errs[i] == nil || s.Outcome == outbox.Dead {
				d.spans.Delivery(&c.batch[i], d.name, it.Accepted, now, it.Attempts+1, s.Reason)
			}
		}
	}
	i := -1
	d.trace.Settle(d.name, now, func() (trace.Settled, bool) {
		if i++; i >= len(c.items) {
			return trace.Settled{}, false
		}
		it := c.items[i]
		out := trace.Settled{ID: c.batch[i].ID, State: trace.Waiting, Tries: it.Attempts + 1, Err: errs[i]}
		switch outcome := c.settlements[i].Outcome; {
		case errs[i] == nil:
			out.State = trace.Delivered
		case outcome == outbox.Dead:
			out.State = trace.Buried
		case outcome == outbox.Retry && it.Parked():
			out.State = trace.Parked
		case outcome == outbox.Retry:
			out.State = trace.Retrying
		}
		return out, true
	})
}

// parties are the keys of a call's events, or, if the service refuses, the senders of
// those that it has refused.
func (d *dispatcher) parties(c *call, errs []error, v verdict) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i, it := range c.items {
			party := it.Key
			if v == refusing {
				var paused *backends.PausedError
				if !errors.As(errs[i], &paused) {
					continue
				}
				if !paused.OfEvent { // the next sender's event would fare no better
					for n := range uint64(pauseParties) {
						if !yield(n) {
							break
						}
					}
					return
				}
				party = maphash.String(d.seed, string(c.batch[i].Sender()))
			}
			if !yield(party) {
				return
			}
		}
	}
}

// allParked reports whether all items are of conversations that keep failing.
func allParked(items []*outbox.Item) bool {
	for _, it := range items {
		if !it.Parked() {
			return false
		}
	}
	return true
}

// judge says what the errors of a call mean for the service as a whole, and the
// longest pause that it asked for.
func judge(ctx context.Context, errs []error) (verdict, time.Duration) {
	var (
		delivered, refused, transient, waiting int
		longest                                time.Duration
	)
	for _, err := range errs {
		if err == nil {
			delivered++
			continue
		}
		switch reason := backends.Reason(err); {
		case errors.As(err, new(*backends.ElsewhereError)):
		case reason == "paused":
			refused++
		case reason == "waiting":
			waiting++
		case !isFinal(reason):
			transient++
			longest = max(longest, askedPause(err))
		}
	}
	switch {
	case delivered > 0:
		return reachable, 0
	case ctx.Err() != nil:
		return noEvidence, 0 // we gave up, so nothing is known about the service
	case refused > 0:
		return refusing, 0
	case transient > 0:
		return failing, longest
	case waiting == len(errs):
		return noEvidence, 0
	}
	return reachable, 0
}

// judgeEvent decides what becomes of one event that failed.
func (d *dispatcher) judgeEvent(s *outbox.Settlement, err error, v verdict, ch change, now time.Time) {
	reason := backends.Reason(err)
	var wait *backends.WaitError
	if errors.As(err, &wait) {
		s.Outcome, s.Delay, s.Asked = outbox.Retry, min(wait.After, retryLongest), true
		d.metrics.failures(reason).Inc()
		return
	}
	if v == noEvidence && !isFinal(reason) {
		s.Outcome = outbox.Requeue
		return
	}
	d.failed.Add(1)
	d.metrics.failures(reason).Inc()
	d.lastError.Store(&lastError{text: shorten(err.Error()), when: now})
	switch {
	case isFinal(reason):
		s.Outcome, s.Reason, s.Err = outbox.Dead, reason, err
		d.dead.Add(1)
		d.metrics.dead(reason).Inc()
		// The log has bounds of its own, and says how many lines were held back.
		d.log.Error("an event goes to the dead letters", "event_id", s.Item.Event.ID, "kind", s.Item.Event.Kind.String(),
			"reason", reason, "attempt", s.Item.Attempts+1, "err", err)
	case v == refusing && ch.to == Paused || v != reachable && !ch.counts:
		s.Outcome = outbox.Requeue
	default:
		attempt := s.Item.Attempts + 1
		s.Outcome = outbox.Retry
		s.Delay, s.Asked = delay(&d.limits, attempt, err)
		if n, ok := d.failureLog.allow(now, time.Minute); ok {
			d.log.Warn("a delivery failed and will be tried again", "event_id", s.Item.Event.ID,
				"reason", reason, "attempt", attempt, "pause", s.Delay, "err", err, "since_last_line", n)
		}
	}
}

// announce logs and shows what has happened to the gate.
func (d *dispatcher) announce(ch change, errs []error) {
	d.metrics.breaker.Set(float64(ch.to))
	if ch.from == ch.to {
		return
	}
	switch {
	case ch.to == Paused:
		d.told.Store(true)
		d.log.Error("the service refuses everything; deliveries pause until an operator acts, one event at a time is tried", "err", firstError(errs))
	case ch.to == Open && ch.from == Closed:
		// A service that comes and goes every second must not fill the log.
		if n, ok := d.outageLog.allow(time.Now(), time.Minute); ok {
			d.told.Store(true)
			d.log.Warn("the service is down; deliveries pause and one event at a time probes it", "err", firstError(errs), "since_last_line", n)
		}
	}
}

// back says once that an outage that was told is over: something was delivered.
func (d *dispatcher) back(ch change, delivered int) {
	if delivered > 0 && ch.to == Closed && d.told.Load() && d.told.Swap(false) {
		d.log.Info("the service is back; deliveries go on")
	}
}

func firstError(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// longestError bounds what the status keeps of an error.
const longestError = 300

func shorten(s string) string {
	if len(s) > longestError {
		s = strings.ToValidUTF8(s[:longestError], "") + "…"
	}
	return s
}

// throttle lets one log line through in a while and counts the rest.
type throttle struct {
	mu   sync.Mutex
	next time.Time
	held int
}

// allow reports whether a line may be written, and how many were held back
// since the last one.
func (t *throttle) allow(now time.Time, every time.Duration) (held int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.next) {
		t.held++
		return 0, false
	}
	held, t.held, t.next = t.held, 0, now.Add(every)
	return held, true
}

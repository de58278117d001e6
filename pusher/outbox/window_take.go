package outbox

import (
	"time"

	"eventpusher/event"
)

// Take is Reader's. behind says that there are events which have not been
// admitted; urgent asks the owner to save at once, since too much is settled that
// a crash would forget.
func (w *Window) Take(dst []*Item, limit int, probe, behind bool) (taken []*Item, next time.Time, more, urgent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.take(dst, limit, probe, behind)
}

func (w *Window) take(dst []*Item, limit int, probe, behind bool) (taken []*Item, next time.Time, more, urgent bool) {
	had := len(dst)
	now := time.Now()
	if room := w.o.Redelivery - w.unsaved - w.queue.busy - w.parkedQueue.busy; limit > room {
		limit = max(room, 0)
		w.stalled = w.stalled || limit == 0 && w.unsaved > 0
	}
	urgent = limit == 0 && w.stalled
	switch {
	case limit == 0:
	case probe:
		dst = w.takeProbe(dst, limit, now)
	default:
		dst = w.takeParked(dst, limit, now)
		dst = w.queue.take(dst, limit-(len(dst)-had), now)
		if len(dst) == had && behind && w.full() {
			next = w.makeRoom(now)
		}
	}
	for _, it := range dst[had:] {
		it.takenAt, it.window = now, w
	}
	if limit > 0 {
		if len(w.queue.delayed) > 0 {
			next = sooner(next, w.queue.delayed[0].due)
		}
		if probe && w.unreadable.After(now) {
			next = sooner(next, w.unreadable)
		} else {
			next = sooner(next, w.parkedDue())
		}
		more = w.queue.first != nil || w.parkedReady(now)
	}
	return dst, next, more, urgent
}

// takeProbe takes what tells most about the service: an event that has not
// failed, else one whose retry is near, and parked ones last.
func (w *Window) takeProbe(dst []*Item, limit int, now time.Time) []*Item {
	had := len(dst)
	for _, q := range []*schedule{w.queue, w.parkedQueue} {
		if q == w.parkedQueue && w.unreadable.After(now) {
			break
		}
		if dst = q.take(dst, limit, now); len(dst) == had {
			dst = q.takeProbe(dst)
		}
		if len(dst) > had {
			break
		}
	}
	return dst
}

// sooner returns the earlier of two times; zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Settle is Reader's. urgent asks the owner to save at once.
func (w *Window) Settle(settlements []Settlement) (urgent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.settleAll(settlements)
}

func (w *Window) settleAll(settlements []Settlement) (urgent bool) {
	now := time.Now()
	for i := range settlements {
		w.settle(&settlements[i], now)
	}
	w.dirty = true
	return w.unsaved >= w.o.Redelivery/2
}

func (w *Window) settle(s *Settlement, now time.Time) {
	it := s.Item
	switch s.Outcome {
	case Delivered:
		w.unsaved++
		w.done(it)
	case Dead:
		d := w.letter(it.Event, it.Accepted, it.Attempts+1, s.Reason, now)
		if s.Err != nil {
			d.Err = s.Err.Error()
		}
		w.out.Letters = append(w.out.Letters, d)
		w.unsaved++
		w.done(it)
	case Retry:
		it.Attempts++
		due := now.Add(s.Delay)
		if it.since.IsZero() {
			it.since = now
		}
		switch {
		case it.parked != nil:
			w.retryParked(it, due, s.Asked, now)
		case it.Attempts >= w.o.ParkAttempts || now.Sub(it.since) >= w.o.ParkAfter:
			w.park(it.lane, due, s.Asked, now)
		default:
			w.queue.retry(it, due, s.Asked)
		}
	case Requeue:
		if it.parked != nil {
			w.drop(it)
			w.parkedQueue.release(it)
		} else {
			w.queue.release(it)
		}
	}
}

// done takes a taken item out for good.
func (w *Window) done(it *Item) {
	if it.parked != nil {
		w.doneParked(it)
		return
	}
	key := it.Key
	w.passed(it.number)
	w.queue.settled(it)
	w.unhold(key)
}

func (w *Window) letter(e *event.Event, accepted time.Time, attempts int, reason string, now time.Time) DeadLetter {
	return DeadLetter{Event: e, Backend: w.o.Backend, Reason: reason, Attempts: attempts, Accepted: accepted, Died: now}
}

// Expire is Reader's. busy says that nothing was done because the dead letters
// of earlier calls have to be saved first.
func (w *Window) Expire(before time.Time) (n int, busy bool, err error) {
	now := time.Now()
	w.mu.Lock()
	if len(w.out.Letters) > 16*expireStep {
		w.stalled = true // what is there has to be saved first
		w.mu.Unlock()
		return 0, true, nil
	}
	var keys []uint64
	w.queue.expire(before, expireStep, func(it *Item) {
		w.out.Letters = append(w.out.Letters, w.letter(it.Event, it.Accepted, it.Attempts, ReasonMaxAge, now))
		w.passed(it.number)
		keys = append(keys, it.Key)
		n++
	})
	for _, k := range keys {
		w.unhold(k)
	}
	parked := w.expiredParked(before, expireStep-n)
	w.mu.Unlock()

	m, err := w.buryParked(parked, now)
	return n + m, false, err
}

// RetryNow is Reader's.
func (w *Window) RetryNow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	// What failed while the service was down says nothing about its conversation.
	for _, q := range w.queue.delayed {
		q.head.since = time.Time{}
	}
	w.queue.retryNow()
	w.parkedQueue.retryNow()
	w.rest = time.Time{}
}

// Stats counts what was admitted and what is parked.
func (w *Window) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats()
}

func (w *Window) stats() Stats {
	busy := w.queue.busy + w.parkedQueue.busy
	s := Stats{
		Waiting: w.queue.waiting + w.queue.busy + w.parkedCount - busy, InFlight: busy, Parked: w.parkedCount,
		Bytes:  w.queue.bytes + w.parkedQueue.bytes + w.fresh.bytes + w.refused.bytes,
		Coming: w.stalled || w.queue.first != nil || w.parkedReady(time.Now()),
	}
	if w.queue.oldest != nil {
		s.Oldest = w.queue.oldest.Accepted
	}
	s.Oldest = sooner(s.Oldest, w.oldestParked())
	return s
}

// Idle reports whether no lane holds anything.
func (w *Window) Idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue.busy+w.parkedQueue.busy == 0
}

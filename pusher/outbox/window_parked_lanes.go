package outbox

import (
	"errors"
	"time"
)

// Parked events must not take the lanes from the others either. While they fail,
// one at a time is tried, with a rest of restFactor times the length of the
// attempt; each success doubles how many may be under way.
const (
	parkedLanes = 64
	restFactor  = 2
	longestRest = 2 * time.Minute
)

// takeParked takes as many heads as may be under way.
func (w *Window) takeParked(dst []*Item, limit int, now time.Time) []*Item {
	if n := min(limit, w.allowed-w.parkedQueue.busy); n > 0 && !w.rest.After(now) {
		return w.parkedQueue.take(dst, n, now)
	}
	return dst
}

// parkedReady reports whether takeParked would find something.
func (w *Window) parkedReady(now time.Time) bool {
	return w.parkedQueue.first != nil && w.allowed > w.parkedQueue.busy && !w.rest.After(now)
}

// parkedDue returns when the next head may be taken, zero when that does not
// depend on time.
func (w *Window) parkedDue() time.Time {
	var due time.Time
	switch {
	case w.allowed <= w.parkedQueue.busy:
		return due
	case w.parkedQueue.first != nil:
		return w.rest
	case len(w.parkedQueue.delayed) > 0:
		due = w.parkedQueue.delayed[0].due
	}
	if due.IsZero() || due.After(w.rest) {
		return due
	}
	return w.rest
}

// retryParked lets a head that has failed again rest, and all others for a while.
func (w *Window) retryParked(it *Item, due time.Time, firm bool, now time.Time) {
	ref := &it.parked.refs[0]
	ref.attempts = it.Attempts
	w.out.Tries = append(w.out.Tries, ParkedTry{ref.id, it.Attempts})
	w.drop(it)
	w.allowed = 1
	w.rest = now.Add(min(restFactor*now.Sub(it.takenAt), longestRest))
	w.parkedQueue.retry(it, due, firm)
}

// drop gives up the event of a head that can be read again.
func (w *Window) drop(it *Item) {
	if it.parked.refs[0].event == nil {
		it.Event = nil
	}
}

// fetch reads the parked events among dst[had:]. One that cannot be read goes
// back and rests.
func (w *Window) fetch(dst []*Item, had int) []*Item {
	kept := dst[:had]
	for _, it := range dst[had:] {
		if it.Event == nil {
			e, err := w.o.Load(it.id)
			if err != nil {
				if !errors.Is(err, ErrLoading) {
					w.o.Failed(err)
				}
				w.mu.Lock()
				w.again(it, time.Now(), err)
				w.mu.Unlock()
				continue
			}
			it.Event = e
		}
		kept = append(kept, it)
	}
	return kept
}

// again puts back a head in flight whose event is not here.
func (w *Window) again(it *Item, now time.Time, why error) {
	rest := longestRest
	if errors.Is(why, ErrLoading) {
		rest = loadingPause
	}
	w.parkedQueue.retry(it, now.Add(rest), true)
}

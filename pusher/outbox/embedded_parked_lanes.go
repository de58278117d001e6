package outbox

import "time"

// Parked events must not take the lanes from the others either. While they fail,
// one at a time is tried, with a rest of restFactor times the length of the
// attempt; each success doubles how many may be under way.
const (
	parkedLanes = 64
	restFactor  = 2
	longestRest = 2 * time.Minute
)

// takeParked takes as many heads as may be under way.
func (r *embeddedReader) takeParked(dst []*Item, limit int, now time.Time) []*Item {
	if n := min(limit, r.allowed-r.parkedQueue.busy); n > 0 && !r.rest.After(now) {
		return r.parkedQueue.take(dst, n, now)
	}
	return dst
}

// parkedReady reports whether takeParked would find something.
func (r *embeddedReader) parkedReady(now time.Time) bool {
	return r.parkedQueue.first != nil && r.allowed > r.parkedQueue.busy && !r.rest.After(now)
}

// parkedDue returns when the next head may be taken, zero when that does not
// depend on time.
func (r *embeddedReader) parkedDue() time.Time {
	var due time.Time
	switch {
	case r.allowed <= r.parkedQueue.busy:
		return due
	case r.parkedQueue.first != nil:
		return r.rest
	case len(r.parkedQueue.delayed) > 0:
		due = r.parkedQueue.delayed[0].due
	}
	if due.IsZero() || due.After(r.rest) {
		return due
	}
	return r.rest
}

// retryParked lets a head that has failed again rest, and all others for a while.
func (r *embeddedReader) retryParked(it *Item, due time.Time, firm bool, now time.Time) {
	ref := &it.parked.refs[0]
	ref.attempts = it.Attempts
	r.out.tries = append(r.out.tries, parkedTry{ref.id, it.Attempts})
	r.drop(it)
	r.allowed = 1
	r.rest = now.Add(min(restFactor*now.Sub(it.takenAt), longestRest))
	r.parkedQueue.retry(it, due, firm)
}

// drop gives up the event of a head that can be read again.
func (r *embeddedReader) drop(it *Item) {
	if it.parked.refs[0].event == nil {
		it.Event = nil
	}
}

// fetch reads the parked events among dst[had:]. One that cannot be read goes
// back and rests.
func (r *embeddedReader) fetch(dst []*Item, had int) []*Item {
	kept := dst[:had]
	for _, it := range dst[had:] {
		if it.Event == nil {
			e, err := loadParked(r.engine.db, it.id)
			if err != nil {
				r.engine.log.Error("a parked event cannot be read", "backend", r.backend, "err", err)
				r.mu.Lock()
				r.parkedQueue.retry(it, time.Now().Add(longestRest), true)
				r.mu.Unlock()
				continue
			}
			it.Event = e
		}
		kept = append(kept, it)
	}
	return kept
}

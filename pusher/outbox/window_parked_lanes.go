package outbox

import (
	"slices"
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

// parkedRoom is how many more heads may be under way.
func (w *Window) parkedRoom(now time.Time) int {
	if w.rest.After(now) || w.unreadable.After(now) {
		return 0
	}
	return w.allowed - w.parkedQueue.busy
}

// takeParked takes as many heads as may be under way.
func (w *Window) takeParked(dst []*Item, limit int, now time.Time) []*Item {
	if n := min(limit, w.parkedRoom(now)); n > 0 {
		return w.parkedQueue.take(dst, n, now)
	}
	return dst
}

// parkedReady reports whether takeParked would find something.
func (w *Window) parkedReady(now time.Time) bool {
	return w.parkedQueue.first != nil && w.parkedRoom(now) > 0
}

// parkedDue returns when the next head may be taken, zero when that does not
// depend on time.
func (w *Window) parkedDue() (due time.Time) {
	if w.allowed <= w.parkedQueue.busy {
		return due
	}
	if w.parkedQueue.first == nil {
		if len(w.parkedQueue.delayed) == 0 {
			return due
		}
		due = w.parkedQueue.delayed[0].due
	}
	return later(due, later(w.rest, w.unreadable))
}

// later returns the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// retryParked lets a head that has failed again rest, and all others for a while.
func (w *Window) retryParked(it *Item, due time.Time, asked bool, now time.Time) {
	ref := &it.parked.refs[0]
	ref.attempts = it.Attempts
	w.out.Tries = append(w.out.Tries, ParkedTry{ref.id, it.Attempts})
	w.drop(it)
	w.allowed = 1
	w.rest = now.Add(min(restFactor*now.Sub(it.takenAt), longestRest))
	w.parkedQueue.retry(it, due, asked)
}

// drop gives up the event of a head that can be read again.
func (w *Window) drop(it *Item) {
	if it.parked.refs[0].event == nil {
		it.Event = nil
	}
}

// latestTries leaves of each event only the last attempt: while nothing can be saved
// they would pile up.
func latestTries(list []ParkedTry) []ParkedTry {
	last := make(map[ParkedID]int, len(list))
	for _, t := range list {
		last[t.ID] = t.Attempts
	}
	return slices.DeleteFunc(list, func(t ParkedTry) bool { return last[t.ID] != t.Attempts })
}

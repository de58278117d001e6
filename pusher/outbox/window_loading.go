package outbox

import (
	"errors"
	"hash/maphash"
	"time"

	"eventpusher/event"
)

// ErrLoading says that a parked event is being fetched; Loaded brings it.
var ErrLoading = errors.New("outbox: the parked event is on its way")

// ErrLost says that a parked event is not there any more, or makes no sense, and never
// will.
var ErrLost = errors.New("outbox: the parked event is lost")

const (
	// loadingPause is when a parked event that is on its way is asked for again, in
	// case nobody brings it.
	loadingPause = 5 * time.Second
	// unreadablePause is how long none is tried after one could not be read: that is
	// the disk's fault more often than the event's.
	unreadablePause = time.Second
)

// loading is what a reader knows of the parked events that it has asked for.
type loading struct {
	asked      map[*parkedKey]time.Time // heads on their way, and when they count no more
	unreadable time.Time                // none is taken before
}

// underWay counts the heads on their way. They count as if lanes had them: what has
// come stays in memory until it is taken.
func (w *Window) underWay(now time.Time) (n int) {
	for _, until := range w.asked {
		if until.After(now) {
			n++
		}
	}
	return n
}

// probeHeld returns until when no parked event is taken as a probe: one at a time is asked
// for, and what has come goes first.
func (w *Window) probeHeld(now time.Time) time.Time {
	q := w.parkedQueue.first
	if q != nil && q.head.Event != nil || w.underWay(now) == 0 {
		return w.unreadable
	}
	return later(w.unreadable, w.nextAwaited(now))
}

// nextAwaited returns when the first of the heads on their way counts no more.
func (w *Window) nextAwaited(now time.Time) (first time.Time) {
	for _, until := range w.asked {
		if until.After(now) {
			first = sooner(first, until)
		}
	}
	return first
}

// awaited reports whether the head of a key is on its way.
func (w *Window) awaited(pk *parkedKey, now time.Time) bool { return w.asked[pk].After(now) }

// fetch reads the parked events among dst[had:]. One that cannot be read goes back and
// rests; missing says that there was one.
func (w *Window) fetch(dst []*Item, had int) (kept []*Item, missing bool) {
	kept = dst[:had]
	for _, it := range dst[had:] {
		if it.Event == nil {
			e, err := w.o.Load(it.id)
			if err != nil {
				missing = true
				w.mu.Lock()
				w.missed(it, time.Now(), err)
				w.mu.Unlock()
				continue
			}
			it.Event = e
		}
		kept = append(kept, it)
	}
	return kept, missing
}

// missed deals with a head in flight whose event is not here.
func (w *Window) missed(it *Item, now time.Time, why error) {
	switch {
	case errors.Is(why, ErrLost):
		w.o.Failed(why)
		w.vanish(it)
	case errors.Is(why, ErrLoading):
		until := now.Add(loadingPause)
		w.asked[it.parked] = until
		w.parkedQueue.retry(it, until, true)
	default:
		w.o.Failed(why)
		w.unreadable = now.Add(unreadablePause)
		w.parkedQueue.retry(it, now.Add(longestRest), true)
	}
}

// vanish gives up a head in flight that does not exist any more.
func (w *Window) vanish(it *Item) {
	pk := it.parked
	w.parkedQueue.settled(it)
	w.unpark(pk)
	w.promote(pk)
	if w.o.Lost != nil {
		w.o.Lost()
	}
}

// Loaded brings the event of a parked head that Load has promised. It is handed out
// before others are fetched.
func (w *Window) Loaded(id ParkedID, key []byte, e *event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k := w.replayKey(id)
	if !id.Replay() {
		k = maphash.Bytes(w.o.Seed, key)
	}
	pk := w.parked[k]
	if pk == nil || pk.head == nil || pk.head.id != id || pk.head.taken {
		return
	}
	delete(w.asked, pk)
	pk.head.Event = e
	w.parkedQueue.hurry(pk.head)
}

// Vanished says of a parked head that Load has promised that it is lost.
func (w *Window) Vanished(id ParkedID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for pk := range w.asked {
		if pk.head != nil && pk.head.id == id && !pk.head.taken {
			w.parkedQueue.withdraw(pk.head)
			w.vanish(pk.head)
			return
		}
	}
}

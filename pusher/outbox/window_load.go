package outbox

import (
	"errors"
	"time"
)

// ErrLost says that a parked event is not there any more, or makes no sense, and never
// will.
var ErrLost = errors.New("outbox: the parked event is lost")

// unreadablePause is how long no parked event is taken after one could not be read: that
// is the disk's fault more often than the event's.
const unreadablePause = time.Second

// Load is Reader's: it reads the parked events among items, which Take has returned, and
// keeps the items whose event is there. An item whose event cannot be read goes back.
func (w *Window) Load(items []*Item) []*Item {
	kept := items[:0]
	for _, it := range items {
		if it.Event == nil {
			e, err := w.o.Load(it.id)
			if err != nil {
				w.mu.Lock()
				w.unloaded(it, time.Now(), err)
				w.mu.Unlock()
				continue
			}
			it.Event = e
		}
		kept = append(kept, it)
	}
	clear(items[len(kept):])
	return kept
}

// unloaded gives up a parked event in flight that is lost. Another one that could not be
// read rests, and all parked events for a while.
func (w *Window) unloaded(it *Item, now time.Time, why error) {
	w.o.Failed(why)
	if !errors.Is(why, ErrLost) {
		w.unreadable = now.Add(unreadablePause)
		w.parkedQueue.retry(it, now.Add(longestRest), true)
		return
	}
	pk := it.parked
	w.parkedQueue.settled(it)
	w.unpark(pk)
	w.promote(pk)
	if w.o.Lost != nil {
		w.o.Lost()
	}
}

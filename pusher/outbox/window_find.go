package outbox

import (
	"time"

	"eventpusher/event"
)

// MaxFindParked is how many parked events Find reads: each is on disk, or in the network.
const MaxFindParked = 2000

// Found is an event that waits.
type Found struct {
	Event    *event.Event // nobody changes it
	Accepted time.Time
	Attempts int
	Parked   bool
}

// Find returns the events that fulfil a condition and wait in the window, or are parked: of these
// the first MaxFindParked are read. What waits behind the window is not found. It may wait for
// the disk or the network.
func (w *Window) Find(match func(*event.Event) bool) (found []Found) {
	w.mu.Lock()
	for it := w.queue.oldest; it != nil; it = it.newer {
		if it.Event != nil && match(it.Event) {
			found = append(found, Found{it.Event, it.Accepted, it.Attempts, it.parked != nil})
		}
	}
	var refs []parkedRef
	for _, pk := range w.parked {
		refs = append(refs, pk.refs[:min(len(pk.refs), MaxFindParked-len(refs))]...)
	}
	w.mu.Unlock()
	for _, ref := range refs {
		e := ref.event
		if e == nil && w.o.Load != nil {
			e, _ = w.o.Load(ref.id) // what cannot be read is told when it is delivered
		}
		if e != nil && match(e) {
			found = append(found, Found{e, ref.accepted, ref.attempts, true})
		}
	}
	return found
}

package outbox

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"eventpusher/event"
)

// Window is the half of a durable reader that does not depend on where the
// events are kept. It holds the oldest events that one backend has to get, hands
// them out, parks what keeps failing, and collects what has to be saved. The
// engine admits events in the order of their numbers and saves what Cut returns.
//
// All methods are safe for concurrent use.
type Window struct {
	o WindowOptions

	mu    sync.Mutex
	queue *schedule
	// Events below head were admitted. From top on none is settled. pending lists the
	// unsettled ones between head and top: there are such events only after a restart.
	head, top uint64
	pending   []uint64

	parking

	out     Changes
	unsaved int  // settled, which a crash would forget
	stalled bool // Take found unsaved too high
	dirty   bool
	looked  time.Time // when makeRoom was last tried
}

// WindowLimits bound what a Window holds.
type WindowLimits struct {
	// WindowEvents and WindowBytes bound what is held in memory; one pack may exceed
	// them.
	WindowEvents int
	WindowBytes  int64
	// Redelivery bounds how many events can be delivered a second time after a
	// crash.
	Redelivery int
	// ParkedEvents and ParkedBytes bound what is parked. What would exceed them
	// becomes a dead letter.
	ParkedEvents int
	ParkedBytes  int64
	// An event is parked with all later ones of its key after so many attempts that
	// counted, or when a failure comes so long after its first one.
	ParkAttempts int
	ParkAfter    time.Duration
}

// complete fills in the defaults.
func (l *WindowLimits) complete() {
	def(&l.WindowEvents, DefaultWindowEvents)
	def(&l.WindowBytes, DefaultWindowBytes)
	def(&l.Redelivery, DefaultRedelivery)
	def(&l.ParkedEvents, DefaultParkedEvents)
	def(&l.ParkedBytes, DefaultParkedBytes)
	def(&l.ParkAttempts, DefaultParkAttempts)
	def(&l.ParkAfter, DefaultParkAfter)
}

// def replaces what is not set.
func def[T int | int64 | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

// Progress says how far a reader has come: every event below the ack floor is settled,
// and none from Top on. Pending lists the unsettled ones between them, in ascending order.
type Progress struct {
	Floor, Top uint64
	Pending    []uint64
}

// WindowOptions are what an engine gives to a Window. The functions are called
// with the Window's lock held, Load excepted: they must neither block nor call it.
type WindowOptions struct {
	WindowLimits
	Backend string
	Reader  uint8        // the backend's number
	Seed    maphash.Seed // of the keys given to Admit
	// Progress is where the reader stood when it was last saved. Admit begins at Floor.
	Progress
	// Load returns a parked event. It may wait for the disk or the network, but not for
	// long. The error wraps ErrLost if the event is not there, or makes no sense, and
	// never will.
	Load func(ParkedID) (*event.Event, error)
	// Failed is told that a parked event cannot be loaded.
	Failed func(error)
	// Lost is told that a parked event is given up because it is lost; nil: nobody is.
	Lost func()
	// Passed is told that an event is settled, parked or given up; nil: nobody is.
	Passed func(number uint64)
	// Overfull is told that an event became a dead letter because too much was parked.
	Overfull func()
	// Changed is told that something was parked that is to be saved soon.
	Changed func()
	// Right ends when the engine loses the right to deliver the events; nil: never. Valid
	// reports whether it has the right now: it looks at the clock. Epoch grows with each
	// instance that gets the right after another.
	Right context.Context
	Valid func() bool
	Epoch uint64
}

// Admission is one event on its way into a Window.
type Admission struct {
	Number uint64
	Event  *event.Event
	Key    uint64 // maphash of Event.Key() with the Window's seed
	Bytes  int    // Size of the event
}

// Changes is what has to be saved beside how far the reader has come.
type Changes struct {
	Letters []DeadLetter
	Parked  []ParkedEvent
	Tries   []ParkedTry // applied after Parked
	Freed   []ParkedID  // not parked any more; applied after Tries
}

// Cut is a state of a Window that can be saved: what is settled, and what else
// has to be kept before that may be forgotten.
type Cut struct {
	Changes
	Progress
	settled int
	refused room
}

// NewWindow returns an empty Window. What is parked is added with Restore.
func NewWindow(o WindowOptions) *Window {
	w := new(Window)
	w.init(o)
	return w
}

func (w *Window) init(o WindowOptions) {
	o.complete()
	w.o, w.queue, w.parking = o, newSchedule(), newParking()
	w.head, w.top, w.pending = o.Floor, o.Top, o.Pending
}

// Admit takes the reader's events of a pack; next is the number behind the pack.
func (w *Window) Admit(list []Admission, accepted time.Time, next uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range list {
		a := &list[i]
		w.admit(a.Number, a.Event, a.Key, a.Bytes, accepted)
	}
	w.arrived(next)
}

// admit puts an event of the log where it belongs.
func (w *Window) admit(number uint64, e *event.Event, key uint64, bytes int, accepted time.Time) {
	if number < w.top && !w.isPending(number) {
		return // settled before a restart
	}
	pk := w.parked[key]
	switch {
	case pk != nil && pk.has(number):
		w.passed(number) // parked by somebody who died before saving that it was
	case pk != nil && pk.refs[0].id.Number() < number:
		w.passed(number)
		if w.append(pk, ParkedEvent{ID: EventID(w.o.Reader, number), Event: e, Accepted: accepted}, bytes) {
			w.promote(pk)
		}
	default:
		w.queue.add(e, key, bytes, accepted).number = number
	}
}

// isPending reports whether a number is pending, and drops those up to it.
func (w *Window) isPending(number uint64) bool {
	for len(w.pending) > 0 && w.pending[0] < number {
		w.pending = w.pending[1:]
	}
	if len(w.pending) == 0 || w.pending[0] != number {
		return false
	}
	w.pending = w.pending[1:]
	return true
}

// arrived moves the head forward to next.
func (w *Window) arrived(next uint64) {
	w.head, w.dirty = next, true
	for len(w.pending) > 0 && w.pending[0] < next {
		w.pending = w.pending[1:]
	}
	w.promoteAll()
}

// passed notes that an event of the log is settled, parked or given up.
func (w *Window) passed(number uint64) {
	w.top = max(w.top, number+1)
	w.dirty = true
	if w.o.Passed != nil {
		w.o.Passed(number)
	}
}

// floor returns the ack floor: the number of the first event that is not settled.
func (w *Window) floor() uint64 {
	if w.queue.oldest != nil {
		return w.queue.oldest.number
	}
	return w.head
}

// Floor returns the ack floor.
func (w *Window) Floor() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.floor()
}

// Right returns the context that ends when the window's events must not be delivered any
// more, nil if they may be for ever, and the epoch of that right.
func (w *Window) Right() (ctx context.Context, epoch uint64) { return w.o.Right, w.o.Epoch }

// Valid reports whether the window's events may be delivered now.
func (w *Window) Valid() bool { return w.o.Valid == nil || w.o.Valid() }

// held is what the window keeps in memory: what is not saved yet takes room too,
// whether it was parked or died because no more could be.
func (w *Window) held() room {
	return room{
		w.queue.waiting + w.queue.busy + w.fresh.events + w.refused.events,
		w.queue.bytes + w.fresh.bytes + w.refused.bytes,
	}
}

// full reports whether the window has no room.
func (w *Window) full() bool {
	h := w.held()
	return h.events >= w.o.WindowEvents || h.bytes >= w.o.WindowBytes
}

func (w *Window) halfEmpty() bool {
	h := w.held()
	return h.events <= w.o.WindowEvents/2 && h.bytes <= w.o.WindowBytes/2
}

// Full reports whether nothing more should be admitted.
func (w *Window) Full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.full()
}

// HalfEmpty reports whether there is room for more after the window was full.
func (w *Window) HalfEmpty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.halfEmpty()
}

// Cut returns what is to be saved and reports whether something has changed
// since the last time. The owner saves it and calls Saved, or Undo.
func (w *Window) Cut() (c Cut, changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.dirty {
		return c, false
	}
	return w.cut(), true
}

func (w *Window) cut() Cut {
	floor := w.floor()
	c := Cut{Changes: w.out, Progress: Progress{Floor: floor, Top: max(w.top, floor)}, settled: w.unsaved, refused: w.refused}
	for it := w.queue.oldest; it != nil && it.number < w.top; it = it.newer {
		c.Pending = append(c.Pending, it.number)
	}
	c.Pending = append(c.Pending, w.pending...)
	w.out, w.dirty = Changes{}, false
	return c
}

// Undo takes back a cut that could not be saved.
func (w *Window) Undo(c *Cut) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty = true
	w.out = Changes{
		Letters: append(c.Letters, w.out.Letters...),
		Parked:  append(c.Parked, w.out.Parked...),
		Tries:   latestTries(append(c.Tries, w.out.Tries...)),
		Freed:   append(c.Freed, w.out.Freed...),
	}
}

// Saved says that a cut is kept. It reports whether Take had to wait for that.
func (w *Window) Saved(c *Cut) (waited bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.saved(c)
}

func (w *Window) saved(c *Cut) (waited bool) {
	w.unsaved -= c.settled
	w.refused.take(c.refused.events, c.refused.bytes)
	w.savedParked(c.Parked)
	waited, w.stalled = w.stalled, false
	return waited
}

// GiveUp drops at most limit of the oldest events that no lane holds, because
// there is no room for them, and none from number before on.
func (w *Window) GiveUp(before uint64, limit int) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.giveUp(before, limit)
}

func (w *Window) giveUp(before uint64, limit int) (n int) {
	for it := w.queue.oldest; it != nil && it.number < before && n < limit; {
		newer := it.newer
		if !it.taken {
			key := it.Key
			w.passed(it.number)
			w.queue.cut(it)
			w.queue.forget(it)
			w.unhold(key)
			n++
		}
		it = newer
	}
	return n
}

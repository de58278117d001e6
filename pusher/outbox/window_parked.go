package outbox

import (
	"cmp"
	"container/heap"
	"hash/maphash"
	"slices"
	"sort"
	"time"

	"eventpusher/event"
)

// Parked events. An event that keeps failing while its service works is taken out
// of the window with all later ones of its key, into the database, in the
// transaction that settles them in the log: one conversation must hold neither
// the window nor the cursor. They are tried there one after the other; when the
// last one is gone, the key is as any other.
//
// Of each parked event a few numbers stay in memory; the event itself is read
// when a lane takes it.

// Once the window is full, a key whose event has been under way for longer than
// slowAttempt is parked behind it.
const (
	slowAttempt = 5 * time.Second
	lookPause   = 100 * time.Millisecond
)

// parking is what a reader knows of its parked events.
type parking struct {
	parked      map[uint64]*parkedKey
	later       []*parkedKey // whose head waits for the log, after a restart
	ages        ageHeap      // all of parked, by the age of their heads
	parkedQueue *schedule    // the heads
	parkedCount int
	parkedBytes int64     // on disk or to be
	fresh       room      // those that are not saved yet, and are held in memory
	refused     room      // what became dead letters instead, which are not saved yet
	allowed     int       // heads that may be under way
	rest        time.Time // none is taken before
	unreadable  time.Time // the same, since one could not be read
}

func newParking() parking {
	return parking{parked: make(map[uint64]*parkedKey), parkedQueue: newSchedule(), allowed: 1}
}

// room is what events take.
type room struct {
	events int
	bytes  int64
}

func (r *room) add(events int, bytes int64)  { r.events, r.bytes = r.events+events, r.bytes+bytes }
func (r *room) take(events int, bytes int64) { r.add(-events, -bytes) }

// parkedKey is the queue of one key.
type parkedKey struct {
	key  uint64
	refs []parkedRef // ascending
	head *Item       // refs[0] in the schedule; nil while the window has events of the key
	slot int         // in ages
}

// parkedRef stands for one parked event.
type parkedRef struct {
	id       ParkedID
	accepted time.Time
	attempts int
	bytes    int
	event    *event.Event // until it is saved
}

// has reports whether an event of the log is among the parked ones.
func (pk *parkedKey) has(number uint64) bool {
	i := sort.Search(len(pk.refs), func(i int) bool { return pk.refs[i].id.Number() >= number })
	return i < len(pk.refs) && pk.refs[i].id.Number() == number && !pk.refs[i].id.Replay()
}

// parkedKeyOf returns the key's queue, a new one if need be; a new one must get
// an event before the lock is given up.
func (w *Window) parkedKeyOf(key uint64) *parkedKey {
	pk := w.parked[key]
	if pk == nil {
		pk = &parkedKey{key: key, slot: -1}
		w.parked[key] = pk
	}
	return pk
}

// Restored is what is known of a parked event whose content is elsewhere.
type Restored struct {
	ID       ParkedID
	Key      []byte // Event.Key()
	Accepted time.Time
	Attempts int
	Bytes    int
}

// Restore takes over what was parked by somebody else, in ascending order of ID.
// It is called once, before anything is admitted.
func (w *Window) Restore(list []Restored) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range list {
		w.restore(p.ID, p.Key, p.Accepted, p.Attempts, p.Bytes)
	}
	w.restored()
}

func (w *Window) restore(id ParkedID, text []byte, accepted time.Time, attempts, bytes int) {
	key := w.replayKey(id)
	if !id.Replay() {
		key = maphash.Bytes(w.o.Seed, text)
	}
	w.enqueue(w.parkedKeyOf(key), parkedRef{id: id, accepted: accepted, attempts: attempts, bytes: bytes})
}

// restored promotes what restore has added.
func (w *Window) restored() {
	w.later = slices.Clone(w.ages)
	w.promoteAll()
}

// replayKey is the key of a replayed event: one of its own, since nothing waits
// for it and it waits for nothing.
func (w *Window) replayKey(id ParkedID) uint64 { return maphash.Comparable(w.o.Seed, id) }

func (w *Window) enqueue(pk *parkedKey, refs ...parkedRef) {
	for _, ref := range refs {
		w.parkedCount++
		w.parkedBytes += int64(ref.bytes)
		if ref.event != nil {
			w.fresh.add(1, int64(ref.bytes))
		}
	}
	// After a restart the log may hold what comes before, or between, what is parked
	// already; never before a head that can be taken.
	sorted := len(pk.refs) == 0 || len(refs) == 0 || pk.refs[len(pk.refs)-1].id.Number() < refs[0].id.Number()
	if pk.refs = append(pk.refs, refs...); !sorted {
		slices.SortFunc(pk.refs, func(a, b parkedRef) int { return cmp.Compare(a.id.Number(), b.id.Number()) })
	}
	switch {
	case len(pk.refs) == 0:
	case pk.slot < 0:
		heap.Push(&w.ages, pk)
	default:
		heap.Fix(&w.ages, pk.slot)
	}
}

// roomToPark reports whether more than n events could be parked.
func (w *Window) roomToPark(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.parkedCount+n < w.o.ParkedEvents && w.parkedBytes < w.o.ParkedBytes
}

// accept makes a record a ref that is to be saved. What does not fit becomes a
// dead letter.
func (w *Window) accept(rec ParkedEvent, bytes, more int) (parkedRef, bool) {
	if w.parkedCount+more >= w.o.ParkedEvents || w.parkedBytes+int64(bytes) > w.o.ParkedBytes {
		w.out.Letters = append(w.out.Letters, w.letter(rec.Event, rec.Accepted, rec.Attempts, ReasonParkedFull, time.Now()))
		w.refused.add(1, int64(bytes))
		w.o.Overfull()
		return parkedRef{}, false
	}
	w.out.Parked = append(w.out.Parked, rec)
	return parkedRef{id: rec.ID, accepted: rec.Accepted, attempts: rec.Attempts, bytes: bytes, event: rec.Event}, true
}

// append parks one event behind the others of its key.
func (w *Window) append(pk *parkedKey, rec ParkedEvent, bytes int) bool {
	ref, ok := w.accept(rec, bytes, 0)
	if ok {
		w.enqueue(pk, ref)
	}
	return ok
}

// park moves a key whose head keeps failing out of the window. The head is tried
// again when due.
func (w *Window) park(q *keyQueue, due time.Time, asked bool, now time.Time) {
	pk := w.parkKey(q, false)
	if w.promote(pk); pk.head != nil {
		w.parkedQueue.postpone(pk.head, due, asked)
	}
}

// parkKey moves a key, or what is behind its head, out of the window.
func (w *Window) parkKey(q *keyQueue, keepHead bool) *parkedKey {
	pk := w.parkedKeyOf(q.key)
	var refs []parkedRef
	w.queue.remove(q, keepHead, func(it *Item) {
		w.passed(it.number)
		rec := ParkedEvent{ID: EventID(w.o.Reader, it.number), Event: it.Event, Accepted: it.Accepted, Attempts: it.Attempts}
		if ref, ok := w.accept(rec, it.bytes, len(refs)); ok {
			refs = append(refs, ref)
		}
	})
	w.enqueue(pk, refs...)
	return pk
}

// promote makes the first event of a key one that can be taken, unless an older
// one of the key is or may be in the log; it forgets keys that are empty.
func (w *Window) promote(pk *parkedKey) {
	if len(pk.refs) == 0 {
		if pk.slot >= 0 {
			heap.Remove(&w.ages, pk.slot)
		}
		delete(w.parked, pk.key)
		return
	}
	if pk.head != nil || w.queue.keys[pk.key] != nil {
		return
	}
	ref := &pk.refs[0]
	if !ref.id.Replay() && ref.id.Number() >= w.head {
		w.later = append(w.later, pk)
		return
	}
	it := w.parkedQueue.add(ref.event, pk.key, entryOverhead, ref.accepted)
	it.Attempts, it.parked, it.id = ref.attempts, pk, ref.id
	pk.head = it
}

// promoteAll looks again at the keys that promote had to put off.
func (w *Window) promoteAll() {
	later := w.later
	w.later = nil
	for _, pk := range later {
		if w.parked[pk.key] == pk {
			w.promote(pk)
		}
	}
}

// unhold promotes what is parked of a key that the window may have been left by.
func (w *Window) unhold(key uint64) {
	if pk := w.parked[key]; pk != nil {
		w.promote(pk)
	}
}

// doneParked removes a head in flight for good.
func (w *Window) doneParked(it *Item) {
	pk := it.parked
	w.parkedQueue.settled(it)
	w.unpark(pk)
	w.allowed, w.rest = min(2*w.allowed, parkedLanes), time.Time{}
	w.promote(pk)
}

// unpark removes the first event of a key, which is not in the schedule any more.
func (w *Window) unpark(pk *parkedKey) {
	ref := pk.refs[0]
	w.out.Freed = append(w.out.Freed, ref.id)
	w.parkedCount--
	w.parkedBytes -= int64(ref.bytes)
	w.stale(&ref)
	pk.refs[0] = parkedRef{}
	pk.refs, pk.head = pk.refs[1:], nil
	if len(pk.refs) > 0 {
		heap.Fix(&w.ages, pk.slot)
	}
	w.dirty = true
}

// stale lets go of the event of a ref.
func (w *Window) stale(ref *parkedRef) {
	if ref.event != nil {
		w.fresh.take(1, int64(ref.bytes))
		ref.event = nil
	}
}

// savedParked lets go of events that are on disk now.
func (w *Window) savedParked(puts []ParkedEvent) {
	for i := range puts {
		p := &puts[i]
		pk := w.parked[KeyHash(w.o.Seed, p.Event)]
		if pk == nil {
			continue
		}
		n := sort.Search(len(pk.refs), func(i int) bool { return pk.refs[i].id.Number() >= p.ID.Number() })
		if n == len(pk.refs) || pk.refs[n].id != p.ID {
			continue
		}
		w.stale(&pk.refs[n])
		if n == 0 && pk.head != nil && !pk.head.taken {
			pk.head.Event = nil
		}
	}
}

// makeRoom is called when lanes find nothing to do while the window is full: what
// fills it has failed or hangs. It parks that, and returns when it should be
// called again.
func (w *Window) makeRoom(now time.Time) (again time.Time) {
	if now.Before(w.looked.Add(lookPause)) {
		return w.looked.Add(lookPause)
	}
	w.looked = now
	if w.parkedCount+w.queue.waiting >= w.o.ParkedEvents || w.parkedBytes+w.queue.bytes >= w.o.ParkedBytes {
		return now.Add(slowAttempt) // nothing healthy may become a dead letter for want of room
	}
	for _, q := range slices.Clone(w.queue.delayed) {
		w.park(q, q.due, q.asked, now)
	}
	for _, q := range w.queue.keys {
		if q.state == keyBusy && q.head.behind != nil && (q.head.Attempts > 0 || now.Sub(q.head.takenAt) >= slowAttempt) {
			w.promote(w.parkKey(q, true)) // not yet, but it may be empty
		}
	}
	w.o.Changed()
	return now.Add(lookPause)
}

// AddReplayed takes over a dead letter that was moved to what is parked, of so
// many bytes; Load brings its event. One that is known already is left alone.
func (w *Window) AddReplayed(p *ParkedEvent, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := w.replayKey(p.ID)
	if w.parked[key] != nil {
		return
	}
	pk := w.parkedKeyOf(key)
	w.enqueue(pk, parkedRef{id: p.ID, accepted: p.Accepted, attempts: p.Attempts, bytes: bytes})
	w.promote(pk)
}

package outbox

import (
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
	held        []*parkedKey // whose head waits for the log, after a restart
	ages        ageHeap      // all of parked, by the age of their heads
	parkedQueue *schedule    // the heads
	parkedCount int
	parkedBytes int64 // on disk or to be
	fresh       int   // those that are not saved yet, and are held in memory
	freshBytes  int64
	allowed     int       // heads that may be under way
	rest        time.Time // none is taken before
}

func newParking() parking {
	return parking{parked: make(map[uint64]*parkedKey), parkedQueue: newSchedule(), allowed: 1}
}

// parkedKey is the queue of one key.
type parkedKey struct {
	key  uint64
	refs []parkedRef // ascending
	head *Item       // refs[0] in the schedule; nil while the window has events of the key
	slot int         // in ages
}

// parkedRef stands for one parked event.
type parkedRef struct {
	id       parkedID
	accepted time.Time
	attempts int
	bytes    int
	event    *event.Event // until it is saved
}

func (pk *parkedKey) last() uint64 {
	if len(pk.refs) == 0 {
		return 0
	}
	return pk.refs[len(pk.refs)-1].id.seq()
}

// parkedKeyOf returns the key's queue, a new one if need be; a new one must get
// an event before the lock is given up.
func (r *embeddedReader) parkedKeyOf(key uint64) *parkedKey {
	pk := r.parked[key]
	if pk == nil {
		pk = &parkedKey{key: key, slot: -1}
		r.parked[key] = pk
	}
	return pk
}

// loadParked takes over what a former process has parked.
func (r *embeddedReader) loadParked(id parkedID, v []byte) error {
	accepted, attempts, text, _, err := parkedHead(v)
	if err != nil {
		return err
	}
	key := r.replayKey(id)
	if !id.replay() {
		key = maphash.Bytes(r.engine.seed, text)
	}
	r.enqueue(r.parkedKeyOf(key), parkedRef{id: id, accepted: accepted, attempts: attempts, bytes: len(v)})
	return nil
}

// replayKey is the key of a replayed event: one of its own, since nothing waits
// for it and it waits for nothing.
func (r *embeddedReader) replayKey(id parkedID) uint64 { return maphash.Comparable(r.engine.seed, id) }

func (r *embeddedReader) enqueue(pk *parkedKey, refs ...parkedRef) {
	for _, ref := range refs {
		r.parkedCount++
		r.parkedBytes += int64(ref.bytes)
		if ref.event != nil {
			r.fresh++
			r.freshBytes += int64(ref.bytes)
		}
	}
	if len(pk.refs) > 0 && len(refs) > 0 && refs[0].id.seq() < pk.refs[0].id.seq() {
		pk.refs = append(refs, pk.refs...)
	} else {
		pk.refs = append(pk.refs, refs...)
	}
	switch {
	case len(pk.refs) == 0:
	case pk.slot < 0:
		heap.Push(&r.ages, pk)
	default:
		heap.Fix(&r.ages, pk.slot)
	}
}

// roomToPark reports whether more than n events could be parked.
func (r *embeddedReader) roomToPark(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parkedCount+n < r.engine.o.ParkedEvents && r.parkedBytes < r.engine.o.ParkedBytes
}

// accept makes a record a ref that is to be saved. What does not fit becomes a
// dead letter.
func (r *embeddedReader) accept(rec parkedRecord, bytes, more int) (parkedRef, bool) {
	if r.parkedCount+more >= r.engine.o.ParkedEvents || r.parkedBytes+int64(bytes) > r.engine.o.ParkedBytes {
		r.out.letters = append(r.out.letters, r.letter(rec.event, rec.accepted, rec.attempts, ReasonParkedFull, time.Now()))
		if f := r.engine.full.Load(); f != nil {
			(*f)(r.backend)
		}
		return parkedRef{}, false
	}
	r.out.puts = append(r.out.puts, rec)
	return parkedRef{id: rec.id, accepted: rec.accepted, attempts: rec.attempts, bytes: bytes, event: rec.event}, true
}

// append parks one event behind the others of its key.
func (r *embeddedReader) append(pk *parkedKey, rec parkedRecord, bytes int) bool {
	ref, ok := r.accept(rec, bytes, 0)
	if ok {
		r.enqueue(pk, ref)
	}
	return ok
}

// park moves a key whose head keeps failing out of the window. The head is tried
// again when due.
func (r *embeddedReader) park(q *keyQueue, due time.Time, firm bool, now time.Time) {
	pk := r.uproot(q, false)
	if r.promote(pk); pk.head != nil {
		r.parkedQueue.postpone(pk.head, due, firm)
	}
}

// uproot moves a key, or what is behind its head, out of the window.
func (r *embeddedReader) uproot(q *keyQueue, keepHead bool) *parkedKey {
	pk := r.parkedKeyOf(q.key)
	var refs []parkedRef
	r.queue.uproot(q, keepHead, func(it *Item) {
		r.passed(it.number)
		rec := parkedRecord{id: newParkedID(r.id, parkedEvent, it.number), event: it.Event, accepted: it.Accepted, attempts: it.Attempts}
		if ref, ok := r.accept(rec, it.bytes, len(refs)); ok {
			refs = append(refs, ref)
		}
	})
	r.enqueue(pk, refs...)
	return pk
}

// promote makes the first event of a key one that can be taken, unless an older
// one of the key is or may be in the log; it forgets keys that are empty.
func (r *embeddedReader) promote(pk *parkedKey) {
	if len(pk.refs) == 0 {
		if pk.slot >= 0 {
			heap.Remove(&r.ages, pk.slot)
		}
		delete(r.parked, pk.key)
		return
	}
	if pk.head != nil || r.queue.keys[pk.key] != nil {
		return
	}
	ref := &pk.refs[0]
	if !ref.id.replay() && ref.id.seq() >= r.head {
		r.held = append(r.held, pk)
		return
	}
	it := r.parkedQueue.add(ref.event, pk.key, entryOverhead, ref.accepted)
	it.Attempts, it.parked, it.id = ref.attempts, pk, ref.id
	pk.head = it
}

// promoteAll looks again at the keys that promote had to put off.
func (r *embeddedReader) promoteAll() {
	held := r.held
	r.held = nil
	for _, pk := range held {
		if r.parked[pk.key] == pk {
			r.promote(pk)
		}
	}
}

// unhold promotes what is parked of a key that the window may have been left by.
func (r *embeddedReader) unhold(key uint64) {
	if pk := r.parked[key]; pk != nil {
		r.promote(pk)
	}
}

// doneParked removes a head in flight for good.
func (r *embeddedReader) doneParked(it *Item) {
	pk := it.parked
	r.parkedQueue.settled(it)
	r.unpark(pk)
	r.allowed, r.rest = min(2*r.allowed, parkedLanes), time.Time{}
	r.promote(pk)
}

// unpark removes the first event of a key, which is not in the schedule any more.
func (r *embeddedReader) unpark(pk *parkedKey) {
	ref := pk.refs[0]
	r.out.dels = append(r.out.dels, ref.id)
	r.parkedCount--
	r.parkedBytes -= int64(ref.bytes)
	r.stale(&ref)
	pk.refs[0] = parkedRef{}
	pk.refs, pk.head = pk.refs[1:], nil
	if len(pk.refs) > 0 {
		heap.Fix(&r.ages, pk.slot)
	}
	r.dirty = true
}

// stale lets go of the event of a ref.
func (r *embeddedReader) stale(ref *parkedRef) {
	if ref.event != nil {
		r.fresh--
		r.freshBytes -= int64(ref.bytes)
		ref.event = nil
	}
}

// savedParked lets go of events that are on disk now.
func (r *embeddedReader) savedParked(puts []parkedRecord) {
	for i := range puts {
		p := &puts[i]
		pk := r.parked[maphash.String(r.engine.seed, p.event.Key())]
		if pk == nil {
			continue
		}
		n := sort.Search(len(pk.refs), func(i int) bool { return pk.refs[i].id.seq() >= p.id.seq() })
		if n == len(pk.refs) || pk.refs[n].id != p.id {
			continue
		}
		r.stale(&pk.refs[n])
		if n == 0 && pk.head != nil && !pk.head.taken {
			pk.head.Event = nil
		}
	}
}

// makeRoom is called when lanes find nothing to do while the window is full: what
// fills it has failed or hangs. It parks that, and returns when it should be
// called again.
func (r *embeddedReader) makeRoom(now time.Time) (again time.Time) {
	if now.Before(r.looked.Add(lookPause)) {
		return r.looked.Add(lookPause)
	}
	r.looked = now
	if r.parkedCount+r.queue.waiting >= r.engine.o.ParkedEvents || r.parkedBytes+r.queue.bytes >= r.engine.o.ParkedBytes {
		return now.Add(slowAttempt) // nothing healthy may become a dead letter for want of room
	}
	for _, q := range slices.Clone(r.queue.delayed) {
		r.park(q, q.due, q.firm, now)
	}
	for _, q := range r.queue.keys {
		if q.state == keyBusy && q.head.behind != nil && (q.head.Attempts > 0 || now.Sub(q.head.takenAt) >= slowAttempt) {
			r.promote(r.uproot(q, true)) // not yet, but it may be empty
		}
	}
	signal(r.engine.dirty)
	return now.Add(lookPause)
}

// addReplayed takes over a dead letter that was moved to what is parked.
func (r *embeddedReader) addReplayed(p *parkedRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pk := r.parkedKeyOf(r.replayKey(p.id))
	r.enqueue(pk, parkedRef{id: p.id, accepted: p.accepted, bytes: Size(p.event)})
	r.promote(pk)
}

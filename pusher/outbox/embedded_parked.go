package outbox

import (
	"container/heap"
	"errors"
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

// Parked events must not take the lanes from the others either. While they fail,
// one at a time is tried, with a rest of restFactor times the length of the
// attempt; each success doubles how many may be under way.
const (
	parkedLanes = 64
	restFactor  = 2
	longestRest = 2 * time.Minute
)

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

// oldestParked returns when the oldest head was accepted, zero without one.
func (r *embeddedReader) oldestParked() time.Time {
	if len(r.ages) == 0 {
		return time.Time{}
	}
	return r.ages[0].refs[0].accepted
}

// expiredParked takes heads that were accepted too early out of the schedule.
func (r *embeddedReader) expiredParked(before time.Time, limit int) []*parkedKey {
	var old, busy []*parkedKey
	for limit > 0 && len(r.ages) > 0 && r.ages[0].refs[0].accepted.Before(before) {
		pk := heap.Pop(&r.ages).(*parkedKey)
		if pk.head == nil || pk.head.taken {
			busy = append(busy, pk)
			continue
		}
		r.parkedQueue.withdraw(pk.head)
		old = append(old, pk)
		limit--
	}
	for _, pk := range append(busy, old...) {
		heap.Push(&r.ages, pk)
	}
	return old
}

// buryParked makes dead letters of heads that expiredParked has returned.
func (r *embeddedReader) buryParked(list []*parkedKey, now time.Time) (n int, err error) {
	for _, pk := range list {
		r.mu.Lock()
		ref := pk.refs[0]
		r.mu.Unlock()
		e, fault := ref.event, error(nil)
		if e == nil {
			e, fault = loadParked(r.engine.db, ref.id)
		}
		r.mu.Lock()
		if fault == nil {
			r.out.letters = append(r.out.letters, r.letter(e, ref.accepted, ref.attempts, ReasonMaxAge, now))
			r.parkedQueue.settled(pk.head)
			r.unpark(pk)
			r.promote(pk)
			n++
		} else {
			r.parkedQueue.retry(pk.head, now.Add(longestRest), true)
		}
		r.mu.Unlock()
		err = errors.Join(err, fault)
	}
	return n, err
}

// ageHeap orders keys by the time their first event was accepted.
type ageHeap []*parkedKey

func (h ageHeap) Len() int           { return len(h) }
func (h ageHeap) Less(i, j int) bool { return h[i].refs[0].accepted.Before(h[j].refs[0].accepted) }
func (h ageHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i, j
}

// Push implements heap.Interface.
func (h *ageHeap) Push(x any) {
	pk := x.(*parkedKey)
	pk.slot = len(*h)
	*h = append(*h, pk)
}

// Pop implements heap.Interface.
func (h *ageHeap) Pop() any {
	old := *h
	n := len(old) - 1
	pk := old[n]
	old[n] = nil
	*h = old[:n]
	pk.slot = -1
	return pk
}

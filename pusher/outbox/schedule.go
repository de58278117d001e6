package outbox

import (
	"container/heap"
	"time"

	"eventpusher/event"
)

// keptFree bounds the lists of structures that wait to be used again, and the
// size up to which an emptied map is kept: a burst must not hold its memory
// forever.
const keptFree = 4096

// keyState says where the queue of a key stands.
type keyState uint8

const (
	keyReady   keyState = iota // its head may be taken
	keyDelayed                 // its head waits for a retry
	keyBusy                    // its head is in flight
)

// keyQueue holds the events of one key in order of acceptance. Only its head is
// ever in flight, which is what keeps the order over retries.
type keyQueue struct {
	key        uint64
	state      keyState
	head, tail *Item

	prev, next *keyQueue // in the list of ready keys
	due        time.Time // delayed: when
	asked      bool      // delayed: at the service's own wish
	slot       int       // delayed: index in the heap
}

// schedule orders the events of one backend: by key, by retry time and by age.
// It is not safe for concurrent use.
type schedule struct {
	keys          map[uint64]*keyQueue
	peak          int // most keys since the map was made
	first, last   *keyQueue
	delayed       dueHeap
	oldest        *Item
	newest        *Item
	waiting, busy int
	bytes         int64

	freeItems []*Item
	freeKeys  []*keyQueue
}

func newSchedule() *schedule {
	return &schedule{keys: make(map[uint64]*keyQueue)}
}

// add puts an event behind the others of its key.
func (s *schedule) add(e *event.Event, key uint64, bytes int, now time.Time) *Item {
	it := s.newItem()
	it.Event, it.Key, it.bytes, it.Accepted = e, key, bytes, now
	it.older = s.newest
	if s.newest != nil {
		s.newest.newer = it
	} else {
		s.oldest = it
	}
	s.newest = it
	s.waiting++
	s.bytes += int64(bytes)

	q := s.keys[key]
	if q == nil {
		q = s.newKey(key)
		s.keys[key] = q
		s.peak = max(s.peak, len(s.keys))
		q.head, q.tail = it, it
		s.pushReady(q)
	} else {
		q.tail.behind = it
		q.tail = it
	}
	it.lane = q
	return it
}

// take hands out heads of ready keys.
func (s *schedule) take(dst []*Item, limit int, now time.Time) []*Item {
	s.promote(now)
	for ; limit > 0 && s.first != nil; limit-- {
		dst = append(dst, s.seize(s.first))
	}
	return dst
}

// takeProbe hands out the head whose retry is due first, unless a service asked
// for the delay.
func (s *schedule) takeProbe(dst []*Item) []*Item {
	var best *keyQueue
	for _, q := range s.delayed {
		if !q.asked && (best == nil || q.due.Before(best.due)) {
			best = q
		}
	}
	if best == nil {
		return dst
	}
	heap.Remove(&s.delayed, best.slot)
	s.pushReady(best)
	return append(dst, s.seize(best))
}

// seize marks the head of a ready key as in flight.
func (s *schedule) seize(q *keyQueue) *Item {
	s.unlinkReady(q)
	q.state = keyBusy
	q.head.taken = true
	s.waiting--
	s.busy++
	return q.head
}

// promote makes the keys ready whose retry is due.
func (s *schedule) promote(now time.Time) {
	for len(s.delayed) > 0 && !s.delayed[0].due.After(now) {
		s.pushReady(heap.Pop(&s.delayed).(*keyQueue))
	}
}

// retryNow makes all delayed keys ready but those that a service asked to wait for.
func (s *schedule) retryNow() {
	asked := s.delayed[:0:0]
	for len(s.delayed) > 0 {
		q := heap.Pop(&s.delayed).(*keyQueue)
		if q.asked {
			asked = append(asked, q)
			continue
		}
		s.pushReady(q)
	}
	for _, q := range asked {
		heap.Push(&s.delayed, q)
	}
}

// settled forgets an item in flight; the next of its key becomes ready.
func (s *schedule) settled(it *Item) {
	q := it.lane
	s.busy--
	q.head = it.behind
	s.forget(it)
	if q.head == nil {
		s.dropKey(q)
		return
	}
	s.pushReady(q)
}

// retry lets the key of an item in flight rest until due.
func (s *schedule) retry(it *Item, due time.Time, asked bool) {
	q := s.back(it)
	q.state, q.due, q.asked = keyDelayed, due, asked
	heap.Push(&s.delayed, q)
}

// postpone lets a ready key rest until due.
func (s *schedule) postpone(it *Item, due time.Time, asked bool) {
	q := it.lane
	s.unlinkReady(q)
	q.state, q.due, q.asked = keyDelayed, due, asked
	heap.Push(&s.delayed, q)
}

// hurry makes a waiting head the next one that is taken.
func (s *schedule) hurry(it *Item) {
	q := it.lane
	switch q.state {
	case keyDelayed:
		heap.Remove(&s.delayed, q.slot)
	case keyReady:
		s.unlinkReady(q)
	}
	q.state, q.prev, q.next = keyReady, nil, s.first
	if s.first != nil {
		s.first.prev = q
	} else {
		s.last = q
	}
	s.first = q
}

// withdraw treats a waiting head as if it had been taken.
func (s *schedule) withdraw(it *Item) {
	s.hurry(it)
	s.seize(it.lane)
}

// release puts an item in flight back. Other keys come first: a probe that
// failed because of its own event must not be the next probe too.
func (s *schedule) release(it *Item) {
	s.pushReady(s.back(it))
}

func (s *schedule) back(it *Item) *keyQueue {
	it.taken = false
	s.busy--
	s.waiting++
	return it.lane
}

// expire gives up at most limit waiting events accepted before the given time,
// and reports each before it is gone.
func (s *schedule) expire(before time.Time, limit int, report func(*Item)) {
	it := s.oldest
	for it != nil && limit > 0 && it.Accepted.Before(before) {
		newer := it.newer
		if !it.taken {
			report(it)
			s.cut(it)
			s.forget(it)
			limit--
		}
		it = newer
	}
}

// remove gives up a key with all its items, oldest first, or those behind the
// head only; it reports each before it is gone. The head may be in flight.
func (s *schedule) remove(q *keyQueue, keepHead bool, report func(*Item)) {
	it := q.head
	if keepHead {
		it = q.head.behind
		q.head.behind, q.tail = nil, q.head
	} else {
		switch q.state {
		case keyDelayed:
			heap.Remove(&s.delayed, q.slot)
		case keyReady:
			s.unlinkReady(q)
		}
		s.dropKey(q)
	}
	for it != nil {
		behind := it.behind
		if it.taken {
			s.busy--
		} else {
			s.waiting--
		}
		report(it)
		s.forget(it)
		it = behind
	}
}

// cut takes a waiting item out of its key. Everything older of that key has gone
// or is in flight, so it is the head or stands right behind it.
func (s *schedule) cut(it *Item) {
	q := it.lane
	s.waiting--
	if q.head != it {
		q.head.behind = it.behind
		if q.tail == it {
			q.tail = q.head
		}
		return
	}
	q.head = it.behind
	switch q.state {
	case keyDelayed: // the delay was that of the item
		heap.Remove(&s.delayed, q.slot)
	case keyReady:
		s.unlinkReady(q)
	}
	if q.head == nil {
		s.dropKey(q)
		return
	}
	s.pushReady(q)
}

// forget takes an item out of the order of acceptance and recycles it.
func (s *schedule) forget(it *Item) {
	if it.older != nil {
		it.older.newer = it.newer
	} else {
		s.oldest = it.newer
	}
	if it.newer != nil {
		it.newer.older = it.older
	} else {
		s.newest = it.older
	}
	s.bytes -= int64(it.bytes)
	*it = Item{}
	if len(s.freeItems) < keptFree {
		s.freeItems = append(s.freeItems, it)
	}
}

func (s *schedule) dropKey(q *keyQueue) {
	delete(s.keys, q.key)
	if len(s.keys) == 0 && s.peak > keptFree {
		s.keys, s.peak = make(map[uint64]*keyQueue), 0
	}
	*q = keyQueue{}
	if len(s.freeKeys) < keptFree {
		s.freeKeys = append(s.freeKeys, q)
	}
}

func (s *schedule) newItem() *Item {
	if n := len(s.freeItems); n > 0 {
		it := s.freeItems[n-1]
		s.freeItems = s.freeItems[:n-1]
		return it
	}
	return new(Item)
}

func (s *schedule) newKey(key uint64) *keyQueue {
	if n := len(s.freeKeys); n > 0 {
		q := s.freeKeys[n-1]
		s.freeKeys = s.freeKeys[:n-1]
		q.key = key
		return q
	}
	return &keyQueue{key: key}
}

func (s *schedule) pushReady(q *keyQueue) {
	q.state = keyReady
	q.prev, q.next = s.last, nil
	if s.last != nil {
		s.last.next = q
	} else {
		s.first = q
	}
	s.last = q
}

func (s *schedule) unlinkReady(q *keyQueue) {
	if q.prev != nil {
		q.prev.next = q.next
	} else {
		s.first = q.next
	}
	if q.next != nil {
		q.next.prev = q.prev
	} else {
		s.last = q.prev
	}
	q.prev, q.next = nil, nil
}

// dueHeap orders delayed keys by the time of their retry.
type dueHeap []*keyQueue

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i, j
}

func (h *dueHeap) Push(x any) {
	q := x.(*keyQueue)
	q.slot = len(*h)
	*h = append(*h, q)
}

func (h *dueHeap) Pop() any {
	old := *h
	n := len(old) - 1
	q := old[n]
	old[n] = nil
	*h = old[:n]
	return q
}

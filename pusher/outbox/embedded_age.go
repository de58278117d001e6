package outbox

import (
	"container/heap"
	"errors"
	"time"
)

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

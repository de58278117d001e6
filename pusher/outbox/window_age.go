package outbox

import (
	"container/heap"
	"errors"
	"time"
)

// expireStep is how many events one call of Expire moves, so that the lock is
// never held for long.
const expireStep = 256

// oldestParked returns when the oldest head was accepted, zero without one.
func (w *Window) oldestParked() time.Time {
	if len(w.ages) == 0 {
		return time.Time{}
	}
	return w.ages[0].refs[0].accepted
}

// expiredParked takes heads that were accepted too probe out of the schedule.
func (w *Window) expiredParked(before time.Time, limit int) []*parkedKey {
	var old, busy []*parkedKey
	for limit > 0 && len(w.ages) > 0 && w.ages[0].refs[0].accepted.Before(before) {
		pk := heap.Pop(&w.ages).(*parkedKey)
		if pk.head == nil || pk.head.taken {
			busy = append(busy, pk)
			continue
		}
		w.parkedQueue.withdraw(pk.head)
		old = append(old, pk)
		limit--
	}
	for _, pk := range append(busy, old...) {
		heap.Push(&w.ages, pk)
	}
	return old
}

// buryParked makes dead letters of heads that expiredParked has returned.
func (w *Window) buryParked(list []*parkedKey, now time.Time) (n int, err error) {
	for _, pk := range list {
		w.mu.Lock()
		ref, e := pk.refs[0], pk.head.Event
		w.mu.Unlock()
		var fault error
		if e == nil {
			e, fault = w.o.Load(ref.id)
		}
		w.mu.Lock()
		if fault == nil {
			w.out.Letters = append(w.out.Letters, w.letter(e, ref.accepted, ref.attempts, ReasonMaxAge, now))
			w.parkedQueue.settled(pk.head)
			w.unpark(pk)
			w.promote(pk)
			n++
		} else {
			w.unloaded(pk.head, now, fault)
		}
		w.mu.Unlock()
		if !errors.Is(fault, ErrLost) {
			err = errors.Join(err, fault)
		}
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

package outbox_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/pusher/outbox"
)

// TestEmbeddedActsAsMemory does the same with both engines, and expects the same
// from them as long as the window is not full, nothing is parked and nothing
// crashes.
func TestEmbeddedActsAsMemory(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sameAsMemory(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func sameAsMemory(t *testing.T, rnd *rand.Rand) {
	memory, inMemory := open(t, outbox.MemoryOptions{DeadLetters: outbox.NewRing(10_000)})
	d := openDurable(t, outbox.EmbeddedOptions{
		Dir: t.TempDir(), Backends: []string{"b"}, WindowLimits: outbox.WindowLimits{ParkAttempts: 1 << 30, ParkAfter: 1 << 60, Redelivery: 1 << 30},
	})
	onDisk := d.readers["b"]
	var flights [2][]*outbox.Item
	for step, n := 0, 0; step < 400; step++ {
		switch what := rnd.IntN(20); {
		case what < 6:
			var p outbox.Pack
			for range 1 + rnd.IntN(4) {
				n++
				p.Entries = append(p.Entries, outbox.Entry{Event: chat(fmt.Sprint("peer", rnd.IntN(6)), fmt.Sprint(n)), Subscribers: outbox.Subscribers(rnd.IntN(4))})
			}
			for _, o := range []outbox.Outbox{memory, d} {
				if err := o.Append(p); err != nil {
					t.Fatal(err)
				}
			}
		case what < 12:
			limit, probe := 1+rnd.IntN(3), rnd.IntN(4) == 0
			a, dueA, moreA := inMemory.Take(nil, limit, probe)
			b, dueB, moreB := onDisk.Take(nil, limit, probe)
			if diff := cmp.Diff(ids(a), ids(b)); diff != "" || !dueA.Equal(dueB) || moreA != moreB {
				t.Fatalf("step %d: %s due %v and %v, more %v and %v", step, diff, dueA, dueB, moreA, moreB)
			}
			flights[0], flights[1] = append(flights[0], a...), append(flights[1], b...)
		case what < 18 && len(flights[0]) > 0:
			i := rnd.IntN(len(flights[0]))
			s := outbox.Settlement{
				Outcome: outbox.Outcome(rnd.IntN(4)), Delay: time.Duration(rnd.IntN(5)) * time.Second, Asked: rnd.IntN(3) == 0, Reason: "permanent",
			}
			for e, r := range []outbox.Reader{inMemory, onDisk} {
				s.Item = flights[e][i]
				flights[e] = slices.Delete(flights[e], i, i+1)
				settle(t, r, s)
			}
		case what == 18:
			time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
		case rnd.IntN(10) == 0:
			before := time.Now().Add(-time.Minute)
			a, err := inMemory.Expire(before)
			b, err2 := onDisk.Expire(before)
			if a != b || err != nil || err2 != nil {
				t.Fatalf("step %d: expired %d and %d (%v, %v)", step, a, b, err, err2)
			}
		case rnd.IntN(3) == 0:
			inMemory.RetryNow()
			onDisk.RetryNow()
		}
		a, b := inMemory.Stats(), onDisk.Stats()
		b.Coming = false
		if diff := cmp.Diff(a, b); diff != "" {
			t.Fatalf("step %d: %s", step, diff)
		}
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	dead := func(o outbox.Outbox) (out []string) {
		for _, l := range letters(t, o.DeadLetters()) {
			out = append(out, fmt.Sprint(l.ID, l.Event.ID, l.Backend, l.Reason, l.Attempts, l.Accepted.Equal(l.Died)))
		}
		return out
	}
	if diff := cmp.Diff(dead(memory), dead(d)); diff != "" {
		t.Error(diff)
	}
	d.close(t)
}

package outbox_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/pusher/outbox"
)

// manyOf returns a pack of n events of one conversation, numbered from first.
func manyOf(peer string, first, n int) outbox.Pack {
	var p outbox.Pack
	for i := range n {
		p.Entries = append(p.Entries, outbox.Entry{Event: chat(peer, fmt.Sprintf("%s%03d", peer, first+i)), Subscribers: 1})
	}
	return p
}

func numbered(peer string, first, n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%s%03d", peer, first+i))
	}
	return out
}

// TestEmbeddedAFailingKeyDoesNotFillTheWindow parks it before its attempts are
// through.
func TestEmbeddedAFailingKeyDoesNotFillTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDurable(t, outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{WindowEvents: 16}}, "a")
		r := d.readers["a"]
		d.append(t, manyOf("bad", 0, 16))
		settle(t, r, outbox.Settlement{Item: take(r, 1, false)[0], Outcome: outbox.Retry, Delay: time.Hour})
		for n := range 10 {
			d.append(t, manyOf("bad", 16+n, 1))
			d.append(t, manyOf("good", n, 1))
		}
		var got []string
		for len(got) < 10 {
			items := d.takeWait(t, "a", 10)
			got = append(got, ids(items)...)
			deliver(t, r, items)
		}
		if diff := cmp.Diff(numbered("good", 0, 10), got); diff != "" {
			t.Error(diff)
		}
		if s := r.Stats(); s.Parked != 26 {
			t.Errorf("parked: %+v", s)
		}
		time.Sleep(time.Hour)
		if diff := cmp.Diff(numbered("bad", 0, 26), d.drain(t, "a")); diff != "" {
			t.Error(diff)
		}
		d.close(t)
	})
}

// TestEmbeddedAHangingKeyDoesNotFillTheWindow parks what waits behind an event
// that is under way, and keeps the order when that event goes back, and when the
// process dies meanwhile.
func TestEmbeddedAHangingKeyDoesNotFillTheWindow(t *testing.T) {
	for _, end := range []string{"delivered", "released", "failed", "crash"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{WindowEvents: 16, ParkAttempts: 1}}
				d := openDurable(t, o, "a")
				r := d.readers["a"]
				d.append(t, manyOf("bad", 0, 16))
				hangs := take(r, 1, false)[0]
				d.append(t, manyOf("bad", 16, 4))
				d.append(t, manyOf("good", 0, 3))
				began := time.Now()
				items := d.takeWait(t, "a", 10)
				if diff := cmp.Diff(numbered("good", 0, 1), ids(items)); diff != "" {
					t.Fatal(diff)
				}
				if waited := time.Since(began); waited < 5*time.Second || waited > 6*time.Second {
					t.Errorf("the others waited %v", waited)
				}
				deliver(t, r, items)
				want := numbered("bad", 1, 19)
				switch end {
				case "delivered":
					deliver(t, r, []*outbox.Item{hangs})
				case "released":
					settle(t, r, outbox.Settlement{Item: hangs, Outcome: outbox.Requeue})
					want = numbered("bad", 0, 20)
				case "failed":
					settle(t, r, outbox.Settlement{Item: hangs, Outcome: outbox.Retry, Delay: time.Second})
					want = numbered("bad", 0, 20)
				case "crash":
					if err := d.Flush(); err != nil {
						t.Fatal(err)
					}
					d.Crash()
					d = openDurable(t, o, "a")
					want = numbered("bad", 0, 20)
				}
				var bad []string
				for _, id := range d.drain(t, "a") {
					if id[:3] == "bad" {
						bad = append(bad, id)
					}
				}
				if diff := cmp.Diff(want, bad); diff != "" {
					t.Error(diff)
				}
				d.close(t)
			})
		})
	}
}

// TestEmbeddedParkedEventsTakeFewLanes lets many conversations fail slowly: one
// attempt at a time, with a rest after it, however many there are.
func TestEmbeddedParkedEventsTakeFewLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDurable(t, outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{ParkAttempts: 1}}, "a")
		r := d.readers["a"]
		const keys = 50
		for n := range keys {
			d.append(t, manyOf(fmt.Sprintf("bad%d", n), 0, 1))
		}
		for _, it := range take(r, keys, false) {
			settle(t, r, outbox.Settlement{Item: it, Outcome: outbox.Retry})
		}
		busy, began := time.Duration(0), time.Now()
		for time.Since(began) < time.Hour {
			items, due, _ := r.Take(nil, 100, false)
			items = r.Load(items)
			switch {
			case len(items) > 1:
				t.Fatalf("%d failing conversations under way at once", len(items))
			case len(items) == 1:
				time.Sleep(10 * time.Second) // the attempt
				busy += 10 * time.Second
				settle(t, r, outbox.Settlement{Item: items[0], Outcome: outbox.Retry, Delay: 10 * time.Second})
			default:
				time.Sleep(max(time.Until(due), time.Millisecond))
			}
		}
		if share := busy.Seconds() / time.Hour.Seconds(); share < 0.3 || share > 0.35 {
			t.Errorf("failing conversations take %.2f of a lane, want a third", share)
		}
		// The service recovers: more and more at a time.
		most := 0
		for r.Stats().Waiting > 0 {
			items := d.takeWait(t, "a", 100)
			most = max(most, len(items))
			deliver(t, r, items)
		}
		if most < 8 {
			t.Errorf("never more than %d at a time once they succeed", most)
		}
		d.close(t)
	})
}

// TestEmbeddedParkedAttemptsSurvive counts on where a former process has stopped,
// so that a restart neither tries a dead conversation at the first pace again nor
// forgets in the dead letter how often it was tried.
func TestEmbeddedParkedAttemptsSurvive(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{ParkAttempts: 2}}
	d := openDurable(t, o, "a")
	d.append(t, manyOf("bad", 0, 2))
	for n := range 7 {
		it := d.takeWait(t, "a", 1)[0]
		if it.Attempts != n {
			t.Fatalf("attempt %d is counted as %d", n, it.Attempts)
		}
		settle(t, d.readers["a"], outbox.Settlement{Item: it, Outcome: outbox.Retry})
		if n == 3 {
			if err := d.Flush(); err != nil {
				t.Fatal(err)
			}
			d.Crash()
			d = openDurable(t, o, "a")
		}
	}
	d.close(t)
	d = openDurable(t, o, "a")
	it := d.takeWait(t, "a", 1)[0]
	if it.Attempts != 7 || it.Event.ID != "bad000" {
		t.Errorf("%s after %d attempts, want bad000 after 7", it.Event.ID, it.Attempts)
	}
	settle(t, d.readers["a"], outbox.Settlement{Item: it, Outcome: outbox.Dead, Reason: "permanent"})
	if it = d.takeWait(t, "a", 1)[0]; it.Attempts != 0 || it.Event.ID != "bad001" {
		t.Errorf("then %s after %d attempts", it.Event.ID, it.Attempts)
	}
	deliver(t, d.readers["a"], []*outbox.Item{it})
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	if dead := letters(t, d.DeadLetters()); len(dead) != 1 || dead[0].Attempts != 8 {
		t.Errorf("dead letters %+v, want one of 8 attempts", dead)
	}
	d.close(t)
}

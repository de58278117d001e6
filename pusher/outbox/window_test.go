package outbox_test

import (
	"errors"
	"fmt"
	"hash/maphash"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

var windowSeed = maphash.MakeSeed()

// admission is an event on its way into a Window.
func admission(number uint64, peer string) outbox.Admission {
	e := chat(peer, fmt.Sprint(peer, " ", number))
	return outbox.Admission{Number: number, Event: e, Key: maphash.String(windowSeed, e.Key()), Bytes: outbox.Size(e)}
}

// newWindow returns a Window whose options are completed with what no test asks for.
func newWindow(o outbox.WindowOptions) *outbox.Window {
	o.Backend, o.Seed = "b", windowSeed
	o.Floor, o.Top = max(o.Floor, 1), max(o.Top, 1)
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	if o.Overfull == nil {
		o.Overfull = func() {}
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return outbox.NewWindow(o)
}

// kept makes what is parked of n keys, for Restore.
func kept(n int) (list []outbox.Restored) {
	for i := range uint64(n) {
		a := admission(i+1, fmt.Sprint("peer", i))
		list = append(list, outbox.Restored{ID: outbox.EventID(0, i+1), Key: []byte(a.Event.Key()), Accepted: time.Now(), Bytes: a.Bytes})
	}
	return list
}

// takeLoaded takes at most limit events and reads those of them that are parked.
func takeLoaded(w *outbox.Window, limit int, probe bool) (items []*outbox.Item, next time.Time) {
	items, next, _, _ = w.Take(nil, limit, probe, false)
	return w.Load(items), next
}

// A parked event that is too old becomes a dead letter without having been taken.
func TestParkedEventsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing bool
		w := newWindow(outbox.WindowOptions{Progress: outbox.Progress{Floor: 10, Top: 10}, Load: func(id outbox.ParkedID) (*event.Event, error) {
			if failing = !failing; failing {
				return nil, errors.New("disk")
			}
			return chat(fmt.Sprint("peer", id.Number()-1), fmt.Sprint(id.Number())), nil
		}})
		w.Restore(kept(3))
		time.Sleep(time.Hour)
		expired, failed := 0, 0
		for range 5 {
			n, _, err := w.Expire(time.Now().Add(-time.Minute))
			if err != nil {
				failed++
			}
			expired += n
			time.Sleep(5 * time.Minute)
		}
		c, _ := w.Cut()
		if expired != 3 || failed == 0 || len(c.Letters) != 3 || len(c.Freed) != 3 {
			t.Errorf("%d expired, %d letters, %d freed; want 3 of each", expired, len(c.Letters), len(c.Freed))
		}
	})
}

// Few parked events are under way at a time: 100 000 of them do not fit into memory. Take
// reads none.
func TestFewParkedEventsAreLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		w := newWindow(outbox.WindowOptions{Progress: outbox.Progress{Floor: 1000, Top: 1000}, Load: func(id outbox.ParkedID) (*event.Event, error) {
			loads++
			return chat(fmt.Sprint("peer", id.Number()-1), fmt.Sprint(id.Number())), nil
		}})
		w.Restore(kept(500))
		items, _, _, _ := w.Take(nil, 10, false, false)
		if again, _, _, _ := w.Take(nil, 10, false, false); len(items) != 1 || len(again) != 0 {
			t.Fatalf("%d and %d were taken, while only one may be under way", len(items), len(again))
		}
		if loads != 0 || items[0].Event != nil {
			t.Errorf("Take has read %d events", loads)
		}
		if items = w.Load(items); len(items) != 1 || items[0].Event.ID != "1" || loads != 1 {
			t.Fatalf("loaded %v by %d reads", ids(items), loads)
		}
		w.Settle([]outbox.Settlement{{Item: items[0], Outcome: outbox.Delivered}})
		delivered := 1
		for items, _ := takeLoaded(w, 100, false); len(items) > 0; items, _ = takeLoaded(w, 100, false) {
			if len(items) > 64 {
				t.Errorf("%d events under way", len(items))
			}
			for _, it := range items {
				w.Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Delivered}})
			}
			delivered += len(items)
			if c, changed := w.Cut(); changed {
				w.Saved(&c)
			}
		}
		if delivered != 500 {
			t.Errorf("%d of 500 delivered", delivered)
		}
	})
}

// One that cannot be read is tried again, and Take says when.
func TestUnreadableParkedEventIsTriedAgain(t *testing.T) {
	for _, probe := range []bool{false, true} {
		t.Run(fmt.Sprint("probe ", probe), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				loads := 0
				w := newWindow(outbox.WindowOptions{Progress: outbox.Progress{Floor: 10, Top: 10}, Load: func(outbox.ParkedID) (*event.Event, error) {
					loads++
					return nil, errors.New("disk")
				}})
				w.Restore(kept(1))
				for loads < 3 {
					before := loads
					if items, _ := takeLoaded(w, 1, probe); len(items) > 0 || loads != before+1 {
						t.Fatalf("%d events, read %d times", len(items), loads)
					}
					for { // Take says when to look again, until the event is due
						items, next, _, _ := w.Take(nil, 1, probe, false)
						if len(items) > 0 {
							w.Settle([]outbox.Settlement{{Item: items[0], Outcome: outbox.Requeue}})
							break
						}
						if wait := time.Until(next); wait <= 0 || wait > 5*time.Minute {
							t.Fatalf("the next look is in %v", wait)
						}
						time.Sleep(time.Until(next))
					}
				}
			})
		})
	}
}

// A parked event that cannot be read must not take the place of one that is there.
func TestUnreadableParkedEventHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loads := 0
		w := newWindow(outbox.WindowOptions{Progress: outbox.Progress{Floor: 600, Top: 600}, Load: func(outbox.ParkedID) (*event.Event, error) {
			loads++
			return nil, errors.New("disk")
		}})
		w.Restore(kept(500))
		w.Admit([]outbox.Admission{admission(600, "healthy")}, time.Now(), 601)
		var got []string
		for range 5 {
			items, _ := takeLoaded(w, 1, false)
			got = append(got, ids(items)...)
		}
		if len(got) != 1 || got[0] != "healthy 600" || loads != 1 {
			t.Errorf("took %v, and read %d parked events", got, loads)
		}
	})
}

// What the store has lost must not hold its conversation for ever.
func TestParkedEventThatIsGone(t *testing.T) {
	lost := 0
	w := newWindow(outbox.WindowOptions{
		Progress: outbox.Progress{Floor: 10, Top: 10}, Lost: func() { lost++ },
		Load: func(id outbox.ParkedID) (*event.Event, error) {
			if id.Number() == 2 {
				return chat("peer", "second"), nil
			}
			return nil, fmt.Errorf("deleted: %w", outbox.ErrLost)
		},
	})
	key := []byte(chat("peer", "").Key())
	w.Restore([]outbox.Restored{{ID: outbox.EventID(0, 1), Key: key, Accepted: time.Now()}, {ID: outbox.EventID(0, 2), Key: key, Accepted: time.Now()}})
	if items, _ := takeLoaded(w, 1, false); len(items) != 0 {
		t.Errorf("took %v, which is lost", ids(items))
	}
	if items, _ := takeLoaded(w, 1, false); len(items) != 1 || items[0].Event.ID != "second" || lost != 1 {
		t.Errorf("took %v, %d lost", ids(items), lost)
	}
	if c, _ := w.Cut(); len(c.Freed) != 1 {
		t.Errorf("%d freed", len(c.Freed))
	}
	if s := w.Stats(); s.Parked != 1 {
		t.Errorf("%d parked", s.Parked)
	}
}

// Too much is parked and the disk is slow: what becomes a dead letter meanwhile is still
// in memory, and must keep the window from taking more.
func TestDeadLettersThatAreNotSavedTakeRoom(t *testing.T) {
	w := newWindow(outbox.WindowOptions{WindowLimits: outbox.WindowLimits{WindowEvents: 20, ParkedEvents: 1, ParkAttempts: 1}})
	w.Admit([]outbox.Admission{admission(1, "peer"), admission(2, "peer")}, time.Now(), 3)
	items, _, _, _ := w.Take(nil, 1, false, false)
	w.Settle([]outbox.Settlement{{Item: items[0], Outcome: outbox.Retry, Delay: time.Hour}})
	admitted := 2
	for n := uint64(3); n < 1000 && !w.Full(); n++ {
		w.Admit([]outbox.Admission{admission(n, "other")}, time.Now(), n+1)
		if items, _, _, _ := w.Take(nil, 1, false, false); len(items) == 1 {
			w.Settle([]outbox.Settlement{{Item: items[0], Outcome: outbox.Retry, Delay: time.Hour}})
		}
		admitted++
	}
	if admitted > 30 {
		t.Errorf("%d events were admitted into a window of 20, and all are in memory", admitted)
	}
	c, _ := w.Cut()
	w.Saved(&c)
	if w.Full() {
		t.Error("full after everything has been saved")
	}
}

// The disk fails for days, and what is parked is tried all the time.
func TestAttemptsThatCannotBeSavedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(outbox.WindowOptions{Progress: outbox.Progress{Floor: 10, Top: 10}, Load: func(outbox.ParkedID) (*event.Event, error) { return chat("peer0", "1"), nil }})
		w.Restore(kept(1))
		for range 1000 {
			items, _ := takeLoaded(w, 1, false)
			if len(items) != 1 {
				t.Fatal("nothing to take")
			}
			w.Settle([]outbox.Settlement{{Item: items[0], Outcome: outbox.Retry}})
			c, _ := w.Cut()
			w.Undo(&c)
		}
		if c, _ := w.Cut(); len(c.Tries) != 1 || c.Tries[0].Attempts != 1000 {
			t.Errorf("%d attempts of one event wait to be saved", len(c.Tries))
		}
	})
}

// A successor may find that later events of a conversation were parked while one between
// them was not: that had become a dead letter, which was not saved.
func TestEventBetweenParkedOnes(t *testing.T) {
	w := newWindow(outbox.WindowOptions{Progress: outbox.Progress{Floor: 5, Top: 5}, Load: func(id outbox.ParkedID) (*event.Event, error) {
		return chat("peer", fmt.Sprint("peer ", id.Number())), nil
	}})
	key := []byte(chat("peer", "").Key())
	w.Restore([]outbox.Restored{{ID: outbox.EventID(0, 5), Key: key, Accepted: time.Now()}, {ID: outbox.EventID(0, 9), Key: key, Accepted: time.Now()}})
	w.Admit([]outbox.Admission{admission(5, "peer"), admission(7, "peer"), admission(9, "peer"), admission(10, "peer")}, time.Now(), 11)
	var got []string
	for range 4 {
		items, _ := takeLoaded(w, 10, false)
		got = append(got, ids(items)...)
		for _, it := range items {
			w.Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Delivered}})
		}
	}
	if want := "[peer 5 peer 7 peer 9 peer 10]"; fmt.Sprint(got) != want {
		t.Errorf("the order is %v, want %v", got, want)
	}
}

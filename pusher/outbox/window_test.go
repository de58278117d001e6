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
	o.Head, o.Mark = max(o.Head, 1), max(o.Mark, 1)
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

// slowLoads is a store that brings events later.
type slowLoads struct{ asked []outbox.ParkedID }

func (s *slowLoads) load(id outbox.ParkedID) (*event.Event, error) {
	s.asked = append(s.asked, id)
	return nil, outbox.ErrLoading
}

// bring brings everything that was asked for.
func (s *slowLoads) bring(w *outbox.Window) {
	for _, id := range s.asked {
		e := chat(fmt.Sprint("peer", id.Number()-1), fmt.Sprint(id.Number()))
		w.Loaded(id, []byte(e.Key()), e)
	}
	s.asked = nil
}

// A parked event whose content has to be fetched first becomes a dead letter too when it
// is too old.
func TestParkedEventsThatComeLaterExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store slowLoads
		w := newWindow(outbox.WindowOptions{Head: 10, Mark: 10, Load: store.load})
		w.Restore(kept(3))
		time.Sleep(time.Hour)
		expired := 0
		for range 5 {
			n, _, err := w.Expire(time.Now().Add(-time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			expired += n
			store.bring(w)
		}
		c, _ := w.Cut()
		if expired != 3 || len(c.Letters) != 3 || len(c.Freed) != 3 {
			t.Errorf("%d expired, %d letters, %d freed; want 3 of each", expired, len(c.Letters), len(c.Freed))
		}
	})
}

// While parked events are on their way no others are asked for, and what has come is
// handed out before more is fetched: 100 000 of them do not fit into memory.
func TestFewParkedEventsAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store slowLoads
		w := newWindow(outbox.WindowOptions{Head: 1000, Mark: 1000, Load: store.load})
		w.Restore(kept(500))
		for range 100 {
			if items, _, _, _ := w.Take(nil, 10, false, false); len(items) > 0 {
				t.Fatalf("%d events that are not there", len(items))
			}
		}
		if len(store.asked) != 1 {
			t.Errorf("%d parked events were asked for at once, while only one may be under way", len(store.asked))
		}
		store.bring(w)
		items, _, _, _ := w.Take(nil, 10, false, false)
		if len(items) != 1 {
			t.Fatalf("%d events after one has come", len(items))
		}
		w.Settle([]outbox.Settlement{{Item: items[0], Outcome: outbox.Delivered}})
		// Each success lets more of them be under way.
		delivered := 1
		for range 1000 {
			items, _, _, _ := w.Take(nil, 10, false, false)
			for _, it := range items {
				w.Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Delivered}})
			}
			delivered += len(items)
			store.bring(w)
			if c, changed := w.Cut(); changed {
				w.Saved(&c)
			}
		}
		if delivered != 500 {
			t.Errorf("%d of 500 delivered", delivered)
		}
	})
}

// One that does not come is asked for again, and Take says when.
func TestParkedEventThatDoesNotComeIsAskedForAgain(t *testing.T) {
	for name, err := range map[string]error{"on its way": outbox.ErrLoading, "unreadable": errors.New("disk")} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " early ", early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					loads := 0
					w := newWindow(outbox.WindowOptions{Head: 10, Mark: 10, Load: func(outbox.ParkedID) (*event.Event, error) {
						loads++
						return nil, err
					}})
					w.Restore(kept(1))
					for round := 1; loads < 3; round++ {
						items, next, _, _ := w.Take(nil, 1, early, false)
						if len(items) > 0 || round > 6 {
							t.Fatalf("round %d: %d events, asked for %d times", round, len(items), loads)
						}
						if wait := time.Until(next); wait <= 0 || wait > 5*time.Minute {
							t.Fatalf("round %d: the next look is in %v", round, wait)
						}
						time.Sleep(time.Until(next))
					}
				})
			})
		}
	}
}

// A parked event that is not there must not take the place of one that is.
func TestParkedEventThatDoesNotComeHoldsUpNobody(t *testing.T) {
	for name, err := range map[string]error{"on its way": outbox.ErrLoading, "unreadable": errors.New("disk")} {
		t.Run(name, func(t *testing.T) {
			loads := 0
			w := newWindow(outbox.WindowOptions{Head: 600, Mark: 600, Load: func(outbox.ParkedID) (*event.Event, error) {
				loads++
				return nil, err
			}})
			w.Restore(kept(500))
			w.Admit([]outbox.Admission{admission(600, "healthy")}, time.Now(), 601)
			items, _, _, _ := w.Take(nil, 1, false, false)
			if len(items) != 1 || items[0].Event.ID != "healthy 600" {
				t.Errorf("took %v", ids(items))
			}
			if loads > 3 {
				t.Errorf("%d parked events were tried to be read in one call", loads)
			}
		})
	}
}

// What the store has lost must not hold its conversation for ever.
func TestParkedEventThatIsGone(t *testing.T) {
	for name, later := range map[string]bool{"at once": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			lost := 0
			w := newWindow(outbox.WindowOptions{
				Head: 10, Mark: 10, Lost: func() { lost++ },
				Load: func(id outbox.ParkedID) (*event.Event, error) {
					switch {
					case id.Number() == 2:
						return chat("peer", "second"), nil
					case later:
						return nil, outbox.ErrLoading
					}
					return nil, fmt.Errorf("deleted: %w", outbox.ErrLost)
				},
			})
			key := []byte(chat("peer", "").Key())
			w.Restore([]outbox.Restored{{ID: outbox.EventID(0, 1), Key: key, Accepted: time.Now()}, {ID: outbox.EventID(0, 2), Key: key, Accepted: time.Now()}})
			items, _, _, _ := w.Take(nil, 1, false, false)
			if later {
				w.Vanished(outbox.EventID(0, 1))
				items, _, _, _ = w.Take(nil, 1, false, false)
			}
			if len(items) != 1 || items[0].Event.ID != "second" || lost != 1 {
				t.Errorf("took %v, %d lost", ids(items), lost)
			}
			if c, _ := w.Cut(); len(c.Freed) != 1 {
				t.Errorf("%d freed", len(c.Freed))
			}
			if s := w.Stats(); s.Parked != 1 {
				t.Errorf("%d parked", s.Parked)
			}
		})
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
		w := newWindow(outbox.WindowOptions{Head: 10, Mark: 10, Load: func(outbox.ParkedID) (*event.Event, error) { return chat("peer0", "1"), nil }})
		w.Restore(kept(1))
		for range 1000 {
			items, _, _, _ := w.Take(nil, 1, false, false)
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
	w := newWindow(outbox.WindowOptions{Head: 5, Mark: 5, Load: func(id outbox.ParkedID) (*event.Event, error) {
		return chat("peer", fmt.Sprint("peer ", id.Number())), nil
	}})
	key := []byte(chat("peer", "").Key())
	w.Restore([]outbox.Restored{{ID: outbox.EventID(0, 5), Key: key, Accepted: time.Now()}, {ID: outbox.EventID(0, 9), Key: key, Accepted: time.Now()}})
	w.Admit([]outbox.Admission{admission(5, "peer"), admission(7, "peer"), admission(9, "peer"), admission(10, "peer")}, time.Now(), 11)
	var got []string
	for range 4 {
		items, _, _, _ := w.Take(nil, 10, false, false)
		got = append(got, ids(items)...)
		for _, it := range items {
			w.Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Delivered}})
		}
	}
	if want := "[peer 5 peer 7 peer 9 peer 10]"; fmt.Sprint(got) != want {
		t.Errorf("the order is %v, want %v", got, want)
	}
}

package outbox_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher/outbox"
)

func chat(peer, id string) *event.Event {
	return &event.Event{ID: id, Kind: event.Chat, Direction: event.In, From: "alice@h/1", To: jid.JID(peer + "@h"), Body: "Hi"}
}

func pack(takers outbox.Subscribers, events ...*event.Event) outbox.Pack {
	var p outbox.Pack
	for _, e := range events {
		p.Entries = append(p.Entries, outbox.Entry{Event: e, Subscribers: takers})
	}
	return p
}

func open(t *testing.T, o outbox.MemoryOptions) (*outbox.Memory, outbox.Reader) {
	t.Helper()
	if o.DeadLetters == nil {
		o.DeadLetters = outbox.NewRing(100)
	}
	m := outbox.NewMemory(o)
	r, err := m.Reader("b", func() {})
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

func take(r outbox.Reader, limit int, probe bool) []*outbox.Item {
	items, _, _ := r.Take(nil, limit, probe)
	items = r.Load(items)
	return items
}

func ids(items []*outbox.Item) []string {
	var out []string
	for _, it := range items {
		out = append(out, it.Event.ID)
	}
	return out
}

func settle(t *testing.T, r outbox.Reader, s ...outbox.Settlement) {
	t.Helper()
	if err := r.Settle(s); err != nil {
		t.Fatal(err)
	}
}

func letters(t *testing.T, d outbox.DeadLetters) []outbox.DeadLetter {
	t.Helper()
	all, err := d.List(outbox.LetterFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOneUnsettledEventPerKey(t *testing.T) {
	m, r := open(t, outbox.MemoryOptions{})
	if err := m.Append(pack(1, chat("x", "x1"), chat("x", "x2"), chat("y", "y1"))); err != nil {
		t.Fatal(err)
	}
	first := take(r, 10, true)
	if diff := cmp.Diff([]string{"x1", "y1"}, ids(first)); diff != "" {
		t.Error(diff)
	}
	if again := take(r, 10, true); len(again) != 0 {
		t.Errorf("took %v while their keys are unsettled", ids(again))
	}
	settle(t, r, outbox.Settlement{Item: first[0]})
	if diff := cmp.Diff([]string{"x2"}, ids(take(r, 10, false))); diff != "" {
		t.Error(diff)
	}
}

func TestRetryReleaseHastenAndEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := open(t, outbox.MemoryOptions{})
		if err := m.Append(pack(1, chat("x", "x1"), chat("x", "x2"), chat("y", "y1"), chat("z", "z1"))); err != nil {
			t.Fatal(err)
		}
		items := take(r, 10, false)
		settle(t, r,
			outbox.Settlement{Item: items[0], Outcome: outbox.Retry, Delay: time.Minute},
			outbox.Settlement{Item: items[1], Outcome: outbox.Retry, Delay: time.Second, Asked: true},
			outbox.Settlement{Item: items[2], Outcome: outbox.Requeue})
		items, next, more := r.Take(nil, 10, false)
		items = r.Load(items)
		if diff := cmp.Diff([]string{"z1"}, ids(items)); diff != "" {
			t.Errorf("released: %s", diff)
		}
		if got := time.Until(next); got != time.Second || more {
			t.Errorf("next in %v, more %v", got, more)
		}
		probe := take(r, 10, true)
		if diff := cmp.Diff([]string{"x1"}, ids(probe)); diff != "" {
			t.Errorf("probe: %s", diff)
		}
		if probe[0].Attempts != 1 || items[0].Attempts != 0 {
			t.Errorf("attempts %d after a retry, %d after a release", probe[0].Attempts, items[0].Attempts)
		}
		settle(t, r, outbox.Settlement{Item: probe[0], Outcome: outbox.Retry, Delay: time.Minute})
		r.RetryNow()
		if diff := cmp.Diff([]string{"x1"}, ids(take(r, 10, false))); diff != "" {
			t.Errorf("hastened: %s", diff)
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"y1"}, ids(take(r, 10, false))); diff != "" {
			t.Errorf("at the service's own time: %s", diff)
		}
	})
}

func TestTakersDecide(t *testing.T) {
	m, first := open(t, outbox.MemoryOptions{})
	second, err := m.Reader("second", func() {})
	if err != nil {
		t.Fatal(err)
	}
	var both, one outbox.Subscribers
	both.Add(0)
	both.Add(1)
	one.Add(1)
	if err := m.Append(outbox.Pack{Entries: []outbox.Entry{{Event: chat("x", "1"), Subscribers: both}, {Event: chat("y", "2"), Subscribers: one}}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1"}, ids(take(first, 10, false))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"1", "2"}, ids(take(second, 10, false))); diff != "" {
		t.Error(diff)
	}
}

func TestByteBound(t *testing.T) {
	shed := 0
	m, r := open(t, outbox.MemoryOptions{QueueBytes: 10_000, Shed: func(_ string, n int, _ bool) { shed += n }})
	large := chat("large", "large")
	large.Packet = string(make([]byte, 50_000))
	if err := m.Append(pack(1, chat("x", "1"), chat("y", "2"), large)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"large"}, ids(take(r, 10, false))); diff != "" {
		t.Errorf("what is larger than the bound still goes: %s", diff)
	}
	if shed != 2 {
		t.Errorf("shed %d, want 2", shed)
	}
	if s := r.Stats(); s.Bytes < 50_000 || s.Shed != 2 || s.InFlight != 1 || s.Waiting != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestAgainstAModel does random things to a reader and to a plain model of it.
func TestAgainstAModel(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 2))
				const limit = 60
				ring := outbox.NewRing(10_000)
				m, r := open(t, outbox.MemoryOptions{QueueEvents: limit, DeadLetters: ring})
				var (
					order  []string // all that is not settled, oldest first
					flying = make(map[string]*outbox.Item)
					keyOf  = make(map[string]string)
					gone   = make(map[string]string) // how each event ended
				)
				end := func(id, how string) {
					if was, twice := gone[id]; twice {
						t.Fatalf("event %s ended twice: %s and %s", id, was, how)
					}
					gone[id] = how
					order = slices.DeleteFunc(order, func(o string) bool { return o == id })
				}
				for n := range 3000 {
					switch rng.IntN(10) {
					case 0, 1, 2, 3:
						key, id := fmt.Sprint("k", rng.IntN(15)), fmt.Sprint(n)
						keyOf[id] = key
						if err := m.Append(pack(1, chat(key, id))); err != nil {
							t.Fatal(err)
						}
						order = append(order, id)
						if len(order) > limit {
							for _, o := range order[:len(order)-1] {
								if flying[o] == nil {
									end(o, "shed")
									break
								}
							}
						}
					case 4, 5, 6:
						for _, it := range take(r, 1+rng.IntN(5), rng.IntN(5) == 0) {
							id := it.Event.ID
							// It must be the oldest of its key, and nothing of the key in flight.
							for _, o := range order {
								if keyOf[o] == keyOf[id] {
									if o != id || flying[o] != nil {
										t.Fatalf("took %s while %s is the first of its key (in flight: %v)", id, o, flying[o] != nil)
									}
									break
								}
							}
							flying[id] = it
						}
					case 7, 8:
						for id, it := range flying {
							delete(flying, id)
							s := outbox.Settlement{Item: it}
							switch rng.IntN(5) {
							case 0:
								s.Outcome, s.Delay, s.Asked = outbox.Retry, time.Duration(rng.IntN(3000))*time.Millisecond, rng.IntN(2) == 0
							case 1:
								s.Outcome = outbox.Requeue
							case 2:
								s.Outcome, s.Reason, s.Err = outbox.Dead, "permanent", errors.New("no")
								end(id, "dead")
							default:
								end(id, "delivered")
							}
							settle(t, r, s)
							if rng.IntN(2) == 0 {
								break
							}
						}
					case 9:
						switch rng.IntN(3) {
						case 0:
							time.Sleep(time.Second)
						case 1:
							r.RetryNow()
						case 2:
							known := len(letters(t, ring))
							if _, err := r.Expire(time.Now().Add(-30 * time.Second)); err != nil {
								t.Fatal(err)
							}
							for _, d := range letters(t, ring)[known:] {
								if flying[d.Event.ID] != nil || time.Since(d.Accepted) <= 30*time.Second {
									t.Fatalf("event %s expired", d.Event.ID)
								}
								end(d.Event.ID, "expired")
							}
						}
					}
					if s := r.Stats(); s.Waiting+s.InFlight != len(order) || s.InFlight != len(flying) {
						t.Fatalf("step %d: %d waiting and %d in flight, want %d in all and %d", n, s.Waiting, s.InFlight, len(order), len(flying))
					}
				}
				// Everything that is left comes out, and the books are empty then.
				for range 10_000 {
					for id, it := range flying {
						settle(t, r, outbox.Settlement{Item: it})
						delete(flying, id)
						end(id, "delivered")
					}
					for _, it := range take(r, 100, true) {
						flying[it.Event.ID] = it
					}
					if len(order) == 0 {
						break
					}
					time.Sleep(time.Second)
				}
				if s := r.Stats(); s.Waiting != 0 || s.InFlight != 0 || s.Bytes != 0 || !s.Oldest.IsZero() {
					t.Errorf("at the end: %+v", s)
				}
				counts := make(map[string]int)
				for _, how := range gone {
					counts[how]++
				}
				if counts["shed"] == 0 || counts["dead"] == 0 || counts["delivered"] == 0 {
					t.Errorf("the run has not tried everything: %v", counts)
				}
				if s := r.Stats(); s.Shed != uint64(counts["shed"]) {
					t.Errorf("shed %d, want %d", s.Shed, counts["shed"])
				}
			})
		})
	}
}

func TestRingKeepsTheLatest(t *testing.T) {
	ring := outbox.NewRing(3)
	for i := range 5 {
		if err := ring.Add(outbox.DeadLetter{Reason: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, d := range letters(t, ring) {
		got = append(got, d.Reason)
	}
	if diff := cmp.Diff([]string{"2", "3", "4"}, got); diff != "" {
		t.Error(diff)
	}
}

// full is a DeadLetters that takes nothing.
type full struct{ *outbox.Ring }

var errFull = errors.New("disk full")

func (full) Add(outbox.DeadLetter) error { return errFull }

func TestDeadLettersThatCannotBeKeptAreReported(t *testing.T) {
	m, r := open(t, outbox.MemoryOptions{DeadLetters: full{outbox.NewRing(1)}})
	if err := m.Append(pack(1, chat("x", "1"), chat("y", "2"))); err != nil {
		t.Fatal(err)
	}
	items := take(r, 1, false)
	if err := r.Settle([]outbox.Settlement{{Item: items[0], Outcome: outbox.Dead}}); !errors.Is(err, errFull) {
		t.Errorf("Settle: %v", err)
	}
	if n, err := r.Expire(time.Now().Add(time.Hour)); n != 1 || !errors.Is(err, errFull) {
		t.Errorf("Expire: %d, %v", n, err)
	}
	if err := m.Bury(outbox.DeadLetter{}); !errors.Is(err, errFull) {
		t.Errorf("Bury: %v", err)
	}
}

func BenchmarkBacklog(b *testing.B) {
	for _, waiting := range []int{0, 90_000} {
		b.Run(fmt.Sprint(waiting), func(b *testing.B) {
			m := outbox.NewMemory(outbox.MemoryOptions{DeadLetters: outbox.NewRing(1), QueueBytes: 1 << 30})
			r, err := m.Reader("b", func() {})
			if err != nil {
				b.Fatal(err)
			}
			blocked := chat("blocked", "blocked")
			for range waiting {
				if err := m.Append(pack(1, blocked)); err != nil {
					b.Fatal(err)
				}
			}
			if waiting > 0 {
				take(r, 1, false)
			}
			p := pack(1, chat("x", "1"))
			var items []*outbox.Item
			settlements := make([]outbox.Settlement, 1)
			b.ReportAllocs()
			for b.Loop() {
				if err := m.Append(p); err != nil {
					b.Fatal(err)
				}
				items, _, _ = r.Take(items[:0], 1, false)
				items = r.Load(items)
				settlements[0] = outbox.Settlement{Item: items[0]}
				if err := r.Settle(settlements); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRingSelectsAndDrops(t *testing.T) {
	ring := outbox.NewRing(10)
	began := time.Now()
	for i, d := range []outbox.DeadLetter{
		{Backend: "sns", Reason: "permanent"}, {Backend: "rabbit", Reason: "gone"}, {Reason: "filter"}, {Backend: "sns", Reason: "max_age"},
	} {
		d.Event, d.Died = chat("x", fmt.Sprint("e", i+1)), began.Add(time.Duration(i)*time.Second)
		if err := ring.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		f    outbox.LetterFilter
		want []uint64
	}{
		{"everything", outbox.LetterFilter{}, []uint64{1, 2, 3, 4}},
		{"backend", outbox.LetterFilter{Backend: "sns"}, []uint64{1, 4}},
		{"no backend", outbox.LetterFilter{Backend: outbox.NoBackend}, []uint64{3}},
		{"event", outbox.LetterFilter{EventID: "e2"}, []uint64{2}},
		{"time", outbox.LetterFilter{Since: began.Add(time.Second), Until: began.Add(3 * time.Second)}, []uint64{2, 3}},
		{"reason", outbox.LetterFilter{Reason: "gone"}, []uint64{2}},
		{"page", outbox.LetterFilter{After: 1, Limit: 2}, []uint64{2, 3}},
		{"number", outbox.LetterFilter{ID: 4}, []uint64{4}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ring.List(tc.f)
			if err != nil {
				t.Fatal(err)
			}
			var ids []uint64
			for _, d := range got {
				ids = append(ids, d.ID)
			}
			if diff := cmp.Diff(tc.want, ids); diff != "" {
				t.Error(diff)
			}
		})
	}
	if n, err := ring.Drop(outbox.LetterFilter{Backend: "sns", Limit: 1}); n != 1 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	if _, err := ring.Get(1); !errors.Is(err, outbox.ErrNoLetter) {
		t.Errorf("what was dropped: %v", err)
	}
	if d, err := ring.Get(4); err != nil || d.Event.ID != "e4" {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestReplayInMemory(t *testing.T) {
	m, r := open(t, outbox.MemoryOptions{})
	if err := m.Append(pack(1, chat("x", "x1"), chat("x", "x2"))); err != nil {
		t.Fatal(err)
	}
	settle(t, r, outbox.Settlement{Item: take(r, 1, false)[0], Outcome: outbox.Dead, Reason: "permanent"})
	if err := m.Bury(outbox.DeadLetter{Event: chat("y", "y1"), Reason: "filter"}); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Replay(outbox.LetterFilter{}); n != 1 || err != nil {
		t.Fatalf("replayed %d, %v", n, err)
	}
	items := take(r, 10, false)
	if diff := cmp.Diff([]string{"x2", "x1"}, ids(items)); diff != "" {
		t.Error(diff)
	}
	if items[0].Event.Replayed || !items[1].Event.Replayed {
		t.Error("the replayed event is not the one that is marked")
	}
	if left := letters(t, m.DeadLetters()); len(left) != 1 || left[0].Event.ID != "y1" {
		t.Errorf("dead letters left: %+v", left)
	}
}

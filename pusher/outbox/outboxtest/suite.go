// Package outboxtest checks what every outbox.Outbox promises, whatever keeps
// its events. Only tests import it.
package outboxtest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher/outbox"
)

// Limit bounds every wait; it only matters when something is broken.
const Limit = 2 * time.Minute

// Run runs the suite. open returns an empty outbox, which nothing else uses, and
// closes it with the test.
func Run(t *testing.T, open func(t *testing.T, backends ...string) outbox.Outbox) {
	for name, test := range map[string]func(*testing.T, *box){
		"order within a key":            orderWithinKey,
		"takers":                        takers,
		"a failed event holds its key":  retryHoldsKey,
		"released events come again":    released,
		"dead letters and replay":       deadAndReplay,
		"buried letters":                buried,
		"old events expire":             expired,
		"retryNow":                      retryNow,
		"positions":                     positions,
		"too many positions":            manyPositions,
		"any order of things (a model)": model,
		"stats":                         stats,
		"a backend is added":            added,
		"a backend comes back":          comesBack,
		"a backend is renamed":          renamed,
		"a backend is forgotten":        forgotten,
		"a backend is moved":            moved,
		"readers": func(t *testing.T, b *box) {
			if _, err := b.Reader("a", func() {}); err == nil {
				t.Error("a backend can be read twice")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &box{Outbox: open(t, "a", "b"), t: t}
			b.read(0, "a")
			b.read(1, "b")
			test(t, b)
			if err := b.Err(); err != nil {
				t.Errorf("the engine complains: %v", err)
			}
		})
	}
}

// box is an outbox with two readers.
type box struct {
	outbox.Outbox
	t       *testing.T
	readers [2]outbox.Reader
	wakes   [2]chan struct{}
}

// read opens the reader of a backend.
func (b *box) read(reader int, backend string) {
	b.t.Helper()
	wake := make(chan struct{}, 1)
	r, err := b.Reader(backend, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.readers[reader], b.wakes[reader] = r, wake
}

// add appends events to both readers, or to those of takers; each is "key number".
func (b *box) add(takers outbox.Subscribers, names ...string) {
	b.t.Helper()
	var p outbox.Pack
	for _, name := range names {
		key, _, _ := cut(name)
		p.Entries = append(p.Entries, outbox.Entry{Subscribers: takers, Event: &event.Event{
			ID: name, Kind: event.Chat, Type: "chat", Direction: event.In, From: "u@h/r", To: jid.JID(key + "@h"), User: "u@h",
			Body: name, HasBody: true, Time: time.Unix(1, 0).UTC(), Packet: "<message/>",
		}})
	}
	if err := b.Append(p); err != nil {
		b.t.Fatal(err)
	}
}

func cut(name string) (key string, n int, err error) {
	_, err = fmt.Sscan(name, &key, &n)
	return key, n, err
}

// take waits for n events of a reader.
func (b *box) take(reader, n int) (items []*outbox.Item) {
	b.t.Helper()
	b.await(reader, fmt.Sprint(n, " events, has "), func() bool {
		items, _, _ = b.readers[reader].Take(items, n-len(items), false)
		items = b.readers[reader].Load(items)
		return len(items) == n
	})
	return items
}

// await asks again whenever the reader is notified, and now and then.
func (b *box) await(reader int, what string, done func() bool) {
	b.t.Helper()
	deadline := time.After(Limit)
	for !done() {
		select {
		case <-b.wakes[reader]:
		case <-time.After(5 * time.Millisecond): // retries fall due without a word
		case <-deadline:
			b.t.Fatalf("waited %v for %s", Limit, what)
		}
	}
}

func (b *box) settle(reader int, s outbox.Settlement, items ...*outbox.Item) {
	b.t.Helper()
	var list []outbox.Settlement
	for _, it := range items {
		s.Item = it
		list = append(list, s)
	}
	if err := b.readers[reader].Settle(list); err != nil {
		b.t.Fatal(err)
	}
}

// deliver takes and delivers n events one by one.
func (b *box) deliver(reader, n int) (names []string) {
	b.t.Helper()
	for range n {
		items := b.take(reader, 1)
		names = append(names, items[0].Event.ID)
		b.settle(reader, outbox.Settlement{Outcome: outbox.Delivered}, items...)
	}
	return names
}

// empty expects that nothing is left for a reader.
func (b *box) empty(reader int) {
	b.t.Helper()
	b.await(reader, "an empty reader", func() bool {
		s := b.readers[reader].Stats()
		return s.Waiting+s.InFlight == 0
	})
	if items, _, more := b.readers[reader].Take(nil, 10, false); len(items) > 0 || more {
		b.t.Errorf("%d events left, more: %v", len(items), more)
	}
}

// ordered fails unless the numbers of each key ascend.
func ordered(t *testing.T, names []string) {
	t.Helper()
	last := make(map[string]int)
	for _, name := range names {
		key, n, err := cut(name)
		if err != nil {
			t.Fatal(err)
		}
		if n <= last[key] {
			t.Errorf("%s came after number %d", name, last[key])
		}
		last[key] = n
	}
}

func orderWithinKey(t *testing.T, b *box) {
	b.add(3, "x 1", "y 1", "x 2", "z 1", "x 3")
	first := b.take(0, 3)
	b.settle(0, outbox.Settlement{Outcome: outbox.Requeue}, first...)
	seen := map[string]bool{}
	for _, it := range first {
		seen[it.Event.ID] = true
	}
	if !seen["x 1"] || !seen["y 1"] || !seen["z 1"] {
		t.Errorf("the first of each key are %v", seen)
	}
	for reader := range 2 {
		got := b.deliver(reader, 5)
		ordered(t, got)
		b.empty(reader)
	}
}

func takers(t *testing.T, b *box) {
	b.add(1, "x 1")
	b.add(2, "x 2")
	b.add(0, "x 3")
	if got := b.deliver(0, 1); got[0] != "x 1" {
		t.Errorf("a got %v", got)
	}
	if got := b.deliver(1, 1); got[0] != "x 2" {
		t.Errorf("b got %v", got)
	}
	b.empty(0)
	b.empty(1)
}

func retryHoldsKey(t *testing.T, b *box) {
	b.add(1, "x 1", "x 2")
	items := b.take(0, 1)
	b.settle(0, outbox.Settlement{Outcome: outbox.Retry, Delay: time.Hour, Asked: true}, items...)
	b.add(1, "x 3", "y 1")
	if got := b.deliver(0, 1); got[0] != "y 1" {
		t.Errorf("%v while x rests", got)
	}
	if items, next, more := b.readers[0].Take(nil, 1, true); len(items) > 0 || more || time.Until(next) < 50*time.Minute {
		t.Errorf("a asked delay: %d events, next %v, more %v", len(items), next, more)
	}
}

func retryNow(t *testing.T, b *box) {
	b.add(1, "x 1", "x 2")
	b.settle(0, outbox.Settlement{Outcome: outbox.Retry, Delay: time.Hour}, b.take(0, 1)...)
	b.readers[0].RetryNow()
	items := b.take(0, 1)
	if it := items[0]; it.Event.ID != "x 1" || it.Attempts != 1 {
		t.Errorf("%s with %d attempts", it.Event.ID, it.Attempts)
	}
	b.settle(0, outbox.Settlement{Outcome: outbox.Retry, Delay: time.Hour}, items...)
	if items, _, _ := b.readers[0].Take(nil, 1, true); len(items) != 1 {
		t.Error("a probe does not take a retry before its time")
	}
}

func released(t *testing.T, b *box) {
	b.add(1, "x 1", "x 2")
	items := b.take(0, 1)
	b.settle(0, outbox.Settlement{Outcome: outbox.Requeue}, items...)
	items = b.take(0, 1)
	if items[0].Event.ID != "x 1" || items[0].Attempts != 0 {
		t.Errorf("%s with %d attempts", items[0].Event.ID, items[0].Attempts)
	}
	b.settle(0, outbox.Settlement{Outcome: outbox.Delivered}, items...)
	b.deliver(0, 1)
	b.empty(0)
}

// letters waits for n dead letters.
func (b *box) letters(f outbox.LetterFilter, n int) (list []outbox.DeadLetter) {
	b.t.Helper()
	b.await(0, fmt.Sprint(n, " dead letters"), func() bool {
		var err error
		if list, err = b.DeadLetters().List(f); err != nil {
			b.t.Fatal(err)
		}
		return len(list) == n
	})
	return list
}

func deadAndReplay(t *testing.T, b *box) {
	b.add(1, "x 1", "x 2")
	b.settle(0, outbox.Settlement{Outcome: outbox.Dead, Reason: "permanent", Err: errors.New("why")}, b.take(0, 1)...)
	if got := b.deliver(0, 1); got[0] != "x 2" {
		t.Errorf("after a dead letter: %v", got)
	}
	d := b.letters(outbox.LetterFilter{Backend: "a"}, 1)[0]
	if d.Event.ID != "x 1" || d.Reason != "permanent" || d.Err != "why" || d.Attempts != 1 || d.ID == 0 {
		t.Errorf("letter: %+v", d)
	}
	if got, err := b.DeadLetters().Get(d.ID); err != nil || got.Event.ID != "x 1" {
		t.Errorf("get: %+v, %v", got, err)
	}
	if n, err := b.Replay(outbox.LetterFilter{Backend: "b"}); n != 0 || err != nil {
		t.Errorf("replay of nothing: %d, %v", n, err)
	}
	if n, err := b.Replay(outbox.LetterFilter{ID: d.ID}); n != 1 || err != nil {
		t.Errorf("replay: %d, %v", n, err)
	}
	items := b.take(0, 1)
	if e := items[0].Event; e.ID != "x 1" || !e.Replayed {
		t.Errorf("replayed: %+v", e)
	}
	b.settle(0, outbox.Settlement{Outcome: outbox.Delivered}, items...)
	b.empty(0)
	b.letters(outbox.LetterFilter{}, 0)
}

func buried(t *testing.T, b *box) {
	died := time.Unix(1000, 0).UTC()
	for n := range 3 {
		if err := b.Bury(outbox.DeadLetter{Event: &event.Event{ID: fmt.Sprint(n)}, Reason: "filter", Accepted: died, Died: died.Add(time.Duration(n) * time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	list := b.letters(outbox.LetterFilter{}, 3)
	if list[0].ID >= list[1].ID || list[1].ID >= list[2].ID {
		t.Errorf("numbers: %d, %d, %d", list[0].ID, list[1].ID, list[2].ID)
	}
	b.letters(outbox.LetterFilter{Since: died.Add(time.Minute)}, 2)
	b.letters(outbox.LetterFilter{Until: died.Add(time.Minute)}, 1)
	b.letters(outbox.LetterFilter{Backend: outbox.NoBackend, Limit: 2}, 2)
	if n, err := b.Replay(outbox.LetterFilter{}); n != 0 || err != nil {
		t.Errorf("what no backend has seen was replayed: %d, %v", n, err)
	}
	if n, err := b.DeadLetters().Drop(outbox.LetterFilter{EventID: "1"}); n != 1 || err != nil {
		t.Errorf("drop: %d, %v", n, err)
	}
	b.letters(outbox.LetterFilter{}, 2)
	if _, err := b.DeadLetters().Get(list[1].ID); !errors.Is(err, outbox.ErrNoLetter) {
		t.Errorf("a letter that was dropped: %v", err)
	}
}

func expired(t *testing.T, b *box) {
	b.add(1, "x 1", "x 2", "y 1")
	held := b.take(0, 1)
	kept := held[0].Event.ID
	n := 0
	b.await(0, "two events to expire", func() bool {
		m, err := b.readers[0].Expire(time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		n += m
		return n == 2
	})
	b.settle(0, outbox.Settlement{Outcome: outbox.Delivered}, held...)
	for _, d := range b.letters(outbox.LetterFilter{}, 2) {
		if d.Reason != outbox.ReasonMaxAge || d.Event.ID == kept {
			t.Errorf("letter %s: %s", d.Event.ID, d.Reason)
		}
	}
	b.empty(0)
}

func positions(t *testing.T, b *box) {
	if got := b.Positions(); len(got) != 0 {
		t.Errorf("positions of a new outbox: %v", got)
	}
	for _, p := range [][]outbox.Position{
		{{Source: "s2", Epoch: "e", Seq: 1}}, {{Source: "s1", Epoch: "e", Seq: 7}}, {{Source: "s2", Epoch: "f", Seq: 2}},
	} {
		if err := b.Append(outbox.Pack{Positions: p}); err != nil {
			t.Fatal(err)
		}
	}
	want := []outbox.Position{{Source: "s1", Epoch: "e", Seq: 7}, {Source: "s2", Epoch: "f", Seq: 2}}
	if diff := cmp.Diff(want, b.Positions()); diff != "" {
		t.Error(diff)
	}
}

// manyPositions has more sources than can be remembered: those that were heard of last
// are.
func manyPositions(t *testing.T, b *box) {
	var list []outbox.Position
	for n := range outbox.MaxPositions + 10 {
		list = append(list, outbox.Position{Source: fmt.Sprintf("s%04d", (n*37)%(outbox.MaxPositions+10)), Epoch: "e", Seq: uint64(n)})
	}
	first := outbox.Position{Source: list[10].Source, Epoch: "f", Seq: 1}
	for _, p := range [][]outbox.Position{list, {first}, {{Source: "new", Epoch: "e", Seq: 1}}} {
		if err := b.Append(outbox.Pack{Positions: p}); err != nil {
			t.Fatal(err)
		}
	}
	want := append(slices.Clone(list[12:]), first, outbox.Position{Source: "new", Epoch: "e", Seq: 1})
	slices.SortFunc(want, func(a, b outbox.Position) int { return strings.Compare(a.Source, b.Source) })
	if diff := cmp.Diff(want, b.Positions()); diff != "" {
		t.Error(diff)
	}
}

func stats(t *testing.T, b *box) {
	before := time.Now()
	b.add(1, "x 1", "x 2", "y 1")
	items := b.take(0, 2)
	b.await(0, "the counts", func() bool {
		s := b.readers[0].Stats()
		return s.Waiting == 1 && s.InFlight == 2
	})
	if s := b.readers[0].Stats(); s.Oldest.Before(before.Add(-time.Second)) || s.Oldest.After(time.Now()) || s.Bytes == 0 {
		t.Errorf("stats: %+v", s)
	}
	b.settle(0, outbox.Settlement{Outcome: outbox.Delivered}, items...)
	b.deliver(0, 1)
	b.empty(0)
}

// only is the subscribers of an event that one reader gets.
func (b *box) only(reader int) (s outbox.Subscribers) {
	s.Add(b.readers[reader].Number())
	return s
}

// park has deliveries fail until an event is parked.
func (b *box) park(reader int) {
	b.t.Helper()
	for b.readers[reader].Stats().Parked == 0 {
		b.settle(reader, outbox.Settlement{Outcome: outbox.Retry}, b.take(reader, 1)...)
	}
}

func (b *box) end(reader int) {
	b.t.Helper()
	if err := b.readers[reader].Close(); err != nil {
		b.t.Fatal(err)
	}
}

// added adds a backend, which gets only what is appended from then on.
func added(t *testing.T, b *box) {
	b.add(3, "x 1", "y 1")
	before := b.readers[1]
	b.read(1, "c")
	b.add(b.only(0)|b.only(1), "x 2")
	if got := b.deliver(1, 1); got[0] != "x 2" {
		t.Errorf("c got %v", got)
	}
	b.empty(1)
	b.readers[1] = before
	ordered(t, b.deliver(1, 2))
	b.empty(1)
	ordered(t, b.deliver(0, 3))
}

// comesBack takes a reader away while events wait, are parked and have just been delivered.
// What is appended meanwhile waits, too.
func comesBack(t *testing.T, b *box) {
	b.add(3, "x 1", "x 2", "y 1", "z 1", "z 2")
	var delivered []string
	for range 2 {
		items := b.take(0, 1)
		delivered = append(delivered, items[0].Event.ID)
		b.settle(0, outbox.Settlement{Outcome: outbox.Delivered}, items...)
	}
	b.park(0)
	subscribers := b.only(0) | b.only(1)
	b.end(0)
	if items, _, more := b.readers[0].Take(nil, 9, false); len(items) > 0 || more {
		t.Errorf("a closed reader hands out %d events", len(items))
	}
	b.add(subscribers, "x 3")
	b.read(0, "a")
	delivered = append(delivered, b.deliver(0, 4)...)
	ordered(t, delivered)
	b.empty(0)
	ordered(t, b.deliver(1, 6))
}

func renamed(t *testing.T, b *box) {
	b.add(3, "x 1", "x 2", "y 1")
	b.deliver(1, 3)
	if err := b.Rename("a", "c"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backend that is read: %v", err)
	}
	b.end(0)
	if err := b.Rename("a", "b"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("to a backend that is there: %v", err)
	}
	if err := b.Rename("nobody", "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backend that never was: %v", err)
	}
	if err := b.Rename("a", "c"); err != nil {
		t.Fatal(err)
	}
	b.read(0, "c")
	b.add(b.only(0), "x 3")
	got := b.deliver(0, 4)
	ordered(t, got)
	b.empty(0)
	b.read(0, "a") // a new one
	b.add(b.only(0), "x 4")
	if got := b.deliver(0, 1); got[0] != "x 4" {
		t.Errorf("a new backend of the old name got %v", got)
	}
}

func forgotten(t *testing.T, b *box) {
	b.add(3, "x 1", "x 2", "y 1")
	if _, err := b.Forget("a"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a backend that is read: %v", err)
	}
	b.park(0)
	b.end(0)
	if n, err := b.Forget("a"); n == 0 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if _, err := b.Forget("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forgotten twice: %v", err)
	}
	known, err := b.Backends()
	if err != nil || len(known) != 1 || known[0].Name != "b" {
		t.Errorf("known: %+v, %v", known, err)
	}
	b.read(0, "a")
	b.add(b.only(0)|b.only(1), "x 3")
	if got := b.deliver(0, 1); got[0] != "x 3" {
		t.Errorf("a new backend of the old name got %v", got)
	}
	b.empty(0)
	ordered(t, b.deliver(1, 4))
}

// moved gives what waits for a, is parked and died in it to b.
func moved(t *testing.T, b *box) {
	b.add(1, "x 1", "x 2", "y 1", "z 1")
	b.add(2, "v 1")
	b.settle(0, outbox.Settlement{Outcome: outbox.Dead, Reason: "permanent"}, b.take(0, 1)...)
	b.park(0)
	letter := b.letters(outbox.LetterFilter{Backend: "a"}, 1)[0]
	b.end(0)
	if n, err := outbox.Move(t.Context(), b.Outbox, "a", b.readers[1], "b", b.Append); n == 0 || err != nil {
		t.Fatalf("moved %d, %v", n, err)
	}
	if _, err := outbox.Move(t.Context(), b.Outbox, "a", b.readers[1], "b", b.Append); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("moved twice: %v", err)
	}
	b.add(2, "v 2")
	b.await(1, "the dead letter", func() bool {
		list, err := b.DeadLetters().List(outbox.LetterFilter{Backend: "b"})
		return err == nil && len(list) == 1
	})
	if n, err := b.Replay(outbox.LetterFilter{Backend: "b"}); n != 1 || err != nil {
		t.Errorf("replayed %d, %v", n, err)
	}
	got := b.deliver(1, 6)
	if !slices.Contains(got, letter.Event.ID) {
		t.Errorf("%v, without the dead letter %s", got, letter.Event.ID)
	}
	ordered(t, slices.DeleteFunc(got, func(name string) bool { return name == letter.Event.ID }))
	b.empty(1)
}

// model does things in any order and expects every event of each reader to end
// once, delivered or dead, and in order within its key.
func model(t *testing.T, b *box) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	numbers := make(map[string]int)
	var sent, ended [2][]string
	var flight [2][]*outbox.Item
	for range 600 {
		reader := rnd.IntN(2)
		switch what := rnd.IntN(10); {
		case what < 3:
			for range 1 + rnd.IntN(5) {
				key := fmt.Sprint("k", rnd.IntN(9))
				numbers[key]++
				name, to := fmt.Sprint(key, " ", numbers[key]), outbox.Subscribers(rnd.IntN(4))
				b.add(to, name)
				for n := range 2 {
					if to.Has(n) {
						sent[n] = append(sent[n], name)
					}
				}
			}
		case what < 6:
			items, _, _ := b.readers[reader].Take(nil, 1+rnd.IntN(4), rnd.IntN(4) == 0)
			items = b.readers[reader].Load(items)
			for _, it := range items {
				for _, other := range flight[reader] {
					if other.Event.Key() == it.Event.Key() {
						t.Fatalf("%s is handed out while %s is in flight", it.Event.ID, other.Event.ID)
					}
				}
				flight[reader] = append(flight[reader], it)
			}
		case len(flight[reader]) > 0:
			i := rnd.IntN(len(flight[reader]))
			it := flight[reader][i]
			flight[reader] = slices.Delete(flight[reader], i, i+1)
			s := outbox.Settlement{Outcome: outbox.Outcome(rnd.IntN(4)), Delay: time.Duration(rnd.IntN(3)) * time.Millisecond, Reason: "permanent"}
			if s.Outcome == outbox.Delivered || s.Outcome == outbox.Dead {
				ended[reader] = append(ended[reader], it.Event.ID)
			}
			b.settle(reader, s, it)
		}
	}
	for reader := range 2 {
		for _, it := range flight[reader] {
			ended[reader] = append(ended[reader], it.Event.ID)
		}
		b.settle(reader, outbox.Settlement{Outcome: outbox.Delivered}, flight[reader]...)
		ended[reader] = append(ended[reader], b.deliver(reader, len(sent[reader])-len(ended[reader]))...)
		b.empty(reader)
		ordered(t, ended[reader])
		slices.Sort(sent[reader])
		slices.Sort(ended[reader])
		if diff := cmp.Diff(sent[reader], ended[reader]); diff != "" {
			t.Errorf("reader %d: %s", reader, diff)
		}
	}
}

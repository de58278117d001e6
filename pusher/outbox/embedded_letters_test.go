package outbox_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/pusher/outbox"
)

// die makes dead letters of everything that a backend has to get.
func (d *durable) die(t *testing.T, name string) {
	t.Helper()
	for r := d.readers[name]; r.Stats().Waiting > 0; {
		var s []outbox.Settlement
		for _, it := range d.takeWait(t, name, 64) {
			s = append(s, outbox.Settlement{Item: it, Outcome: outbox.Dead, Reason: "permanent", Err: errors.New("no such topic")})
		}
		settle(t, r, s...)
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestEmbeddedDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := outbox.EmbeddedOptions{Dir: t.TempDir()}
		d := openDurable(t, o, "a", "b")
		accepted := time.Now()
		d.append(t, pack(3, chat("x", "x1"), chat("y", "y1")))
		time.Sleep(time.Minute)
		d.die(t, "a")
		time.Sleep(time.Minute)
		if err := d.Bury(outbox.DeadLetter{Event: chat("z", "z1"), Reason: "filter", Err: "no field", Died: time.Now()}); err != nil {
			t.Fatal(err)
		}
		d.Crash()

		d = openDurable(t, o, "a", "b")
		list := d.DeadLetters()
		if d.found.Letters != 3 {
			t.Errorf("found %d dead letters, want 3", d.found.Letters)
		}
		first, err := list.Get(1)
		want := outbox.DeadLetter{
			ID: 1, Event: chat("x", "x1"), Backend: "a", Reason: "permanent", Err: "no such topic", Attempts: 1,
			Accepted: accepted.UTC(), Died: accepted.Add(time.Minute).UTC(),
		}
		first.Event.Time = want.Event.Time
		if diff := cmp.Diff(want, first); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
		if _, err := list.Get(4); !errors.Is(err, outbox.ErrNoLetter) {
			t.Errorf("no such letter: %v", err)
		}
		for _, tc := range []struct {
			name string
			f    outbox.LetterFilter
			want []uint64
		}{
			{"everything", outbox.LetterFilter{}, []uint64{1, 2, 3}},
			{"backend", outbox.LetterFilter{Backend: "a"}, []uint64{1, 2}},
			{"no backend", outbox.LetterFilter{Backend: outbox.NoBackend}, []uint64{3}},
			{"number", outbox.LetterFilter{ID: 2}, []uint64{2}},
			{"page", outbox.LetterFilter{After: 1, Limit: 1}, []uint64{2}},
			{"event", outbox.LetterFilter{EventID: "z1"}, []uint64{3}},
			{"since", outbox.LetterFilter{Since: accepted.Add(2 * time.Minute)}, []uint64{3}},
			{"until", outbox.LetterFilter{Until: accepted.Add(2 * time.Minute)}, []uint64{1, 2}},
		} {
			got, err := list.List(tc.f)
			if err != nil {
				t.Fatal(err)
			}
			var ids []uint64
			for _, l := range got {
				ids = append(ids, l.ID)
			}
			if diff := cmp.Diff(tc.want, ids); diff != "" {
				t.Errorf("%s: %s", tc.name, diff)
			}
		}
		if n, err := list.Drop(outbox.LetterFilter{Backend: "a", Limit: 1}); n != 1 || err != nil {
			t.Errorf("dropped %d, %v", n, err)
		}
		if left := letters(t, list); len(left) != 2 || left[0].ID != 2 {
			t.Errorf("left: %+v", left)
		}
		d.close(t)
	})
}

func TestEmbeddedReplay(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	d := openDurable(t, o, "a", "b")
	const events = 1200 // several transactions
	for n := 0; n < events; n += 100 {
		d.append(t, benchPack(n, 100, 1))
	}
	d.die(t, "a")
	if err := d.Bury(outbox.DeadLetter{Event: chat("z", "z1"), Reason: "filter"}); err != nil {
		t.Fatal(err)
	}
	d.append(t, pack(1, chat("x", "x1")))
	if n, err := d.Replay(outbox.LetterFilter{}); n != events || err != nil {
		t.Fatalf("replayed %d, %v", n, err)
	}
	if s := d.readers["a"].Stats(); s.Waiting != events+1 || s.Parked != events {
		t.Errorf("waiting: %+v", s)
	}
	d.Crash()

	d = openDurable(t, o, "a", "b")
	r := d.readers["a"]
	seen := make(map[string]bool)
	for r.Stats().Waiting > 0 {
		items := d.takeWait(t, "a", 64)
		for _, it := range items {
			if it.Event.Replayed != (it.Event.ID != "x1") || seen[it.Event.ID] {
				t.Errorf("%s: replayed %v, seen %v", it.Event.ID, it.Event.Replayed, seen[it.Event.ID])
			}
			seen[it.Event.ID] = true
		}
		deliver(t, r, items)
	}
	if len(seen) != events+1 {
		t.Errorf("%d events, want %d", len(seen), events+1)
	}
	if s := d.readers["b"].Stats(); s.Waiting != 0 {
		t.Errorf("b gets what died in a: %+v", s)
	}
	if left := letters(t, d.DeadLetters()); len(left) != 1 || left[0].Event.ID != "z1" {
		t.Errorf("dead letters left: %+v", left)
	}
	d.close(t)
}

// TestLettersOfAnOutboxThatDoesNotRun is what the command line does.
func TestLettersOfAnOutboxThatDoesNotRun(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	if _, err := outbox.OpenLetters(o.Dir, 0); err == nil {
		t.Fatal("opened an outbox that is not there")
	}
	d := openDurable(t, o, "a", "b")
	d.append(t, pack(3, chat("x", "x1"), chat("x", "x2"), chat("y", "y1")))
	d.die(t, "a")
	d.die(t, "b")
	d.close(t)

	l, err := outbox.OpenLetters(o.Dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: o.Dir, LockTimeout: -1}); err == nil {
		t.Error("opened twice")
	}
	if n, err := l.Replay(outbox.LetterFilter{Backend: "a", EventID: "x2"}); n != 1 || err != nil {
		t.Errorf("replayed %d, %v", n, err)
	}
	if n, err := l.Drop(outbox.LetterFilter{Backend: "a"}); n != 2 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d = openDurable(t, o, "a", "b")
	if diff := cmp.Diff([]string{"x2"}, d.drain(t, "a")); diff != "" {
		t.Error(diff)
	}
	if n := len(letters(t, d.DeadLetters())); n != 3 {
		t.Errorf("%d dead letters are left, want those of b", n)
	}
	d.close(t)
}

func TestEmbeddedKeepsTheLatestLetters(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), MaxLetters: 5}
	d := openDurable(t, o)
	for n := range 8 {
		if err := d.Bury(outbox.DeadLetter{Event: chat("x", fmt.Sprint(n)), Reason: "filter"}); err != nil {
			t.Fatal(err)
		}
	}
	if left := letters(t, d.DeadLetters()); len(left) != 5 || left[0].Event.ID != "3" || left[0].ID != 4 {
		t.Errorf("left: %+v", left)
	}
	d.close(t)
}

func TestEmbeddedBoundsWhatIsParked(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{ParkedEvents: 3, ParkAttempts: 1}}
	d := openDurable(t, o, "a")
	r := d.readers["a"]
	d.append(t, pack(1, chat("bad", "1"), chat("bad", "2"), chat("good", "g")))
	for _, it := range take(r, 10, false) {
		s := outbox.Settlement{Item: it}
		if it.Event.To == "bad@h" {
			s.Outcome, s.Delay = outbox.Retry, time.Hour
		}
		settle(t, r, s)
	}
	d.append(t, pack(1, chat("bad", "3"), chat("bad", "4"), chat("bad", "5")))
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	if s := r.Stats(); s.Parked != 3 || s.Waiting != 3 {
		t.Errorf("%+v", s)
	}
	var dead []string
	for _, l := range letters(t, d.DeadLetters()) {
		dead = append(dead, l.Event.ID+" "+l.Reason)
	}
	if diff := cmp.Diff([]string{"4 parked_full", "5 parked_full"}, dead); diff != "" {
		t.Error(diff)
	}
	d.close(t)
}

// A file that cannot be removed is no reason to say that a dead letter is not kept:
// whoever buries it would bury it again, and again.
func TestBuriedThoughNothingCanBeTrimmed(t *testing.T) {
	const file = 16 << 10
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	d := openDurable(t, o.Quick(time.Millisecond, file), "b")
	n := 0
	for ; d.LogSize() < 3*file; n++ {
		d.append(t, benchPack(n, 1, 1))
	}
	files, err := filepath.Glob(filepath.Join(o.Dir, "segments", "*.seg"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, f := range files[:1] { // what is in the window need not be read
		if err := errors.Join(os.Remove(f), os.MkdirAll(filepath.Join(f, "in the way"), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	d.drain(t, "b")
	for deadline := time.Now().Add(20 * time.Second); d.Err() == nil; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not told that the file cannot be removed")
		}
	}
	if err := d.Bury(outbox.DeadLetter{Event: chat("peer", "dead"), Reason: "filter"}); err != nil {
		t.Errorf("buried, and yet: %v", err)
	}
	if got := letters(t, d.DeadLetters()); len(got) != 1 {
		t.Errorf("%d dead letters", len(got))
	}
	if err := os.RemoveAll(files[0]); err != nil {
		t.Fatal(err)
	}
	d.close(t)
}

// What cannot be read has a bound of its own and never pushes others out. An outbox of an
// earlier version counted it among the others.
func TestUndecodableLettersPushNoOthersOut(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), MaxLetters: 5}
	d := openDurable(t, o, "a")
	bury := func(reason string, n int) {
		t.Helper()
		list := make([]outbox.DeadLetter, n)
		for i := range list {
			list[i] = outbox.DeadLetter{Reason: reason, Event: chat("x", "x")}
		}
		if err := d.Bury(list...); err != nil {
			t.Fatal(err)
		}
	}
	count := func(reason string) int {
		t.Helper()
		list, err := d.DeadLetters().List(outbox.LetterFilter{Reason: reason})
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	check := func(when string, other, undecodable int) {
		t.Helper()
		if a, b := count("permanent"), count(outbox.ReasonUndecodable); a != other || b != undecodable {
			t.Errorf("%s: %d and %d undecodable, want %d and %d", when, a, b, other, undecodable)
		}
	}
	bury("permanent", 3)
	bury(outbox.ReasonUndecodable, outbox.MaxUndecodable+50)
	check("after a flood", 3, outbox.MaxUndecodable)
	bury("permanent", 4)
	check("beyond the bound of the others", 5, outbox.MaxUndecodable)
	if n, err := d.DeadLetters().Drop(outbox.LetterFilter{Reason: outbox.ReasonUndecodable, Limit: 10}); n != 10 || err != nil {
		t.Fatal(n, err)
	}
	bury("permanent", 1)
	bury(outbox.ReasonUndecodable, 3)
	check("after some were dropped", 5, outbox.MaxUndecodable-7)
	d.close(t)
	if err := outbox.RemoveUnreadIndex(filepath.Join(o.Dir, "state.db"), outbox.MaxUndecodable-7); err != nil {
		t.Fatal(err)
	}
	d = openDurable(t, o, "a")
	if d.found.Letters != outbox.MaxUndecodable-2 {
		t.Errorf("found %d letters", d.found.Letters)
	}
	bury("permanent", 1)
	bury(outbox.ReasonUndecodable, 20)
	check("after an earlier version", 5, outbox.MaxUndecodable)
	d.close(t)
}

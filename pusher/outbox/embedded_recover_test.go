package outbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/segment"
)

// segments returns the files of the log, the oldest first.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
	if err != nil || len(files) == 0 {
		t.Fatalf("segments in %s: %v, %v", dir, files, err)
	}
	slices.Sort(files)
	return files
}

// change edits a file as a failing disk would.
func change(t *testing.T, path string, edit func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A new file: one that a panic left locked would not open again.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, edit(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEmbeddedRefusesANewerFormat(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	openDurable(t, o).close(t)
	path := filepath.Join(o.Dir, "state.db")
	if err := outbox.SetFormat(path, 7); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = outbox.OpenEmbedded(o)
	var format *outbox.FormatError
	if !errors.As(err, &format) || format.Version != 7 || !strings.Contains(err.Error(), "run the version that wrote it") {
		t.Errorf("opened: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the refused state was changed (%v)", err)
	}
}

func TestEmbeddedCutsATornEnd(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	d := openDurable(t, o, "a")
	d.append(t, pack(1, chat("x", "x1")))
	d.append(t, pack(1, chat("x", "x2")))
	d.Crash()
	change(t, segments(t, o.Dir)[0], func(b []byte) []byte { return b[:len(b)-5] })

	d = openDurable(t, o, "a")
	if len(d.found.Log.Cuts) != 1 || d.found.Clean || d.found.Repeats != outbox.DefaultRedelivery || d.found.Backends[0].Waiting != 1 {
		t.Errorf("found %+v", d.found)
	}
	var line strings.Builder
	slog.New(slog.NewTextHandler(&line, nil)).Info("outbox", "found", d.found)
	for _, want := range []string{"found.clean=false", "found.torn_bytes_cut=", "found.backends.a.waiting=1", "found.repeats_possible=1024"} {
		if !strings.Contains(line.String(), want) {
			t.Errorf("the log line lacks %s: %s", want, line.String())
		}
	}
	d.append(t, pack(1, chat("x", "x3")))
	if diff := cmp.Diff([]string{"x1", "x3"}, d.drain(t, "a")); diff != "" {
		t.Error(diff)
	}
	d.close(t)
}

func TestEmbeddedStopsBeforeDamage(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}.Quick(time.Millisecond, 16<<10)
	d := openDurable(t, o, "a")
	const events, size = 200, 10
	for n := 0; n < events; n += size {
		d.append(t, benchPack(n, size, 1))
	}
	d.Crash()
	files := segments(t, o.Dir)
	if len(files) < 4 {
		t.Fatalf("only %d files", len(files))
	}
	change(t, files[1], func(b []byte) []byte {
		b[len(b)/2] ^= 1
		return b
	})

	// The damage is in the middle, where opening does not look: the reader meets it.
	d = openDurable(t, o, "a")
	r := d.readers["a"]
	var got []string
	for d.Err() == nil || r.Stats().InFlight > 0 || len(got) == 0 {
		items := take(r, 64, false)
		got = append(got, ids(items)...)
		deliver(t, r, items)
		if len(items) == 0 && d.Err() != nil {
			break
		}
		if len(items) == 0 {
			select {
			case <-d.woken:
			case <-time.After(time.Millisecond):
			}
		}
	}
	var corrupt *segment.CorruptionError
	if !errors.As(d.Err(), &corrupt) || corrupt.Events() == 0 {
		t.Fatalf("Err: %v", d.Err())
	}
	for items := take(r, 64, false); len(items) > 0; items = take(r, 64, false) {
		got = append(got, ids(items)...)
		deliver(t, r, items)
	}
	if want := int(corrupt.First) - 1; len(got) != want {
		t.Errorf("%d events came before the damage, want %d", len(got), want)
	}
	if s := r.Stats(); s.Waiting != events-len(got) || s.Lost != 0 {
		t.Errorf("nothing may be passed over: %+v", s)
	}
	d.close(t)

	o.SkipCorrupt = true
	d = openDurable(t, o, "a")
	rest := d.drain(t, "a")
	if s := d.readers["a"].Stats(); s.Lost != corrupt.Events() || s.Waiting != 0 || len(got)+len(rest)+int(s.Lost) != events {
		t.Errorf("%+v; %d events before, %d after", s, len(got), len(rest))
	}
	d.close(t)
	d = openDurable(t, o, "a")
	if lost := d.found.Backends[0].Lost; lost != corrupt.Events() {
		t.Errorf("after a restart %d events are counted as lost, want %d", lost, corrupt.Events())
	}
	d.close(t)
}

// TestEmbeddedOpensInSpiteOfDamageInTheLastFile kills a process and damages a
// record in the middle of the file it was writing: who has not read it stops
// there, and everything else goes on, positions included.
func TestEmbeddedOpensInSpiteOfDamageInTheLastFile(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}.Quick(time.Hour, 1<<20)
	d := openDurable(t, o, "a", "b")
	for n := range 6 {
		if n == 5 { // b has nothing to read in what stands before
			if err := d.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		p := pack(1, chat("x", fmt.Sprint("x", n)))
		p.Positions = []outbox.Position{{Source: "node", Epoch: "e", Seq: uint64(n)}}
		d.append(t, p)
	}
	d.Crash() // how far the last pack has brought everything has not been saved
	change(t, segments(t, o.Dir)[0], func(b []byte) []byte {
		b[bytes.LastIndex(b, []byte("x2"))] ^= 1
		return b
	})
	d = openDurable(t, o, "a", "b")
	if n := d.found.Unreadable(); n != 1 || d.found.Backends[0].Waiting != 6 {
		t.Errorf("%d unreadable, found %+v", n, d.found)
	}
	if got := d.Positions(); len(got) != 1 || got[0].Seq != 5 {
		t.Errorf("positions %v, want those of the last pack", got)
	}
	d.append(t, pack(2, chat("y", "y0")))
	if diff := cmp.Diff([]string{"y0"}, d.drain(t, "b")); diff != "" {
		t.Error(diff)
	}
	a := d.readers["a"]
	for _, want := range []string{"x0", "x1"} {
		items := d.takeWait(t, "a", 10)
		if diff := cmp.Diff([]string{want}, ids(items)); diff != "" {
			t.Fatal(diff)
		}
		deliver(t, a, items)
	}
	for deadline := time.Now().Add(patience); d.Err() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the damage is not met")
		}
	}
	var corrupt *segment.CorruptionError
	if s := a.Stats(); !errors.As(d.Err(), &corrupt) || corrupt.Events() != 1 || s.Waiting != 4 || s.Lost != 0 || len(take(a, 10, false)) > 0 {
		t.Errorf("%v, %+v", d.Err(), s)
	}
	d.close(t)

	o.SkipCorrupt = true
	d = openDurable(t, o, "a", "b")
	for _, want := range []string{"x3", "x4", "x5"} {
		items := d.takeWait(t, "a", 10)
		if diff := cmp.Diff([]string{want}, ids(items)); diff != "" {
			t.Fatal(diff)
		}
		deliver(t, d.readers["a"], items)
	}
	// Whose event was lost is known for sure at the end of the log.
	for deadline := time.Now().Add(patience); d.readers["a"].Stats().Waiting > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("at the end: %+v", d.readers["a"].Stats())
		}
	}
	if lost := d.readers["a"].Stats().Lost; lost != 1 {
		t.Errorf("%d events are counted as lost", lost)
	}
	d.close(t)
}

func TestEmbeddedMissesAFile(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}.Quick(time.Millisecond, 16<<10)
	d := openDurable(t, o, "a")
	for n := range 20 {
		d.append(t, benchPack(n*10, 10, 1))
	}
	d.Crash()
	if err := os.Remove(segments(t, o.Dir)[1]); err != nil {
		t.Fatal(err)
	}
	_, _, err := outbox.OpenEmbedded(o)
	var corrupt *segment.CorruptionError
	if !errors.As(err, &corrupt) {
		t.Fatalf("opened: %v", err)
	}
	o.SkipCorrupt = true
	d = openDurable(t, o, "a")
	if len(d.found.Log.Holes) != 1 {
		t.Errorf("found %+v", d.found.Log)
	}
	got := d.drain(t, "a")
	if s := d.readers["a"].Stats(); s.Lost != corrupt.Events() || len(got)+int(s.Lost) != 200 {
		t.Errorf("%d events and %+v", len(got), s)
	}
	d.close(t)
}

// TestEmbeddedNeverReusesNumbers takes away the log, but not what says how far
// the backends have come.
func TestEmbeddedNeverReusesNumbers(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	d := openDurable(t, o, "a", "b")
	d.append(t, pack(3, chat("x", "x1"), chat("x", "x2")))
	d.drain(t, "a")
	d.close(t)
	if err := os.RemoveAll(filepath.Join(o.Dir, "segments")); err != nil {
		t.Fatal(err)
	}
	var corrupt *segment.CorruptionError
	if _, _, err := outbox.OpenEmbedded(o); !errors.As(err, &corrupt) || corrupt.Events() != 2 {
		t.Fatalf("opened without its log: %v", err)
	}
	o.SkipCorrupt = true
	d = openDurable(t, o, "a", "b")
	d.append(t, pack(3, chat("x", "x3")))
	for _, name := range []string{"a", "b"} {
		if diff := cmp.Diff([]string{"x3"}, d.drain(t, name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	d.close(t)
}

func TestEmbeddedPositions(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir()}.Quick(time.Millisecond, 4<<10)
	d := openDurable(t, o, "a")
	at := func(source string, seq uint64) outbox.Position {
		return outbox.Position{Source: source, Epoch: "e-" + source, Seq: seq}
	}
	p := pack(1, chat("x", "x1"))
	p.Positions = []outbox.Position{at("b", 1), at("a", 7)}
	d.append(t, p)
	// Nobody wants what came last, but it is accepted all the same.
	d.append(t, outbox.Pack{Positions: []outbox.Position{at("b", 2)}})
	want := []outbox.Position{at("a", 7), at("b", 2)}
	if diff := cmp.Diff(want, d.Positions()); diff != "" {
		t.Error(diff)
	}
	d.Crash()
	d = openDurable(t, o, "a")
	if diff := cmp.Diff(want, d.Positions()); diff != "" {
		t.Errorf("after a crash: %s", diff)
	}
	p = pack(1, chat("x", "x2"))
	p.Positions = []outbox.Position{at("b", 3)}
	d.append(t, p)
	want[1].Seq = 3
	d.Crash()
	d = openDurable(t, o, "a")
	if diff := cmp.Diff(want, d.Positions()); diff != "" {
		t.Errorf("out of the last pack: %s", diff)
	}
	// Everything is delivered and trimmed; the positions stay.
	for range 20 {
		d.append(t, benchPack(0, 10, 1))
		d.drain(t, "a")
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := len(segments(t, o.Dir)); n > 3 {
		t.Errorf("%d files are left", n)
	}
	d.close(t)
	d = openDurable(t, o, "a")
	if diff := cmp.Diff(want, d.Positions()); diff != "" {
		t.Errorf("after the trim: %s", diff)
	}
	d.close(t)
}

// TestEmbeddedExpires lets events grow too old in the window, in the log behind
// it, and parked.
func TestEmbeddedExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{WindowEvents: 20, ParkAttempts: 1}}
		d := openDurable(t, o, "a")
		r := d.readers["a"]
		d.append(t, pack(1, chat("bad", "bad1"), chat("bad", "bad2")))
		settle(t, r, outbox.Settlement{Item: take(r, 1, false)[0], Outcome: outbox.Retry, Delay: time.Hour})
		for n := range 10 {
			d.append(t, benchPack(n*10, 10, 1))
		}
		time.Sleep(time.Hour)
		d.append(t, pack(1, chat("young", "young")))
		before := time.Now().Add(-time.Minute)
		died := 0
		for deadline := time.Now().Add(time.Minute); died < 102 && time.Now().Before(deadline); {
			n, err := r.Expire(before)
			if err != nil {
				t.Fatal(err)
			}
			died += n
			if n == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		if died != 102 {
			t.Errorf("%d events expired, want 102", died)
		}
		if diff := cmp.Diff([]string{"young"}, d.drain(t, "a")); diff != "" {
			t.Error(diff)
		}
		d.close(t)
		d = openDurable(t, o, "a")
		all := letters(t, d.DeadLetters())
		if len(all) != 102 || all[0].Reason != outbox.ReasonMaxAge || d.found.Letters != 102 || d.found.Backends[0].Waiting+d.found.Backends[0].Parked != 0 {
			t.Errorf("%d dead letters, found %+v", len(all), d.found)
		}
		d.close(t)
	})
}

// TestEmbeddedReportsADamagedState damages the database at random: whatever then
// happens, it is an error and no panic, and no fault either.
func TestEmbeddedReportsADamagedState(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{ParkAttempts: 1}}.Quick(time.Millisecond, 1<<20)
	d := openDurable(t, o, "a")
	r := d.readers["a"]
	for n := range 20 {
		d.append(t, benchPack(n*20, 20, 1))
		for i, it := range d.takeWait(t, "a", 20) {
			s := outbox.Settlement{Item: it, Outcome: outbox.Retry, Delay: time.Hour}
			if i%2 == 0 {
				s = outbox.Settlement{Item: it, Outcome: outbox.Dead, Reason: "permanent"}
			}
			settle(t, r, s)
		}
	}
	d.close(t)
	path := filepath.Join(o.Dir, "state.db")
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := int64(len(sound))
	sound = bytes.TrimRight(sound, "\x00") // it grows in large steps
	refused := 0
	for round := range 60 {
		change(t, path, func([]byte) []byte {
			b := slices.Clone(sound)
			if round%3 == 0 {
				return b[:rand.IntN(len(b))]
			}
			page := rand.IntN(len(b)/4096) * 4096
			for i := range b[page:min(page+4096, len(b))] {
				b[page+i] = byte(rand.Uint32())
			}
			return b
		})
		if !stillUsable(o) {
			refused++
		}
	}
	change(t, path, func([]byte) []byte { return slices.Clone(sound) })
	if err := os.Truncate(path, whole); err != nil || !stillUsable(o) {
		t.Errorf("the sound database does not work any more (%v)", err)
	}
	if refused < 20 {
		t.Errorf("of 60 damages only %d were noticed", refused)
	}
}

// stillUsable uses everything that is in the database, and reports whether there
// was no error.
func stillUsable(o outbox.EmbeddedOptions) bool {
	e, _, err := outbox.OpenEmbedded(o)
	if err != nil {
		return false
	}
	r, err := e.Reader("a", func() {})
	if err == nil {
		items, _, _ := r.Take(nil, 100, true)
		items = r.Load(items)
		for _, it := range items {
			err = errors.Join(err, r.Settle([]outbox.Settlement{{Item: it}}))
		}
	}
	_, listed := e.DeadLetters().List(outbox.LetterFilter{})
	_, dropped := e.DeadLetters().Drop(outbox.LetterFilter{Limit: 100})
	return errors.Join(err, listed, dropped, e.Flush(), e.Bury(outbox.DeadLetter{Event: chat("x", "x")}), e.Close()) == nil
}

// Which source was heard of last is known after a restart too, in order or not.
func TestPositionsAreForgottenInTheOrderOfTheirUse(t *testing.T) {
	for _, crash := range []bool{false, true} {
		o := outbox.EmbeddedOptions{Dir: t.TempDir()}
		d := openDurable(t, o, "b")
		at := func(source string, n int) {
			p := pack(1, chat("peer", fmt.Sprint(source, n)))
			p.Positions = []outbox.Position{{Source: source, Epoch: "e", Seq: uint64(n)}}
			d.append(t, p)
		}
		at("a", 1)
		at("b", 1)
		at("a", 2)
		if crash {
			d.Crash()
		} else {
			d.close(t)
		}
		d = openDurable(t, o, "b")
		var many []outbox.Position
		for n := range outbox.MaxPositions - 1 {
			many = append(many, outbox.Position{Source: fmt.Sprint("new", n), Epoch: "e", Seq: 1})
		}
		d.append(t, outbox.Pack{Positions: many})
		got := d.Positions()
		if len(got) != outbox.MaxPositions || got[0].Source != "a" || got[0].Seq != 2 || got[1].Source == "b" {
			t.Errorf("after a crash %v: %d positions, the first are %v", crash, len(got), got[:2])
		}
		d.close(t)
	}
}

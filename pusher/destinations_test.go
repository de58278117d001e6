package pusher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/outboxtest"
)

// leave returns an outbox in which a and b have two events each that nobody has taken, a
// also a parked one and a dead letter.
func leave(t *testing.T, dir string) *outbox.Embedded {
	t.Helper()
	box, _, stop := openOutbox(t, dir)
	down := func(context.Context, []event.Event) []error { return every(1, errDown) }
	var list []backends.Backend
	for _, name := range []string{"a", "b"} {
		b := &fakeBackend{name: name, publish: down}
		if name == "a" {
			b.publish = func(_ context.Context, batch []event.Event) []error {
				if batch[0].ID == "x0" {
					return every(1, backends.Permanent(errDown))
				}
				return every(1, errDown)
			}
		}
		list = append(list, b)
	}
	p := start(t, pusher.Options{Backends: list, Outbox: box})
	p.Push([]event.Event{of("x", "x0"), of("x", "x1"), of("x", "x2"), of("y", "y1")})
	pass(time.Minute)
	p.Drain(t.Context())
	stop()
	box, _, _ = openOutbox(t, dir)
	return box
}

// A backend that is not configured keeps nothing from starting: the log says so, a metric
// counts what waits, and at its age it becomes dead letters.
func TestUnconfiguredBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		dir := t.TempDir()
		box := leave(t, dir)
		reg := prometheus.NewRegistry()
		b := &fakeBackend{name: "b"}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box, Metrics: pusher.NewMetrics(reg), MaxAge: time.Hour, Log: slog.New(slog.NewTextHandler(&logged, nil))})
		pass(time.Second)
		for _, part := range []string{"level=WARN", "backend=a", "events=3", "outbox move a NEW", "outbox forget a"} {
			if !strings.Contains(logged.String(), part) {
				t.Errorf("no %q in the log:\n%s", part, &logged)
			}
		}
		if got := value(t, reg, "eventpusher_unconfigured_events{backend=a}"); got != 3 {
			t.Errorf("metric: %v", got)
		}
		if s := p.Status(); len(s.Backends) != 1 || len(s.Unconfigured) != 1 || s.Unconfigured[0].Name != "a" || s.Unconfigured[0].Waiting != 3 || s.Unconfigured[0].OldestAge <= 0 {
			t.Errorf("status %+v", s)
		}
		if n := b.count(); n != 4 {
			t.Errorf("the configured one has got %d of 4", n)
		}
		pass(2 * time.Hour)
		if list := letters(t, box.DeadLetters()); len(list) != 4 || list[3].Reason != outbox.ReasonMaxAge || list[3].Backend != "a" {
			t.Errorf("dead letters: %+v", list)
		}
		if got := value(t, reg, "eventpusher_dead_letters_total{backend=a,reason=max_age}"); got != 3 {
			t.Errorf("counted: %v", got)
		}
		p.Drain(t.Context())
	})
}

// The place of a backend for which nothing waits goes at once, or when the log has been read to
// its end.
func TestUnconfiguredBackendWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		gone := func(name string) {
			t.Helper()
			r, err := box.Reader(name, nil)
			if err == nil {
				err = r.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		known := func(names ...string) {
			t.Helper()
			list, err := box.Backends()
			var got []string
			for _, b := range list {
				got = append(got, b.Name)
			}
			if err != nil || !slices.Equal(got, names) {
				t.Errorf("known: %v, %v, want %v", got, err, names)
			}
		}
		gone("old")
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box})
		pass(time.Second)
		known("b")
		gone("older")
		p.Push([]event.Event{of("x", "x1")}) // it is for b, and comes after what older has read
		pass(time.Second)
		known("b", "older")
		pass(2 * time.Minute)
		known("b")
	})
}

// miscounted is an outbox whose counts of what waits are too low.
type miscounted struct{ *outbox.Embedded }

func (m miscounted) Backends() ([]outbox.BackendRecovery, error) {
	list, err := m.Embedded.Backends()
	for i := range list {
		list[i].Waiting, list[i].Parked = 0, 0
	}
	return list, err
}

// Whether a backend is forgotten is no matter of counts, which may be wrong or estimates: its
// ack floor must be at the end of the log.
func TestUnconfiguredBackendIsForgottenByItsAckFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := leave(t, t.TempDir())
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: miscounted{box}})
		pass(2 * time.Minute)
		if s := p.Status(); len(s.Unconfigured) != 1 || s.Unconfigured[0].Waiting != 3 {
			t.Errorf("status %+v", s)
		}
		p.Drain(t.Context())
	})
}

// retiring is an outbox that several instances share.
type retiring struct {
	*outbox.Embedded
	retired atomic.Bool
}

func (r *retiring) Retire() { r.retired.Store(true) }

// At the end a shared outbox gives this instance nothing more to deliver.
func TestDrainRetires(t *testing.T) {
	box := &retiring{Embedded: outboxtest.Open(t)}
	p, err := pusher.New(pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box})
	if err != nil {
		t.Fatal(err)
	}
	if box.retired.Load() {
		t.Error("retired before its end")
	}
	if p.Drain(t.Context()); !box.retired.Load() {
		t.Error("not retired")
	}
}

// A command that waits for an outbox which takes nothing ends with its context, and keeps
// no other one from its work. What it was about stays.
func TestCommandsEndWithTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := leave(t, t.TempDir())
		var full atomic.Bool
		full.Store(true)
		disk := &slowDisk{Embedded: box, append: func(outbox.Pack) error {
			if full.Load() {
				return errDown
			}
			return nil
		}}
		if err := box.Bury(outbox.DeadLetter{Event: new(of("z", "z1")), Reason: "filter"}); err != nil {
			t.Fatal(err)
		}
		c := &fakeBackend{name: "c"}
		p := start(t, pusher.Options{Backends: []backends.Backend{&fakeBackend{name: "b"}, c}, Outbox: disk})
		pass(time.Second)
		for what, do := range map[string]func(ctx context.Context) error{
			"move": func(ctx context.Context) error { _, err := p.Move(ctx, "a", "c"); return err },
			"replay": func(ctx context.Context) error {
				_, err := p.Replay(ctx, outbox.LetterFilter{Backend: outbox.NoBackend})
				return err
			},
		} {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
				t.Errorf("%s: after %v: %v", what, time.Since(began), err)
			}
			cancel()
		}
		if s := p.Status(); len(s.Unconfigured) != 1 || s.Unconfigured[0].Waiting != 3 {
			t.Errorf("status: %+v", s)
		}
		if list := letters(t, box.DeadLetters()); len(list) != 2 {
			t.Errorf("dead letters: %+v", list)
		}
		full.Store(false)
		if n, err := p.Move(t.Context(), "a", "c"); n != 3 || err != nil {
			t.Errorf("moved %d, %v", n, err)
		}
		if n, err := p.Replay(t.Context(), outbox.LetterFilter{Backend: outbox.NoBackend}); n != 1 || err != nil {
			t.Errorf("replayed %d, %v", n, err)
		}
		pass(time.Second)
		got := c.ids()
		for _, id := range []string{"x1", "x2", "y1", "z1"} {
			if !slices.Contains(got, id) {
				t.Errorf("no %s in %v", id, got)
			}
		}
		p.Drain(t.Context())
	})
}

func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := leave(t, t.TempDir())
		b, c := &fakeBackend{name: "b"}, &fakeBackend{name: "c"}
		p := start(t, pusher.Options{Backends: []backends.Backend{b, c}, Outbox: box})
		pass(time.Second)
		for _, names := range [][2]string{{"b", "c"}, {"a", "nobody"}} {
			if n, err := p.Move(t.Context(), names[0], names[1]); n != 0 || err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("move %s to %s: %d, %v", names[0], names[1], n, err)
			}
		}
		if _, err := p.Move(t.Context(), "never", "c"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("moved from a backend that never was: %v", err)
		}
		if n, err := p.Move(t.Context(), "a", "c"); n != 3 || err != nil {
			t.Fatalf("moved %d, %v", n, err)
		}
		pass(time.Second)
		got := c.ids()
		if i, j := slices.Index(got, "x1"), slices.Index(got, "x2"); len(got) != 3 || i < 0 || i > j || !slices.Contains(got, "y1") {
			t.Errorf("c got %v", got)
		}
		if b.count() != 4 {
			t.Errorf("b got %v", b.ids())
		}
		if list := letters(t, box.DeadLetters()); len(list) != 1 || list[0].Backend != "c" || list[0].Event.ID != "x0" {
			t.Errorf("dead letters: %+v", list)
		}
		if _, err := p.Move(t.Context(), "a", "c"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("moved twice: %v", err)
		}
		if s := p.Status(); len(s.Unconfigured) != 0 {
			t.Errorf("status: %+v", s)
		}
		p.Drain(t.Context())
	})
}

func TestForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := leave(t, t.TempDir())
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box})
		if _, err := p.Forget("b"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a configured backend: %v", err)
		}
		if n, err := p.Forget("a"); n != 3 || err != nil {
			t.Errorf("forgot %d, %v", n, err)
		}
		if _, err := p.Forget("a"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("forgot twice: %v", err)
		}
		if s := p.Status(); len(s.Unconfigured) != 0 {
			t.Errorf("status: %+v", s)
		}
	})
}

// Backends are added and removed while events are pushed: each event reaches the backend
// if and only if it was pushed while that was there, in order.
func TestBackendsAreAddedAndRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		always := &fakeBackend{name: "always", limits: backends.Limits{Lanes: 2, Batch: 4}}
		p := start(t, pusher.Options{Backends: one(always), Outbox: box})
		n := 0
		push := func(count int) {
			for range count {
				p.Push([]event.Event{of(fmt.Sprint("peer", n%3), fmt.Sprintf("%04d", n))})
				n++
			}
		}
		push(10)
		pass(time.Second)
		down := &fakeBackend{name: "extra", publish: func(_ context.Context, batch []event.Event) []error { return every(len(batch), errDown) }}
		change(t, p, always, down)
		for _, list := range [][]backends.Backend{{always, down, &fakeBackend{name: "extra"}}, {always, &fakeBackend{}}} {
			if err := p.Change(t.Context(), nil, list, nil); err == nil || errors.Is(err, pusher.ErrChanged) {
				t.Errorf("names twice or empty: %v", err)
			}
		}
		push(10)
		change(t, p, always)
		push(10) // extra does not get these
		pass(time.Second)
		if s := p.Status(); len(s.Backends) != 1 || len(s.Unconfigured) != 1 || s.Unconfigured[0].Waiting != 10 {
			t.Errorf("status: %+v", s)
		}
		extra := &fakeBackend{name: "extra", limits: backends.Limits{Lanes: 2, Batch: 4}}
		change(t, p, extra, always)
		push(10)
		pass(time.Minute)
		var want []string
		for i := range n {
			if i/10 == 1 || i/10 == 3 {
				want = append(want, fmt.Sprintf("%04d", i))
			}
		}
		got := extra.ids()
		last := make(map[int]string) // by conversation
		for _, id := range got {
			i, err := strconv.Atoi(id)
			if err != nil || id <= last[i%3] {
				t.Errorf("%s came after %s", id, last[i%3])
			}
			last[i%3] = id
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if always.count() != n {
			t.Errorf("the other backend got %d of %d", always.count(), n)
		}
		p.Drain(t.Context())
		if err := p.Change(t.Context(), nil, one(&fakeBackend{name: "late"}), nil); err == nil || errors.Is(err, pusher.ErrChanged) {
			t.Errorf("added after Drain: %v", err)
		}
	})
}

// change calls Change for backends without filters and conditions.
func change(t *testing.T, p *pusher.Pusher, list ...backends.Backend) {
	t.Helper()
	if err := p.Change(t.Context(), nil, list, nil); err != nil {
		t.Fatal(err)
	}
}

// Change cancels a call that hangs once its context has ended.
func TestRemoveABackendThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		b := &fakeBackend{name: "b", publish: func(ctx context.Context, batch []event.Event) []error {
			<-ctx.Done()
			return every(len(batch), ctx.Err())
		}}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		p.Push([]event.Event{of("x", "x1")})
		pass(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		if err := p.Change(ctx, nil, nil, nil); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v", took)
		}
		if s := p.Status(); len(s.Unconfigured) != 1 || s.Unconfigured[0].Waiting != 1 {
			t.Errorf("status: %+v", s)
		}
	})
}

// fullBox is an outbox that takes nothing for a while.
type fullBox struct {
	outbox.Outbox
	full atomic.Bool
}

func (b *fullBox) Append(p outbox.Pack) error {
	if b.full.Load() {
		return outbox.ErrFull
	}
	return b.Outbox.Append(p)
}

// What was accepted for a backend while the outbox was full waits for it, although it was taken
// out meanwhile and nothing else waits for it.
func TestRemovedWhileTheOutboxIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		b := &fullBox{Outbox: box}
		x, y := &fakeBackend{name: "x"}, &fakeBackend{name: "y"}
		p := start(t, pusher.Options{Backends: one(x), Outbox: b})
		p.PushFeed([]event.Event{of("p", "0")}, outbox.Position{Source: "s", Epoch: "e", Seq: 1})
		pass(time.Second)
		b.full.Store(true)
		if !p.PushFeed([]event.Event{of("p", "1"), of("p", "2")}, outbox.Position{Source: "s", Epoch: "e", Seq: 2}) {
			t.Fatal("refused")
		}
		change(t, p, y)
		pass(3 * time.Minute) // it is looked for what can be forgotten
		b.full.Store(false)
		pass(time.Second)
		again := &fakeBackend{name: "x"}
		change(t, p, y, again)
		pass(time.Minute)
		if n := again.count(); n != 2 {
			t.Errorf("%d of 2 events that were accepted for it were delivered", n)
		}
		change(t, p, y)
		pass(3 * time.Minute)
		if list, err := box.Backends(); err != nil || len(list) != 1 {
			t.Errorf("nothing waits for it, and it is not forgotten: %v %v", list, err)
		}
		p.Drain(t.Context())
	})
}

package pusher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
)

// openOutbox opens a durable outbox that is closed at the end of the test, unless
// the test closes it by the function returned.
func openOutbox(t testing.TB, dir string) (e *outbox.Embedded, found outbox.Recovery, stop func()) {
	t.Helper()
	e, found, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return e, found, stop
}

// slowDisk is an outbox whose Append does what the test says.
type slowDisk struct {
	*outbox.Embedded
	append func(outbox.Pack) error // nil: nothing but Append
	mu     sync.Mutex
	packs  []outbox.Pack
}

func newSlowDisk(t *testing.T, append func(outbox.Pack) error) *slowDisk {
	t.Helper()
	box, _, _ := openOutbox(t, t.TempDir())
	return &slowDisk{Embedded: box, append: append}
}

func (s *slowDisk) Append(p outbox.Pack) error {
	if s.append != nil {
		if err := s.append(p); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.packs = append(s.packs, outbox.Pack{Entries: slices.Clone(p.Entries), Positions: p.Positions})
	s.mu.Unlock()
	return s.Embedded.Append(p)
}

func (s *slowDisk) sizes() (out []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.packs {
		out = append(out, len(p.Entries))
	}
	return out
}

func TestDurableOutboxKeepsWhatCannotBeDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		box, _, stop := openOutbox(t, dir)
		b := &fakeBackend{name: "b", publish: failing(errDown, "x", "y", "z", "v", "w")}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		p.Push([]event.Event{of("x", "x1"), of("x", "x2"), of("y", "y1"), of("z", "z1"), of("v", "v1"), of("w", "w1"), of("good", "good")})
		pass(time.Minute)
		p.Push([]event.Event{of("x", "x3")}) // and stop at once
		began := time.Now()
		p.Drain(t.Context())
		if waited := time.Since(began); waited > 3*time.Second {
			t.Errorf("the end took %v, for events that are kept anyway", waited)
		}
		stop()

		box, found, stop := openOutbox(t, dir)
		if !found.Clean || found.Backends[0].Waiting+found.Backends[0].Parked != 7 {
			t.Errorf("found %+v", found)
		}
		second := &fakeBackend{name: "b"}
		p = start(t, pusher.Options{Backends: one(second), Outbox: box})
		pass(time.Minute)
		p.Drain(t.Context())
		stop()
		got := second.ids()
		x := slices.DeleteFunc(slices.Clone(got), func(id string) bool { return id[0] != 'x' })
		if len(got) != 7 || !slices.IsSorted(x) {
			t.Errorf("delivered after the restart: %v", got)
		}
	})
}

func TestDrainDeliversBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		b := &fakeBackend{name: "b"}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		synctest.Wait() // until Run has begun: Drain before it waits for nothing
		for n := range 3000 {
			p.Push([]event.Event{of("x", fmt.Sprintf("%05d", n))})
		}
		p.Drain(t.Context())
		if got := b.ids(); len(got) != 3000 || !slices.IsSorted(got) {
			t.Errorf("%d events delivered", len(got))
		}
		p.Push([]event.Event{of("x", "late")})
		if s := p.Status().Backends[0]; s.Waiting != 0 {
			t.Errorf("taken after the end: %+v", s)
		}
	})
}

// TestDrainWithoutRun accepts what was pushed although nobody delivers it.
func TestDrainWithoutRun(t *testing.T) {
	dir := t.TempDir()
	box, _, stop := openOutbox(t, dir)
	p, err := pusher.New(pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box})
	if err != nil {
		t.Fatal(err)
	}
	p.Push([]event.Event{of("x", "x1")})
	p.Drain(t.Context())
	stop()
	if _, found, _ := openOutbox(t, dir); found.Backends[0].Waiting != 1 {
		t.Errorf("found %+v", found)
	}
}

func TestPushDoesNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newSlowDisk(t, func(outbox.Pack) error {
			time.Sleep(time.Second)
			return nil
		})
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box})
		began := time.Now()
		p.Push([]event.Event{of("x", "first")})
		synctest.Wait() // its pack is being written
		for n := range 16_383 {
			p.Push([]event.Event{of("x", fmt.Sprint(n))})
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("Push waited %v with room left", waited)
		}
		p.Push([]event.Event{of("x", "one too many")})
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("Push waited %v for room, want the second that a pack takes", waited)
		}
		pass(time.Minute)
		sizes := box.sizes()
		if sizes[0] != 1 || slices.Max(sizes) != 1024 || len(sizes) > 20 {
			t.Errorf("packs of %v events", sizes)
		}
	})
}

func TestFailingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errDisk := errors.New("no space left on device")
		var broken atomic.Bool
		broken.Store(true)
		box := newSlowDisk(t, func(outbox.Pack) error {
			if broken.Load() {
				return errDisk
			}
			return nil
		})
		reg := prometheus.NewRegistry()
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 1, Batch: 1000}}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box, Metrics: pusher.NewMetrics(reg)})
		p.Push([]event.Event{of("x", "00000")})
		pass(time.Second)
		if err := p.Healthy(); !errors.Is(err, errDisk) {
			t.Errorf("Healthy: %v", err)
		}
		began := time.Now()
		for n := 1; n < 20_000; n++ { // more than is held back
			p.Push([]event.Event{of("x", fmt.Sprintf("%05d", n))})
		}
		if time.Since(began) != 0 {
			t.Error("the socket was not read while the disk failed")
		}
		lost := value(t, reg, "eventpusher_events_dropped_total{reason=outbox}")
		if lost != 20_000-16_384 {
			t.Errorf("%v events counted as lost, want those that found no room", lost)
		}
		broken.Store(false)
		pass(time.Minute)
		if err := p.Healthy(); err != nil {
			t.Errorf("with space again: %v", err)
		}
		got := b.ids()
		if len(got) != 16_384 || !slices.IsSorted(got) {
			t.Errorf("%d events delivered", len(got))
		}
	})
}

func TestPushFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		box := newSlowDisk(t, func(p outbox.Pack) error {
			if full.Load() && len(p.Positions) > 0 {
				return outbox.ErrFull
			}
			return nil
		})
		b := &fakeBackend{name: "b", wants: func(e *event.Event) bool { return e.To != "nobody@localhost" }}
		feeds := &feedsHeard{}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box, Feeds: feeds})
		push := func(seq uint64, events ...event.Event) bool { return p.PushFeed(events, place("s", seq)) }
		// heard returns the last word of what was said since the last call.
		heard := func() string {
			pass(time.Second)
			said := feeds.heard()
			if len(said) == 0 {
				return ""
			}
			return said[len(said)-1]
		}
		push(1, of("x", "1"))
		push(2, of("nobody", "2"))
		push(3)
		if got := heard(); got != "kept s 3" {
			t.Errorf("heard %q", got)
		}
		full.Store(true)
		push(4, of("x", "4"))
		push(5, of("x", "5"))
		p.Push([]event.Event{of("x", "plain")})
		if got := heard(); got != "" {
			t.Errorf("heard %q although the outbox is full", got)
		}
		if diff := cmp.Diff([]string{"1", "plain"}, b.ids()); diff != "" {
			t.Errorf("who cannot wait has to wait: %s", diff)
		}
		if err := p.Healthy(); err != nil {
			t.Errorf("a feed that waits is no failure: %v", err)
		}
		full.Store(false)
		if got := heard(); got != "kept s 5" {
			t.Errorf("heard %q", got)
		}
		if diff := cmp.Diff([]string{"1", "plain", "4", "5"}, b.ids()); diff != "" {
			t.Error(diff)
		}
		if got := box.Positions(); len(got) != 1 || got[0].Seq != 5 {
			t.Errorf("positions %v", got)
		}
		full.Store(true)
		push(6, of("x", "6"))
		p.Drain(t.Context())
		if got := heard(); got != "refused s" {
			t.Errorf("heard %q of what the source has to keep", got)
		}
		if push(7, of("x", "7")) {
			t.Error("accepted after the end")
		}
	})
}

func TestReplayThroughTheFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		chain, err := filter.NewChain(compile(t, config.Filter{Name: "f", Keep: `int(event.body) > 0`}), filter.Metrics{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		bad := pusher.Options{Chain: chain, Backends: one(&fakeBackend{name: "b"}), Outbox: box}
		p := start(t, bad)
		p.Push([]event.Event{of("x", "x1"), of("y", "y1")})
		pass(time.Second)
		list := letters(t, box.DeadLetters())
		if len(list) != 2 || list[0].Backend != "" {
			t.Fatalf("dead letters %+v", list)
		}
		// The filter still fails: what is replayed becomes a new dead letter.
		if n, err := p.Replay(t.Context(), outbox.LetterFilter{EventID: "x1"}); n != 1 || err != nil {
			t.Errorf("replayed %d, %v", n, err)
		}
		if list = letters(t, box.DeadLetters()); len(list) != 2 || list[0].Event.ID != "y1" || list[1].Event.ID != "x1" || !list[1].Event.Replayed {
			t.Errorf("dead letters %+v", list)
		}
	})
}

func TestReplayToTheBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		var repaired atomic.Bool
		b := &fakeBackend{name: "b", publish: func(_ context.Context, batch []event.Event) []error {
			if repaired.Load() {
				return make([]error, len(batch))
			}
			return every(len(batch), backends.Permanent(errDown))
		}}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		if err := box.Bury(outbox.DeadLetter{Event: new(of("z", "z1")), Reason: "filter"}); err != nil {
			t.Fatal(err)
		}
		p.Push([]event.Event{of("x", "x1"), of("y", "y1")})
		pass(time.Second)
		repaired.Store(true)
		if n, err := p.Replay(t.Context(), outbox.LetterFilter{}); n != 3 || err != nil {
			t.Errorf("replayed %d, %v", n, err)
		}
		pass(time.Minute)
		got := b.delivered()
		for _, e := range got {
			if !e.Replayed {
				t.Errorf("%s is not marked", e.ID)
			}
		}
		if len(got) != 3 || len(letters(t, box.DeadLetters())) != 0 {
			t.Errorf("delivered %v, left %+v", b.ids(), letters(t, box.DeadLetters()))
		}
	})
}

// TestParkedFullIsCounted lets more events of failing conversations wait than may
// be parked; the status and the metric must show what became of the rest.
func TestParkedFullIsCounted(t *testing.T) {
	box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{ParkedEvents: 3, ParkAttempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	reg := prometheus.NewRegistry()
	b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 1, Batch: 16}, publish: failing(errDown, "bob")}
	p := start(t, pusher.Options{Backends: one(b), Outbox: box, Metrics: pusher.NewMetrics(reg)})
	for i := range 10 {
		p.Push([]event.Event{of("bob", fmt.Sprint(i))})
	}
	full := func() (letters []outbox.DeadLetter) {
		letters, err := box.DeadLetters().List(outbox.LetterFilter{Reason: outbox.ReasonParkedFull})
		if err != nil {
			t.Fatal(err)
		}
		return letters
	}
	const metric = "eventpusher_dead_letters_total{backend=b,reason=" + outbox.ReasonParkedFull + "}"
	deadline := time.Now().Add(2 * time.Minute)
	for len(full()) != 7 || value(t, reg, metric) != 7 { // ten, and three can be parked
		if time.Now().After(deadline) {
			t.Fatalf("%d dead letters, the metric says %v", len(full()), value(t, reg, metric))
		}
		time.Sleep(time.Millisecond) // the letters are saved behind the count
	}
	if s := p.Status().Backends[0]; s.DeadLetters != 7 || s.Parked != 3 {
		t.Errorf("status %+v", s)
	}
}

// pagedBox notes how many dead letters were listed at once.
type pagedBox struct {
	*outbox.Embedded
	most *int
}

func (b pagedBox) DeadLetters() outbox.DeadLetters {
	return pagedLetters{b.Embedded.DeadLetters(), b.most}
}

type pagedLetters struct {
	outbox.DeadLetters
	most *int
}

func (l pagedLetters) List(f outbox.LetterFilter) ([]outbox.DeadLetter, error) {
	list, err := l.DeadLetters.List(f)
	*l.most = max(*l.most, len(list))
	return list, err
}

// There may be 100 000 dead letters, each with its stanza.
func TestReplayDoesNotHoldAllInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		most := 0
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 4, Batch: 50}}
		p := start(t, pusher.Options{Backends: one(b), Outbox: pagedBox{box, &most}})
		var list []outbox.DeadLetter
		for n := range 1203 {
			list = append(list, outbox.DeadLetter{Event: new(of(fmt.Sprint(n%50), fmt.Sprint(n))), Reason: "filter"})
		}
		if err := box.Bury(list...); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Replay(t.Context(), outbox.LetterFilter{Backend: outbox.NoBackend, Limit: 3}); n != 3 || err != nil {
			t.Errorf("replayed %d, %v", n, err)
		}
		if n, err := p.Replay(t.Context(), outbox.LetterFilter{}); n != 1200 || err != nil {
			t.Errorf("replayed %d, %v", n, err)
		}
		if most > 500 {
			t.Errorf("%d dead letters in memory at once", most)
		}
		time.Sleep(time.Minute)
		if n := b.count(); n != 1203 {
			t.Errorf("%d delivered", n)
		}
	})
}

// A dead letter that finds no room is lost, and not counted among those that are kept.
func TestDeadLettersWithoutRoomAreCountedAsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		box := newSlowDisk(t, func(outbox.Pack) error {
			if broken.Load() {
				return errors.New("no space left on device")
			}
			return nil
		})
		reg := prometheus.NewRegistry()
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b", limits: backends.Limits{Batch: 1000}}), Outbox: box, Metrics: pusher.NewMetrics(reg)})
		for n := range 16_384 {
			p.Push([]event.Event{of("x", fmt.Sprint(n))})
			if n == 0 {
				pass(time.Second)
			}
		}
		p.Bury([]outbox.DeadLetter{{Event: new(event.Event), Reason: outbox.ReasonUndecodable}, {Event: new(event.Event), Reason: outbox.ReasonUndecodable}})
		broken.Store(false)
		pass(time.Minute)
		p.Bury([]outbox.DeadLetter{{Event: new(event.Event), Reason: outbox.ReasonUndecodable}})
		pass(time.Second)
		for metric, want := range map[string]float64{
			"eventpusher_events_dropped_total{reason=outbox}":             2,
			"eventpusher_dead_letters_total{backend=,reason=undecodable}": 1,
		} {
			if got := value(t, reg, metric); got != want {
				t.Errorf("%s: %v, want %v", metric, got, want)
			}
		}
		if n := len(letters(t, box.DeadLetters())); n != 1 {
			t.Errorf("%d are kept", n)
		}
	})
}

// The limit of a replay is for the letters of backends and those of none together.
func TestReplayHonoursItsLimitOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		b := &fakeBackend{name: "b"}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		for n := range 4 {
			for _, backend := range []string{"b", ""} {
				if err := box.Bury(outbox.DeadLetter{Event: new(of("x", fmt.Sprint(backend, n))), Backend: backend, Reason: "filter"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, limit := range []int{3, 1} {
			if n, err := p.Replay(t.Context(), outbox.LetterFilter{Limit: limit}); n != limit || err != nil {
				t.Errorf("replayed %d of %d, %v", n, limit, err)
			}
		}
		pass(time.Second)
		if left := len(letters(t, box.DeadLetters())); left != 4 || b.count() != 4 {
			t.Errorf("%d left, %d delivered", left, b.count())
		}
	})
}

// smallDisk keeps small events only, and fails a few times.
type smallDisk struct {
	*slowDisk
	largest int
}

func (s *smallDisk) Largest() int { return s.largest }

// An event that the outbox cannot keep becomes one dead letter for each backend, with a log
// line and a count, however often the outbox refuses the rest.
func TestEventThatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 3
		box := &smallDisk{largest: 2000, slowDisk: newSlowDisk(t, func(outbox.Pack) error {
			if failures--; failures >= 0 {
				return errors.New("the disk fails")
			}
			return nil
		})}
		a, b := &fakeBackend{name: "a"}, &fakeBackend{name: "b"}
		var logged bytes.Buffer
		reg := prometheus.NewRegistry()
		p := start(t, pusher.Options{
			Outbox: box, Backends: []backends.Backend{a, b}, Metrics: pusher.NewMetrics(reg), Log: slog.New(slog.NewTextHandler(&logged, nil)),
		})
		big := of("bob", "big")
		big.Packet = strings.Repeat("x", 2000)
		p.Push([]event.Event{of("bob", "1"), big, of("bob", "2")})
		pass(time.Minute)
		for _, backend := range []*fakeBackend{a, b} {
			if got := backend.ids(); !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("%s got %v", backend.name, got)
			}
		}
		list := letters(t, box.DeadLetters())
		if len(list) != 2 || list[0].Backend == list[1].Backend {
			t.Errorf("letters %+v", list)
		}
		for _, d := range list {
			if d.Reason != "too_large" || d.Event.ID != "big" || d.Event.Packet != "" {
				t.Errorf("letter %+v", d)
			}
			if n := value(t, reg, "eventpusher_dead_letters_total{backend="+d.Backend+",reason=too_large}"); n != 1 {
				t.Errorf("%v letters of %s are counted", n, d.Backend)
			}
		}
		if n := strings.Count(logged.String(), "too large for the outbox"); n != 1 {
			t.Errorf("%d log lines", n)
		}
	})
}

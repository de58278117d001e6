package pusher_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
)

// A backend that is replaced delivers what is on its way first; the new one goes on behind
// that, in order, with what waits.
func TestBackendIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		release := make(chan struct{})
		old := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 2, Batch: 2}, publish: func(_ context.Context, batch []event.Event) []error {
			<-release
			return make([]error, len(batch))
		}}
		p := start(t, pusher.Options{Backends: one(old), Outbox: box})
		push := func(from, to int) {
			for n := from; n < to; n++ {
				p.Push([]event.Event{of("x", fmt.Sprintf("%02d", n))})
			}
		}
		push(0, 5)
		pass(time.Second)
		fresh := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 3, Batch: 5}}
		changed := make(chan error, 1)
		go func() { changed <- p.Change(t.Context(), nil, one(fresh), nil) }()
		pass(time.Second)
		push(5, 10)
		pass(time.Second)
		if len(old.tried()) != 1 || len(fresh.tried()) != 0 {
			t.Errorf("tried %v and %v before the call has ended", old.tried(), fresh.tried())
		}
		close(release)
		if err := <-changed; err != nil {
			t.Error(err)
		}
		pass(time.Minute)
		if got := slices.Concat(old.ids(), fresh.ids()); !slices.Equal(got, []string{"00", "01", "02", "03", "04", "05", "06", "07", "08", "09"}) || len(old.ids()) != 1 {
			t.Errorf("%v, then %v", old.ids(), fresh.ids())
		}
		if s := p.Status(); len(s.Backends) != 1 || s.Backends[0].Delivered != 10 || s.Backends[0].Waiting != 0 {
			t.Errorf("status: %+v", s)
		}
		p.Drain(t.Context())
	})
}

// What a backend has failed to take, and what it refuses, is delivered by the one that takes its
// place at once: the operator has mended it.
func TestReplacedBackendRetriesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, answer := range []error{errDown, backends.Paused(errDown)} {
			box, _, _ := openOutbox(t, t.TempDir())
			bad := &fakeBackend{name: "b", publish: func(_ context.Context, batch []event.Event) []error { return every(len(batch), answer) }}
			p := start(t, pusher.Options{Backends: one(bad), Outbox: box})
			for n := range 20 {
				p.Push([]event.Event{of(fmt.Sprint("peer", n), fmt.Sprint(n))})
			}
			pass(10 * time.Minute)
			good := &fakeBackend{name: "b"}
			change(t, p, good)
			pass(time.Minute)
			if good.count() != 20 {
				t.Errorf("%v: %d of 20", answer, good.count())
			}
			p.Drain(t.Context())
		}
	})
}

// Filters, conditions and backends change in one step: no event passes the old filter and
// reaches the new backend.
func TestChangeIsOneStep(t *testing.T) {
	marks := func(mark string) *filter.Chain {
		filters, problems := filter.Compile([]config.Filter{{Name: "f", Metadata: map[string]string{"mark": "'" + mark + "'"}}})
		if problems != nil {
			t.Fatal(problems)
		}
		chain, err := filter.NewChain(filters, filter.Metrics{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	only := func(mark string) map[string]*filter.Condition {
		c, problems := filter.CompileCondition("when", "metadata.mark == '"+mark+"'")
		if problems != nil {
			t.Fatal(problems)
		}
		return map[string]*filter.Condition{"stays": c}
	}
	box, _, _ := openOutbox(t, t.TempDir())
	var all []*fakeBackend
	stays := &fakeBackend{name: "stays"}
	p := start(t, pusher.Options{Chain: marks("0"), Backends: one(stays), Conditions: only("0"), Outbox: box})
	var stop atomic.Bool
	var begun atomic.Int64
	pushed := make(chan int)
	go func() {
		n := 0
		for ; !stop.Load(); n++ {
			begun.Add(1)
			p.Push([]event.Event{of(fmt.Sprint("peer", n%5), fmt.Sprintf("%06d", n))})
			time.Sleep(50 * time.Microsecond)
		}
		pushed <- n
	}()
	for i := 1; i <= 30; i++ {
		for before := begun.Load(); begun.Load() < before+2; { // something is pushed between two changes
			time.Sleep(time.Millisecond)
		}
		mark := fmt.Sprint(i)
		b := &fakeBackend{name: "changes"}
		all = append(all, b)
		if err := p.Change(t.Context(), marks(mark), []backends.Backend{b, stays}, only(mark)); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	n := <-pushed
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p.Drain(ctx)
	if stays.count() != n {
		t.Errorf("the one that stays has got %d of %d: the condition and the filter are not of one configuration", stays.count(), n)
	}
	last := make(map[string]string)
	count := 0
	for _, b := range all {
		for _, e := range b.delivered() {
			count++
			if e.Metadata["mark"] == "0" {
				t.Errorf("%s has passed the filter from before there was such a backend", e.ID)
			}
			if from := string(e.From); e.ID <= last[from] {
				t.Errorf("%s came after %s", e.ID, last[from])
			} else {
				last[from] = e.ID
			}
		}
	}
	if first := slices.IndexFunc(stays.delivered(), func(e event.Event) bool { return e.Metadata["mark"] != "0" }); count != n-count0(stays) || first < 0 {
		t.Errorf("%d events, want %d", count, n-count0(stays))
	}
}

// count0 is how many events were pushed before the first change.
func count0(b *fakeBackend) (n int) {
	for _, e := range b.delivered() {
		if e.Metadata["mark"] == "0" {
			n++
		}
	}
	return n
}

// refusingBox gives no reader to one backend.
type refusingBox struct {
	outbox.Outbox
	name string
}

func (b refusingBox) Reader(name string, notify func()) (outbox.Reader, error) {
	if name == b.name {
		return nil, errors.New("no more readers")
	}
	return b.Outbox.Reader(name, notify)
}

// If the outbox has no reader for one backend, everything stays as it was.
func TestChangeThatFailsChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		a := &fakeBackend{name: "a"}
		p := start(t, pusher.Options{Backends: one(a), Outbox: refusingBox{box, "c"}})
		err := p.Change(t.Context(), nil, []backends.Backend{&fakeBackend{name: "b"}, &fakeBackend{name: "c"}}, nil)
		if err == nil || errors.Is(err, pusher.ErrChanged) {
			t.Fatalf("%v", err)
		}
		p.Push([]event.Event{of("x", "x1")})
		pass(time.Second)
		if a.count() != 1 {
			t.Errorf("the one from before has got %d", a.count())
		}
		pass(2 * time.Minute)
		if diff := cmp.Diff([]pusher.UnconfiguredStatus(nil), p.Status().Unconfigured); diff != "" {
			t.Errorf("what was opened in vain is still there: %s", diff)
		}
		p.Drain(t.Context())
	})
}

package pusher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

// TestWithdraw gives the events of an acknowledged feed back that an outbox has not
// taken: committed later, they would put the feed's position back to where it was before
// another instance had it.
func TestWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var deposed atomic.Bool
		deposed.Store(true)
		var asked atomic.Int32
		box := newSlowDisk(t, func(outbox.Pack) error {
			asked.Add(1)
			time.Sleep(3 * time.Second)
			if deposed.Load() {
				return errors.New("another instance has taken over")
			}
			return nil
		})
		feeds := &feedsHeard{}
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box, Feeds: feeds})
		push := func(seq uint64) { p.PushFeed([]event.Event{of("x", fmt.Sprint(seq))}, place("s", seq)) }
		answered := make(chan error, 1)
		push(1)
		push(2)
		pass(10 * time.Second)
		push(3)
		p.PushAcked([]event.Event{of("x", "asked")}, func(err error) { answered <- err })
		p.Withdraw()
		if diff := cmp.Diff([]string{"refused s"}, feeds.heard()); diff != "" {
			t.Errorf("after Withdraw: %s", diff)
		}
		if err := <-answered; err == nil {
			t.Error("what was withdrawn counts as kept")
		}
		deposed.Store(false)
		before := asked.Load()
		pass(time.Minute)
		if n := asked.Load() - before; n != 0 {
			t.Errorf("what was withdrawn was offered %d times more", n)
		}
		push(2)
		p.Withdraw()
		pass(time.Minute)
		if said := feeds.heard(); len(said) != 1 { // kept if it was under way, else refused
			t.Errorf("of one more: %v", said)
		}
		push(9)
		pass(time.Minute)
		if got := box.Positions(); len(got) != 1 || got[0].Seq != 9 {
			t.Errorf("positions %v", got)
		}
		p.Drain(t.Context())
		p.Withdraw() // nothing is left
	})
}

// TestWithdrawnPartsAreNotLost gives back what one call has brought and takes more than one
// pack: its source keeps every part of it.
func TestWithdrawnPartsAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newSlowDisk(t, func(outbox.Pack) error { return outbox.ErrFull })
		var log bytes.Buffer
		reg, feeds := prometheus.NewRegistry(), &feedsHeard{}
		p := start(t, pusher.Options{
			Backends: one(&fakeBackend{name: "b"}), Outbox: box, Feeds: feeds, Metrics: pusher.NewMetrics(reg), Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		events := make([]event.Event, 5000)
		for i := range events {
			events[i] = of("x", fmt.Sprint(i))
		}
		p.PushFeed(events, place("s", 1))
		p.Push([]event.Event{of("x", "plain")})
		p.Withdraw()
		if diff := cmp.Diff([]string{"refused s"}, feeds.heard()); diff != "" {
			t.Error(diff)
		}
		if n := value(t, reg, "eventpusher_events_dropped_total{reason=outbox}"); n != 1 || !strings.Contains(log.String(), "events=1 ") {
			t.Errorf("%v counted as dropped, logged %s", n, log.String())
		}
		p.Drain(t.Context())
	})
}

// TestWithdrawnEventsAreNotPublishedLater drops what a feed without acknowledgements has
// brought in a term that is over.
func TestWithdrawnEventsAreNotPublishedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var deposed atomic.Bool
		deposed.Store(true)
		box := newSlowDisk(t, func(outbox.Pack) error {
			if deposed.Load() {
				return errors.New("another instance has the link")
			}
			return nil
		})
		b := &fakeBackend{name: "b"}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		p.Push([]event.Event{of("x", "old")})
		pass(10 * time.Second)
		p.Withdraw()
		deposed.Store(false)
		p.Push([]event.Event{of("x", "new")})
		pass(time.Minute)
		if diff := cmp.Diff([]int{1}, box.sizes()); diff != "" {
			t.Errorf("packs of so many events: %s", diff)
		}
		p.Drain(t.Context())
	})
}

// TestFlush waits for what was pushed, and no longer than its context.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := newSlowDisk(t, func(outbox.Pack) error {
			time.Sleep(3 * time.Second)
			return nil
		})
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box})
		p.Flush(t.Context()) // nothing is there
		p.Push([]event.Event{of("x", "1")})
		p.PushFeed([]event.Event{of("x", "2")}, place("s", 1))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.Flush(short)
		if n := len(box.sizes()); n != 0 || short.Err() == nil {
			t.Errorf("%d packs when the context ended", n)
		}
		p.Flush(t.Context())
		if n := len(box.sizes()); n != 2 || len(box.Positions()) != 1 {
			t.Errorf("%d packs after Flush, positions %v", n, box.Positions())
		}
		p.Drain(t.Context())
	})
}

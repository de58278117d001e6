package pusher_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/pusher"
)

// TestDeadDestinations fail one after the other, each after a long silence, and do not
// open the breaker: whoever's destination lives gets his events at once.
func TestDeadDestinations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, stop := openOutbox(t, t.TempDir())
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 16, Batch: 1}, publish: func(_ context.Context, batch []event.Event) []error {
			if !strings.HasPrefix(batch[0].ID, "dead") {
				return []error{nil}
			}
			time.Sleep(30 * time.Second)
			return []error{backends.Elsewhere(errors.New("no answer"))}
		}}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		for i := range 12 {
			p.Push([]event.Event{of(fmt.Sprint("x", i), fmt.Sprint("dead", i))})
		}
		pass(65 * time.Second)
		for i := range 10 {
			p.Push([]event.Event{of(fmt.Sprint("y", i), fmt.Sprint("good", i))})
		}
		pass(time.Second)
		if b.count() != 10 {
			t.Errorf("%d of 10 were delivered within a second", b.count())
		}
		if s := p.Status().Backends[0]; s.State != pusher.Closed {
			t.Errorf("the breaker is %v", s.State)
		}
		pass(10 * time.Minute)
		if s := p.Status().Backends[0]; s.Parked != 12 {
			t.Errorf("%d of 12 are parked", s.Parked)
		}
		p.Drain(t.Context())
		stop()
	})
}

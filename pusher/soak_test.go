//go:build soak

package pusher_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

// TestSoakReplay makes dead letters of as many events as are kept, and then gives
// all of them back to their backend.
func TestSoakReplay(t *testing.T) {
	const events = outbox.DefaultParkedEvents
	box, _, _ := openOutbox(t, t.TempDir())
	var repaired atomic.Bool
	var delivered, others atomic.Int64
	b := &countingBackend{name: "b", publish: func(batch []event.Event) []error {
		if !repaired.Load() {
			return every(len(batch), backends.Permanent(errDown))
		}
		delivered.Add(int64(len(batch)))
		return make([]error, len(batch))
	}}
	other := &countingBackend{name: "other", publish: func(batch []event.Event) []error {
		others.Add(int64(len(batch)))
		return make([]error, len(batch))
	}}
	p := start(t, pusher.Options{Backends: []backends.Backend{b, other}, Outbox: box})
	reach := func(what string, n *atomic.Int64, want int64) time.Duration {
		t.Helper()
		began := time.Now()
		for n.Load() < want {
			if time.Since(began) > 5*time.Minute {
				t.Fatalf("%s: %d of %d", what, n.Load(), want)
			}
			time.Sleep(time.Millisecond)
		}
		return time.Since(began)
	}
	for n := range events {
		p.Push([]event.Event{of(fmt.Sprint("peer", n%1000), fmt.Sprintf("%06d", n))})
	}
	reach("delivered to the other backend", &others, events)
	for deadline := time.Now().Add(5 * time.Minute); p.Status().Backends[0].DeadLetters < events; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", p.Status().Backends[0])
		}
	}
	repaired.Store(true)
	began := time.Now()
	n, err := p.Replay(t.Context(), outbox.LetterFilter{})
	asked := time.Since(began)
	if n != events || err != nil {
		t.Fatalf("replayed %d, %v", n, err)
	}
	reach("replayed", &delivered, events)
	took := time.Since(began)
	if left := letters(t, box.DeadLetters()); len(left) != 0 || delivered.Load() != events || others.Load() != events {
		t.Errorf("%d dead letters are left; %d and %d delivered", len(left), delivered.Load(), others.Load())
	}
	t.Logf("figures: %d dead letters replayed: taken over in %v, delivered after %v (%.0f events/s)",
		events, asked.Round(time.Millisecond), took.Round(time.Millisecond), events/took.Seconds())
}

// countingBackend keeps nothing of what it gets.
type countingBackend struct {
	name    string
	publish func(batch []event.Event) []error
}

func (b *countingBackend) Name() string            { return b.name }
func (b *countingBackend) Limits() backends.Limits { return backends.Limits{Lanes: 4, Batch: 64} }
func (b *countingBackend) Wants(*event.Event) bool { return true }
func (b *countingBackend) Close() error            { return nil }

func (b *countingBackend) Publish(_ context.Context, batch []event.Event) []error {
	return b.publish(batch)
}

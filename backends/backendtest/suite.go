package backendtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/event"
)

func testLimits(f *fixture) {
	limits := f.backend.Limits()
	if f.backend.Name() == "" || limits.Lanes < 1 || limits.Batch < 1 {
		f.Errorf("name %q, limits %+v", f.backend.Name(), limits)
	}
	for n := 1; n <= limits.QuickRetries; n++ {
		if d := limits.QuickDelay(n); d < 0 {
			f.Errorf("quick retry %d after %v", n, d)
		}
	}
	wanted, unwanted := Message(0), Message(0)
	unwanted.Kind = event.Unack
	if !f.backend.Wants(&wanted) || f.backend.Wants(&unwanted) {
		f.Errorf("Wants: %t for a message, %t for an unacknowledged one", f.backend.Wants(&wanted), f.backend.Wants(&unwanted))
	}
	if errs := f.publish(context.Background(), nil); len(errs) != 0 {
		f.Errorf("an empty batch gives %v", errs)
	}
}

func testDelivery(f *fixture) {
	batch := Messages(0, f.backend.Limits().Batch+3)
	f.mustPublish(batch)
	f.checkDelivered(batch)
}

// checkDelivered compares all that the service has got with batch, apart from
// the order.
func (f *fixture) checkDelivered(batch []event.Event) {
	f.Helper()
	want := map[string]Delivery{}
	for i := range batch {
		e := &batch[i]
		d := Delivery{ID: e.ID, Body: e.Body, Metadata: map[string]string{}}
		for key := range e.Metadata {
			d.Metadata[key] = e.Metadata.Text(key)
		}
		want[e.ID] = d
	}
	got := map[string]Delivery{}
	for _, d := range f.Deliveries() {
		if _, again := got[d.ID]; again {
			f.Errorf("event %s was delivered more than once", d.ID)
		}
		got[d.ID] = d
	}
	if diff := cmp.Diff(want, got); diff != "" {
		f.Errorf("deliveries (-want +got):\n%s", diff)
	}
}

func testVerdicts(f *fixture) {
	batch := Messages(0, 5)
	want := f.Refuse(&batch[2])
	errs := f.publish(context.Background(), batch)
	for i, err := range errs {
		if i == 2 {
			if backends.Reason(err) != want {
				f.Errorf("the refused event: %v (%q), want %q", err, backends.Reason(err), want)
			}
			continue
		}
		if err != nil {
			f.Errorf("event %d: %v", i, err)
		}
	}
	f.checkDelivered(append(batch[:2:2], batch[3:]...))
}

func testLanes(f *fixture) {
	const batches = 3
	limits := f.backend.Limits()
	size := min(limits.Batch, 20)
	var lanes sync.WaitGroup
	var all []event.Event
	for lane := range limits.Lanes {
		events := Messages(lane*batches*size, batches*size)
		all = append(all, events...)
		lanes.Go(func() {
			for len(events) > 0 {
				for i, err := range f.backend.Publish(context.Background(), events[:size]) {
					if err != nil {
						f.Errorf("lane %d, event %d: %v", lane, i, err)
					}
				}
				events = events[size:]
			}
		})
	}
	lanes.Wait()
	f.checkDelivered(all)
}

func testCancelled(f *fixture) {
	f.mustPublish(Messages(0, 1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for i, err := range f.publish(ctx, Messages(1, 3)) {
		if !errors.Is(err, context.Canceled) {
			f.Errorf("event %d: %v, want %v", i, err, context.Canceled)
		}
	}
	f.mustPublish(Messages(4, 1))
	f.checkDelivered([]event.Event{Message(0), Message(4)})
}

func testHang(f *fixture) {
	f.mustPublish(Messages(0, 1))
	stalled := f.proxy.Hang()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-stalled
		cancel()
	}()
	for i, err := range f.publish(ctx, Messages(1, 2)) {
		if err == nil || backends.Reason(err) == "permanent" || backends.Reason(err) == "paused" {
			f.Errorf("event %d: %v, want a transient error", i, err)
		}
	}
	f.proxy.Resume()
	f.untilPublished(Message(3))
	f.checkArrived(Message(0), Message(3))
}

func testOutage(f *fixture) {
	f.proxy.Down()
	f.failsTransiently(Messages(0, 2)) // down before the first connection
	f.proxy.Resume()
	f.untilPublished(Message(2))
	f.proxy.Down()
	f.failsTransiently(Messages(3, 2)) // lost while connected
	f.proxy.Resume()
	f.untilPublished(Message(5))
	f.checkArrived(Message(2), Message(5))
}

func (f *fixture) failsTransiently(batch []event.Event) {
	f.Helper()
	for i, err := range f.publish(context.Background(), batch) {
		if reason := backends.Reason(err); reason != "transient" && reason != "timeout" {
			f.Errorf("event %d with the service down: %v (%q), want a transient error", i, err, reason)
		}
	}
}

// untilPublished repeats an event, as the pusher does, until the service takes it.
func (f *fixture) untilPublished(e event.Event) {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), guard)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err := f.publish(ctx, []event.Event{e})[0]
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			f.Fatalf("the service is back, but: %v", err)
		}
	}
}

// checkArrived checks that the events have arrived, once or more often.
func (f *fixture) checkArrived(events ...event.Event) {
	f.Helper()
	got := map[string]bool{}
	for _, d := range f.Deliveries() {
		got[d.ID] = true
	}
	for i := range events {
		if !got[events[i].ID] {
			f.Errorf("event %s has not arrived", events[i].ID)
		}
	}
}

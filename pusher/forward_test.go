package pusher_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
)

// TestForward: what a backend has made itself goes to that backend alone, all in one pack,
// and asks neither filter nor condition nor the backend.
func TestForward(t *testing.T) {
	own := &fakeBackend{name: "own", wants: func(*event.Event) bool { return false }}
	other := &fakeBackend{name: "other"}
	box, _, _ := openOutbox(t, t.TempDir())
	chain, err := filter.NewChain(compile(t, config.Filter{Name: "f", Keep: `event.kind == "chat"`}), filter.Metrics{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, pusher.Options{Backends: []backends.Backend{own, other}, Outbox: box, Chain: chain})
	var list []event.Event
	for _, id := range []string{"1", "2", "3"} {
		e := of(id, id)
		e.Kind = event.Push
		list = append(list, e)
	}
	if err := p.Forward(t.Context(), "own", list); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); own.count() < len(list) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	got := make(map[string]bool)
	for _, id := range own.ids() {
		got[id] = true
	}
	if diff := cmp.Diff(map[string]bool{"1": true, "2": true, "3": true}, got); diff != "" || other.count() > 0 {
		t.Errorf("another backend got %d (-want +got):\n%s", other.count(), diff)
	}
	if err := p.Forward(t.Context(), "nobody", list); err == nil {
		t.Error("taken for a backend that is not there")
	}
	ended, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p.Drain(ended)
	if err := p.Forward(t.Context(), "own", list); err == nil {
		t.Error("taken after the end")
	}
}

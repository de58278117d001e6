package outbox

import (
	"testing"
	"time"

	"eventpusher/event"
)

// What waits in the window is found with its attempts, and not what is settled or behind it.
func TestFind(t *testing.T) {
	w := NewWindow(WindowOptions{})
	a, b := &event.Event{ID: "a"}, &event.Event{ID: "b"}
	w.Admit([]Admission{{Number: 1, Event: a, Key: 1, Bytes: 10}, {Number: 2, Event: b, Key: 2, Bytes: 10}}, time.Now(), 3)
	of := func(id string) []Found { return w.Find(func(e *event.Event) bool { return e.ID == id }) }
	if found := of("a"); len(found) != 1 || found[0].Event != a || found[0].Attempts != 0 || found[0].Parked {
		t.Errorf("%+v", found)
	}
	items, _, _, _ := w.Take(nil, 2, false, false)
	w.Settle([]Settlement{{Item: items[0]}, {Item: items[1], Outcome: Retry, Delay: time.Hour}})
	if found := of("a"); len(found) != 0 {
		t.Errorf("settled, and found: %+v", found)
	}
	if found := of("b"); len(found) != 1 || found[0].Attempts != 1 {
		t.Errorf("%+v", found)
	}
}

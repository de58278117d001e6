package trace

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unsafe"

	"eventpusher/event"
	"eventpusher/internal/jid"
)

func add(r *Recorder, id, body string) {
	r.Add(&Arrival{Event: &event.Event{ID: id, Body: body, Packet: "<message/>", From: "a@h"}, Came: time.Now(), Fate: Kept, Destinations: []Delivery{{Destination: "crm", State: Waiting}}})
}

func settle(r *Recorder, id string, s State, tries int, err error) {
	done := false
	r.Settle("crm", time.Now(), func() (Settled, bool) {
		if done {
			return Settled{}, false
		}
		done = true
		return Settled{id, s, tries, err}, true
	})
}

// The oldest events make room, and what is settled later is not taken for what has their place.
func TestBounds(t *testing.T) {
	r := New()
	if events, more := r.After(0, 10); len(events) != 0 || more == nil {
		t.Error("events before the first one")
	}
	for i := range 2*MaxEvents + 10 {
		add(r, fmt.Sprintf("%032x", i), "hi")
	}
	settle(r, fmt.Sprintf("%032x", 0), Delivered, 1, nil) // gone
	if len(r.ring) != MaxEvents || len(r.byID) != MaxEvents || r.Last() != 2*MaxEvents+10 {
		t.Fatalf("%d places, %d IDs, last %d", len(r.ring), len(r.byID), r.Last())
	}
	list, more := r.After(0, 2*MaxEvents)
	if len(list) != MaxEvents || list[0].Number != MaxEvents+11 || list[0].Event.ID != fmt.Sprintf("%032x", MaxEvents+10) {
		t.Fatalf("%d events from %d", len(list), list[0].Number)
	}
	for _, e := range list {
		if e.Destinations[0].State != Waiting {
			t.Fatalf("%s is %s", e.Event.ID, e.Destinations[0].State)
		}
	}
	add(r, "next", "hi")
	select {
	case <-more:
	default:
		t.Error("nobody is told of the next event")
	}

	for i := range 30 {
		settle(r, "next", Retrying, i+1, fmt.Errorf("failure %d %s", i, strings.Repeat("x", 1000)))
	}
	found, _ := r.Find("next")
	got := found[0].Destinations[0]
	if len(got.Attempts) != maxAttempts || !strings.HasPrefix(got.Attempts[0].Error, "failure 0 ") || !strings.HasPrefix(got.Attempts[maxAttempts-1].Error, "failure 29 ") ||
		len(got.Attempts[0].Error) > maxError+10 || got.Tries != 30 {
		t.Errorf("%+v", got)
	}

	add(r, "large", strings.Repeat("x", maxText))
	if found, _ := r.Find("large"); !found[0].Cut || found[0].Event.Body != "" || found[0].Event.From != "a@h" {
		t.Errorf("%+v", found[0])
	}

	whole := strings.Repeat("y", 1<<20)
	r.Add(&Arrival{Event: &event.Event{ID: whole[:32], From: jid.JID(whole[:10]), Body: whole[:100], StanzaID: whole[5:9]}, Came: time.Now()})
	last := r.at(r.last).event
	for _, text := range []string{last.ID, string(last.From), last.Body, last.StanzaID} {
		if from := uintptr(unsafe.Pointer(unsafe.StringData(text))) - uintptr(unsafe.Pointer(unsafe.StringData(whole))); from < 1<<20 {
			t.Errorf("%q keeps a megabyte in memory", text)
		}
	}

	for i := range MaxPassed + 5 {
		r.Pass(Passed{StanzaID: fmt.Sprint("s", i), Why: "so"})
	}
	r.Pass(Passed{Why: "nobody can ask"})
	if _, passed := r.Find("s4"); len(passed) != 0 {
		t.Error("the oldest stanza has not made room")
	}
	if _, passed := r.Find("s5"); len(passed) != 1 || len(r.passed) != MaxPassed {
		t.Errorf("%d of %d", len(passed), len(r.passed))
	}
}

// An event that comes again, as a replayed one, is another one; what is settled is the last.
func TestSameID(t *testing.T) {
	r := New()
	add(r, "e", "1")
	settle(r, "e", Buried, 1, errors.New("no"))
	add(r, "e", "2")
	settle(r, "e", Delivered, 1, nil)
	found, _ := r.Find("e")
	if len(found) != 2 || found[0].Destinations[0].State != Buried || found[1].Destinations[0].State != Delivered {
		t.Errorf("%+v", found)
	}
}

func TestHideTexts(t *testing.T) {
	m := event.Metadata{"copy": "what was said", "n": int64(1)}
	e := Event{Event: event.Event{ID: "e", Body: "what was said", Packet: "<message/>", Metadata: m}}
	e.HideTexts()
	if e.Event.Body+e.Event.Packet != "" || len(e.Event.Metadata) != 1 || e.Event.Metadata["n"] != int64(1) || len(m) != 2 {
		t.Errorf("%+v", e.Event)
	}
}

func TestNobodyRecords(t *testing.T) {
	var r *Recorder
	add(r, "e", "1")
	settle(r, "e", Delivered, 1, nil)
	r.Pass(Passed{StanzaID: "s"})
	if found, passed := r.Find("e"); found != nil || passed != nil || r.Last() != 0 {
		t.Error("found")
	}
}

package event_test

import (
	"slices"
	"testing"

	"eventpusher/event"
)

// TestSelection: each sample is of the sort that it was made for, and of no other one.
func TestSelection(t *testing.T) {
	all, err := event.ParseSelection([]string{"all"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range event.SortNames() {
		s, err := event.ParseSelection([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		of := s.Samples()
		for _, e := range all.Samples() {
			if got, want := s.Has(&e), slices.ContainsFunc(of, func(o event.Event) bool {
				return o.Kind == e.Kind && o.Type == e.Type && o.Direction == e.Direction
			}); got != want {
				t.Errorf("%s has %v %s %v: %t", name, e.Kind, e.Type, e.Direction, got)
			}
		}
		if len(of) == 0 {
			t.Errorf("%s is nothing", name)
		}
	}
	if n := len(all.Samples()); n != 14 {
		t.Errorf("%d sorts", n)
	}
}

func TestSelectionOfNames(t *testing.T) {
	s, err := event.ParseSelection([]string{"chat", "user_status.online"})
	if n := len(s.Samples()); n != 3 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for _, name := range []string{"", "chat.", "ch", "chat.up", "push", "notification", "All"} {
		if _, err := event.ParseSelection([]string{name}); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
	for _, e := range []event.Event{{Kind: event.Push, Type: "chat"}, {Kind: event.Notification}, {}} {
		if s, _ := event.ParseSelection([]string{"all"}); s.Has(&e) {
			t.Errorf("all has %v", e.Kind)
		}
	}
}

package push

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/decide"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

func TestExplain(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "n1", options)
	f.enable(t, "pubsub.example.org", "n2", "")
	f.network.answer = func(jid.JID, string) error { return &Refusal{"cancel", "item-not-found"} }
	online := f.message("online")
	online.RecipientOffline = false
	for _, e := range []event.Event{online, f.message("offline")} {
		if err := f.publish(t, e); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Explain(context.Background(), "bob@example.org")
	if err != nil {
		t.Fatal(err)
	}
	at := f.now.UTC()
	want := Explanation{
		User: "bob@example.org",
		Registrations: []Registered{ // the other one's device was gone
			{Service: "pubsub.example.org", Node: "n2", By: ByGateway},
		},
		Decisions: []Decision{
			{at, "e-online", "online"}, {at, "e-offline", "disabled"}, {at, "e-offline", "pushed"},
		},
	}
	slices.SortFunc(got.Decisions[1:], func(a, b Decision) int { return strings.Compare(a.Outcome, b.Outcome) }) // both at once
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	f.enable(t, "push.example.org", "n1", options)
	got, err = f.Explain(context.Background(), "bob@example.org")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got)
	if err != nil || strings.Contains(string(text), "s'") || !strings.Contains(string(text), `"options":["secret"],"by":"iq"`) {
		t.Errorf("%s, %v", text, err)
	}
	if other, err := f.Explain(context.Background(), "carol@example.org"); err != nil || len(other.Registrations)+len(other.Decisions) != 0 {
		t.Errorf("%+v, %v", other, err)
	}
}

func TestRemove(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		service jid.JID
		node    string
		removed int
		left    []string
		unacked int // pushes for bob's session, whose last node was 2 at b
	}{
		"all":                   {"", "", 3, nil, 0},
		"a service":             {"a.example.org", "", 2, []string{"b.example.org 2"}, 1},
		"a node":                {"b.example.org", "2", 1, []string{"a.example.org 1", "a.example.org 2"}, 0},
		"what is not there":     {"b.example.org", "3", 0, []string{"a.example.org 1", "a.example.org 2", "b.example.org 2"}, 1},
		"a service of somebody": {"c.example.org", "", 0, []string{"a.example.org 1", "a.example.org 2", "b.example.org 2"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, decide.Decider{Plugin: decide.Enhanced, Content: decide.WithBody})
			f.enable(t, "a.example.org", "1", "")
			f.enable(t, "a.example.org", "2", "")
			f.enable(t, "b.example.org", "2", "")
			if n, err := f.Remove(ctx, "bob@example.org", c.service, c.node); n != c.removed || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			if n := f.Counts()[string(byOperator)]; n != uint64(min(c.removed, 1)) {
				t.Errorf("counted %d times", n)
			}
			if diff := cmp.Diff(c.left, f.nodes(t)); diff != "" {
				t.Error(diff)
			}
			e := f.message("u")
			e.Kind, e.Direction, e.RecipientOffline, e.To = event.Unack, event.NoDirection, false, "bob@example.org/phone"
			if err := f.publish(t, e); err != nil || len(f.network.take()) != c.unacked {
				t.Error("the session's device was told wrongly", err)
			}
		})
	}
}

// TestHistory: each user's latest decisions are remembered, in their order.
func TestHistory(t *testing.T) {
	h := newHistory()
	f := newFixture(t, asMongooseIM)
	for i := range 100 {
		h.add("bob@example.org", fmt.Sprint(i), pushed, f.now)
	}
	h.add("bob@example.org", strings.Repeat("x", 99), failed, f.now)
	list := h.list("bob@example.org")
	if len(list) != historyDecisions || list[0].EventID != "85" || list[historyDecisions-1].EventID != strings.Repeat("x", historyID) {
		t.Errorf("%v", list)
	}
	for i := range 10 * historyPlaces {
		h.add(jid.JID(fmt.Sprint(i, "@example.org")), "e", pushed, f.now)
	}
	if n := len(h.list("0@example.org")); n > 1 {
		t.Errorf("%d decisions of a user who has one", n)
	}
	if len(h.list("nobody@example.org")) != 0 {
		t.Error("decisions about nobody")
	}
}

// TestMeanings: every outcome is explained, to who asks and in the documentation.
func TestMeanings(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "push.md"))
	if err != nil {
		t.Fatal(err)
	}
	for o := range meanings {
		if Meaning(string(o)) == "" || !strings.Contains(string(doc), "| `"+string(o)+"` |") {
			t.Errorf("%s is not explained", o)
		}
	}
	f := newFixture(t, asMongooseIM)
	for _, r := range []decide.Reason{decide.NotMessage, decide.WrongType, decide.Online, decide.Unclear, decide.CannotTell, decide.Unacked,
		decide.NoBody, decide.NoStore, decide.OwnMessage, decide.NotOurs, decide.Expired} {
		f.note("bob@example.org", "e", outcome(r)) // panics for one that is not counted
	}
}

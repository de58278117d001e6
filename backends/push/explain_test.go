package push

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

func TestExplain(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "n1", options)
	f.enable(t, "pubsub.example.org", "n2", "")
	f.network.answer = func(jid.JID, string) error { return &xmpp.Refusal{Type: "cancel", Condition: "item-not-found"} }
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
		Decisions: []journal.Decision{
			{Time: at, EventID: "e-online", Outcome: "online", Count: 1},
			{Time: at, EventID: "e-offline", Outcome: "disabled", Service: "push.example.org", Node: "n1", Count: 1},
			{Time: at, EventID: "e-offline", Outcome: "pushed", Service: "pubsub.example.org", Node: "n2", Count: 1},
		},
	}
	slices.SortFunc(got.Decisions[1:], func(a, b journal.Decision) int { return strings.Compare(a.Outcome, b.Outcome) }) // both at once
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

// TestRules: each registration has its own rules, and what they keep back is explained.
func TestRules(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "muted", "<muted xmlns='tigase:push:filter:muted:0'><item jid='alice@example.org'/></muted>")
	f.enable(t, "push.example.org", "not", "")
	if err := f.publish(t, f.message("1")); err != nil {
		t.Fatal(err)
	}
	if got := f.network.take(); len(got) != 1 || !strings.Contains(got[0], "node='not'") {
		t.Errorf("%q", got)
	}
	got, err := f.Explain(context.Background(), "bob@example.org")
	if err != nil {
		t.Fatal(err)
	}
	at := f.now.UTC()
	want := Explanation{
		User: "bob@example.org",
		Registrations: []Registered{
			{Service: "push.example.org", Node: "muted", By: ByIQ, Rules: []string{"muted 1"}},
			{Service: "push.example.org", Node: "not", By: ByIQ},
		},
		Decisions: []journal.Decision{
			{Time: at, EventID: "e-1", Outcome: "muted", Service: "push.example.org", Node: "muted", Count: 1},
			{Time: at, EventID: "e-1", Outcome: "pushed", Service: "push.example.org", Node: "not", Count: 1},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
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
			f := newFixture(t, decide.Decider{Plugin: decide.Enhanced, Content: notify.ContentBody})
			f.enable(t, "a.example.org", "1", "")
			f.enable(t, "a.example.org", "2", "")
			f.enable(t, "b.example.org", "2", "")
			if n, err := f.Remove(ctx, "bob@example.org", c.service, c.node); n != c.removed || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			if n := f.Counts()[string(journal.ByOperator)]; n != uint64(min(c.removed, 1)) {
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

// TestIncomplete: nothing is handed to the gateway for a registration that lacks what it
// needs, and that is said.
func TestIncomplete(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.gateway.needs = "device_id"
	f.enable(t, "pubsub.example.org", "n", "")
	f.enable(t, "push.example.org", "elsewhere", "")
	if err := f.publish(t, f.message("1")); err != nil {
		t.Fatal(err)
	}
	if len(f.gateway.got) != 0 || f.Counts()["incomplete"] != 1 || f.Counts()["refused"] != 0 {
		t.Errorf("%v, %v", f.gateway.got, f.Counts())
	}
	e, err := f.Explain(context.Background(), "bob@example.org")
	if err != nil {
		t.Fatal(err)
	}
	want := []Registered{
		{Service: "pubsub.example.org", Node: "n", By: ByGateway, Lacks: []string{"device_id"}},
		{Service: "push.example.org", Node: "elsewhere", By: ByIQ},
	}
	if diff := cmp.Diff(want, e.Registrations); diff != "" {
		t.Error(diff)
	}
}

// TestDeclined: what the operator's condition withholds, or fails for, is explained too.
func TestDeclined(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	first, second := f.message("withheld"), f.message("failed")
	f.Declined(&first, nil)
	f.Declined(&second, errors.New("int() got a text"))
	var got []string
	for _, d := range f.Decisions("bob@example.org") {
		got = append(got, d.EventID+" "+d.Outcome)
	}
	if diff := cmp.Diff([]string{"e-withheld when", "e-failed when_failed"}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]uint64{"when": 1, "when_failed": 1}, f.Counts()); diff != "" {
		t.Error(diff)
	}
}

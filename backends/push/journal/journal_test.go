package journal

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/decide"
	"eventpusher/internal/jid"
)

// TestHistory: each user's latest decisions are remembered, in their order.
func TestHistory(t *testing.T) {
	h := newHistory()
	now := time.Now().Truncate(time.Microsecond)
	for i := range 100 {
		h.add("bob@example.org", fmt.Sprint(i), Pushed, Target{}, now)
	}
	h.add("bob@example.org", strings.Repeat("x", 99), Failed, Target{}, now)
	list := h.list("bob@example.org")
	if len(list) != historyDecisions || list[0].EventID != "85" || list[historyDecisions-1].EventID != strings.Repeat("x", historyID) {
		t.Errorf("%v", list)
	}
	for i := range 10 * historyPlaces {
		h.add(jid.JID(fmt.Sprint(i, "@example.org")), "e", Pushed, Target{}, now)
	}
	if n := len(h.list("0@example.org")); n > 1 {
		t.Errorf("%d decisions of a user who has one", n)
	}
	if len(h.list("nobody@example.org")) != 0 {
		t.Error("decisions about nobody")
	}
}

// TestHistoryCollapses: what repeats itself takes one place, whatever it repeats.
func TestHistoryCollapses(t *testing.T) {
	h, now := newHistory(), time.Now().Truncate(time.Microsecond)
	phone := Target{"push.example.org", "phone", "message 1"}
	tablet := Target{"push.example.org", strings.Repeat("ä", historyName), "message 1"}
	long := strings.Repeat("e", historyID+1)
	for range 2 * historyDecisions {
		h.add("bob@example.org", "first", Waiting, phone, now)
	}
	for _, step := range []struct {
		id string
		o  Outcome
		of Target
	}{
		{"first", Pushed, tablet},
		{"first", Duplicate, tablet}, // it is tried again because of the phone
		{"second", Duplicate, tablet},
		{"second", Duplicate, phone}, // not told yet, as far as is known here
		{"third", Outcome(decide.Online), Target{}},
		{"third", Duplicate, Target{}},
		{"first", Waiting, phone},
		{long, Outcome(decide.Online), Target{}},
		{long, Outcome(decide.Online), Target{}},
	} {
		now = now.Add(time.Second)
		h.add("bob@example.org", step.id, step.o, step.of, now)
	}
	got := h.list("bob@example.org")
	for i := range got {
		got[i].Time = time.Time{}
	}
	want := []Decision{
		{EventID: "first", Outcome: "pushed", Service: "push.example.org", Node: strings.Repeat("ä", historyName/2), Count: 1},
		{EventID: "second", Outcome: "duplicate", Service: "push.example.org", Node: "phone", Count: 1},
		{EventID: "third", Outcome: "online", Count: 1},
		{EventID: "third", Outcome: "duplicate", Count: 1},
		{EventID: "first", Outcome: "waiting", Service: "push.example.org", Node: "phone", Count: 2*historyDecisions + 1},
		{EventID: long[1:], Outcome: "online", Count: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if last := h.list("bob@example.org")[len(want)-1].Time; !last.Equal(now) {
		t.Errorf("the latest time is %v", last)
	}
}

// TestClip: what users choose is kept in whole characters.
func TestClip(t *testing.T) {
	for _, c := range []struct{ s, want string }{{"", ""}, {"abc", "abc"}, {"abcd", "abc"}, {"aäöü", "aä"}, {"ab€", "ab"}, {"\x80\x80\x80\x80", ""}} {
		if got := clip(c.s, 3); got != c.want {
			t.Errorf("%q: %q instead of %q", c.s, got, c.want)
		}
	}
}

// TestMeanings: every outcome is explained, to who asks and in the documentation.
func TestMeanings(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "push.md"))
	if err != nil {
		t.Fatal(err)
	}
	for o := range meanings {
		if Meaning(string(o)) == "" || !strings.Contains(string(doc), "| `"+string(o)+"` |") {
			t.Errorf("%s is not explained", o)
		}
	}
	j := New(slog.New(slog.DiscardHandler), time.Now)
	for _, r := range []decide.Reason{decide.NotMessage, decide.WrongType, decide.Online, decide.Unclear, decide.CannotTell, decide.Unacked,
		decide.NoBody, decide.NoStore, decide.OwnMessage, decide.NotOurs, decide.Expired} {
		j.Note("bob@example.org", "e", Outcome(r)) // panics for one that is not counted
	}
}

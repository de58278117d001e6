package pusher_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

// decliner is a backend that accounts for what is withheld from it.
type decliner struct {
	*fakeBackend
	mu  sync.Mutex
	ids []string
}

func (d *decliner) Declined(e *event.Event, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := e.ID
	if err != nil {
		id += " failed"
	}
	d.ids = append(d.ids, id)
}

func condition(t *testing.T, src string) *pusher.Condition {
	t.Helper()
	c, problems := pusher.CompileCondition("x.when", src)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return c
}

func TestCondition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		some := &decliner{fakeBackend: &fakeBackend{name: "some", wants: func(e *event.Event) bool { return e.Kind != event.UserStatus }}}
		all := &fakeBackend{name: "all"}
		reg := prometheus.NewRegistry()
		metrics := pusher.NewMetrics(reg)
		chain, err := pusher.NewChain(compile(t, config.Filter{Name: "f", Metadata: map[string]string{"quiet": `event.body == "hush"`}}), metrics, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, pusher.Options{
			Chain: chain, Metrics: metrics, Backends: []backends.Backend{some, all},
			Conditions: map[string]*pusher.Condition{"some": condition(t, `event.kind == "chat" and not metadata.quiet`)},
		})
		p.Push([]event.Event{
			chat("hello"), chat("hush"), status(true, 1),
			{ID: "notification", Kind: event.Notification, User: "bob@example.org", Body: "hi"},
			{ID: "stored", Kind: event.Stored, User: "bob@example.org", Body: "hi"},
			{ID: "gone", Kind: event.Removed, User: "bob@example.org"},
		})
		if err := p.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{chat("hello").ID, "notification", "gone"}, some.fakeBackend.ids()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{chat("hush").ID, "stored"}, some.ids); diff != "" {
			t.Errorf("declined: %s", diff)
		}
		if n := all.count(); n != 6 {
			t.Errorf("the backend without a condition got %d of 6", n)
		}
		for outcome, want := range map[string]float64{"keep": 1, "drop": 2} {
			if got := value(t, reg, "eventpusher_when_events_total{backend=some,outcome="+outcome+"}"); got != want {
				t.Errorf("%s: %v, want %v", outcome, got, want)
			}
		}
	})
}

// TestConditionFails wants an event whose condition fails among the dead letters of
// its backend, with the log silent about its content, and back by a replay.
func TestConditionFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		letterbox := outbox.NewRing(10)
		b := &decliner{fakeBackend: &fakeBackend{name: "b"}}
		reg := prometheus.NewRegistry()
		p := start(t, pusher.Options{
			Backends: []backends.Backend{b}, DeadLetters: letterbox, Metrics: pusher.NewMetrics(reg), Log: slog.New(slog.NewTextHandler(&logged, nil)),
			Conditions: map[string]*pusher.Condition{"b": condition(t, `int(event.body) > 1`)},
		})
		p.Push([]event.Event{chat("private"), chat("2"), chat("1"), chat("private too")})
		synctest.Wait()
		dead := letters(t, letterbox)
		if len(dead) != 2 || dead[0].Backend != "b" || dead[0].Reason != "when" || dead[0].Event.Body != "private" {
			t.Fatalf("dead letters %+v", dead)
		}
		if diff := cmp.Diff([]string{chat("private").ID + " failed", chat("1").ID, chat("private too").ID + " failed"}, b.ids); diff != "" {
			t.Errorf("declined: %s", diff)
		}
		if n := strings.Count(logged.String(), "condition of the backend fails"); n != 1 || strings.Contains(logged.String()+dead[0].Err, "private") {
			t.Errorf("%d lines, error %q:\n%s", n, dead[0].Err, &logged)
		}
		if got := value(t, reg, "eventpusher_dead_letters_total{backend=b,reason=when}"); got != 2 {
			t.Errorf("%v counted", got)
		}
		if s := p.Status().Backends[0]; s.DeadLetters != 2 {
			t.Errorf("status %+v", s)
		}
		if n, err := p.Replay(outbox.LetterFilter{Backend: "b"}); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		if err := p.Drain(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := b.count(); n != 3 {
			t.Errorf("%d delivered, want what the condition keeps and what was replayed", n)
		}
	})
}

func TestProblemsOfConditions(t *testing.T) {
	for _, tc := range []struct{ src, text string }{
		{`event.bdy == "x"`, "event.bdy"},
		{`event.body`, "true or false"},
		{`event.kind == "presence"`, "is never"},
		{`event.body ==`, ""},
	} {
		c, problems := pusher.CompileCondition("modules.mod_event_pusher.push.when", tc.src)
		if c != nil || len(problems) != 1 || problems[0].Path != "modules.mod_event_pusher.push.when" || !strings.Contains(problems[0].Text, tc.text) {
			t.Errorf("%s: %v", tc.src, problems)
		}
	}
}

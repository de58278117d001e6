package pusher_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
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

func condition(t *testing.T, src string) *filter.Condition {
	t.Helper()
	c, problems := filter.CompileCondition("x.when", src)
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
		chain, err := filter.NewChain(compile(t, config.Filter{Name: "f", Metadata: map[string]string{"quiet": `event.body == "hush"`}}), metrics.Filters(), nil)
		if err != nil {
			t.Fatal(err)
		}
		p := start(t, pusher.Options{
			Chain: chain, Metrics: metrics, Backends: []backends.Backend{some, all},
			Conditions: map[string]*filter.Condition{"some": condition(t, `event.kind == "chat" and not metadata.quiet`)},
		})
		p.Push([]event.Event{
			chat("hello"), chat("hush"), status(true, 1),
			{ID: "notification", Kind: event.Notification, User: "bob@example.org", Body: "hi"},
			{ID: "stored", Kind: event.Stored, User: "bob@example.org", Body: "hi"},
			{ID: "gone", Kind: event.Removed, User: "bob@example.org"},
		})
		pass(time.Second)
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
		box, _, _ := openOutbox(t, t.TempDir())
		b := &decliner{fakeBackend: &fakeBackend{name: "b"}}
		reg := prometheus.NewRegistry()
		p := start(t, pusher.Options{
			Backends: []backends.Backend{b}, Outbox: box, Metrics: pusher.NewMetrics(reg), Log: slog.New(slog.NewTextHandler(&logged, nil)),
			Conditions: map[string]*filter.Condition{"b": condition(t, `int(event.body) > 1`)},
		})
		p.Push([]event.Event{chat("private"), chat("2"), chat("1"), chat("private too")})
		pass(time.Second)
		dead := letters(t, box.DeadLetters())
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
		if n, err := p.Replay(t.Context(), outbox.LetterFilter{Backend: "b"}); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		pass(time.Second)
		if n := b.count(); n != 3 {
			t.Errorf("%d delivered, want what the condition keeps and what was replayed", n)
		}
	})
}

// TestNoFilterForAccounts: whatever filters hold back, the end of an account reaches
// who has to forget it, as it is.
func TestNoFilterForAccounts(t *testing.T) {
	gone := event.Event{ID: "0123456789abcdef0123456789abcdef", Kind: event.Removed, From: "alice@localhost", User: "alice@localhost", Time: when}
	for name, cfg := range map[string]config.Filter{
		"keeps only chat":  {Name: "f", Keep: `event.kind == "chat"`},
		"keeps nothing":    {Name: "f", Keep: `false`},
		"fails":            {Name: "f", Keep: `split(event.body, " ")[7] == ""`},
		"adds metadata":    {Name: "f", Metadata: map[string]string{"k": "'v'"}},
		"names other user": {Name: "f", Keep: `event.user != "alice@localhost"`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Priority = 10
			synctest.Test(t, func(t *testing.T) {
				chain, err := filter.NewChain(compile(t, cfg), filter.Metrics{}, nil)
				if err != nil {
					t.Fatal(err)
				}
				b := &fakeBackend{name: "b"}
				p := start(t, pusher.Options{Chain: chain, Backends: one(b)})
				p.Push([]event.Event{gone})
				if name != "adds metadata" {
					p.Push([]event.Event{status(true, 1)})
				}
				pass(time.Second)
				if got := b.delivered(); len(got) != 1 || got[0].ID != gone.ID || len(got[0].Metadata) != 0 {
					t.Errorf("delivered %+v", got)
				}
			})
		})
	}
}

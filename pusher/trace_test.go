package pusher_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

// What a trace says of an event is what has happened to it.
func TestTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := map[string][]error{
			"late": {errors.New("busy"), nil},
			"bad":  {backends.Permanent(errors.New("no such thing"))},
		}
		crm := &fakeBackend{name: "crm", publish: func(_ context.Context, batch []event.Event) []error {
			errs := make([]error, len(batch))
			for i, e := range batch {
				if list := failures[e.ID]; len(list) > 0 {
					errs[i], failures[e.ID] = list[0], list[1:]
				}
			}
			return errs
		}}
		picky := &fakeBackend{name: "picky", wants: func(e *event.Event) bool { return e.Kind == event.Chat }}
		chain, err := filter.NewChain(compile(t,
			config.Filter{Name: "first", Keep: `event.body != "secret"`},
			config.Filter{Name: "second", Metadata: map[string]string{"half": `event.body == "odd" ? split(event.body, ":")[1] : "none"`}},
		), filter.Metrics{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := trace.New()
		p := start(t, pusher.Options{
			Chain: chain, Trace: r, Backends: []backends.Backend{crm, picky},
			Conditions: map[string]*filter.Condition{"picky": condition(t, `event.body != "hush" and (event.body != "breaks" or split(event.body, ":")[1] == "x")`)},
		})
		for id, body := range map[string]string{"plain": "hello", "held": "secret", "broken": "odd", "quiet": "hush", "late": "hi", "bad": "ho", "breaks": "breaks"} {
			e := of(id+"@example.org", id)
			e.Body, e.HasBody = body, true
			p.Push([]event.Event{e})
		}
		p.Push([]event.Event{{ID: "offline", Kind: event.UserStatus, Type: "offline", User: "a@example.org", From: "a@example.org/x"}})
		p.Bury([]outbox.DeadLetter{{Event: &event.Event{ID: "unread", Packet: "<message"}, Reason: outbox.ReasonUndecodable, Err: "it ends early", Accepted: time.Now(), Died: time.Now()}})
		pass(time.Hour)

		failed := func(text string) []trace.Attempt { return []trace.Attempt{{Error: text}} }
		both := []string{"first", "second"}
		for id, want := range map[string]trace.Event{
			"plain":   {Fate: trace.Kept, Filters: both, Destinations: []trace.Delivery{{Destination: "crm", State: trace.Delivered, Tries: 1}, {Destination: "picky", State: trace.Delivered, Tries: 1}}},
			"held":    {Fate: trace.Dropped, Filters: both, By: "first"},
			"broken":  {Fate: trace.Dead, Filters: both, By: "second", Error: "an index is beyond the end of a list"},
			"quiet":   {Fate: trace.Kept, Filters: both, Destinations: []trace.Delivery{{Destination: "crm", State: trace.Delivered, Tries: 1}, {Destination: "picky", State: trace.Declined}}},
			"breaks":  {Fate: trace.Kept, Filters: both, Destinations: []trace.Delivery{{Destination: "crm", State: trace.Delivered, Tries: 1}, {Destination: "picky", State: trace.WhenFailed, Attempts: failed("an index is beyond the end of a list")}}},
			"late":    {Fate: trace.Kept, Filters: both, Destinations: []trace.Delivery{{Destination: "crm", State: trace.Delivered, Tries: 2, Attempts: failed("busy")}, {Destination: "picky", State: trace.Delivered, Tries: 1}}},
			"bad":     {Fate: trace.Kept, Filters: both, Destinations: []trace.Delivery{{Destination: "crm", State: trace.Buried, Tries: 1, Attempts: failed("no such thing")}, {Destination: "picky", State: trace.Delivered, Tries: 1}}},
			"offline": {Fate: trace.Kept, Filters: both, Destinations: []trace.Delivery{{Destination: "crm", State: trace.Delivered, Tries: 1}}},
			"unread":  {Fate: trace.Dead, Error: "it ends early"},
		} {
			events, _ := r.Find(id)
			if len(events) != 1 {
				t.Errorf("%s: %d events", id, len(events))
				continue
			}
			within := cmp.Comparer(func(a, b string) bool {
				return a == b || a != "" && b != "" && (strings.Contains(a, b) || strings.Contains(b, a))
			})
			if diff := cmp.Diff(want, events[0], within, cmpopts.EquateEmpty(), cmpopts.IgnoreTypes(time.Time{}, event.Event{}, uint64(0))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", id, diff)
			}
		}
	})
}

// What the outbox never takes is not said to be kept.
func TestTraceOfWhatIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := trace.New()
		p := start(t, pusher.Options{Trace: r, Backends: []backends.Backend{&fakeBackend{name: "crm"}}})
		p.Drain(t.Context())
		if p.PushFeed([]event.Event{of("a@example.org", "late")}, outbox.Position{Source: "s", Epoch: "e", Seq: 1}) {
			t.Error("taken after the end")
		}
		if events, _ := r.Find("late"); len(events) != 0 {
			t.Errorf("%+v", events)
		}
	})
}

// What waits is known after a restart, although nothing is remembered.
func TestExplainAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		run := func() (*pusher.Pusher, func()) {
			box, _, stop := openOutbox(t, dir)
			b := &fakeBackend{name: "crm", publish: func(_ context.Context, batch []event.Event) []error {
				errs := make([]error, len(batch))
				for i, e := range batch {
					if e.ID != "fine" {
						errs[i] = errors.New("busy")
					}
				}
				return errs
			}}
			p := start(t, pusher.Options{Backends: []backends.Backend{b}, Outbox: box, Trace: trace.New()})
			return p, func() {
				p.Drain(t.Context())
				stop()
			}
		}
		p, stop := run()
		bad, good := of("peer@example.org", "bad"), of("other@example.org", "fine")
		bad.StanzaID = "s1"
		p.Push([]event.Event{bad, good})
		pass(time.Second)
		stop()

		p, stop = run()
		pass(time.Second)
		for _, id := range []string{"bad", "s1"} {
			x, err := p.Explain(id)
			if err != nil || len(x.Events) != 1 || x.Events[0].Event.ID != "bad" || len(x.Events[0].Destinations) != 1 || x.Events[0].Destinations[0].State != trace.Parked {
				t.Errorf("%s: %+v %v", id, x.Events, err)
			}
		}
		if x, err := p.Explain("fine"); err != nil || len(x.Events) != 0 {
			t.Errorf("%+v %v", x.Events, err)
		}
		stop()
	})
}

// An event that a full outbox has given up is not said to wait.
func TestExplainWhatWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: t.TempDir(), MaxSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		down := &fakeBackend{name: "down", publish: func(_ context.Context, batch []event.Event) []error { return every(len(batch), errDown) }}
		works := &fakeBackend{name: "works"}
		p := start(t, pusher.Options{Backends: []backends.Backend{down, works}, Outbox: box, Trace: trace.New()})
		for n := range 600 {
			e := of(fmt.Sprintf("peer%d@example.org", n), fmt.Sprintf("%032x", n))
			e.Packet = strings.Repeat("x", 4<<10)
			p.Push([]event.Event{e})
			pass(100 * time.Millisecond)
		}
		pass(10 * time.Second)
		if p.Status().Backends[0].Shed == 0 {
			t.Fatal("nothing was given up")
		}
		states := func(n int) map[string]trace.State {
			x, err := p.Explain(fmt.Sprintf("%032x", n))
			if err != nil || len(x.Events) != 1 {
				t.Fatalf("%d: %+v %v", n, x, err)
			}
			all := make(map[string]trace.State)
			for _, d := range x.Events[0].Destinations {
				all[d.Destination] = d.State
			}
			return all
		}
		if got := states(20); got["down"] != trace.GivenUp || got["works"] != trace.Delivered {
			t.Errorf("an early event: %v", got)
		}
		if got := states(599); got["down"] != trace.Waiting && got["down"] != trace.Retrying || got["works"] != trace.Delivered {
			t.Errorf("the last event: %v", got)
		}
		p.Drain(t.Context())
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
}

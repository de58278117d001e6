package pusher_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

var errDown = errors.New("connection refused")

// failing returns a publish function that fails events of the peers in the set.
func failing(err error, peers ...string) func(context.Context, []event.Event) []error {
	return func(_ context.Context, batch []event.Event) []error {
		errs := make([]error, len(batch))
		for i := range batch {
			for _, p := range peers {
				if string(batch[i].To) == p+"@localhost" {
					errs[i] = err
				}
			}
		}
		return errs
	}
}

func one(b backends.Backend) []backends.Backend { return []backends.Backend{b} }

func TestRetrySchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{name: "b", publish: failing(errDown, "bob"), limits: backends.Limits{
			Lanes: 2, Batch: 4, QuickRetries: 2, QuickDelay: func(n int) time.Duration { return time.Duration(n) * 7 * time.Millisecond },
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		p.Push([]event.Event{of("bob", "poison"), of("bob", "behind"), of("carol", "free")})
		pass(20 * time.Minute)
		if diff := cmp.Diff([]string{"free"}, b.ids()); diff != "" {
			t.Error(diff)
		}
		pauses := b.pauses("poison")
		if diff := cmp.Diff([]time.Duration{7 * time.Millisecond, 14 * time.Millisecond}, pauses[:2]); diff != "" {
			t.Errorf("quick retries: %s", diff)
		}
		ceiling := 100 * time.Millisecond
		var longest time.Duration
		for i, pause := range pauses[2:] {
			if pause < 0 || pause >= ceiling {
				t.Errorf("pause %d is %v, want less than %v", i+3, pause, ceiling)
			}
			longest = max(longest, pause)
			ceiling = min(2*ceiling, 30*time.Second)
		}
		if len(pauses) < 40 || longest < 15*time.Second {
			t.Errorf("%d pauses, the longest %v: the schedule does not reach its cap", len(pauses), longest)
		}
		if s := p.Status().Backends[0]; s.Waiting != 2 || s.Failed != uint64(len(pauses)+1) || s.LastError != errDown.Error() || s.State != pusher.Closed {
			t.Errorf("status %+v", s)
		}
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	for asked, granted := range map[time.Duration]time.Duration{45 * time.Second: 45 * time.Second, 24 * time.Hour: retryLongest} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int32
			b := &fakeBackend{name: "b", publish: func(_ context.Context, batch []event.Event) []error {
				if calls.Add(1) == 1 {
					return every(len(batch), backends.RetryAfter(asked, errDown))
				}
				return make([]error, len(batch))
			}}
			p := start(t, pusher.Options{Backends: one(b)})
			p.Push([]event.Event{of("bob", "1")})
			pass(granted + time.Minute)
			if got := b.pauses("1"); len(got) != 1 || got[0] < granted || got[0] > granted+granted/40 {
				t.Errorf("asked for %v, pauses %v, want %v", asked, got, granted)
			}
		})
	}
}

// retryLongest is the longest pause that a service is granted, as docs/operations.md says.
const retryLongest = time.Hour

// TestWaitingConcernsOneEvent: what waits for itself says nothing about the service, is
// not tried before its time, and delays no other.
func TestWaitingConcernsOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 4, Batch: 4}, publish: func(_ context.Context, batch []event.Event) []error {
			errs := make([]error, len(batch))
			for i := range batch {
				if strings.HasPrefix(batch[i].ID, "w") && time.Since(began) < 20*time.Second {
					errs[i] = backends.Wait(20*time.Second-time.Since(began), errDown)
				}
			}
			return errs
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		var events []event.Event
		for i := range 40 { // many keys and calls, as opens the breaker
			events = append(events, of(fmt.Sprint("waiting", i), fmt.Sprint("w", i)))
		}
		p.Push(events)
		synctest.Wait()
		p.Push([]event.Event{of("bob", "1")})
		synctest.Wait()
		if got := b.delivered(); len(got) != 1 || got[0].ID != "1" || time.Since(began) > time.Second {
			t.Errorf("delivered %d after %v, want the one that does not wait at once", len(got), time.Since(began))
		}
		pass(time.Minute)
		if n := b.count(); n != 41 {
			t.Errorf("delivered %d, want 41", n)
		}
		for i := range 40 {
			if got := b.pauses(fmt.Sprint("w", i)); len(got) != 1 || got[0] < 20*time.Second-time.Millisecond {
				t.Errorf("pauses %v, want one of 20 s", got)
			}
		}
	})
}

func TestFinalErrorsGoToTheDeadLetters(t *testing.T) {
	for _, tc := range []struct {
		reason string
		err    error
	}{
		{"permanent", backends.Permanent(errors.New("no such exchange"))},
		{"too_large", fmt.Errorf("sns: %w", backends.ErrTooLarge)},
		{"gone", fmt.Errorf("push: %w", backends.ErrGone)},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reg := prometheus.NewRegistry()
				box, _, _ := openOutbox(t, t.TempDir())
				b := &fakeBackend{name: "b", publish: failing(tc.err, "bob"), limits: backends.Limits{Batch: 10}}
				p := start(t, pusher.Options{Backends: one(b), Outbox: box, Metrics: pusher.NewMetrics(reg)})
				p.Push([]event.Event{of("bob", "1"), of("carol", "2"), of("bob", "3")})
				pass(time.Second)
				var got []string
				for _, d := range letters(t, box.DeadLetters()) {
					got = append(got, fmt.Sprintf("%s %s %s %s %d", d.Event.ID, d.Backend, d.Reason, d.Err, d.Attempts))
				}
				want := []string{"1 b " + tc.reason + " " + tc.err.Error() + " 1", "3 b " + tc.reason + " " + tc.err.Error() + " 1"}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				for name, want := range map[string]float64{
					"eventpusher_dead_letters_total{backend=b,reason=" + tc.reason + "}":      2,
					"eventpusher_delivery_failures_total{backend=b,reason=" + tc.reason + "}": 2,
					"eventpusher_deliveries_total{backend=b}":                                 1,
					"eventpusher_delivery_seconds{backend=b}_count":                           1,
					"eventpusher_waiting_events{backend=b}":                                   0,
				} {
					if got := value(t, reg, name); got != want {
						t.Errorf("%s = %v, want %v", name, got, want)
					}
				}
			})
		})
	}
}

// TestOneUserPausesNobody: what two users write, to any number of others and in any number
// of rooms, is refused, as by a firewall that takes their words for an attack. The backend
// goes on for the others, and keeps what was refused.
func TestOneUserPausesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 4, Batch: 1}, publish: func(_ context.Context, batch []event.Event) []error {
			if batch[0].Body == "attack" {
				return every(len(batch), backends.Refused(errors.New("answered 403 Forbidden")))
			}
			return make([]error, len(batch))
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		push := func(e event.Event) {
			e.Body = "attack"
			p.Push([]event.Event{e})
		}
		for i := range 40 {
			e := by("mallory", fmt.Sprint("m", i))
			e.To = jid.JID(fmt.Sprintf("user%d@localhost", i))
			push(e)
			room := by("mallory", fmt.Sprint("r", i))
			room.Type, room.Direction, room.Room, room.To = "groupchat", event.Out, jid.JID(fmt.Sprintf("room%d@muc.localhost", i)), "bob@localhost/desk"
			room.From = room.Room + "/m"
			push(room)
		}
		pass(time.Minute)
		if s := p.Status().Backends[0]; s.State != pusher.Closed || s.Waiting != 80 || s.DeadLetters != 0 || !strings.Contains(s.LastError, "403") {
			t.Errorf("%+v", s)
		}
		p.Push([]event.Event{by("alice", "a")})
		pass(time.Second)
		if n := b.count(); n != 1 {
			t.Errorf("%d delivered of a user whose events nobody refuses", n)
		}
		for _, user := range []string{"bob", "carol"} { // now it refuses everybody
			push(by(user, user))
		}
		pass(time.Minute)
		if s := p.Status().Backends[0]; s.State != pusher.Paused {
			t.Errorf("%+v", s)
		}
	})
}

// TestRefusedLoginPauses: what is about no event pauses the backend even if one user alone
// writes.
func TestRefusedLoginPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 1, Batch: 1}, publish: func(_ context.Context, batch []event.Event) []error {
			return every(len(batch), backends.Paused(errors.New("login refused")))
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		p.Push([]event.Event{by("alice", "a")})
		pass(time.Minute)
		if s := p.Status().Backends[0]; s.State != pusher.Paused {
			t.Errorf("%+v", s)
		}
	})
}

func TestPausedBackend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		var fixed atomic.Bool
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 4, Batch: 1}, publish: func(_ context.Context, batch []event.Event) []error {
			if fixed.Load() {
				return make([]error, len(batch))
			}
			return every(len(batch), backends.Paused(errors.New("invalid credentials")))
		}}
		reg := prometheus.NewRegistry()
		p := start(t, pusher.Options{Backends: one(b), Metrics: pusher.NewMetrics(reg), Log: slog.New(slog.NewTextHandler(&logged, nil))})
		for i := range 50 {
			p.Push([]event.Event{by(fmt.Sprintf("user%d", i), fmt.Sprint(i))})
		}
		pass(10 * time.Minute)
		tried := b.tried()
		var pauses []time.Duration
		last := time.Duration(0)
		for _, a := range tried {
			if a.At > 0 {
				pauses = append(pauses, a.At-last)
			}
			last = a.At
		}
		seconds := func(n ...time.Duration) (out []time.Duration) {
			for _, s := range n {
				out = append(out, s*time.Second)
			}
			return out
		}
		if diff := cmp.Diff(seconds(1, 2, 4, 8, 16, 32, 60, 60), pauses[:8]); diff != "" {
			t.Errorf("probes: %s", diff)
		}
		if n := strings.Count(logged.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d error lines, want 1:\n%s", n, &logged)
		}
		if s := p.Status().Backends[0]; s.State != pusher.Paused || s.Waiting != 50 || s.DeadLetters != 0 {
			t.Errorf("status %+v", s)
		}
		if got := value(t, reg, "eventpusher_breaker_state{backend=b}"); got != 3 {
			t.Errorf("breaker_state %v, want 3", got)
		}

		fixed.Store(true)
		pass(61 * time.Second)
		if n := b.count(); n != 50 {
			t.Errorf("%d delivered after the credentials were corrected, want 50", n)
		}
		if s := p.Status().Backends[0]; s.State != pusher.Closed {
			t.Errorf("state %v", s.State)
		}
	})
}

// TestOneRefusedConversationPausesNothing: a service that refuses one event for
// what is in it, as web application firewalls do, takes the others as ever.
func TestOneRefusedConversationPausesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := failing(backends.Paused(errors.New("403 Forbidden")), "bob")
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 2, Batch: 1}, publish: refuse}
		p := start(t, pusher.Options{Backends: one(b)})
		p.Push([]event.Event{of("bob", "refused")})
		for i := range 200 {
			p.Push([]event.Event{of(fmt.Sprintf("peer%d", i%7), fmt.Sprint(i))})
			pass(10 * time.Millisecond)
			if n := len(b.ids()); n < i {
				t.Fatalf("%d delivered of %d", n, i+1)
			}
		}
		if s := p.Status().Backends[0]; s.State != pusher.Closed || s.Delivered != 200 || s.Failed < 3 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 8, Batch: 1}, publish: func(_ context.Context, batch []event.Event) []error {
			if down.Load() {
				return every(len(batch), errDown)
			}
			return make([]error, len(batch))
		}}
		reg := prometheus.NewRegistry()
		p := start(t, pusher.Options{Backends: one(b), Metrics: pusher.NewMetrics(reg)})
		for i := range 1000 {
			p.Push([]event.Event{of(fmt.Sprintf("peer%d", i%200), fmt.Sprint(i))})
		}
		pass(time.Hour)
		// 8 calls on their way when it opens, a few that were first; then one probe a second.
		if n := len(b.tried()); n > 3600+20 || n < 3500 {
			t.Errorf("%d calls in an hour of outage, want one a second", n)
		}
		if s := p.Status().Backends[0]; s.State != pusher.Open || s.Waiting+s.InFlight != 1000 {
			t.Errorf("status %+v", s)
		}
		if got := value(t, reg, "eventpusher_breaker_state{backend=b}"); got != 2 {
			t.Errorf("breaker_state %v, want 2", got)
		}
		down.Store(false)
		pass(1001 * time.Millisecond)
		if n := b.count(); n != 1000 {
			t.Errorf("%d delivered a second after the service came back, want all 1000", n)
		}
		if got := value(t, reg, "eventpusher_breaker_state{backend=b}"); got != 0 {
			t.Errorf("breaker_state %v, want 0", got)
		}
	})
}

func TestOneConversationDoesNotOpenTheBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 2, Batch: 2}, publish: failing(errDown, "bob", "carol")}
		p := start(t, pusher.Options{Backends: one(b)})
		p.Push([]event.Event{of("bob", "x"), of("carol", "y")})
		for range 100 {
			pass(time.Second)
			if s := p.Status().Backends[0].State; s != pusher.Closed {
				t.Fatalf("state %v", s)
			}
		}
	})
}

func TestRetriesDoNotWaitOnceTheServiceIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 4}, publish: func(_ context.Context, batch []event.Event) []error {
			if down.Load() {
				return every(len(batch), errDown)
			}
			return make([]error, len(batch))
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		// One conversation alone is no outage: its pauses grow up to half a minute.
		p.Push([]event.Event{of("bob", "first")})
		pass(10 * time.Minute)
		for n := len(b.tried()); len(b.tried()) == n; {
			time.Sleep(time.Millisecond) // a pause has just begun
		}
		for i := range 5 {
			p.Push([]event.Event{of(fmt.Sprint("peer", i), fmt.Sprint(i))})
		}
		synctest.Wait()
		for p.Status().Backends[0].State == pusher.Closed {
			time.Sleep(time.Millisecond)
		}
		down.Store(false)
		pass(1010 * time.Millisecond)
		if n := b.count(); n != 6 {
			t.Errorf("%d of 6 delivered a second after the service came back", n)
		}
	})
}

// TestNoWakeUpIsLost pushes each event at the moment in which the lanes go idle.
// A lost wake-up leaves everything blocked, which synctest reports.
func TestNoWakeUpIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arrived := make(chan string)
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 3, Batch: 2}, publish: func(_ context.Context, batch []event.Event) []error {
			for i := range batch {
				arrived <- batch[i].ID
			}
			return make([]error, len(batch))
		}}
		p := start(t, pusher.Options{Backends: one(b), MaxAge: -1})
		for i := range 5000 {
			id := fmt.Sprint(i)
			p.Push([]event.Event{of(fmt.Sprint("peer", i%2), id)})
			if got := <-arrived; got != id {
				t.Fatalf("got %s, want %s", got, id)
			}
		}
	})
}

func TestLanesWorkInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 8, Batch: 2}, publish: func(_ context.Context, batch []event.Event) []error {
			time.Sleep(time.Second)
			return make([]error, len(batch))
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		synctest.Wait()
		var pack []event.Event
		for i := range 16 {
			pack = append(pack, of(fmt.Sprint("peer", i), fmt.Sprint(i)))
		}
		p.Push(pack)
		pass(time.Second)
		if n := b.count(); n != 16 {
			t.Errorf("%d of 16 delivered in the time of one call", n)
		}
	})
}

// TestPoisonedConversationsStarveNobody has more bad conversations than it takes
// to open the breaker, and hardly any good traffic to close it.
func TestPoisonedConversationsStarveNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 2, Batch: 2}, publish: failing(errDown, "p0", "p1", "p2", "p3", "p4")}
		p := start(t, pusher.Options{Backends: one(b), Log: slog.New(slog.NewTextHandler(&logged, nil))})
		for i := range 5 {
			p.Push([]event.Event{of(fmt.Sprint("p", i), fmt.Sprint("poison", i))})
		}
		pass(time.Minute)
		opened := false
		for i := range 60 {
			opened = opened || p.Status().Backends[0].State != pusher.Closed
			p.Push([]event.Event{of("carol", fmt.Sprint(i))})
			pass(10 * time.Second)
			if n := b.count(); n != i+1 {
				t.Fatalf("%d of %d delivered after 10 s", n, i+1)
			}
		}
		if !opened {
			t.Error("the breaker never opened, so the test shows nothing")
		}
		if n := strings.Count(logged.String(), "the service is down"); n > 12 {
			t.Errorf("%d lines about the same trouble in 11 minutes", n)
		}
	})
}

func TestFailuresWhileOpenDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 1, Batch: 8}, publish: func(_ context.Context, batch []event.Event) []error {
			if down.Load() {
				return every(len(batch), errDown)
			}
			errs := make([]error, len(batch))
			for i := range batch {
				if batch[i].ID == "0" {
					errs[i] = backends.Permanent(errors.New("no"))
				}
			}
			return errs
		}}
		box, _, _ := openOutbox(t, t.TempDir())
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		for i := range 8 {
			p.Push([]event.Event{of(fmt.Sprintf("peer%d", i), fmt.Sprint(i))})
		}
		pass(time.Hour)
		down.Store(false)
		pass(2 * time.Second)
		dead := letters(t, box.DeadLetters())
		if len(dead) != 1 || dead[0].Attempts > 7 {
			t.Errorf("dead letters %+v, want one with the few attempts that opened the breaker", dead)
		}
	})
}

// TestOrderPerKey delivers random events with random failures and checks that
// each key arrives in order, and that no key is in two calls at once.
func TestOrderPerKey(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				var mu sync.Mutex
				roll := func(n int) int {
					mu.Lock()
					defer mu.Unlock()
					return rng.IntN(n)
				}
				chance := func(percent int) bool { return roll(100) < percent }
				busy := make(map[string]bool)
				b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 1 + int(seed%7), Batch: 1 + int(seed%5)}}
				b.publish = func(ctx context.Context, batch []event.Event) []error {
					mu.Lock()
					for i := range batch {
						if k := batch[i].Key(); busy[k] {
							t.Errorf("key %q has two unsettled events", k)
						} else {
							busy[k] = true
						}
					}
					mu.Unlock()
					time.Sleep(time.Millisecond)
					errs := make([]error, len(batch))
					for i := range errs {
						switch {
						case chance(5):
							errs[i] = backends.RetryAfter(time.Second, errDown)
						case chance(15):
							errs[i] = errDown
						}
					}
					mu.Lock()
					for i := range batch {
						delete(busy, batch[i].Key())
					}
					mu.Unlock()
					switch {
					case chance(1):
						panic("at random")
					case chance(1):
						return errs[:len(errs)-1]
					case chance(1):
						return every(len(errs), backends.Paused(errDown))
					}
					return errs
				}
				p := start(t, pusher.Options{Backends: one(b)})
				want := make(map[string][]string)
				for n := range 400 {
					peer := fmt.Sprintf("peer%d", roll(12))
					id := fmt.Sprint(n)
					want[peer] = append(want[peer], id)
					p.Push([]event.Event{of(peer, id)})
					if chance(20) {
						time.Sleep(time.Duration(roll(30)) * time.Millisecond)
					}
				}
				pass(time.Hour)
				p.Drain(t.Context())
				// A short answer leaves an event out that the fake has counted as delivered:
				// it comes again, which at least once allows, but never out of order.
				got := make(map[string][]string)
				for _, e := range b.delivered() {
					peer := e.To.Local()
					if ids := got[peer]; len(ids) == 0 || ids[len(ids)-1] != e.ID {
						got[peer] = append(ids, e.ID)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestHungBackendDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hung := &fakeBackend{name: "hung", limits: backends.Limits{Lanes: 2}, publish: func(ctx context.Context, batch []event.Event) []error {
			<-ctx.Done()
			return every(len(batch), ctx.Err())
		}}
		fine := &fakeBackend{name: "fine", limits: backends.Limits{Lanes: 2}}
		p := start(t, pusher.Options{Backends: []backends.Backend{hung, fine}})
		began := time.Now()
		for i := range 500 {
			p.Push([]event.Event{of(fmt.Sprintf("peer%d", i), fmt.Sprint(i))})
			synctest.Wait()
		}
		if n := fine.count(); n != 500 {
			t.Errorf("%d delivered, want 500", n)
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("pushing took %v of simulated time", waited)
		}
		if s := p.Status().Backends; s[0].Waiting+s[0].InFlight != 500 || s[1].Waiting+s[1].InFlight != 0 {
			t.Errorf("status %+v", s)
		}
		// The deadline ends the calls: every lane gets to try something else.
		pass(61 * time.Second)
		if n := len(hung.tried()); n < 3 {
			t.Errorf("%d attempts, want the lanes to have gone on after their deadline", n)
		}
	})
}

func TestOneKeyDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 2, Batch: 2}, publish: failing(errDown, "bob")}
		p := start(t, pusher.Options{Backends: one(b)})
		p.Push([]event.Event{of("bob", "poison")})
		for i := range 3600 {
			p.Push([]event.Event{of("bob", fmt.Sprint("behind", i)), of("carol", fmt.Sprint(i))})
			synctest.Wait()
			if n := b.count(); n != i+1 {
				t.Fatalf("second %d: %d delivered", i, n)
			}
			pass(time.Second)
		}
		if s := p.Status().Backends[0]; s.Waiting+s.InFlight != 3601 || time.Duration(s.OldestAge) < time.Hour {
			t.Errorf("status %+v", s)
		}
	})
}

// sheddingBox lets the test say what has been shed.
type sheddingBox struct {
	*outbox.Embedded
	say func(backend string, events int, episode bool)
}

func (b *sheddingBox) OnShed(f func(backend string, events int, episode bool)) { b.say = f }

func TestShedding(t *testing.T) {
	var logged bytes.Buffer
	box, _, _ := openOutbox(t, t.TempDir())
	shed := &sheddingBox{Embedded: box}
	reg := prometheus.NewRegistry()
	_, err := pusher.New(pusher.Options{
		Outbox: shed, Backends: []backends.Backend{&fakeBackend{name: "slow"}, &fakeBackend{name: "fine"}},
		Metrics: pusher.NewMetrics(reg), Log: slog.New(slog.NewTextHandler(&logged, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	shed.say("slow", 4, true)
	shed.say("slow", 2, false)
	if n := strings.Count(logged.String(), "given up"); n != 1 || !strings.Contains(logged.String(), "backend=slow") {
		t.Errorf("%d lines for one episode:\n%s", n, &logged)
	}
	for backend, want := range map[string]float64{"slow": 6, "fine": 0} {
		if got := value(t, reg, "eventpusher_events_shed_total{backend="+backend+"}"); got != want {
			t.Errorf("%s: shed %v, want %v", backend, got, want)
		}
	}
}

func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		reg := prometheus.NewRegistry()
		b := &fakeBackend{name: "b", publish: failing(errDown, "bob")}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box, Metrics: pusher.NewMetrics(reg)})
		for i := range 600 {
			p.Push([]event.Event{of("bob", fmt.Sprint(i))})
		}
		pass(pusher.DefaultMaxAge - time.Second)
		if n := len(letters(t, box.DeadLetters())); n != 0 {
			t.Fatalf("%d dead letters too early", n)
		}
		p.Push([]event.Event{of("bob", "young")})
		pass(2 * time.Second)
		dead := letters(t, box.DeadLetters())
		if len(dead) != 600 || dead[0].Reason != outbox.ReasonMaxAge || dead[0].Attempts < 5 || dead[1].Attempts != 0 {
			t.Errorf("%d dead letters, the first %+v", len(dead), dead[0])
		}
		if got := value(t, reg, "eventpusher_dead_letters_total{backend=b,reason=max_age}"); got != 600 {
			t.Errorf("counted %v", got)
		}
		if s := p.Status().Backends[0]; s.Waiting+s.InFlight != 1 || s.DeadLetters != 600 {
			t.Errorf("status %+v", s)
		}
	})
}

func TestDrainDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &fakeBackend{name: "slow", publish: func(ctx context.Context, batch []event.Event) []error {
			select {
			case <-time.After(time.Second):
				return make([]error, len(batch))
			case <-ctx.Done():
				return every(len(batch), ctx.Err())
			}
		}}
		fine := &fakeBackend{name: "fine"}
		p := start(t, pusher.Options{Backends: []backends.Backend{slow, fine}})
		for i := range 30 {
			p.Push([]event.Event{of("bob", fmt.Sprint(i))})
		}
		synctest.Wait()
		if err := p.Healthy(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10500*time.Millisecond)
		defer cancel()
		began := time.Now()
		p.Drain(ctx)
		if s := p.Status().Backends; s[0].Waiting != 20 || s[1].Waiting != 0 {
			t.Errorf("left: %+v", s)
		}
		if took := time.Since(began); took != 10500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if p.Healthy() == nil {
			t.Error("healthy after Drain")
		}
		if s := p.Status().Backends[0]; s.Failed != 0 {
			t.Errorf("the cancelled call counts as a failure: %+v", s)
		}
		p.Push([]event.Event{of("bob", "late")})
		if s := p.Status().Backends[1]; s.Waiting+s.InFlight != 0 {
			t.Error("an event was taken after Drain")
		}
	})
}

func TestDrainGivesUpOnABackendThatIgnoresItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := &fakeBackend{name: "b", publish: func(ctx context.Context, batch []event.Event) []error {
			<-release
			return make([]error, len(batch))
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		p.Push([]event.Event{of("bob", "1")})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		p.Drain(ctx)
		if took := time.Since(began); took != 6*time.Second {
			t.Errorf("took %v", took)
		}
		close(release)
	})
}

func TestDrainDeliversWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failures atomic.Int32
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 3, Batch: 2}, publish: func(_ context.Context, batch []event.Event) []error {
			if failures.Add(1) <= 4 {
				return every(len(batch), errDown)
			}
			return make([]error, len(batch))
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		for i := range 100 {
			p.Push([]event.Event{of(fmt.Sprintf("peer%d", i%7), fmt.Sprint(i))})
		}
		pass(time.Minute)
		p.Drain(t.Context())
		if n := b.count(); n != 100 {
			t.Errorf("%d delivered", n)
		}
	})
}

func TestPublishThatMisbehaves(t *testing.T) {
	for _, tc := range []struct {
		name    string
		publish func(batch []event.Event) []error
		log     string
	}{
		{"panics", func([]event.Event) []error { panic("private") }, "the backend panicked"},
		{"says nothing", func([]event.Event) []error { return nil }, "answered for a wrong number of events"},
		{"says too much", func(b []event.Event) []error { return every(len(b)+1, errDown) }, "answered for a wrong number of events"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logged bytes.Buffer
				var calls atomic.Int32
				b := &fakeBackend{name: "b", limits: backends.Limits{Batch: 2}, publish: func(_ context.Context, batch []event.Event) []error {
					if calls.Add(1) == 1 {
						return tc.publish(batch)
					}
					return make([]error, len(batch))
				}}
				p := start(t, pusher.Options{Backends: one(b), Log: slog.New(slog.NewTextHandler(&logged, nil))})
				p.Push([]event.Event{of("bob", "1"), of("carol", "2")})
				pass(time.Minute)
				if n := b.count(); n != 2 {
					t.Errorf("%d delivered", n)
				}
				if !strings.Contains(logged.String(), tc.log) || strings.Contains(logged.String(), "private") {
					t.Errorf("log:\n%s", &logged)
				}
			})
		})
	}
}

func TestWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		presence := &fakeBackend{name: "presence", wants: func(e *event.Event) bool { return e.Kind == event.UserStatus }}
		messages := &fakeBackend{name: "messages", wants: func(e *event.Event) bool { return e.Direction == event.In }}
		p := start(t, pusher.Options{Backends: []backends.Backend{presence, messages}, Metrics: pusher.NewMetrics(reg)})
		unwanted := chat("out")
		unwanted.Direction = event.Out
		p.Push([]event.Event{chat("in"), status(true, 1), unwanted})
		pass(time.Second)
		if diff := cmp.Diff([]string{status(true, 1).ID}, presence.ids()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{chat("").ID}, messages.ids()); diff != "" {
			t.Error(diff)
		}
		for name, want := range map[string]float64{
			"eventpusher_events_dropped_total{reason=unwanted}":     1,
			"eventpusher_events_total{direction=in,kind=chat}":      1,
			"eventpusher_events_total{direction=out,kind=chat}":     1,
			"eventpusher_events_total{direction=,kind=user_status}": 1,
			"eventpusher_breaker_state{backend=presence}":           0,
			"eventpusher_deliveries_total{backend=messages}":        1,
			"eventpusher_events_shed_total{backend=messages}":       0,
			"eventpusher_oldest_event_seconds{backend=messages}":    0,
		} {
			if got := value(t, reg, name); got != want {
				t.Errorf("%s = %v, want %v", name, got, want)
			}
		}
	})
}

func TestNewRefuses(t *testing.T) {
	var many []backends.Backend
	for i := range outbox.MaxReaders + 1 {
		many = append(many, &fakeBackend{name: fmt.Sprint(i)})
	}
	for name, list := range map[string][]backends.Backend{
		"two backends of one name": {&fakeBackend{name: "a"}, &fakeBackend{name: "a"}},
		"a backend without a name": one(&fakeBackend{}),
		"too many backends":        many,
	} {
		box, _, _ := openOutbox(t, t.TempDir())
		if _, err := pusher.New(pusher.Options{Backends: list, Outbox: box}); err == nil {
			t.Error(name)
		}
	}
}

func TestStateInJSON(t *testing.T) {
	got, err := json.Marshal([]pusher.State{pusher.Closed, pusher.HalfOpen, pusher.Open, pusher.Paused})
	if err != nil {
		t.Fatal(err)
	}
	if want := `["closed","half-open","open","paused"]`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRunWithoutBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, pusher.Options{})
		p.Push([]event.Event{chat("Hi")})
		pass(time.Hour)
		if err := p.Healthy(); err != nil {
			t.Error(err)
		}
		p.Drain(t.Context())
	})
}

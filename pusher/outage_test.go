package pusher_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// That a service is back is said when it has taken something, and once: an answer that refuses
// an event for good shows only that somebody is there.
func TestBackIsSaidAfterADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &lockedBuffer{}
		var answer error = errors.New("connection refused")
		var mu sync.Mutex
		set := func(err error) { mu.Lock(); defer mu.Unlock(); answer = err }
		b := &fakeBackend{name: "crm", publish: func(_ context.Context, batch []event.Event) []error {
			mu.Lock()
			defer mu.Unlock()
			return every(len(batch), answer)
		}}
		p := start(t, pusher.Options{Backends: []backends.Backend{b}, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		for _, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
			p.Push([]event.Event{of("peer"+id+"@example.org", id)})
		}
		pass(time.Minute)
		if !strings.Contains(log.String(), "the service is down") {
			t.Fatal("the outage was not told")
		}
		set(backends.Permanent(errors.New("not this one")))
		pass(time.Hour)
		if strings.Contains(log.String(), "is back") {
			t.Error("said before anything was delivered")
		}
		set(nil)
		p.Push([]event.Event{of("peer9@example.org", "9"), of("peer10@example.org", "10")})
		pass(time.Minute)
		if n := strings.Count(log.String(), "is back"); n != 1 {
			t.Errorf("said %d times", n)
		}
		for _, want := range []string{"msg=event event_id=9 ", "msg=called backend=crm event_id=9 "} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q is not in the log", want)
			}
		}
	})
}

// A service that was down and then refuses what few users have written is there again: their
// events rest between attempts, as always, and do not become a stream of requests.
func TestRefusalsEndAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var answer error = errors.New("connection refused")
		var mu sync.Mutex
		set := func(err error) { mu.Lock(); defer mu.Unlock(); answer = err }
		b := &fakeBackend{name: "crm", publish: func(_ context.Context, batch []event.Event) []error {
			mu.Lock()
			defer mu.Unlock()
			time.Sleep(time.Millisecond)
			return every(len(batch), answer)
		}}
		p := start(t, pusher.Options{Backends: []backends.Backend{b}})
		for _, user := range []string{"alice", "bob"} {
			for _, peer := range []string{"1", "2", "3", "4"} {
				e := of("peer"+peer+user+"@example.org", user+peer)
				e.From = jid.JID(user + "@example.org/phone")
				p.Push([]event.Event{e})
			}
		}
		pass(10 * time.Second)
		if got := p.Status().Backends[0].State; got != pusher.Open && got != pusher.HalfOpen {
			t.Fatalf("the breaker is %v", got)
		}
		set(backends.Refused(errors.New("404 Not Found")))
		before := len(b.tried())
		pass(time.Minute)
		if n := len(b.tried()) - before; n == 0 || n > 8*30 {
			t.Errorf("%d attempts in a minute", n)
		}
		set(nil)
		pass(10 * time.Minute)
		if n := b.count(); n != 8 {
			t.Errorf("%d of 8 delivered", n)
		}
	})
}

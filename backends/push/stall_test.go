package push

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/store"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

// world is the backend behind a pusher, with push services that take as long as told.
type world struct {
	*fixture
	t      *testing.T
	pusher *pusher.Pusher
	takes  func(to jid.JID) (time.Duration, error)

	mu    sync.Mutex
	n     int
	sent  map[string]time.Time // by text, of messages to users of good services
	late  []time.Duration
	now   map[jid.JID]int // under way
	most  map[jid.JID]int
	tried map[jid.JID]int
}

// inWorld runs a test in a world of fake time.
func inWorld(t *testing.T, takes func(to jid.JID) (time.Duration, error), test func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			fixture: newFixture(t, asMongooseIM), t: t, takes: takes,
			sent: make(map[string]time.Time), now: make(map[jid.JID]int), most: make(map[jid.JID]int), tried: make(map[jid.JID]int),
		}
		b := New(Options{Decider: asMongooseIM, Lanes: 320})
		box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		if w.pusher, err = pusher.New(pusher.Options{Backends: []backends.Backend{b}, Outbox: box}); err != nil {
			t.Fatal(err)
		}
		b.Attach(w.store, w, func(ctx context.Context, list []event.Event) error { return w.pusher.Forward(ctx, Name, list) })
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- w.pusher.Run(ctx) }()
		test(w)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Generic implements xmpp.Services.
func (w *world) Generic(context.Context, jid.JID) (bool, error) { return false, nil }

// Set implements xmpp.Services.
func (w *world) Set(ctx context.Context, to jid.JID, payload []byte) error {
	w.mu.Lock()
	w.tried[to]++
	w.now[to]++
	w.most[to] = max(w.most[to], w.now[to])
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now[to]--
	}()
	takes, err := w.takes(to)
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	_, body, _ := strings.Cut(string(payload), "last-message-body'><value>")
	body, _, _ = strings.Cut(body, "<")
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.sent[body]; ok {
		w.late = append(w.late, time.Since(at))
		delete(w.sent, body)
	}
	return nil
}

func (w *world) enable(user jid.JID, service string) {
	w.t.Helper()
	if err := w.store.Enable(w.t.Context(), user, store.Service{PubSub: jid.JID(service), Node: "n"}); err != nil {
		w.t.Fatal(err)
	}
}

// message is to a user from a sender of its own. timed says that it matters when it comes.
func (w *world) message(user jid.JID, timed bool) {
	w.n++
	e := w.fixture.message(fmt.Sprint(w.n))
	e.From, e.User, e.To, e.Time = jid.JID(fmt.Sprintf("sender%d@example.org/r", w.n)), user, user, time.Now()
	e.Body = fmt.Sprint("text ", w.n, ".")
	if timed {
		w.mu.Lock()
		w.sent[e.Body] = time.Now()
		w.mu.Unlock()
	}
	w.pusher.Push([]event.Event{e})
}

// TestStall: a user with 64 registrations at services that answer in 1.2 s, and a message a
// second from changing senders, costs the others nothing.
func TestStall(t *testing.T) {
	const seconds, rate = 15, 100
	takes := func(to jid.JID) (time.Duration, error) {
		if strings.HasPrefix(string(to), "slow") {
			return 1200 * time.Millisecond, nil
		}
		return 20 * time.Millisecond, nil
	}
	inWorld(t, takes, func(w *world) {
		w.enable("other@example.org", "push.example.net")
		for i := range store.MaxPerUser {
			w.enable("mallory@example.org", fmt.Sprintf("slow%d.example", i))
		}
		for range seconds {
			w.message("mallory@example.org", false)
			for range rate {
				w.message("other@example.org", true)
				time.Sleep(time.Second / rate)
			}
		}
		time.Sleep(time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		slices.Sort(w.late)
		if n := len(w.late); n < seconds*rate*95/100 {
			t.Fatalf("%d of %d were delivered", n, seconds*rate)
		}
		t.Logf("delivered %d of %d, median %v, longest %v", len(w.late), seconds*rate, w.late[len(w.late)/2], w.late[len(w.late)-1])
		if longest := w.late[len(w.late)-1]; longest >= time.Second {
			t.Errorf("the longest took %v", longest)
		}
		atOnce := 0
		for to, n := range w.most {
			if strings.HasPrefix(string(to), "slow") {
				atOnce = max(atOnce, n)
			}
		}
		if atOnce > 4 {
			t.Errorf("one user had %d under way at one slow service", atOnce)
		}
	})
}

// TestHangingServices: of twenty-one services that get messages all the time twenty hang,
// and the one that works is told within moments nevertheless.
func TestHangingServices(t *testing.T) {
	const dead, rounds = 20, 50 // of 400 ms
	takes := func(to jid.JID) (time.Duration, error) {
		if strings.HasPrefix(string(to), "dead") {
			return 20 * time.Second, fmt.Errorf("nobody answered: %w", context.DeadlineExceeded)
		}
		return 20 * time.Millisecond, nil
	}
	inWorld(t, takes, func(w *world) {
		user := func(i int) jid.JID { return jid.JID(fmt.Sprintf("user%d@example.org", i)) }
		for i := range dead {
			w.enable(user(i), fmt.Sprintf("dead%d.example", i))
		}
		w.enable(user(dead), "alive.example.net")
		for range rounds {
			for i := range dead + 1 {
				w.message(user(i), i == dead)
			}
			time.Sleep(400 * time.Millisecond)
		}
		time.Sleep(time.Second)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.late) != rounds || slices.Max(w.late) >= time.Second {
			t.Errorf("the service that works was told %d of %d, the last after %v", len(w.late), rounds, slices.Max(w.late))
		}
		for to, n := range w.most {
			if strings.HasPrefix(string(to), "dead") && n > 4 {
				t.Errorf("%s had %d at once and %d in all", to, n, w.tried[to])
			}
		}
	})
}

// TestDeadServiceOfTheSameUser: a device whose push service is gone does not keep a
// conversation from the device that works. It gets the newest messages once it is back.
func TestDeadServiceOfTheSameUser(t *testing.T) {
	var mu sync.Mutex
	dead := true
	takes := func(to jid.JID) (time.Duration, error) {
		mu.Lock()
		defer mu.Unlock()
		if to == "dead.example.com" && dead {
			return 20 * time.Second, fmt.Errorf("nobody answered: %w", context.DeadlineExceeded)
		}
		return 20 * time.Millisecond, nil
	}
	inWorld(t, takes, func(w *world) {
		w.enable("bob@example.org", "dead.example.com")
		w.enable("bob@example.org", "alive.example.net")
		const messages = 40
		for range messages {
			w.message("bob@example.org", true)
			time.Sleep(5 * time.Second)
		}
		tried := func(to jid.JID) int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.tried[to]
		}
		if n := tried("alive.example.net"); n != messages {
			t.Errorf("the device that works was told of %d of %d", n, messages)
		}
		mu.Lock()
		dead = false
		mu.Unlock()
		before := tried("dead.example.com")
		time.Sleep(50 * time.Minute) // max_age is an hour
		if n := tried("dead.example.com") - before; n < waitingMost-2 {
			t.Errorf("the other one was told of %d in the end, want %d", n, waitingMost)
		}
	})
}

package push

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/registration"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

// errNobody is what a service that hangs makes of a request in the end.
var errNobody = fmt.Errorf("nobody answered: %w", context.DeadlineExceeded)

// hanging plays push services of which those called dead answer nothing.
type hanging struct {
	mu   sync.Mutex
	now  map[jid.JID]int // under way
	most map[jid.JID]int
	sent map[jid.JID]int
}

func (h *hanging) Set(ctx context.Context, to jid.JID, _ []byte) error {
	h.mu.Lock()
	h.now[to]++
	h.sent[to]++
	h.most[to] = max(h.most[to], h.now[to])
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.now[to]--
		h.mu.Unlock()
	}()
	takes, err := 20*time.Millisecond, error(nil)
	if strings.HasPrefix(string(to), "dead") {
		takes, err = 30*time.Second, errNobody
	}
	select {
	case <-time.After(takes):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestHangingServices: of twenty-one services that get messages all the time twenty hang,
// and the one that works is told within moments nevertheless.
func TestHangingServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const dead, rounds = 20, 100 // of 400 ms
		f := newFixture(t, asMongooseIM)
		h := &hanging{now: make(map[jid.JID]int), most: make(map[jid.JID]int), sent: make(map[jid.JID]int)}
		b := New(Options{Decider: asMongooseIM, Lanes: 10})
		b.Attach(f.store, h)
		user := func(i int) jid.JID { return jid.JID(fmt.Sprintf("user%d@example.org", i)) }
		for i := range dead + 1 {
			service := registration.Service{PubSub: jid.JID(fmt.Sprintf("dead%d.example.com", i)), Node: "n"}
			if i == dead {
				service.PubSub = "alive.example.net"
			}
			if err := f.store.Enable(t.Context(), user(i), service); err != nil {
				t.Fatal(err)
			}
		}
		p, err := pusher.New(pusher.Options{Backends: []backends.Backend{b}, Outbox: outbox.NewMemory(outbox.MemoryOptions{DeadLetters: outbox.NewRing(10)})})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		late := 0
		for n := range rounds {
			var list []event.Event
			for i := range dead + 1 {
				e := f.message(fmt.Sprint(n, " ", i))
				// Each from another sender, so that no conversation waits for itself.
				e.From, e.User, e.To, e.Time = jid.JID(fmt.Sprintf("sender%d@example.org/r", n)), user(i), user(i), time.Now()
				list = append(list, e)
			}
			p.Push(list)
			time.Sleep(400 * time.Millisecond)
			if h.told("alive.example.net") < n-8 {
				late++
			}
		}
		time.Sleep(5 * time.Second)
		if told := h.told("alive.example.net"); told != rounds || late > 0 {
			t.Errorf("the service that works was told %d of %d, and was %d times more than 3 s behind", told, rounds, late)
		}
		for i := range dead {
			to := jid.JID(fmt.Sprintf("dead%d.example.com", i))
			// The first time, and then one.
			if h.most[to] > 2*slowUnderway+batchSize || h.sent[to] > h.most[to]+1 {
				t.Errorf("%s had %d at once and %d in all", to, h.most[to], h.sent[to])
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (h *hanging) told(to jid.JID) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sent[to]
}

// TestSilentService is left alone for a while, then tried with one, and used as ever once
// it has answered.
func TestSilentService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &services{}
		n := newNetwork(s)
		defer n.close()
		key := 0
		try := func() error {
			key++
			return n.set(t.Context(), fmt.Sprint(key), "push.example.net", time.Time{}, nil)
		}
		take := func(want int) {
			t.Helper()
			if got := len(s.take()); got != want {
				t.Errorf("%d were sent, want %d", got, want)
			}
		}
		s.answer = func(jid.JID, string) error {
			time.Sleep(30 * time.Second)
			return errNobody
		}
		if err := try(); !errors.Is(err, errUnanswered) {
			t.Error(err)
		}
		take(1)
		// Whoever comes again for the same finds out how it went.
		again := func() error { return n.set(t.Context(), "1", "push.example.net", time.Time{}, nil) }
		if err := again(); !errors.Is(err, errUnanswered) {
			t.Error(err)
		}
		time.Sleep(30 * time.Second)
		if err := again(); !errors.Is(err, errNobody) || !errors.As(err, new(*backends.ElsewhereError)) {
			t.Error(err)
		}
		for range 3 {
			if err := try(); !errors.Is(err, errSilent) || !errors.As(err, new(*backends.ElsewhereError)) {
				t.Error(err)
			}
		}
		take(0)
		time.Sleep(silentRest)
		if err := try(); !errors.Is(err, errUnanswered) {
			t.Error(err)
		}
		if err := try(); !errors.Is(err, errSilent) {
			t.Errorf("beside the one that tries: %v", err)
		}
		take(1)
		time.Sleep(2 * silentRest)
		s.answer = func(jid.JID, string) error { return &Refusal{"wait", "resource-constraint"} }
		if err := try(); !errors.As(err, new(*Refusal)) {
			t.Error(err)
		}
		s.answer = nil
		for range 3 {
			if err := try(); err != nil {
				t.Error(err)
			}
		}
		take(4)
	})
}

// TestLostRequest: one that stays without answer while others have one is no silence.
func TestLostRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &services{}
		n := newNetwork(s)
		defer n.close()
		s.answer = func(_ jid.JID, payload string) error {
			if payload != "lost" {
				return nil
			}
			time.Sleep(30 * time.Second)
			return errNobody
		}
		if err := n.set(t.Context(), "1", "push.example.net", time.Time{}, []byte("lost")); !errors.Is(err, errUnanswered) {
			t.Error(err)
		}
		if err := n.set(t.Context(), "2", "push.example.net", time.Time{}, nil); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if err := n.set(t.Context(), "3", "push.example.net", time.Time{}, nil); err != nil {
			t.Error(err)
		}
	})
}

// TestNetworkEnds: what is under way ends with the backend, and nothing begins after.
func TestNetworkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{now: make(map[jid.JID]int), most: make(map[jid.JID]int), sent: make(map[jid.JID]int)}
		n := newNetwork(h)
		if err := n.set(t.Context(), "1", "dead.example.com", time.Time{}, nil); !errors.Is(err, errUnanswered) {
			t.Error(err)
		}
		n.close()
		if err := n.set(t.Context(), "1", "dead.example.com", time.Time{}, nil); !errors.Is(err, context.Canceled) || errors.As(err, new(*backends.ElsewhereError)) {
			t.Errorf("the end counts as the service's: %v", err)
		}
		if err := n.set(t.Context(), "2", "dead.example.com", time.Time{}, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// newLateFixture has a device of bob's whose service answers after 5 s.
func newLateFixture(t *testing.T, answer error) *fixture {
	f := newFixture(t, asMongooseIM)
	f.now = time.Now()
	f.enable(t, "push.example.org", "a", "")
	f.network.answer = func(jid.JID, string) error {
		time.Sleep(5 * time.Second)
		return answer
	}
	return f
}

// TestSlowAnswer is to a message of which another event comes meanwhile: the device is
// told of it once.
func TestSlowAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLateFixture(t, nil)
		sent := f.message("1")
		stored := sent
		stored.ID, stored.Kind, stored.Direction = "e-stored", event.Stored, 0
		for n := 0; n < 3; n++ {
			for _, e := range []event.Event{sent, stored} {
				if err := f.publish(t, e); n < 2 && !errors.Is(err, errUnanswered) || n == 2 && err != nil {
					t.Errorf("attempt %d of %s: %v", n, e.ID, err)
				}
			}
			time.Sleep(3 * time.Second)
		}
		if got := f.network.take(); len(got) != 1 {
			t.Errorf("%d were sent: %q", len(got), got)
		}
		if c := f.Counts(); c["pushed"] != 1 || c["duplicate"] != 1 {
			t.Errorf("counted %v", c)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestLateRefusal is about what was registered before: a device that has registered again
// meanwhile is told, and its registration stays.
func TestLateRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLateFixture(t, &Refusal{"cancel", "item-not-found"})
		if err := f.publish(t, f.message("1")); !errors.Is(err, errUnanswered) {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		f.network.answer, f.now = nil, time.Now()
		f.enable(t, "push.example.org", "a", "")
		if err := f.publish(t, f.message("1")); err != nil {
			t.Error(err)
		}
		if got := f.network.take(); len(got) != 2 {
			t.Errorf("%d were sent: %q", len(got), got)
		}
		if got := f.nodes(t); len(got) != 1 {
			t.Errorf("registered is %q", got)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestAnswersAreForgotten when nobody comes for them.
func TestAnswersAreForgotten(t *testing.T) {
	n := newNetwork(&services{})
	defer n.close()
	for i := range answersKept {
		a := &reply{done: make(chan struct{})}
		close(a.done)
		n.answers[fmt.Sprint("old ", i)] = a
	}
	if err := n.set(t.Context(), "new", "push.example.net", time.Time{}, nil); err != nil || len(n.answers) != 0 {
		t.Errorf("%v, %d answers are kept", err, len(n.answers))
	}
}

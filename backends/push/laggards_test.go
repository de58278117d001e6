package push

import (
	"context"
	"fmt"
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

// TestDeadServiceOfTheSameUser: a device whose push service is gone does not keep a
// conversation from the device that works.
func TestDeadServiceOfTheSameUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, asMongooseIM)
		h := &hanging{now: make(map[jid.JID]int), most: make(map[jid.JID]int), sent: make(map[jid.JID]int)}
		b := New(Options{Decider: asMongooseIM, Lanes: 2})
		b.Attach(f.store, h)
		for _, s := range []jid.JID{"dead.example.com", "alive.example.net"} {
			if err := f.store.Enable(t.Context(), "bob@example.org", registration.Service{PubSub: s, Node: "n"}); err != nil {
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
		const messages = 40
		for n := range messages {
			e := f.message(fmt.Sprint(n))
			e.Time = time.Now()
			p.Push([]event.Event{e})
			time.Sleep(30 * time.Second)
			if told := h.told("alive.example.net"); told < n+1 && n > 6 {
				t.Errorf("after %d messages the device that works was told of %d", n+1, told)
			}
		}
		time.Sleep(2 * time.Minute)
		if told := h.told("alive.example.net"); told != messages {
			t.Errorf("in the end it was told of %d of %d", told, messages)
		}
		if tried := h.told("dead.example.com"); tried < 5 {
			t.Errorf("the other one was tried %d times", tried)
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

// TestLaggard is a registration that takes nothing for a while.
func TestLaggard(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	start := f.now
	f.enable(t, "lame.example.com", "1", "")
	f.enable(t, "push.example.net", "2", "")
	busy := error(&Refusal{Type: "wait", Condition: "remote-server-timeout"})
	answers := map[jid.JID]error{"lame.example.com": busy}
	f.network.answer = func(to jid.JID, _ string) error { return answers[to] }
	try := func(after time.Duration, id string, again bool) {
		t.Helper()
		f.now = start.Add(after)
		e := f.message(id)
		e.Time = start
		if err := f.publish(t, e); (err != nil) != again {
			t.Errorf("message %s after %s: %v", id, after, err)
		}
	}
	count := func(gaveUp uint64) {
		t.Helper()
		if n := f.Counts()["given_up"]; n != gaveUp {
			t.Errorf("%d were given up, want %d", n, gaveUp)
		}
	}
	try(0, "1", true)
	try(laggardPatience-time.Second, "1", true)
	count(0)
	try(laggardPatience, "1", false)
	try(laggardPatience, "2", false)
	count(2)

	// Nobody knows: that of the other device was refused for good.
	answers["push.example.net"] = &Refusal{Type: "auth", Condition: "forbidden"}
	try(laggardPatience, "3", true)
	count(2)
	answers["push.example.net"] = nil

	// One that works again has its minute again.
	answers["lame.example.com"] = nil
	try(2*laggardPatience, "4", false)
	answers["lame.example.com"] = busy
	try(3*laggardPatience, "5", true)
	try(4*laggardPatience, "5", false)
	count(3)

	// An old failure says nothing of a new one.
	start = start.Add(4*laggardPatience + laggardForgotten + time.Second)
	try(0, "6", true)
	count(3)
}

// TestOnlyServiceIsNoLaggard: who has one device alone is told as soon as that can be.
func TestOnlyServiceIsNoLaggard(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	start := f.now
	f.enable(t, "lame.example.com", "1", "")
	f.network.answer = func(jid.JID, string) error { return &Refusal{Type: "wait", Condition: "remote-server-timeout"} }
	e := f.message("1")
	for _, after := range []time.Duration{0, laggardPatience, 10 * laggardPatience} {
		f.now = start.Add(after)
		if err := f.publish(t, e); err == nil {
			t.Errorf("it is given up after %s", after)
		}
	}
	f.network.answer = nil
	if err := f.publish(t, e); err != nil || f.Counts()["pushed"] != 1 {
		t.Errorf("%v, %v", err, f.Counts())
	}
}

// TestLaggardOfAnotherUser: users name services and nodes as they like, so what becomes of
// one user's registration says nothing of another's under the same names.
func TestLaggardOfAnotherUser(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	start := f.now
	for _, user := range []jid.JID{"bob@example.org", "mallory@example.org"} {
		for _, service := range []jid.JID{"lame.example.com", "push.example.net"} {
			if err := f.store.Enable(t.Context(), user, registration.Service{PubSub: service, Node: "n"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.network.answer = func(to jid.JID, _ string) error {
		if to == "lame.example.com" {
			return &Refusal{Type: "wait", Condition: "remote-server-timeout"}
		}
		return nil
	}
	try := func(user jid.JID, after time.Duration, again bool) {
		t.Helper()
		f.now = start.Add(after)
		e := f.message("to " + string(user))
		e.User, e.To, e.Time = user, user, start
		if err := f.publish(t, e); (err != nil) != again {
			t.Errorf("the message to %s after %s: %v", user, after, err)
		}
	}
	try("mallory@example.org", 0, true)
	try("mallory@example.org", laggardPatience, false)
	try("bob@example.org", laggardPatience, true)
	try("bob@example.org", 2*laggardPatience, false)
}

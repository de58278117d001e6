package push

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/backends/push/send/xmpp"
	"eventpusher/internal/jid"
)

// TestLateRefusal is about what was registered before: a device that has registered again
// while the answer was on its way keeps its registration, and is told.
func TestLateRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, asMongooseIM)
		f.now = time.Now()
		f.enable(t, "push.example.org", "a", "")
		f.network.answer = func(jid.JID, string) error {
			time.Sleep(5 * time.Second)
			f.now, f.network.answer = time.Now(), nil
			f.enable(t, "push.example.org", "a", options)
			return &xmpp.Refusal{Type: "cancel", Condition: "item-not-found"}
		}
		if err := f.publish(t, f.message("1")); err == nil {
			t.Error("the notification was lost")
		}
		if got := f.nodes(t); len(got) != 1 {
			t.Fatalf("registered is %q", got)
		}
		if err := f.deliver(); err != nil {
			t.Error(err)
		}
		if got := f.network.take(); len(got) != 2 || f.Counts()["pushed"] != 1 || f.Counts()["disabled"] != 0 {
			t.Errorf("sent %q, counted %v", got, f.Counts())
		}
	})
}

// TestRefusedForLong: a registration that gets nothing but refusals ends after a day, and
// not before; meanwhile its service is not asked each time.
func TestRefusedForLong(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "a", "")
	f.network.answer = func(jid.JID, string) error {
		return &xmpp.Refusal{Type: "cancel", Condition: "remote-server-not-found"}
	}
	n := 0
	try := func(after time.Duration) {
		t.Helper()
		n++
		f.now = f.now.Add(after)
		if err := f.publish(t, f.message(fmt.Sprint(n))); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 * goneRefusals {
		try(time.Second)
	}
	if asked := len(f.network.take()); asked != slowRefusals {
		t.Errorf("asked %d times within a minute, want %d", asked, slowRefusals)
	}
	for range 3 * goneRefusals {
		try(refusedRest)
	}
	if len(f.nodes(t)) != 1 {
		t.Error("removed within the hour")
	}
	f.network.answer = nil
	try(refusedRest)
	f.network.answer = func(jid.JID, string) error { return &xmpp.Refusal{Type: "auth", Condition: "forbidden"} }
	for range goneRefusals {
		try(goneAfter / goneRefusals)
	}
	if len(f.nodes(t)) != 1 {
		t.Error("one that has worked was removed too soon")
	}
	try(goneAfter / goneRefusals)
	if len(f.nodes(t)) != 0 || f.Counts()["disabled"] != 1 {
		t.Errorf("registered is %q, counted %v", f.nodes(t), f.Counts())
	}
}

// TestBacklog: as many notifications wait for a registration as are allowed, the newest.
func TestBacklog(t *testing.T) {
	b := newBacklog()
	start := time.Unix(1_700_000_000, 0)
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	for n := range 2 * waitingMost {
		if b.superseded("one", at(n)) {
			t.Errorf("%d is superseded by older ones", n)
		}
	}
	for n := range 2 * waitingMost {
		if got, want := b.superseded("one", at(n)), n < waitingMost; got != want {
			t.Errorf("%d: superseded %v, want %v", n, got, want)
		}
	}
	if b.superseded("another", at(0)) {
		t.Error("superseded by those of another registration")
	}
}

// TestBacklogOfOne: what one registration cannot get does not pile up.
func TestBacklogOfOne(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "a", "")
	f.network.answer = func(jid.JID, string) error { return &xmpp.Refusal{Type: "wait", Condition: "internal-server-error"} }
	for n := range 3 * waitingMost {
		f.now = f.now.Add(time.Second)
		_ = f.publish(t, f.message(fmt.Sprint(n))) // each waits
	}
	_ = f.deliver()
	if len(f.queued) != waitingMost || f.Counts()["coalesced"] != 2*waitingMost {
		t.Errorf("%d wait, counted %v", len(f.queued), f.Counts())
	}
	for i := range f.queued {
		if at := f.queued[i].Time; at.Before(f.now.Add(-waitingMost * time.Second)) {
			t.Errorf("an old one waits, of %v", at)
		}
	}
	if len(f.nodes(t)) != 1 {
		t.Error("the registration was removed")
	}
}

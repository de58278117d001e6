package push

import (
	"testing"
	"time"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/notify"
	"eventpusher/event"
)

// TestKilledBeforeSaved: a process has made and sent a notification and is killed before
// the outbox has saved either. The next process gets message and notification again, and
// sends once what the killed one may have sent once.
func TestKilledBeforeSaved(t *testing.T) {
	for name, service := range map[string]string{"a service": "push.example.org", "MongoosePush": "pubsub.example.org"} {
		for _, kind := range []event.Kind{event.Chat, event.Stored} { // of what was not saved
			t.Run(name+", "+kind.String(), func(t *testing.T) {
				f := newFixture(t, asMongooseIM)
				f.enable(t, service, "a", "")
				if err := f.Publish(t.Context(), []event.Event{f.message("1")})[0]; err != nil {
					t.Fatal(err)
				}
				made := f.queued[0]
				if err := f.deliver(); err != nil {
					t.Fatal(err)
				}

				next := New(f.o)
				f.Backend, next = next, f.Backend
				f.attach(next.store)
				again := f.message("1")
				if kind == event.Stored {
					again.ID, again.Kind, again.Direction, again.Time = "e-stored", event.Stored, event.NoDirection, f.now.Add(time.Second)
				}
				if err := f.Publish(t.Context(), []event.Event{again})[0]; err != nil {
					t.Fatal(err)
				}
				f.queued = append([]event.Event{made}, f.queued...)
				if err := f.deliver(); err != nil || len(f.queued) != 0 {
					t.Fatal(err, f.queued)
				}
				if n := len(f.network.take()) + len(f.gateway.got); n != 2 {
					t.Errorf("notified %d times, want once by each process", n)
				}
				if c := f.Counts(); c["duplicate"] != 1 || c["pushed"] != 1 {
					t.Errorf("counted %v", c)
				}
			})
		}
	}
}

// TestRepeatedID: clients and bots may use an id again for the same text. Each such message
// notifies, and its own events together do so once.
func TestRepeatedID(t *testing.T) {
	f := newFixture(t, decide.Decider{Plugin: decide.Enhanced, Content: notify.ContentBody})
	f.enable(t, "push.example.org", "a", "")
	began := f.now
	told := func(kind event.Kind, id string, after time.Duration) int {
		t.Helper()
		f.now = began.Add(after)
		e := f.message("1")
		e.ID, e.Kind = id, kind
		if kind != event.Chat {
			e.Direction = event.NoDirection
		}
		if kind == event.Unack {
			e.RecipientOffline, e.To = false, "bob@example.org/phone"
		}
		if err := f.publish(t, e); err != nil {
			t.Fatal(err)
		}
		return len(f.network.take())
	}
	for _, c := range []struct {
		kind  event.Kind
		id    string
		after time.Duration
		want  int
	}{
		{event.Chat, "sent", 0, 1},
		{event.Stored, "stored", time.Second, 0},
		{event.Chat, "sent", time.Minute, 0}, // another attempt
		{event.Chat, "sent again", 2 * time.Minute, 1},
		{event.Stored, "stored again", 2*time.Minute + reportedWithin, 0},
		{event.Unack, "unacknowledged", time.Hour, 1},
		{event.Unack, "another unacknowledged", 2 * time.Hour, 1},
		{event.Stored, "stored at the session's end", 3 * time.Hour, 0},
		{event.Chat, "sent the next day", 24 * time.Hour, 1},
	} {
		if got := told(c.kind, c.id, c.after); got != c.want {
			t.Errorf("%s: notified %d times, want %d", c.id, got, c.want)
		}
	}
}

// TestRepeatedIDsDiffer: notifications of two messages have different ids even if the
// messages have the same id, or receivers would take them for one.
func TestRepeatedIDsDiffer(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "push.example.org", "a", "")
	ids := make(map[string]bool)
	for _, id := range []string{"first", "second"} {
		e := f.message("1")
		e.ID = id
		if err := f.Publish(t.Context(), []event.Event{e})[0]; err != nil {
			t.Fatal(err)
		}
		ids[f.queued[len(f.queued)-1].ID] = true
		f.now = f.now.Add(time.Minute)
	}
	if len(ids) != 2 {
		t.Errorf("got %v", ids)
	}
}

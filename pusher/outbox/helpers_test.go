package outbox_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher/outbox"
)

func chat(peer, id string) *event.Event {
	return &event.Event{ID: id, Kind: event.Chat, Direction: event.In, From: "alice@h/1", To: jid.JID(peer + "@h"), Body: "Hi"}
}

func pack(to outbox.Subscribers, events ...*event.Event) outbox.Pack {
	var p outbox.Pack
	for _, e := range events {
		p.Entries = append(p.Entries, outbox.Entry{Event: e, Subscribers: to})
	}
	return p
}

func take(r outbox.Reader, limit int, probe bool) []*outbox.Item {
	items, _, _ := r.Take(nil, limit, probe)
	return r.Load(items)
}

func ids(items []*outbox.Item) []string {
	var out []string
	for _, it := range items {
		out = append(out, it.Event.ID)
	}
	return out
}

func settle(t *testing.T, r outbox.Reader, s ...outbox.Settlement) {
	t.Helper()
	if err := r.Settle(s); err != nil {
		t.Fatal(err)
	}
}

func letters(t *testing.T, d outbox.DeadLetters) []outbox.DeadLetter {
	t.Helper()
	all, err := d.List(outbox.LetterFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestOneUnsettledEventPerKey(t *testing.T) {
	d := openDurable(t, outbox.EmbeddedOptions{Dir: t.TempDir()}, "b")
	defer d.close(t)
	r := d.readers["b"]
	d.append(t, pack(1, chat("x", "x1"), chat("x", "x2"), chat("y", "y1")))
	first := take(r, 10, true)
	if diff := cmp.Diff([]string{"x1", "y1"}, ids(first)); diff != "" {
		t.Error(diff)
	}
	if again := take(r, 10, true); len(again) != 0 {
		t.Errorf("took %v while their keys are unsettled", ids(again))
	}
	settle(t, r, outbox.Settlement{Item: first[0]})
	if diff := cmp.Diff([]string{"x2"}, ids(take(r, 10, false))); diff != "" {
		t.Error(diff)
	}
}

func TestRetryRequeueAndProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDurable(t, outbox.EmbeddedOptions{Dir: t.TempDir()}, "b")
		defer d.close(t)
		r := d.readers["b"]
		d.append(t, pack(1, chat("x", "x1"), chat("x", "x2"), chat("y", "y1"), chat("z", "z1")))
		items := take(r, 10, false)
		settle(t, r,
			outbox.Settlement{Item: items[0], Outcome: outbox.Retry, Delay: time.Minute},
			outbox.Settlement{Item: items[1], Outcome: outbox.Retry, Delay: time.Second, Asked: true},
			outbox.Settlement{Item: items[2], Outcome: outbox.Requeue})
		items, next, more := r.Take(nil, 10, false)
		items = r.Load(items)
		if diff := cmp.Diff([]string{"z1"}, ids(items)); diff != "" {
			t.Errorf("requeued: %s", diff)
		}
		if got := time.Until(next); got != time.Second || more {
			t.Errorf("next in %v, more %v", got, more)
		}
		probe := take(r, 10, true)
		if diff := cmp.Diff([]string{"x1"}, ids(probe)); diff != "" {
			t.Errorf("probe: %s", diff)
		}
		if probe[0].Attempts != 1 || items[0].Attempts != 0 {
			t.Errorf("attempts %d after a retry, %d after a requeue", probe[0].Attempts, items[0].Attempts)
		}
		settle(t, r, outbox.Settlement{Item: probe[0], Outcome: outbox.Retry, Delay: time.Minute})
		r.RetryNow()
		if diff := cmp.Diff([]string{"x1"}, ids(take(r, 10, false))); diff != "" {
			t.Errorf("retried now: %s", diff)
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"y1"}, ids(take(r, 10, false))); diff != "" {
			t.Errorf("at the service's own time: %s", diff)
		}
	})
}

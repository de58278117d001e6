package jetstream_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// The limit of a filter is what may go, in whatever steps that is done.
func TestLimitOfDropAndReplay(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, options(t, server, "a"))
	const kept = 1001
	i.hold()
	for n := range kept {
		if err := i.Bury(outbox.DeadLetter{Event: &event.Event{ID: fmt.Sprint(n)}, Backend: "gone", Reason: "permanent"}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "all letters", func() bool {
		list, err := i.DeadLetters().List(outbox.LetterFilter{After: 0})
		return err == nil && len(list) == kept
	})
	if n, err := i.DeadLetters().Drop(outbox.LetterFilter{Limit: 500}); n != 500 || err != nil {
		t.Errorf("dropped %d, %v; want 500", n, err)
	}
	if n, err := i.DeadLetters().Drop(outbox.LetterFilter{Limit: 1}); n != 1 || err != nil {
		t.Errorf("dropped %d, %v; want 1", n, err)
	}
	list, err := i.DeadLetters().List(outbox.LetterFilter{})
	if err != nil || len(list) != kept-501 {
		t.Errorf("%d letters are left, %v", len(list), err)
	}
}

// tight are options under which what fails is parked at once, in one partition.
func tight(t *testing.T, server *harness.NATSServer) jetstream.Options {
	o := options(t, server, "a")
	o.Partitions, o.ParkAttempts = 1, 1
	return o
}

// retry lets an event fail.
func (i *instance) retry(delay time.Duration, asked bool, items ...*outbox.Item) {
	i.t.Helper()
	for _, it := range items {
		if err := i.readers["a"].Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Retry, Delay: delay, Asked: asked}}); err != nil {
			i.t.Fatal(err)
		}
	}
}

// A parked event that somebody has deleted does not hold the later ones of its
// conversation for ever.
func TestParkedEventThatWasDeleted(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, tight(t, server))
	i.owns(1)
	i.append(pack(1, chat("x", "1"), chat("x", "2")))
	i.retry(0, false, i.take("a", 1)...)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	j := streams(t, server)
	s, err := j.Stream(t.Context(), "TEST_STATE")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), 0, js.WithGetMsgSubject("TEST.state.parked.0.0.*"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(t.Context(), m.Sequence); err != nil {
		t.Fatal(err)
	}
	if got := i.deliver("a", 1); got[0] != "2" {
		t.Errorf("delivered %v", got)
	}
	if s := i.readers["a"].Stats(); s.Lost != 1 || s.Parked != 0 {
		t.Errorf("stats %+v", s)
	}
}

// What is parked becomes a dead letter when it is too old.
func TestParkedEventsExpire(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, tight(t, server))
	i.owns(1)
	i.append(pack(1, chat("x", "1"), chat("x", "2")))
	i.retry(time.Hour, true, i.take("a", 1)...)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	i.expire(2)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	await(t, "the servers to copy two dead letters", func() bool {
		list, err := i.DeadLetters().List(outbox.LetterFilter{Reason: outbox.ReasonMaxAge})
		if err != nil {
			t.Fatal(err)
		}
		return len(list) == 2
	})
}

// A window that is full of what has failed, and would be for an hour, does not keep
// from another conversation what comes after that.
func TestFullWindowOfFailures(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := tight(t, server)
	o.WindowEvents, o.ParkAttempts = 64, 1000
	i := open(t, o)
	i.owns(1)
	i.append(pack(1, numbered(0, 64, 64)...))
	i.retry(time.Hour, true, i.take("a", 64)...)
	i.nothing("a")
	i.append(pack(1, chat("healthy", "healthy")))
	// As a lane does, which asks again only when it is told to or when Take has said so.
	deadline := time.Now().Add(limit)
	for {
		items, next, _ := i.readers["a"].Take(nil, 1, false)
		items = i.readers["a"].Load(items)
		if len(items) == 1 {
			if items[0].Event.ID != "healthy" {
				t.Errorf("took %v", ids(items))
			}
			return
		}
		again := make(<-chan time.Time)
		if !next.IsZero() {
			again = time.After(time.Until(next))
		}
		select {
		case <-i.wake["a"]:
		case <-again:
		case <-time.After(time.Until(deadline)):
			t.Fatal("the healthy conversation waits for those that have failed")
		}
	}
}

// Letters without an event never push out others, and have a bound of their own.
func TestUndecodableLetters(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, options(t, server, "a"))
	i.hold()
	if err := i.Bury(outbox.DeadLetter{Event: chat("x", "kept"), Reason: "filter"}); err != nil {
		t.Fatal(err)
	}
	var list []outbox.DeadLetter
	for n := range 1100 {
		list = append(list, outbox.DeadLetter{Event: chat("x", fmt.Sprint(n)), Reason: outbox.ReasonUndecodable})
	}
	if err := i.Bury(list...); err != nil {
		t.Fatal(err)
	}
	await(t, "1001 letters", func() bool {
		if _, err := i.Trim(); err != nil {
			t.Fatal(err)
		}
		all, err := i.DeadLetters().List(outbox.LetterFilter{})
		others, err2 := i.DeadLetters().List(outbox.LetterFilter{Reason: "filter"})
		return err == nil && err2 == nil && len(all) == 1001 && len(others) == 1
	})
}

// An instance that has lost the link stores nothing of its former term, but what it replays.
func TestStandbyAppendsNothing(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	one, two := open(t, o), open(t, o)
	one.append(pack(1, chat("x", "1")))
	one.letGo()
	two.append(pack(1, chat("x", "2")))
	if err := one.Append(pack(1, chat("x", "old"))); err == nil {
		t.Error("a former holder appends")
	}
	if err := one.Bury(outbox.DeadLetter{Event: chat("x", "old"), Reason: "filter"}); err == nil {
		t.Error("a former holder buries")
	}
	if err := one.Err(); err != nil {
		t.Errorf("a standby complains: %v", err)
	}
	again := chat("y", "again")
	again.Replayed = true
	made := chat("z", "made")
	made.Kind = event.Push
	device := chat("z", "device")
	device.Kind, device.StanzaID = event.Notification, "made"
	if err := one.Append(pack(1, again, made, device)); err != nil {
		t.Errorf("replay: %v", err)
	}
	published := chat("z", "published") // by a server, over the link
	published.Kind, published.StanzaID = event.Notification, ""
	if err := one.Append(pack(1, published)); err == nil {
		t.Error("a former holder appends what came over the link")
	}
	var j journal
	w1, w2 := one.work("a", j.note), two.work("a", j.note)
	await(t, "what another instance has appended", func() bool { return len(j.all()) == 5 })
	two.append(pack(1, chat("x", "3"))) // after the one of the other instance
	await(t, "all events", func() bool { return len(j.all()) == 6 })
	w1.end()
	w2.end()
	got := slices.Sorted(slices.Values(j.all()))
	if !slices.Equal(got, []string{"1", "2", "3", "again", "device", "made"}) {
		t.Errorf("delivered %v", got)
	}
}

//go:build linux

package rabbit_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/rabbit"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox/outboxtest"
)

// reasons publishes the batch and counts the reasons of its errors.
func reasons(t *testing.T, b *rabbit.Backend, batch []event.Event) map[string]int {
	t.Helper()
	got := map[string]int{}
	for _, err := range b.Publish(t.Context(), batch) {
		got[backends.Reason(err)]++
	}
	return got
}

// channel returns a channel of somebody else.
func channel(t *testing.T, broker *harness.Broker) *amqp.Channel {
	t.Helper()
	ch, err := broker.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func TestWhatBecomesOfTheUnroutable(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	for _, tc := range []struct {
		name       string
		unroutable string
		settle     time.Duration
		exists     bool // before
		reason     string
		lost       uint64
		warned     bool
	}{
		{"default", "", 0, false, "", 5, true},
		{"drop", "drop", 0, false, "", 5, true},
		{"retry", "retry", 0, false, "transient", 0, false},
		{"dead letter", "dead_letter", 0, false, "permanent", 5, false},
		{"drop, settling", "drop", time.Hour, false, "transient", 0, false},
		{"dead letter, settling", "dead_letter", time.Hour, false, "transient", 0, false},
		{"drop, settled", "drop", time.Nanosecond, false, "", 5, true},
		{"drop, exchange not new", "drop", time.Hour, true, "", 5, true},
		{"dead letter, exchange not new", "dead_letter", time.Hour, true, "permanent", 5, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := exchange()
			if tc.exists {
				if err := channel(t, broker).ExchangeDeclare(x.Name, x.Type, false, false, false, false, nil); err != nil {
					t.Fatal(err)
				}
			}
			var log lockedBuffer
			pool := poolFor(t, broker, broker.Addr())
			pool.Settle = tc.settle
			b := newBackend(t, config.Rabbit{Chat: x, Unroutable: tc.unroutable}, pool, slog.New(slog.NewTextHandler(&log, nil)))
			if diff := cmp.Diff(map[string]int{tc.reason: 5}, reasons(t, b, backendtest.Messages(0, 5))); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			retried := uint64(0)
			if tc.reason == "transient" {
				retried = 5
			}
			if c := b.Counts(); c["unroutable"] != tc.lost || c["unroutable_retried"] != retried {
				t.Errorf("counts %v, want %d unroutable, %d retried", c, tc.lost, retried)
			}
			if warned := strings.Contains(log.String(), "no queue takes messages"); warned != tc.warned {
				t.Errorf("warned: %t\n%s", warned, log.String())
			}
			// Whatever was decided, it was about the messages without a queue alone.
			broker.Consume(harness.Binding{Exchange: x.Name, Key: "user7@#"}, harness.Binding{Exchange: x.Name, Key: "user8@#"}, harness.Binding{Exchange: x.Name, Key: "#"})
			if diff := cmp.Diff(map[string]int{"": 5}, reasons(t, b, backendtest.Messages(5, 5))); diff != "" {
				t.Errorf("with a queue, reasons (-want +got):\n%s", diff)
			}
		})
	}
}

// Of one batch only what no queue takes comes again.
func TestSettlingConcernsMessagesNotBatches(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	x := exchange()
	pool := poolFor(t, broker, broker.Addr())
	pool.Settle = time.Hour
	b := newBackend(t, config.Rabbit{Chat: x}, pool, nil)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	batch := backendtest.Messages(0, 3)
	for i := range batch {
		batch[i].From = jid.JID(fmt.Sprintf("user%d@localhost/r", i))
	}
	consumer := broker.Consume(harness.Binding{Exchange: x.Name, Key: "user1@localhost.#"})
	errs := b.Publish(t.Context(), batch)
	for i, want := range []string{"transient", "", "transient"} {
		if got := backends.Reason(errs[i]); got != want {
			t.Errorf("event %d: %v (%q), want %q", i, errs[i], got, want)
		}
	}
	if got := consumer.Drain(); len(got) != 1 || got[0].MessageId != batch[1].ID {
		t.Errorf("%d deliveries, want the one that has a queue", len(got))
	}
}

func TestPrepare(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	x := exchange()
	b := newBackend(t, config.Rabbit{Chat: x}, poolFor(t, broker, broker.Addr()), nil)
	var prepared backends.Preparing = b
	failures := make(chan error)
	for range 4 {
		go func() { failures <- prepared.Prepare(t.Context()) }()
	}
	for range 4 {
		go func() {
			var first error
			for _, err := range b.Publish(t.Context(), backendtest.Messages(0, 50)) {
				if err != nil {
					first = err
				}
			}
			failures <- first
		}()
	}
	for range 8 {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	if err := channel(t, broker).ExchangeDeclarePassive(x.Name, x.Type, false, false, false, false, nil); err != nil {
		t.Error(err)
	}
	if n := b.Counts()["connections_opened"]; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	wrong := poolFor(t, broker, broker.Addr())
	wrong.Password = "hunter2"
	err := newBackend(t, config.Rabbit{Chat: x}, wrong, nil).Prepare(t.Context())
	if backends.Reason(err) != "paused" {
		t.Errorf("wrong password: %v, want paused", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Prepare(t.Context()); err == nil {
		t.Error("prepared after Close")
	}
}

// startPusher runs a pusher with b alone until the test ends.
func startPusher(t *testing.T, b backends.Backend) *pusher.Pusher {
	t.Helper()
	p, err := pusher.New(pusher.Options{Backends: []backends.Backend{b}, Outbox: outboxtest.Open(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// conversations returns the events first to first+n-1 of 100 conversations.
func conversations(first, n int) []event.Event {
	batch := backendtest.Messages(first, n)
	for i := range batch {
		batch[i].From = jid.JID(fmt.Sprintf("user%d@localhost/r", (first+i)%100))
		batch[i].To = "peer@localhost/r"
	}
	return batch
}

// until polls for what nothing announces.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(harness.WaitLimit)
	for tick := time.NewTicker(10 * time.Millisecond); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// A broker that dies takes exchanges and bindings with it unless they are durable.
// All that is published meanwhile waits until the consumer has bound again, and
// follows soon, in order.
func TestBrokerBackWithoutExchanges(t *testing.T) {
	const before, during, after = 50, 100, 1000
	broker := harness.RabbitMQ(t)
	x := exchange()
	consumer := broker.Consume(harness.Binding{Exchange: x.Name, Kind: x.Type, Key: "#"})
	pool := poolFor(t, broker, broker.Addr())
	pool.ReconnectDelay, pool.Settle = 100*time.Millisecond, 10*time.Minute
	var log lockedBuffer
	b := newBackend(t, config.Rabbit{Chat: x, Unroutable: "drop"}, pool, slog.New(slog.NewTextHandler(&log, nil)))
	p := startPusher(t, b)
	p.Push(conversations(0, before))
	consumer.Wait(before)

	broker.Kill()
	p.Push(conversations(before, during))
	until(t, "the breaker does not open", func() bool { return p.Status().Backends[0].State == pusher.Open })
	broker.Start()
	returned := func() uint64 { return b.Counts()["unroutable_retried"] }
	until(t, "nothing is tried without bindings", func() bool { return returned() > 0 })
	back := time.Now()
	p.Push(conversations(before+during, after))
	until(t, "the probes end", func() bool { return returned() > 3 }) // one a second
	consumer.Reconnect()
	if err := channel(t, broker).QueueBind(consumer.Queue, "#", x.Name, false, nil); err != nil {
		t.Fatal(err)
	}
	bound := time.Now()
	all := consumer.Wait(before + during + after)
	t.Logf("bound %v after the first return, all there %v later, %d attempts came back in between",
		bound.Sub(back).Round(time.Millisecond), time.Since(bound).Round(time.Millisecond), returned())

	var got, want []string
	for _, d := range all {
		if !slices.Contains(got, d.MessageId) { // what came just before the kill may come again
			got = append(got, d.MessageId)
		}
	}
	conversation := map[string]jid.JID{}
	for _, e := range conversations(0, before+during+after) {
		want = append(want, e.ID)
		conversation[e.ID] = e.From
	}
	// Events of one conversation come in order; those of several come in any.
	byConversation := func(a, b string) int { return strings.Compare(string(conversation[a]), string(conversation[b])) }
	slices.SortStableFunc(got, byConversation)
	slices.SortStableFunc(want, byConversation)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("deliveries by conversation (-want +got):\n%s", diff)
	}
	if n := b.Counts()["unroutable"]; n != 0 {
		t.Errorf("%d unroutable, want 0", n)
	}
	if n := strings.Count(log.String(), "an exchange was not there"); n != 1 {
		t.Errorf("%d lines about the exchange, want 1:\n%s", n, log.String())
	}
}

// Without any event the exchanges are there again after a restart, so that
// consumers which only bind can do so.
func TestExchangesAreRestoredWithoutEvents(t *testing.T) {
	broker := harness.RabbitMQ(t)
	x := exchange()
	b := newBackend(t, config.Rabbit{Chat: x}, poolFor(t, broker, broker.Addr()), nil)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	broker.Stop()
	broker.Start()
	conn := broker.Dial()
	until(t, "the exchange is not declared again", func() bool {
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		defer ch.Close()
		return ch.ExchangeDeclarePassive(x.Name, x.Type, false, false, false, false, nil) == nil
	})
}

// Somebody may declare the exchange before us when the broker is back: then other
// consumers may still be on their way.
func TestExchangeThatSomebodyElseRestored(t *testing.T) {
	broker := harness.RabbitMQ(t)
	broker.Stop()
	backend := map[bool]*rabbit.Backend{}
	exchanges := map[bool]*config.Exchange{}
	for _, durable := range []bool{false, true} {
		x := exchange()
		x.Durable = durable
		pool := poolFor(t, broker, broker.Addr())
		pool.ReconnectDelay, pool.Settle = time.Hour, time.Hour // no reconnecting but the one below
		b := newBackend(t, config.Rabbit{Chat: x, Unroutable: "dead_letter"}, pool, nil)
		if err := b.Prepare(t.Context()); err == nil {
			t.Fatal("connected to a broker that is down")
		}
		backend[durable], exchanges[durable] = b, x
	}
	broker.Start()
	for _, tc := range []struct {
		durable bool
		want    string
	}{
		{false, "transient"},
		{true, "permanent"}, // it has kept its bindings, if it had any
	} {
		x, b := exchanges[tc.durable], backend[tc.durable]
		if err := channel(t, broker).ExchangeDeclare(x.Name, x.Type, tc.durable, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
		rabbit.EndPause(b)
		if diff := cmp.Diff(map[string]int{tc.want: 3}, reasons(t, b, backendtest.Messages(0, 3))); diff != "" {
			t.Errorf("durable = %t: reasons (-want +got):\n%s", tc.durable, diff)
		}
	}
}

//go:build linux

package rabbit_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
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
)

// TestHeadersExchange routes by what is known of the event and by its metadata.
func TestHeadersExchange(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	x := exchange()
	x.Type = amqp.ExchangeHeaders
	b := newBackend(t, config.Rabbit{All: x, EventHeaders: true}, poolFor(t, broker, broker.Addr()), nil)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ch, err := broker.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	queue, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err == nil {
		err = ch.QueueBind(queue.Name, "", x.Name, false, amqp.Table{"x-match": "all", "event_kind": "chat", "event_direction": "in", "tenant": "a", "count": int64(2)})
	}
	if err != nil {
		t.Fatal(err)
	}
	batch := backendtest.Messages(0, 3)
	batch[0].Metadata = event.Metadata{"tenant": "a", "count": 2, "vip": true, "CC": "nobody", strings.Repeat("x", 256): "too long"}
	batch[1].Metadata = event.Metadata{"tenant": "b", "count": 2}
	batch[2].Metadata = event.Metadata{"tenant": "a", "count": 2}
	batch[2].Direction = event.Out
	mustPublish(t, b, batch)
	d, ok, err := ch.Get(queue.Name, true)
	if err != nil || !ok || d.MessageCount != 0 {
		t.Fatalf("%v: there is one: %t, more: %d", err, ok, d.MessageCount)
	}
	want := amqp.Table{"event_sort": "chat.in", "event_kind": "chat", "event_type": "chat", "event_direction": "in", "tenant": "a", "count": int64(2), "vip": true}
	if diff := cmp.Diff(want, d.Headers); diff != "" || d.Type != "chat.in" || d.MessageId != batch[0].ID {
		t.Errorf("type %q, headers (-want +got):\n%s", d.Type, diff)
	}
}

// compile knows one expression: the body.
func compile(src string) (func(*event.Event) (any, error), error) {
	if src != "event.body" {
		return nil, errors.New("unknown field event.bdy; did you mean event.body?")
	}
	return func(e *event.Event) (any, error) {
		if e.Body == "" {
			return nil, errors.New("there is no value")
		}
		return e.Body, nil
	}, nil
}

func TestRoutingKeyOfAnExpression(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	long := strings.Repeat("x", 254) + "é" // 256 bytes
	for _, tc := range []struct{ long, body, key, reason, detail string }{
		{"dead_letter", "a.b", "a.b", "", ""},
		{"dead_letter", long, "", "permanent", "256 bytes"},
		{"cut", long, long[:254], "", ""},
		{"cut", "", "", "permanent", "routing_key: there is no value"},
	} {
		x := exchange()
		consumer := broker.Consume(harness.Binding{Exchange: x.Name, Kind: x.Type, Key: "#"})
		b, err := rabbit.New(rabbit.Options{
			Name: "bus", Section: config.Rabbit{All: x, RoutingKey: "event.body", LongRoutingKey: tc.long, Choice: config.Choice{Format: config.FormatJSON}},
			Pool: poolFor(t, broker, broker.Addr()), Compile: compile, Log: discard,
		})
		if err != nil {
			t.Fatal(err)
		}
		e := backendtest.Message(0)
		e.Body = tc.body
		err = b.Publish(t.Context(), []event.Event{e})[0]
		if backends.Reason(err) != tc.reason || err != nil && !strings.Contains(err.Error(), tc.detail) {
			t.Errorf("%s: %v (%q), want %q", tc.long, err, backends.Reason(err), tc.reason)
		}
		if got := consumer.Drain(); (len(got) == 1) != (tc.key != "") || len(got) == 1 && got[0].RoutingKey != tc.key {
			t.Errorf("%s: %d deliveries", tc.long, len(got))
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := rabbit.New(rabbit.Options{Name: "bus", Section: config.Rabbit{All: exchange(), RoutingKey: "event.bdy"}, Compile: compile, Log: discard})
	if err == nil || !strings.Contains(err.Error(), "routing_key: unknown field") {
		t.Errorf("a wrong expression: %v", err)
	}
}

// TestExpiration: the broker drops what nobody fetches in time.
func TestExpiration(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	x, dead := exchange(), exchange()
	dead.Type = amqp.ExchangeFanout
	consumer := broker.Consume(harness.Binding{Exchange: dead.Name, Kind: dead.Type})
	b := newBackend(t, config.Rabbit{All: x, Expiration: 20 * time.Millisecond}, poolFor(t, broker, broker.Addr()), nil)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ch, err := broker.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	queue, err := ch.QueueDeclare("expiring-"+rand.Text(), false, true, true, false, amqp.Table{"x-dead-letter-exchange": dead.Name})
	if err == nil {
		err = ch.QueueBind(queue.Name, "#", x.Name, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	mustPublish(t, b, backendtest.Messages(0, 1))
	got := consumer.Wait(1)[0]
	if deaths, _ := got.Headers["x-death"].([]any); len(deaths) != 1 || !strings.Contains(fmt.Sprint(deaths[0]), "expired") {
		t.Errorf("headers %v", got.Headers)
	}
}

// TestUnroutableIsToldOfEachExchange once, however many there are.
func TestUnroutableIsToldOfEachExchange(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	var log bytes.Buffer
	chat, presence := exchange(), exchange()
	b := newBackend(t, config.Rabbit{Chat: chat, Presence: presence}, poolFor(t, broker, broker.Addr()), slog.New(slog.NewTextHandler(&log, nil)))
	batch := backendtest.Messages(0, 6)
	for i := range batch[:3] {
		batch[i] = event.Event{ID: batch[i].ID, Kind: event.UserStatus, From: batch[i].From, User: batch[i].User}
	}
	mustPublish(t, b, batch)
	mustPublish(t, b, batch)
	backendtest.WantFindings(t, b.Probe(t.Context()), nil, "OK login", "OK may be published to", "OK may be published to",
		"WARN no queue took 6 messages", "WARN no queue took 6 messages")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*config.Exchange{chat, presence} {
		if n := strings.Count(log.String(), "no queue takes messages of an exchange, so they are lost; bind one, or say otherwise with unroutable, alternate_exchange or mandatory = false\" backend=rabbit exchange="+x.Name); n != 1 {
			t.Errorf("%d lines about an exchange:\n%s", n, log.String())
		}
	}
}

//go:build linux

package rabbit_test

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/finding"
	"eventpusher/internal/harness"
)

// bound declares an exchange as given, with a queue that gets everything of it.
func bound(t *testing.T, ch *amqp.Channel, x *config.Exchange, arguments amqp.Table) (queue string) {
	t.Helper()
	if err := ch.ExchangeDeclare(x.Name, x.Type, x.Durable, x.AutoDelete, false, false, arguments); err != nil {
		t.Fatal(err)
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err == nil {
		err = ch.QueueBind(q.Name, "#", x.Name, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return q.Name
}

// TestExchangeThatIsThere: an exchange that somebody else has made is used if it is of the
// configured type and durability, and has what else the configuration asks for. What differs
// is named, by doctor too.
func TestExchangeThatIsThere(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	broker.AddUser("writer", "pw", "^nothing$", ".*", "^nothing$")
	conn := broker.Dial()
	alternate := amqp.Table{"alternate-exchange": "unrouted"}
	for _, tc := range []struct {
		name      string
		there     config.Exchange // name, and what is not the default
		arguments amqp.Table
		change    func(*config.Exchange, *config.RabbitPool)
		detail    string // of the error
	}{
		{"with an alternate exchange", config.Exchange{}, alternate, nil, ""},
		{"with the same alternate exchange", config.Exchange{}, alternate, func(x *config.Exchange, _ *config.RabbitPool) { x.AlternateExchange = "unrouted" }, ""},
		{"with another alternate exchange", config.Exchange{}, alternate, func(x *config.Exchange, _ *config.RabbitPool) { x.AlternateExchange = "elsewhere" }, "set alternate-exchange"},
		{"auto-delete", config.Exchange{AutoDelete: true}, nil, func(x *config.Exchange, _ *config.RabbitPool) { x.AutoDelete = false }, ""},
		{"not auto-delete", config.Exchange{}, nil, func(x *config.Exchange, _ *config.RabbitPool) { x.AutoDelete = true }, "set auto_delete"},
		{"durable", config.Exchange{Durable: true}, nil, func(x *config.Exchange, _ *config.RabbitPool) { x.Durable = false }, "set durable"},
		{"of another type", config.Exchange{}, nil, func(x *config.Exchange, _ *config.RabbitPool) { x.Type = "fanout" }, "set type"},
		{"without the right to configure it", config.Exchange{}, nil, func(_ *config.Exchange, p *config.RabbitPool) { p.Username, p.Password = "writer", "pw" }, ""},
		{"declare = passive", config.Exchange{}, alternate, func(x *config.Exchange, _ *config.RabbitPool) { x.Declare = "passive" }, ""},
		{"declare = none", config.Exchange{}, alternate, func(x *config.Exchange, _ *config.RabbitPool) { x.Declare = "none" }, ""},
		{"declare = none without the right to configure it", config.Exchange{}, nil, func(x *config.Exchange, p *config.RabbitPool) {
			x.Declare, p.Username, p.Password = "none", "writer", "pw"
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ch, err := conn.Channel()
			if err != nil {
				t.Fatal(err)
			}
			defer ch.Close()
			x, pool := tc.there, poolFor(t, broker, broker.Addr())
			x.Name, x.Type = "there-"+rand.Text(), "topic"
			queue := bound(t, ch, &x, tc.arguments)
			if tc.change != nil {
				tc.change(&x, &pool)
			}
			b := newBackend(t, config.Rabbit{All: &x}, pool, nil)
			failed := slices.ContainsFunc(b.Probe(t.Context()), func(f finding.Finding) bool { return f.Level == finding.Fail })
			err = b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
			if failed != (tc.detail != "") {
				t.Errorf("doctor fails: %t", failed)
			}
			if tc.detail != "" {
				if backends.Reason(err) != "paused" || !strings.Contains(err.Error(), tc.detail) {
					t.Errorf("%v (%q), want paused with %q", err, backends.Reason(err), tc.detail)
				}
				return
			}
			if state, qerr := ch.QueueDeclarePassive(queue, false, true, true, false, nil); err != nil || qerr != nil || state.Messages != 1 {
				t.Errorf("%v; %d messages in the queue (%v)", err, state.Messages, qerr)
			}
		})
	}
}

// TestExchangeThatIsNotThere: only declare = "active" makes it.
func TestExchangeThatIsNotThere(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	for declare, detail := range map[string]string{"passive": "create it", "none": "create the exchange"} {
		x := exchange()
		x.Declare = declare
		b := newBackend(t, config.Rabbit{All: x}, poolFor(t, broker, broker.Addr()), nil)
		if err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]; backends.Reason(err) != "paused" || !strings.Contains(err.Error(), detail) {
			t.Errorf("%s: %v (%q)", declare, err, backends.Reason(err))
		}
		backendtest.WantFindings(t, b.Probe(t.Context()), nil, "OK login", "FAIL "+detail[:6])
		if declare == "passive" { // somebody makes it: nothing else has to be done
			consumer := broker.Consume(harness.Binding{Exchange: x.Name, Kind: x.Type, Key: "chat.#"})
			mustPublish(t, b, backendtest.Messages(0, 1))
			consumer.Wait(1)
		}
	}
}

// TestAlternateExchange: what no queue takes goes there, and counts as taken.
func TestAlternateExchange(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	other, x := exchange(), exchange()
	other.Type, x.AlternateExchange = "fanout", other.Name
	consumer := broker.Consume(harness.Binding{Exchange: other.Name, Kind: other.Type})
	b := newBackend(t, config.Rabbit{All: x, Unroutable: "dead_letter"}, poolFor(t, broker, broker.Addr()), nil)
	mustPublish(t, b, backendtest.Messages(0, 3))
	if got := consumer.Drain(); len(got) != 3 {
		t.Errorf("%d of 3 messages came by the alternate exchange", len(got))
	}
}

// TestQuorumQueue: messages of an exchange for everything, in the order in which they were
// published.
func TestQuorumQueue(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	x := exchange()
	x.Durable = true
	b := newBackend(t, config.Rabbit{All: x}, poolFor(t, broker, broker.Addr()), nil)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ch, err := broker.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	queue, err := ch.QueueDeclare("quorum-"+rand.Text(), true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	if err == nil {
		err = ch.QueueBind(queue.Name, "chat.in.#", x.Name, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	batch := backendtest.Messages(0, 10)
	mustPublish(t, b, batch)
	deliveries, err := ch.ConsumeWithContext(t.Context(), queue.Name, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for d := range deliveries {
		if ids = append(ids, d.MessageId); len(ids) == len(batch) {
			break
		}
	}
	if !slices.EqualFunc(ids, batch, func(id string, e event.Event) bool { return id == e.ID }) {
		t.Errorf("order %v", ids)
	}
	if _, err := ch.QueueDelete(queue.Name, false, false, false); err != nil {
		t.Error(err)
	}
}

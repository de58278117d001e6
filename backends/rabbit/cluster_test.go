//go:build linux

package rabbit_test

import (
	"crypto/rand"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/config"
	"eventpusher/internal/harness"
)

// TestCluster: when the node that is used is killed, the next one takes over, and everything
// that was confirmed or is published again is in the durable queue of the node that stays.
func TestCluster(t *testing.T) {
	first, second := harness.RabbitMQCluster(t)
	x := exchange()
	x.Durable = true
	pool := poolFor(t, second, second.Addr())
	pool.Addresses = []string{second.Addr(), first.Addr()}
	b := newBackend(t, config.Rabbit{All: x}, pool, nil)
	if err := b.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ch, err := first.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	queue, err := ch.QueueDeclare("durable-"+rand.Text(), true, false, false, false, nil)
	if err == nil {
		err = ch.QueueBind(queue.Name, "#", x.Name, false, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	batch := backendtest.Messages(0, 40)
	mustPublish(t, b, batch[:20])
	second.Kill()
	untilPublished(t, b, batch[20:])
	seen := map[string]bool{}
	deliveries, err := ch.ConsumeWithContext(t.Context(), queue.Name, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for d := range deliveries {
		if seen[d.MessageId] = true; len(seen) == len(batch) {
			return
		}
	}
	t.Errorf("%d of %d messages arrived", len(seen), len(batch))
}

// TestExternal logs in by certificate, at a broker that takes no password of the user.
func TestExternal(t *testing.T) {
	broker := harness.RabbitMQWithTLS(t)
	pool := poolFor(t, broker, broker.TLSAddr)
	pool.TLS = &config.TLS{CACertFile: broker.CAFile, CertFile: broker.CertFile, KeyFile: broker.CertFile}
	pool.SASL, pool.Username, pool.Password = "external", "nobody", "hunter2"
	x := exchange()
	b := newBackend(t, config.Rabbit{All: x}, pool, nil)
	err := b.Publish(t.Context(), backendtest.Messages(0, 1))[0]
	if backends.Reason(err) != "paused" {
		t.Errorf("without a user of the certificate's name: %v (%q)", err, backends.Reason(err))
	}
	broker.AddUser("localhost", "unused", ".*", ".*", ".*")
	consumer := broker.Consume(harness.Binding{Exchange: x.Name, Kind: amqp.ExchangeTopic, Key: "#"})
	mustPublish(t, b, backendtest.Messages(0, 1))
	if got := consumer.Wait(1); got[0].UserId != "" || got[0].RoutingKey == "" {
		t.Errorf("%+v", got[0])
	}
	backendtest.WantFindings(t, b.Probe(t.Context()), []string{"hunter2"}, "OK certificate", "OK may be published to")
}

//go:build linux

package harness

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// publish sends one persistent message and waits for its confirm.
func publish(t *testing.T, b *Broker, exchange, key, body string) {
	t.Helper()
	ch, err := b.Dial().Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), WaitLimit)
	defer cancel()
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := confirm.WaitContext(ctx); !ok || err != nil {
		t.Fatalf("confirm: %v, %v", ok, err)
	}
}

func bodies(deliveries []amqp.Delivery) []string {
	var all []string
	for _, d := range deliveries {
		all = append(all, d.RoutingKey+" "+string(d.Body))
	}
	return all
}

func TestRabbitMQConsumerCollectsWhatMatches(t *testing.T) {
	t.Parallel()
	b := SharedRabbitMQ(t)
	c := b.Consume(Binding{Exchange: "collect", Kind: "topic", Key: "alice.*"})
	publish(t, b, "collect", "alice.sent", "one")
	other := b.Consume(Binding{Exchange: "collect", Key: "#"})
	publish(t, b, "collect", "bob.sent", "two")
	publish(t, b, "collect", "alice.recv", "three")

	want := []string{"alice.sent one", "alice.recv three"}
	if diff := cmp.Diff(want, bodies(c.Drain())); diff != "" {
		t.Errorf("alice.* (-want +got):\n%s", diff)
	}
	want = []string{"bob.sent two", "alice.recv three"}
	if diff := cmp.Diff(want, bodies(other.Wait(2))); diff != "" {
		t.Errorf("# (-want +got):\n%s", diff)
	}
}

func TestRabbitMQSharedIsOne(t *testing.T) {
	t.Parallel()
	if a, b := SharedRabbitMQ(t), SharedRabbitMQ(t); a.URL() != b.URL() {
		t.Errorf("two brokers: %s and %s", a.URL(), b.URL())
	}
}

func TestRabbitMQKeepsPortAndDataOverStopKillAndPause(t *testing.T) {
	t.Parallel()
	b := RabbitMQ(t)
	c := b.Consume(Binding{Exchange: "kept", Kind: "topic", Durable: true, Key: "#"})

	for _, step := range []struct {
		name string
		end  func()
	}{{"stop", b.Stop}, {"kill", b.Kill}} {
		step.end()
		if conn, err := amqp.Dial(b.URL()); err == nil {
			conn.Close()
			t.Fatalf("%s: still answers", step.name)
		}
		b.Start()
		publish(t, b, "kept", step.name, "after it")
		c.Reconnect()
	}
	// What had been consumed just before the kill may come a second time.
	got := slices.Compact(bodies(c.Drain()))
	if diff := cmp.Diff([]string{"stop after it", "kill after it"}, got); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}

	b.Pause()
	if !stopped(b.s.pid) {
		t.Error("the broker runs while paused")
	}
	b.Resume()
	publish(t, b, "kept", "resume", "after it")
	if last := bodies(c.Drain()); last[len(last)-1] != "resume after it" {
		t.Errorf("the last delivery is %q", last[len(last)-1])
	}
}

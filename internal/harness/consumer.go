//go:build linux

package harness

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Binding says what a Consumer collects.
type Binding struct {
	Exchange string
	// Kind is the exchange's type when the consumer is to declare it ("topic",
	// "direct", "fanout", "headers"); empty when it exists already.
	Kind string
	// Durable is the exchange's own durability, which must be the one that the
	// publisher declares.
	Durable bool
	// Key is the binding key; in a topic exchange "#" matches every key.
	Key string
}

// Consumer collects what RabbitMQ routes to a queue of its own. The queue is
// durable, so that it survives a restart of the broker, and deleted with the
// test. Safe for concurrent use.
type Consumer struct {
	// Queue is the queue's name.
	Queue string

	t       testing.TB
	b       *Broker
	conn    *amqp.Connection
	channel *amqp.Channel

	mu       sync.Mutex
	got      []amqp.Delivery
	arrived  chan struct{} // closed and replaced with every delivery
	finished chan struct{} // closed when the connection has ended
}

// Consume declares a queue, binds it and collects everything that arrives.
func (b *Broker) Consume(bindings ...Binding) *Consumer {
	b.t.Helper()
	c := &Consumer{Queue: "harness-" + rand.Text(), t: b.t, b: b, arrived: make(chan struct{})}
	c.connect()
	_, err := c.channel.QueueDeclare(c.Queue, true, false, false, false, nil)
	c.must("declare the queue", err)
	for _, bind := range bindings {
		if bind.Kind != "" {
			err := c.channel.ExchangeDeclare(bind.Exchange, bind.Kind, bind.Durable, false, false, false, nil)
			c.must("declare exchange "+bind.Exchange, err)
		}
		c.must("bind to "+bind.Exchange, c.channel.QueueBind(c.Queue, bind.Key, bind.Exchange, false, nil))
	}
	c.consume()
	b.t.Cleanup(func() {
		if !c.conn.IsClosed() {
			c.channel.QueueDelete(c.Queue, false, false, false)
		}
		c.disconnect()
	})
	return c
}

// Reconnect goes on collecting after the broker was stopped or killed. Bindings
// to exchanges that were not durable are gone, as RabbitMQ has it, and what was
// collected just before a kill can come again.
func (c *Consumer) Reconnect() {
	c.t.Helper()
	c.disconnect()
	c.connect()
	c.consume()
}

func (c *Consumer) connect() {
	c.t.Helper()
	conn, err := amqp.Dial(c.b.URL())
	c.must("connect", err)
	c.conn = conn
	c.channel, err = conn.Channel()
	c.must("open a channel", err)
}

func (c *Consumer) disconnect() {
	c.conn.Close()
	if c.finished != nil {
		<-c.finished
	}
}

func (c *Consumer) consume() {
	c.t.Helper()
	deliveries, err := c.channel.Consume(c.Queue, "", true, false, false, false, nil)
	c.must("consume", err)
	c.finished = make(chan struct{})
	go func() {
		defer close(c.finished)
		for d := range deliveries {
			c.mu.Lock()
			c.got = append(c.got, d)
			close(c.arrived)
			c.arrived = make(chan struct{})
			c.mu.Unlock()
		}
	}()
}

func (c *Consumer) must(verb string, err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("rabbitmq consumer: %s: %v", verb, err)
	}
}

// All returns what has arrived so far, in order.
func (c *Consumer) All() []amqp.Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// Wait returns everything that has arrived as soon as it is n deliveries or more.
func (c *Consumer) Wait(n int) []amqp.Delivery {
	c.t.Helper()
	return c.until(func(got []amqp.Delivery) bool { return len(got) >= n })
}

// Drain puts a marker into the queue and returns everything that was there
// before it. What a publisher has had confirmed is before it, so a test can say
// that nothing more came without waiting for nothing.
func (c *Consumer) Drain() []amqp.Delivery {
	c.t.Helper()
	marker := "marker-" + rand.Text()
	ctx, cancel := context.WithTimeout(context.Background(), WaitLimit)
	defer cancel()
	err := c.channel.PublishWithContext(ctx, "", c.Queue, false, false, amqp.Publishing{MessageId: marker})
	c.must("publish the marker", err)
	isMarker := func(d amqp.Delivery) bool { return d.MessageId == marker }
	c.until(func(got []amqp.Delivery) bool { return slices.ContainsFunc(got, isMarker) })

	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.got, isMarker)
	before := slices.Clone(c.got[:i])
	c.got = slices.Delete(c.got, i, i+1)
	return before
}

// until waits for a state of the collection and returns it. enough must not keep it.
func (c *Consumer) until(enough func([]amqp.Delivery) bool) []amqp.Delivery {
	c.t.Helper()
	deadline := time.After(WaitLimit)
	for {
		c.mu.Lock()
		n, arrived := len(c.got), c.arrived
		if enough(c.got) {
			defer c.mu.Unlock()
			return slices.Clone(c.got)
		}
		c.mu.Unlock()
		select {
		case <-arrived:
		case <-deadline:
			c.t.Fatalf("rabbitmq consumer: only %d deliveries within %s", n, WaitLimit)
		}
	}
}

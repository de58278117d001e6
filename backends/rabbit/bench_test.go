//go:build linux

package rabbit_test

import (
	"sync"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends/backendtest"
	"eventpusher/backends/rabbit"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
)

// BenchmarkPublish publishes persistent, confirmed messages through the backend
// and through the bare client with 256 messages in flight, in turns, to the same
// durable queue. ratio is the backend's rate by the client's.
func BenchmarkPublish(b *testing.B) {
	broker := harness.SharedRabbitMQ(b)
	x := exchange()
	admin, err := broker.Dial().Channel()
	if err != nil {
		b.Fatal(err)
	}
	for _, err := range []error{
		admin.ExchangeDeclare(x.Name, x.Type, x.Durable, false, false, false, nil),
		declareShortQueue(admin, x.Name),
	} {
		if err != nil {
			b.Fatal(err)
		}
	}
	defer admin.QueueDelete(x.Name, false, false, false)
	backend, err := rabbit.New(rabbit.Options{Name: rabbit.Name, Section: config.Rabbit{Chat: x}, Pool: poolFor(b, broker, broker.Addr()), Log: discard})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	bare, err := broker.Dial().Channel()
	if err != nil {
		b.Fatal(err)
	}
	if err := bare.Confirm(false); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer() // the broker had to be started
	var ours, theirs backendtest.Timer
	const turn = 4096
	for done := 0; done < b.N; done += turn {
		n := min(turn, b.N-done)
		theirs.Run(b, func() { publishBare(b, bare, x.Name, n) })
		ours.Run(b, func() { publishAll(b, backend, n) })
	}
	backendtest.Report(b, &ours, &theirs, b.N)
}

// declareShortQueue makes a durable queue that forgets all but the latest.
func declareShortQueue(ch *amqp.Channel, name string) error {
	if _, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-max-length": 1000}); err != nil {
		return err
	}
	return ch.QueueBind(name, "#", name, false, nil)
}

func publishBare(b *testing.B, ch *amqp.Channel, exchange string, n int) {
	const window = 256
	var open [window]*amqp.DeferredConfirmation
	for i := range n + window {
		if c := open[i%window]; c != nil && !c.Wait() {
			b.Fatal("not acknowledged")
		}
		open[i%window] = nil
		if i >= n {
			continue
		}
		e := backendtest.Message(i)
		confirm, err := ch.PublishWithDeferredConfirm(exchange, string(e.User)+".chat_msg_sent", true, false, amqp.Publishing{
			ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: e.ID, Timestamp: e.Time,
			Body: event.AppendPayload(nil, &e, event.FullJID),
		})
		if err != nil {
			b.Fatal(err)
		}
		open[i%window] = confirm
	}
}

func publishAll(b *testing.B, backend *rabbit.Backend, n int) {
	limits := backend.Limits()
	batches := make(chan []event.Event)
	var lanes sync.WaitGroup
	for range limits.Lanes {
		lanes.Go(func() {
			for batch := range batches {
				for _, err := range backend.Publish(b.Context(), batch) {
					if err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	for first := 0; first < n; first += limits.Batch {
		batches <- backendtest.Messages(first, min(limits.Batch, n-first))
	}
	close(batches)
	lanes.Wait()
}

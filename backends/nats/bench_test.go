package nats_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventpusher/backends/backendtest"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
)

// BenchmarkPublish publishes through the backend and through the bare library with as many
// unacknowledged messages, in turns, to a stream in memory. The library sends the same
// JSON.
func BenchmarkPublish(b *testing.B) {
	for _, subject := range []string{"events", "events.{{.sort}}.{{.user}}"} {
		b.Run(subject, func(b *testing.B) { benchmarkPublish(b, subject) })
	}
}

func benchmarkPublish(b *testing.B, subject string) {
	server := harness.NATS(b, harness.NATSOptions{})
	broker := connect(b, server.URL())
	broker.create(jetstream.StreamConfig{Subjects: []string{"events", "events.>"}, MaxMsgs: 1000, Duplicates: 100 * time.Millisecond})
	backend := build(b, destination(server.URL(), subject), slog.New(slog.DiscardHandler))
	limits := backend.Limits()
	chosen, err := form.Choose(config.Choice{}, nil, "chat.in")
	if err != nil {
		b.Fatal(err)
	}
	parallel := func(publish func(batch []event.Event) error) {
		var lanes sync.WaitGroup
		for lane := range limits.Lanes {
			batch := backendtest.Messages(lane*limits.Batch, limits.Batch)
			lanes.Go(func() {
				for range 10 {
					for i := range batch {
						batch[i].ID = natsgo.NewInbox()
					}
					if err := publish(batch); err != nil {
						b.Error(err)
					}
				}
			})
		}
		lanes.Wait()
	}
	same := broker.bare(chosen.Form.Write)
	publish := func(batch []event.Event) error {
		for _, err := range backend.Publish(context.Background(), batch) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	var theirs, ours backendtest.Timer
	total := 0
	for turn := 10 * limits.Lanes * limits.Batch; total < b.N; total += turn {
		theirs.Run(b, func() { parallel(same) })
		ours.Run(b, func() { parallel(publish) })
	}
	backendtest.Report(b, &ours, &theirs, total)
}

// bare publishes batches with nothing but the library.
func (b *broker) bare(write func(*event.Event) (form.Message, error)) func(batch []event.Event) error {
	return func(batch []event.Event) error {
		acks := make([]jetstream.PubAckFuture, len(batch))
		for i := range batch {
			written, err := write(&batch[i])
			if err != nil {
				return err
			}
			m := &natsgo.Msg{Subject: "events", Data: written.Body, Header: natsgo.Header{"Nats-Msg-Id": {batch[i].ID}}}
			if acks[i], err = b.js.PublishMsgAsync(m); err != nil {
				return err
			}
		}
		for _, ack := range acks {
			select {
			case <-ack.Ok():
			case err := <-ack.Err():
				return err
			}
		}
		return nil
	}
}

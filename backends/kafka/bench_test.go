package kafka_test

import (
	"context"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"eventpusher/backends/backendtest"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
)

// BenchmarkPublish produces through the backend and through the bare library with as many
// unacknowledged records, in turns, to a fake broker in this process. The library sends the same
// JSON.
func BenchmarkPublish(b *testing.B) {
	cluster := start(b)
	backend := build(b, destination(cluster.address))
	limits := backend.Limits()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.address), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(0))
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
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
					if err := publish(batch); err != nil {
						b.Error(err)
					}
				}
			})
		}
		lanes.Wait()
	}
	same := bare(client, chosen.Form.Write)
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

// bare produces batches with nothing but the library.
func bare(client *kgo.Client, write func(*event.Event) (form.Message, error)) func(batch []event.Event) error {
	return func(batch []event.Event) error {
		records := make([]*kgo.Record, len(batch))
		for i := range batch {
			m, err := write(&batch[i])
			if err != nil {
				return err
			}
			records[i] = &kgo.Record{Key: []byte(batch[i].From), Value: m.Body, Headers: []kgo.RecordHeader{{Key: "event-id", Value: []byte(batch[i].ID)}}}
		}
		return client.ProduceSync(context.Background(), records...).FirstErr()
	}
}

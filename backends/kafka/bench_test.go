package kafka_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"eventpusher/backends/backendtest"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
)

// BenchmarkPublish produces through the backend and through the bare library with as many
// unacknowledged records, in turns, to a fake broker in this process. ratio is the backend's
// rate by that of the library, which sends the same JSON. prewritten is the rate by that of
// the library if it sends one text, written beforehand.
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
	sample := backendtest.Message(0)
	beforehand, err := chosen.Form.Write(&sample)
	if err != nil {
		b.Fatal(err)
	}
	parallel := func(publish func(batch []event.Event) error) time.Duration {
		start := time.Now()
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
		return time.Since(start)
	}
	same, prewritten := bare(client, chosen.Form.Write), bare(client, func(*event.Event) (form.Message, error) { return beforehand, nil })
	ours := func(batch []event.Event) error {
		for _, err := range backend.Publish(context.Background(), batch) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	var sameTime, prewrittenTime, ourTime time.Duration
	total := 0
	for turn := 10 * limits.Lanes * limits.Batch; total < b.N; total += turn {
		sameTime += parallel(same)
		ourTime += parallel(ours)
		prewrittenTime += parallel(prewritten)
	}
	b.ReportMetric(float64(sameTime)/float64(ourTime), "ratio")
	b.ReportMetric(float64(prewrittenTime)/float64(ourTime), "prewritten")
	b.ReportMetric(float64(total)/ourTime.Seconds(), "msg/s")
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

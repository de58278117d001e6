package jetstream_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// benchEvents are n events of 600 bytes or so, of 1000 conversations.
func benchEvents(from, n int) (list []*event.Event) {
	for i := from; i < from+n; i++ {
		e := chat(fmt.Sprint("peer", i%1000), fmt.Sprint(i))
		e.Packet = "<message>" + strings.Repeat("x", 400) + "</message>"
		list = append(list, e)
	}
	return list
}

func benchOpen(b *testing.B) *instance {
	b.Helper()
	server := harness.NATS(b, harness.NATSOptions{})
	i := open(b, jetstream.Options{Options: natsrpc.Options{URL: server.URL()}, Backends: []string{"a"}})
	i.owns(jetstream.DefaultPartitions)
	i.hold()
	return i
}

// BenchmarkAppend is what accepting events costs, by the events of a pack.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 32, 256, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			i := benchOpen(b)
			w := i.work("a", func(string) {})
			defer w.end()
			p := pack(1, benchEvents(0, n)...)
			for b.Loop() {
				if err := i.Append(p); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n)/1e3, "µs/event")
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkAsk is what it costs to ask the instance that holds the link.
func BenchmarkAsk(b *testing.B) {
	i := benchOpen(b)
	stop, err := i.Answer(func(_ context.Context, question []byte) []byte { return question })
	if err != nil {
		b.Fatal(err)
	}
	defer stop()
	question := []byte(strings.Repeat("x", 200))
	await(b, "the first answer", func() bool {
		_, err := i.Ask(b.Context(), question)
		return err == nil
	})
	for b.Loop() {
		if _, err := i.Ask(b.Context(), question); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDrain is what it costs to deliver events that wait, to a service that
// takes no time.
func BenchmarkDrain(b *testing.B) {
	const waiting = 50_000
	for b.Loop() {
		b.StopTimer()
		i := benchOpen(b)
		for n := 0; n < waiting; n += 1000 {
			i.append(pack(1, benchEvents(n, 1000)...))
		}
		b.StartTimer()
		began := time.Now()
		var delivered atomic.Int64
		var lanes sync.WaitGroup
		for range 10 {
			lanes.Go(func() {
				var items []*outbox.Item
				var list []outbox.Settlement
				for delivered.Load() < waiting {
					if items, _, _ = i.readers["a"].Take(items[:0], 32, false); len(items) == 0 {
						<-time.After(time.Millisecond)
						continue
					}
					list = list[:0]
					for _, it := range items {
						list = append(list, outbox.Settlement{Item: it, Outcome: outbox.Delivered})
					}
					if err := i.readers["a"].Settle(list); err != nil {
						panic(err)
					}
					delivered.Add(int64(len(items)))
				}
			})
		}
		lanes.Wait()
		took := time.Since(began)
		b.StopTimer()
		i.close()
		b.ReportMetric(float64(took.Nanoseconds())/waiting/1e3, "µs/event")
		b.ReportMetric(waiting/took.Seconds(), "events/s")
		b.StartTimer()
	}
}

package pusher_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/internal/tracing"
	"eventpusher/pusher"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
)

// nullBackend takes everything at once.
type nullBackend struct {
	name   string
	limits backends.Limits
	taken  atomic.Int64
	want   int64
	done   chan struct{}
	none   [64]error
}

func (b *nullBackend) Name() string            { return b.name }
func (b *nullBackend) Limits() backends.Limits { return b.limits }
func (b *nullBackend) Close() error            { return nil }

func (b *nullBackend) Wants(*event.Event) bool { return true }

func (b *nullBackend) Publish(_ context.Context, batch []event.Event) []error {
	if b.taken.Add(int64(len(batch))) == b.want {
		close(b.done)
	}
	return b.none[:len(batch)]
}

// cpuTime returns what the process has used; on a busy machine it says more
// than the clock on the wall.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDurableDelivery measures an event from Push, over the disk, until three
// backends have it, with and without a trace of it.
func BenchmarkDurableDelivery(b *testing.B) {
	b.Run("traced", func(b *testing.B) { benchmarkDurableDelivery(b, trace.New(), nil) })
	b.Run("untraced", func(b *testing.B) { benchmarkDurableDelivery(b, nil, nil) })
	for _, ratio := range []string{"1", "0.01"} {
		b.Run("spans of "+ratio, func(b *testing.B) {
			collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer collector.Close()
			env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
			spans, err := tracing.Start(b.Context(), func(key string) string { return env[key] }, "test", slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			defer spans.Close(context.Background())
			benchmarkDurableDelivery(b, trace.New(), spans)
		})
	}
}

func benchmarkDurableDelivery(b *testing.B, r *trace.Recorder, spans *tracing.Tracer) {
	pack := make([]event.Event, 64)
	for i := range pack {
		pack[i] = chat("Hello")
		pack[i].ID = fmt.Sprintf("%016x%016x", i, uint64(i)*0x9e3779b97f4a7c15) // the end decides about sampling
		pack[i].From = jid.JID(fmt.Sprintf("user%d@localhost/phone", i))
		pack[i].Packet = strings.Repeat("abcdefghij", 40)
	}
	rounds := b.N/len(pack) + 1
	o := pusher.Options{Trace: r, Spans: spans}
	var sinks []*nullBackend
	for _, name := range []string{"sns", "http", "rabbit"} {
		s := &nullBackend{name: name, limits: backends.Limits{Lanes: 4, Batch: 16}, want: int64(rounds * len(pack)), done: make(chan struct{})}
		sinks, o.Backends = append(sinks, s), append(o.Backends, s)
	}
	box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	o.Outbox = box
	p, err := pusher.New(o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	for range rounds {
		p.Push(pack)
	}
	for _, s := range sinks {
		<-s.done
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(rounds*len(pack)), "cpu-ns/event")
	b.ReportMetric(float64(rounds*len(pack))/b.Elapsed().Seconds(), "events/s")
	cancel()
	<-ended
	if err := box.Close(); err != nil {
		b.Error(err)
	}
}

// BenchmarkChain measures the filters alone: Push without a backend.
func BenchmarkChain(b *testing.B) {
	for _, bc := range []struct {
		name    string
		filters []config.Filter
	}{
		{"no filter", nil},
		{"4 clauses", []config.Filter{{Name: "f", Keep: `event.kind == "chat" and event.direction == "in" and event.class in ["content", "call"] and not (event.body startsWith "!")`}}},
		{"sample", []config.Filter{{Name: "f", Keep: `event.kind == "chat"`, Metadata: map[string]string{"timestamp": "event.timestamp", "session_count": "event.session_count"}}}},
		{"pattern", []config.Filter{{Name: "f", Keep: `event.body matches "(?i)urgent|asap"`}}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			filters, problems := filter.Compile(bc.filters)
			if len(problems) > 0 {
				b.Fatal(problems)
			}
			chain, err := filter.NewChain(filters, filter.Metrics{}, nil)
			if err != nil {
				b.Fatal(err)
			}
			box, _, _ := openOutbox(b, b.TempDir())

			p, err := pusher.New(pusher.Options{Chain: chain, Outbox: box})
			if err != nil {
				b.Fatal(err)
			}
			one := []event.Event{chat("Shall we meet at the harbour at nine?")}
			b.ReportAllocs()
			before := cpuTime()
			for b.Loop() {
				p.Push(one)
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// TestChainWithoutFiltersDoesNotAllocate is the bar that BenchmarkChain shows.
func TestChainWithoutFiltersDoesNotAllocate(t *testing.T) {
	chain, err := filter.NewChain(nil, filter.Metrics{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	box, _, _ := openOutbox(t, t.TempDir())
	p, err := pusher.New(pusher.Options{Chain: chain, Outbox: box})
	if err != nil {
		t.Fatal(err)
	}
	one := []event.Event{chat("Hi")}
	if n := testing.AllocsPerRun(100, func() { p.Push(one) }); n != 0 {
		t.Errorf("%v allocations for an event that no filter sees and no backend wants", n)
	}
}

package app

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"eventpusher/backends"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/xmppserver"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/translator"
)

// counter is a backend that takes everything and counts it.
type counter struct {
	backends.Backend
	taken atomic.Int64
}

func (*counter) Name() string              { return "counter" }
func (*counter) Limits() backends.Limits   { return backends.Limits{Lanes: 4, Batch: 1000} }
func (*counter) Wants(e *event.Event) bool { return true }
func (c *counter) Publish(_ context.Context, batch []event.Event) []error {
	c.taken.Add(int64(len(batch)))
	return make([]error, len(batch))
}

// way is what n messages cost on their way from the socket to a backend.
type way struct {
	n         int
	wall, cpu time.Duration
}

func (w *way) add(v way) { w.n, w.wall, w.cpu = w.n+v.n, w.wall+v.wall, w.cpu+v.cpu }

func (w way) each() float64 { return float64(w.cpu.Nanoseconds()) / 1000 / float64(w.n) }
func (w way) rate() float64 { return float64(w.n) / w.wall.Seconds() }

func used() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure sends n messages, as the event-feed or as service_log does, and waits until
// all are delivered.
func measure(b *testing.B, n int, feed bool) way {
	b.Helper()
	server, err := xmppserver.New(xmppserver.Options{Component: feedComponent, Secret: "secret", Hosts: []string{feedHost}})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	taker := &counter{}
	f := &sink{translator: translator.New(translator.Options{Hosts: []string{feedHost}, Component: feedComponent}), box: box}
	push, err := pusher.New(pusher.Options{Backends: []backends.Backend{taker}, Outbox: box, Feeds: f})
	if err != nil {
		b.Fatal(err)
	}
	f.pusher = push
	link, err := component.New(config.Component{Address: server.Addr(), Name: feedComponent, Secret: "secret", Forwarders: []string{feedHost}},
		[]string{feedHost}, component.Options{Sink: f})
	if err != nil {
		b.Fatal(err)
	}
	f.link = link
	ctx, stop := context.WithCancel(context.Background())
	linked, pushed := make(chan error, 1), make(chan error, 1)
	go func() { pushed <- push.Run(context.Background()) }()
	go func() { linked <- link.Run(ctx) }()
	session, err := server.Accept(ctx)
	if err != nil {
		b.Fatal(err)
	}
	const names = " xmlns='urn:eventpusher:feed:1' source='xmpp1' epoch='67401c55-9f'"
	open := "<message from='" + feedHost + "' to='" + feedComponent + "'>"
	if feed {
		if err := session.Send(open + "<hello" + names + " first='1' next='1' hosts='" + feedHost + "'/></message>"); err != nil {
			b.Fatal(err)
		}
		if _, err := session.Receive(ctx); err != nil { // resume
			b.Fatal(err)
		}
	}
	body := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 12)
	began, start := time.Now(), used()
	var block strings.Builder
	for seq := 1; seq <= n; seq++ {
		block.WriteString(open)
		if feed {
			fmt.Fprintf(&block, "<event%s seq='%d' kind='message-sent' user='a%d@%s/r1' to='b%d@elsewhere.example' t='1732253277.123'/>", names, seq, seq%100, feedHost, seq%100)
		}
		fmt.Fprintf(&block, "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='a%d@%s/r1' to='b%d@elsewhere.example' type='chat' id='m%d'><body>%s</body></message></forwarded></message>",
			seq%100, feedHost, seq%100, seq, body)
		if block.Len() > 64<<10 || seq == n {
			if err := session.Send(block.String()); err != nil {
				b.Fatal(err)
			}
			block.Reset()
		}
	}
	for taker.taken.Load() < int64(n) {
		time.Sleep(time.Millisecond)
	}
	result := way{n, time.Since(began), used() - start}
	stop()
	<-linked
	push.Drain(context.Background())
	if err := <-pushed; err != nil {
		b.Error(err)
	}
	if err := box.Close(); err != nil {
		b.Error(err)
	}
	return result
}

// BenchmarkFeedWay compares the event-feed, acknowledged behind the fsync, to
// service_log, from the socket to a backend and through the durable outbox. The two
// take turns, so that other work on the machine meets both.
func BenchmarkFeedWay(b *testing.B) {
	for b.Loop() {
		var feed, log way
		for range 3 {
			feed.add(measure(b, 50_000, true))
			log.add(measure(b, 50_000, false))
		}
		b.ReportMetric(feed.rate(), "feed-events/s")
		b.ReportMetric(log.rate(), "log-events/s")
		b.ReportMetric(feed.each(), "feed-cpu-µs/event")
		b.ReportMetric(log.each(), "log-cpu-µs/event")
		b.ReportMetric(feed.each()/log.each(), "x-cpu")
	}
}

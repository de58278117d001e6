package outbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher/outbox"
)

// benchKeys is how many conversations the benchmarks have.
const benchKeys = 1000

// benchEvent is an event of about 600 bytes, a chat message as it comes from a
// server.
func benchEvent(n int) *event.Event {
	return &event.Event{
		ID: fmt.Sprintf("%032x", n), Kind: event.Chat, Type: "chat", Direction: event.In,
		From: jid.JID("user" + strconv.Itoa(n%benchKeys) + "@example.org/phone"), To: "juliet@example.org",
		User: jid.JID("user" + strconv.Itoa(n%benchKeys) + "@example.org"),
		Body: "Shall we meet at the harbour at nine?", HasBody: true, Class: event.Content,
		Time: time.Now(), Host: "example.org", Dialect: "event-feed", Packet: benchPacket,
	}
}

var benchPacket = "<message>" + strings.Repeat("abcdefghij", 36) + "</message>"

func benchPack(from, n int, takers outbox.Subscribers) outbox.Pack {
	var p outbox.Pack
	for i := range n {
		p.Entries = append(p.Entries, outbox.Entry{Event: benchEvent(from + i), Subscribers: takers})
	}
	return p
}

// sinkLanes deliver everything of one reader at once and report each event.
func sinkLanes(lanes *sync.WaitGroup, r outbox.Reader, woken, stop chan struct{}, seen func(*outbox.Item)) {
	lanes.Go(func() {
		var (
			items       []*outbox.Item
			settlements []outbox.Settlement
		)
		for {
			items, _, _ = r.Take(items[:0], 64, false)
			items = r.Load(items)
			if len(items) == 0 {
				select {
				case <-woken:
					continue
				case <-stop:
					return
				}
			}
			settlements = settlements[:0]
			for _, it := range items {
				seen(it)
				settlements = append(settlements, outbox.Settlement{Item: it})
			}
			if err := r.Settle(settlements); err != nil {
				panic(err)
			}
		}
	})
}

// sinks opens an outbox with three readers that deliver everything.
func sinks(b testing.TB, o outbox.EmbeddedOptions, seen func(reader int, it *outbox.Item)) (e *outbox.Embedded, stop func()) {
	b.Helper()
	e, _, err := outbox.OpenEmbedded(o)
	if err != nil {
		b.Fatal(err)
	}
	var lanes sync.WaitGroup
	end := make(chan struct{})
	for n, name := range []string{"a", "b", "c"} {
		woken := make(chan struct{}, 1)
		r, err := e.Reader(name, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		sinkLanes(&lanes, r, woken, end, func(it *outbox.Item) { seen(n, it) })
	}
	return e, func() {
		close(end)
		lanes.Wait()
		if err := e.Close(); err != nil {
			b.Error(err)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEmbedded measures events from Append until three readers have settled
// them, at the speed of the disk.
func BenchmarkEmbedded(b *testing.B) {
	for _, size := range []int{64, 256, 1024} {
		b.Run(fmt.Sprintf("pack=%d", size), func(b *testing.B) {
			var taken [3]atomic.Int64
			total := (b.N + size - 1) / size * size
			done := make(chan struct{}, 3)
			e, stop := sinks(b, outbox.EmbeddedOptions{Dir: b.TempDir()}, func(n int, _ *outbox.Item) {
				if taken[n].Add(1) == int64(total) {
					done <- struct{}{}
				}
			})
			packs := make([]outbox.Pack, 16)
			for i := range packs {
				packs[i] = benchPack(i*size, size, 7)
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := cpuTime()
			for n := range total / size {
				if err := e.Append(packs[n%len(packs)]); err != nil {
					b.Fatal(err)
				}
			}
			for range 3 {
				<-done
			}
			b.StopTimer()
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(cpuTime()-before)/float64(total), "cpu-ns/event")
			stop()
		})
	}
}

func percentile(d []time.Duration, p float64) float64 {
	slices.Sort(d)
	return float64(d[min(int(float64(len(d))*p), len(d)-1)].Microseconds())
}

// BenchmarkEmbeddedLatency offers 5 000 events a second, five each millisecond,
// which are committed in groups, and measures the time from then until each of
// three readers has them; beside it a bare write and fdatasync of one event, in
// the same seconds.
func BenchmarkEmbeddedLatency(b *testing.B) {
	const burst = 5
	var (
		mu      sync.Mutex
		latency []time.Duration
	)
	total := (b.N + burst - 1) / burst * burst
	left := atomic.Int64{}
	left.Store(int64(3 * total))
	done := make(chan struct{})
	e, stop := sinks(b, outbox.EmbeddedOptions{Dir: b.TempDir()}, func(_ int, it *outbox.Item) {
		d := time.Since(it.Event.Time)
		mu.Lock()
		latency = append(latency, d)
		mu.Unlock()
		if left.Add(-1) == 0 {
			close(done)
		}
	})
	b.ResetTimer()
	syncs := bareSyncs(b, done)
	before := cpuTime()
	offered := make(chan outbox.Entry, total)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for n := 0; n < total; n += burst {
			<-tick.C
			for i := range burst {
				offered <- outbox.Entry{Event: benchEvent(n + i), Subscribers: 7}
			}
		}
		close(offered)
	}()
	for entry := range offered {
		p := outbox.Pack{Entries: []outbox.Entry{entry}}
		for n := len(offered); n > 0; n-- {
			p.Entries = append(p.Entries, <-offered)
		}
		if err := e.Append(p); err != nil {
			b.Fatal(err)
		}
	}
	<-done
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(total), "cpu-ns/event")
	stop()
	bare := <-syncs
	b.ReportMetric(percentile(latency, .5), "p50-us")
	b.ReportMetric(percentile(latency, .99), "p99-us")
	b.ReportMetric(percentile(bare, .5), "fsync-p50-us")
	b.ReportMetric(percentile(bare, .99), "fsync-p99-us")
	b.ReportMetric(percentile(latency, .5)/percentile(bare, .5), "x-p50")
	b.ReportMetric(percentile(latency, .99)/percentile(bare, .99), "x-p99")
}

// bareSyncs measures single appends of one event now and then.
func bareSyncs(b *testing.B, done chan struct{}) chan []time.Duration {
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	out := make(chan []time.Duration, 1)
	go func() {
		defer f.Close()
		var all []time.Duration
		record := make([]byte, 600)
		for {
			began := time.Now()
			if _, err := f.Write(record); err != nil {
				panic(err)
			}
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				panic(err)
			}
			all = append(all, time.Since(began))
			select {
			case <-done:
				out <- all
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return out
}

// rssAnon returns the anonymous memory of the process in bytes.
func rssAnon() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	kib, _ := strconv.Atoi(strings.Fields(rest)[0])
	return float64(kib) * 1024
}

// BenchmarkEmbeddedBacklog lets events wait for three readers that take nothing,
// opens the outbox anew, and drains it. What an event costs must not depend on
// how many wait.
func BenchmarkEmbeddedBacklog(b *testing.B) {
	for _, waiting := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			for b.Loop() {
				f := backlog(b, waiting)
				b.ReportMetric(f.appendRate, "append-events/s")
				b.ReportMetric(f.appendCPU, "append-cpu-ns/event")
				b.ReportMetric(f.waitingRSS, "waiting-rss-MiB")
				b.ReportMetric(float64(f.open.Milliseconds()), "open-ms")
				b.ReportMetric(f.drainRate, "drain-events/s")
				b.ReportMetric(f.drainCPU, "drain-cpu-ns/event")
				b.ReportMetric(f.drainRSS, "drain-rss-MiB")
			}
		})
	}
}

// backlogFigures are what backlog has measured.
type backlogFigures struct {
	appendRate, appendCPU float64 // events/s, ns for each
	waitingRSS, drainRSS  float64 // anonymous memory with all waiting, and after the drain, in MiB
	open                  time.Duration
	drainRate, drainCPU   float64 // deliveries/s, ns for each
}

func backlog(b testing.TB, waiting int) (f backlogFigures) {
	b.Helper()
	o := outbox.EmbeddedOptions{Dir: b.TempDir()}
	e, _, err := outbox.OpenEmbedded(o)
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if _, err := e.Reader(name, func() {}); err != nil {
			b.Fatal(err)
		}
	}
	const size = 250
	before, began := cpuTime(), time.Now()
	for n := 0; n < waiting; n += size {
		if err := e.Append(benchPack(n, size, 7)); err != nil {
			b.Fatal(err)
		}
	}
	f.appendRate = float64(waiting) / time.Since(began).Seconds()
	f.appendCPU = float64(cpuTime()-before) / float64(waiting)
	runtime.GC()
	f.waitingRSS = rssAnon() / (1 << 20)
	e.Crash()

	left := atomic.Int64{}
	left.Store(int64(3 * waiting))
	done := make(chan struct{})
	began = time.Now()
	_, stop := sinks(b, o, func(int, *outbox.Item) {
		if left.Add(-1) == 0 {
			close(done)
		}
	})
	f.open = time.Since(began)
	before, began = cpuTime(), time.Now()
	<-done
	f.drainRate = float64(3*waiting) / time.Since(began).Seconds()
	f.drainCPU = float64(cpuTime()-before) / float64(3*waiting)
	f.drainRSS = rssAnon() / (1 << 20)
	stop()
	return f
}

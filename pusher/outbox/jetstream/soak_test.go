//go:build soak

package jetstream_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// TestSoakLosers is TestLosers for longer, so that each kind of trouble comes about 20 times.
func TestSoakLosers(t *testing.T) {
	for _, servers := range []int{1, 3} {
		for _, instances := range []int{2, 3} {
			t.Run(fmt.Sprint(instances, " instances, ", servers, " servers"), func(t *testing.T) { loserRounds(t, servers, instances, 4*time.Minute) })
		}
	}
}

// largeEvents are n events of about 600 bytes, of 1000 conversations.
func largeEvents(from, n int) (list []*event.Event) {
	for i := from; i < from+n; i++ {
		e := chat(fmt.Sprint("peer", i%1000), fmt.Sprint(i))
		e.Packet = "<message>" + strings.Repeat("x", 400) + "</message>"
		list = append(list, e)
	}
	return list
}

// consume delivers everything through so many lanes, each of which takes delay for an
// event, until stop is closed.
func consume(r outbox.Reader, wake chan struct{}, lanes, limit int, delay time.Duration, stop chan struct{}, delivered *atomic.Int64) (wait func()) {
	var all sync.WaitGroup
	for range lanes {
		all.Go(func() {
			var items []*outbox.Item
			for {
				select {
				case <-stop:
					return
				default:
				}
				items, _, _ = r.Take(items[:0], limit, false)
				if items = r.Load(items); len(items) == 0 {
					select {
					case <-wake:
					case <-stop:
					case <-time.After(5 * time.Millisecond):
					}
					continue
				}
				if delay > 0 {
					<-time.After(delay)
				}
				list := make([]outbox.Settlement, len(items))
				for i, it := range items {
					list[i] = outbox.Settlement{Item: it, Outcome: outbox.Delivered}
				}
				if err := r.Settle(list); err != nil {
					panic(err)
				}
				delivered.Add(int64(len(items)))
			}
		})
	}
	return all.Wait
}

// TestSoakThroughput appends and delivers with the embedded engine and with one instance of
// this one, by turns, and compares the best turn of each: on a busy machine the others say
// how long a process waits for a processor.
func TestSoakThroughput(t *testing.T) {
	const batch, lasts, rounds = 1024, 300 * time.Millisecond, 30 // packs as the pusher's when there is much to do
	n := 0
	measure := func(box outbox.Outbox, r outbox.Reader, wake chan struct{}) float64 {
		var delivered atomic.Int64
		stop := make(chan struct{})
		wait := consume(r, wake, 10, 64, 0, stop, &delivered)
		sent, began := 0, time.Now()
		for time.Since(began) < lasts {
			if err := box.Append(pack(1, largeEvents(n, batch)...)); err != nil {
				t.Error(err)
				break
			}
			n, sent = n+batch, sent+batch
		}
		await(t, "all deliveries", func() bool { return int(delivered.Load()) == sent })
		rate := float64(sent) / time.Since(began).Seconds()
		close(stop)
		wait()
		return rate
	}
	wake := make(chan struct{}, 1)
	embedded, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer embedded.Close()
	r, err := embedded.Reader("a", func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	o := options(t, harness.NATS(t, harness.NATSOptions{}), "a")
	o.Partitions, o.Takeover = jetstream.DefaultPartitions, jetstream.DefaultTakeover
	i := open(t, o)
	i.owns(jetstream.DefaultPartitions)
	i.hold()
	var ours, theirs float64
	for range rounds {
		theirs = max(theirs, measure(embedded, r, wake))
		ours = max(ours, measure(i, i.readers["a"], i.wake["a"]))
	}
	t.Logf("figures: append and deliver, packs of %d, best of %d turns: %.0f events/s with one instance, %.0f embedded, ratio %.2f", batch, rounds, ours, theirs, ours/theirs)
	if ours < theirs/2 {
		t.Errorf("one instance reaches %.2f of the embedded engine's throughput", ours/theirs)
	}
}

// TestSoakScale delivers to a sink that takes 20 ms with one, two and three instances.
func TestSoakScale(t *testing.T) {
	const lanes, lasts = 32, 5 * time.Second
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	o.Partitions, o.Takeover = jetstream.DefaultPartitions, jetstream.DefaultTakeover
	rates := make(map[int]float64)
	for instances := 1; instances <= 3; instances++ {
		o.Prefix = fmt.Sprint("SCALE", instances)
		var delivered atomic.Int64
		var waits []func()
		stop := make(chan struct{})
		var all []*instance
		for range instances {
			i := open(t, o)
			all = append(all, i)
			waits = append(waits, consume(i.readers["a"], i.wake["a"], lanes, 1, 20*time.Millisecond, stop, &delivered))
		}
		await(t, "even shares", func() bool {
			for _, i := range all {
				if n := i.Standing().Partitions; n < 16/instances || n > 16/instances+1 {
					return false
				}
			}
			return true
		})
		all[0].hold()
		for n := 0; n < 40_000; n += 1000 {
			all[0].append(pack(1, largeEvents(n, 1000)...))
		}
		<-time.After(time.Second)
		before, began := delivered.Load(), time.Now()
		<-time.After(lasts)
		rates[instances] = float64(delivered.Load()-before) / time.Since(began).Seconds()
		close(stop)
		for _, wait := range waits {
			wait()
		}
		for _, i := range all {
			i.close()
		}
	}
	t.Logf("figures: sink of 20 ms, %d lanes: %.0f, %.0f and %.0f deliveries/s with 1, 2 and 3 instances: %.2f and %.2f times", lanes, rates[1], rates[2], rates[3], rates[2]/rates[1], rates[3]/rates[1])
	if rates[2] < 1.7*rates[1] || rates[3] < 2.4*rates[1] {
		t.Error("more instances deliver too little more")
	}
}

// TestSoakFailover kills the instance that holds the link, and one that only delivers, with
// the usual takeover.
func TestSoakFailover(t *testing.T) {
	w := newWorld(t, 200, time.Millisecond, "a")
	server := harness.NATS(t, harness.NATSOptions{})
	for range 2 {
		w.add(loser{Replicas: 1, Takeover: jetstream.DefaultTakeover}, server.URL()).start()
	}
	has := func(upTo int) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for e := 1; e <= upTo; e++ {
			if w.got["a"].times[e] == 0 {
				return false
			}
		}
		return true
	}
	for round := range 6 {
		var holder string
		var since time.Time
		await(t, "a holder, and shares that are even", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			for holder = range w.links {
				since = w.links[holder]
			}
			return len(w.links) == 1 && time.Since(since) > 5*time.Second
		})
		for _, n := range w.nodes {
			if kills := n.l.Instance == holder; kills != (round%2 == 0) {
				continue
			}
			n.signal(syscall.SIGKILL)
			died, had := time.Now(), int(w.sent.Load())
			<-n.over
			n.ended()
			if round%2 == 0 {
				await(t, "the link", func() bool {
					w.mu.Lock()
					defer w.mu.Unlock()
					return w.linkSince.After(since)
				})
				took := time.Since(died)
				t.Logf("figures: after kill -9 of the holder another instance has the link after %v", took.Round(10*time.Millisecond))
				if took > jetstream.DefaultTakeover {
					t.Error("that took too long")
				}
			} else {
				await(t, "the deliveries", func() bool { return has(had + w.rate) })
				took := time.Since(died) - time.Second // the last of these came a second later
				t.Logf("figures: after kill -9 of an instance its deliveries go on after %v", took.Round(10*time.Millisecond))
				if took > 10*time.Second {
					t.Error("that took too long")
				}
			}
			n.start()
		}
	}
}

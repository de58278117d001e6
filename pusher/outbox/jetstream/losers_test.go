package jetstream_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// loserWorld are instances on one or three NATS servers.
type loserWorld struct {
	*world
	servers []*harness.NATSServer
}

func newLosers(t *testing.T, servers, instances int) *loserWorld {
	t.Helper()
	w := &loserWorld{world: newWorld(t, 200, 2*time.Millisecond, "a", "b")}
	l := loser{Replicas: 1, Takeover: jetstream.MinTakeover, Limits: outbox.WindowLimits{ParkAttempts: 2, ParkAfter: time.Second}}
	if servers == 1 {
		w.servers = []*harness.NATSServer{harness.NATS(t, harness.NATSOptions{})}
	} else {
		all := harness.NATSCluster(t, harness.NATSOptions{})
		w.servers, l.Replicas = all[:], 3
	}
	var urls []string
	for _, s := range w.servers {
		urls = append(urls, s.URL())
	}
	for range instances {
		w.add(l, urls...).start()
	}
	return w
}

// settle waits until everything that the feed has was delivered to every backend.
func (w *loserWorld) settle(what string) {
	w.t.Helper()
	w.failing.Store(false)
	w.quiet.Store(true)
	defer w.quiet.Store(false)
	deadline := time.Now().Add(2 * limit)
	for {
		done := true
		for _, b := range w.backend {
			n, _ := w.counts(b)
			done = done && n == int(w.sent.Load())
		}
		if done {
			return
		}
		if time.Now().After(deadline) {
			for _, n := range w.nodes {
				w.t.Logf("%s: %s", n.l.Instance, n.output())
			}
			w.report()
			w.t.Fatalf("after %s: not all events were delivered within %v", what, 2*limit)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// report says what every backend has got, and fails if something is lost or out of order.
func (w *loserWorld) report() {
	w.t.Helper()
	sent := int(w.sent.Load())
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.backend {
		got := w.got[b]
		var lost []int
		for n := 1; n <= sent; n++ {
			if got.times[n] == 0 {
				lost = append(lost, n)
			}
		}
		w.t.Logf("figures: backend %s: %d events, %d lost, %d out of order, %d deliveries more than once", b, sent, len(lost), len(got.late), got.again)
		if len(lost) > 0 {
			w.t.Errorf("backend %s: %d events are lost, the first is %d", b, len(lost), lost[0])
		}
		if len(got.late) > 0 {
			w.t.Errorf("backend %s: %d events out of order: %s", b, len(got.late), got.late[0])
		}
	}
	w.t.Logf("figures: longest second link %v", w.overlap.Round(time.Millisecond))
	if w.overlap > jetstream.MinTakeover {
		w.t.Errorf("two running instances had a link for %v", w.overlap)
	}
}

// A trouble is one round of what may befall a cluster.
type trouble struct {
	name string
	make func(w *loserWorld)
}

func (w *loserWorld) anyone() *loserNode { return w.nodes[rand.IntN(len(w.nodes))] }

func (w *loserWorld) server() *harness.NATSServer { return w.servers[rand.IntN(len(w.servers))] }

var troubles = []trouble{
	{"a paused instance", func(w *loserWorld) { w.anyone().pause(chance(time.Second, 9*time.Second)) }},
	{"a paused instance while a sink fails", func(w *loserWorld) {
		w.failing.Store(true)
		<-time.After(chance(500*time.Millisecond, 3*time.Second)) // parking goes on
		w.anyone().pause(chance(5*time.Second, 9*time.Second))
		w.failing.Store(false)
	}},
	{"a paused instance during a hand-over", func(w *loserWorld) {
		stopped := w.anyone()
		stopped.stop()
		stopped.start()
		<-time.After(chance(0, 2*time.Second)) // it acquires its share
		w.anyone().pause(chance(4*time.Second, 7*time.Second))
	}},
	{"kill -9 of an instance", func(w *loserWorld) {
		n := w.anyone()
		n.kill()
		<-time.After(chance(0, 6*time.Second))
		n.start()
	}},
	{"kill -9 of a NATS server", func(w *loserWorld) {
		s := w.server()
		s.Kill()
		<-time.After(chance(0, 4*time.Second))
		s.Start()
	}},
	{"restart of a NATS server", func(w *loserWorld) {
		s := w.server()
		s.Stop()
		s.Start()
	}},
	{"a paused NATS server", func(w *loserWorld) {
		s := w.server()
		s.Pause()
		<-time.After(chance(time.Second, 6*time.Second))
		s.Resume()
	}},
	{"cut links", func(w *loserWorld) {
		n := w.anyone()
		for _, p := range n.way {
			p.setCut(true)
		}
		<-time.After(chance(100*time.Millisecond, 8*time.Second))
		for _, p := range n.way {
			p.setCut(false)
		}
	}},
}

// rollingRestart restarts every instance in order, and expects nothing twice.
func (w *loserWorld) rollingRestart() {
	w.t.Helper()
	w.settle("the rounds before a rolling restart")
	before := make(map[string]int)
	for _, b := range w.backend {
		_, before[b] = w.counts(b)
	}
	for _, n := range w.nodes {
		<-time.After(2 * time.Second) // under load
		n.stop()
		n.start()
	}
	<-time.After(time.Second)
	w.settle("a rolling restart")
	for _, b := range w.backend {
		if _, again := w.counts(b); again != before[b] {
			w.t.Errorf("a rolling restart has delivered %d events again to %s", again-before[b], b)
		}
	}
}

// loserRounds makes trouble for a while, each kind at least once if there is time.
func loserRounds(t *testing.T, servers, instances int, lasts time.Duration) {
	w := newLosers(t, servers, instances)
	began := time.Now()
	rounds := 0
	for time.Since(began) < lasts {
		for _, i := range rand.Perm(len(troubles)) {
			if time.Since(began) > lasts {
				break
			}
			rounds++
			troubles[i].make(w)
			<-time.After(chance(500*time.Millisecond, 2*time.Second))
			t.Logf("%v: %s", time.Since(began).Round(time.Second), troubles[i].name)
		}
	}
	w.settle(fmt.Sprint(rounds, " rounds"))
	w.rollingRestart()
	w.report()
	for _, n := range w.nodes {
		n.stop()
	}
}

// TestLosers lets two instances, and three on three servers, go through every kind of
// trouble. TestSoakLosers does it for longer.
func TestLosers(t *testing.T) {
	t.Run("2 instances, 1 server", func(t *testing.T) { loserRounds(t, 1, 2, 25*time.Second) })
	t.Run("3 instances, 3 servers", func(t *testing.T) { loserRounds(t, 3, 3, 35*time.Second) })
}

// TestPausedLoser is the one that lost events before the servers fenced: an instance is
// paused while a sink fails, wakes after others have acquired everything, and goes on with
// what it has in memory.
func TestPausedLoser(t *testing.T) {
	w := newLosers(t, 1, 2)
	w.await("both instances to deliver", func() bool { n, _ := w.counts("a"); return n > 100 })
	for _, n := range w.nodes {
		w.failing.Store(true)
		<-time.After(chance(time.Second, 3*time.Second))
		n.pause(8 * time.Second)
		w.failing.Store(false)
	}
	w.settle("the pauses")
	w.report()
}

func (w *loserWorld) await(what string, done func() bool) {
	w.t.Helper()
	await(w.t, what, done)
}

package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// worker takes and delivers everything of a backend until it is stopped, as one
// of the pusher's lanes would.
type worker struct {
	i    *instance
	stop chan struct{}
	done sync.WaitGroup
}

// work delivers through deliver, which is told each event in order.
func (i *instance) work(backend string, deliver func(id string)) *worker {
	w := &worker{i: i, stop: make(chan struct{})}
	w.done.Go(func() {
		var items []*outbox.Item
		for {
			select {
			case <-w.stop:
				return
			default:
			}
			items, _, _ = i.readers[backend].Take(items[:0], 8, false)
			items = i.readers[backend].Load(items)
			if len(items) == 0 {
				select {
				case <-w.stop:
					return
				case <-i.wake[backend]:
				case <-time.After(20 * time.Millisecond):
				}
				continue
			}
			var list []outbox.Settlement
			for _, it := range items {
				deliver(it.Event.ID)
				list = append(list, outbox.Settlement{Item: it, Outcome: outbox.Delivered})
			}
			if err := i.readers[backend].Settle(list); err != nil {
				panic(err)
			}
		}
	})
	return w
}

func (w *worker) end() {
	close(w.stop)
	w.done.Wait()
}

// journal notes deliveries of all instances in order.
type journal struct {
	mu   sync.Mutex
	list []string
}

func (j *journal) note(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.list = append(j.list, id)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.list)
}

// different returns the first delivery of each.
func different(list []string) (first []string) {
	seen := make(map[string]bool)
	for _, id := range list {
		if !seen[id] {
			seen[id] = true
			first = append(first, id)
		}
	}
	return first
}

// TestPartitionsMove lets instances come, go in order and die under load, and
// expects every event, in order within its conversation, and few twice.
func TestPartitionsMove(t *testing.T) {
	t.Parallel()
	const peers = 23
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	var j journal
	first := open(t, o)
	first.owns(4)
	w1 := first.work("a", j.note)
	sent := 0
	load := func(n int) {
		for range n {
			first.append(pack(1, numbered(sent, 10, peers)...))
			sent += 10
		}
	}
	load(20)

	second := open(t, o)
	w2 := second.work("a", j.note)
	for first.Standing().Partitions != 2 || second.Standing().Partitions != 2 {
		load(1) // while the partitions move
	}
	load(20)
	if s := first.Standing(); s.Instances != 2 {
		t.Errorf("standing: %+v", s)
	}

	w2.end() // it dies: what it had taken and not delivered comes again
	second.crash()
	died := time.Now()
	for first.Standing().Partitions != 4 {
		load(1)
	}
	t.Logf("taken over after %v", time.Since(died))
	load(20)

	third := open(t, o)
	w3 := third.work("a", j.note)
	third.owns(2)
	w3.end()
	third.close() // it leaves in order, at once
	first.owns(4)
	load(5)
	defer func() {
		if t.Failed() {
			t.Log(first.Dump())
			seen := make(map[string]bool)
			for _, id := range j.all() {
				seen[id] = true
			}
			for n := range sent {
				if !seen[fmt.Sprint(n)] {
					t.Log("missing", n)
				}
			}
		}
	}()
	await(t, "all events", func() bool { return len(different(j.all())) == sent })
	w1.end()
	checkOrder(t, different(j.all()), peers)
	if again := len(j.all()) - sent; again > outbox.DefaultRedelivery {
		t.Errorf("%d of %d events were delivered again", again, sent)
	} else {
		t.Logf("%d events, %d again", sent, again)
	}
}

// leader runs Lead and tells what it does.
type leader struct {
	leading atomic.Bool
	times   atomic.Int32
	stop    context.CancelFunc
	over    chan struct{}
	err     error // once over is closed
}

func (i *instance) lead(holders *atomic.Int32, t *testing.T) *leader {
	ctx, stop := context.WithCancel(context.Background())
	l := &leader{stop: stop, over: make(chan struct{})}
	i.letGo = func() { stop(); <-l.over; i.letGo = nil }
	go func() {
		defer close(l.over)
		l.err = i.Lead(ctx, func(ctx context.Context) error {
			if holders.Add(1) > 1 {
				t.Error("two instances hold the link")
			}
			l.times.Add(1)
			l.leading.Store(true)
			<-ctx.Done()
			l.leading.Store(false)
			holders.Add(-1)
			return nil
		})
	}()
	t.Cleanup(stop)
	return l
}

func (l *leader) end(t *testing.T) {
	t.Helper()
	l.stop()
	if <-l.over; l.err != nil {
		t.Errorf("lead: %v", l.err)
	}
}

func TestLinkMoves(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	var holders atomic.Int32
	o.Instance = "one"
	one := open(t, o)
	first := one.lead(&holders, t)
	await(t, "the first leader", first.leading.Load)
	p := pack(1, chat("x", "1"))
	p.Positions = []outbox.Position{{Source: "s", Epoch: "e", Seq: 1}}
	one.append(p)

	o.Instance = "two"
	two := open(t, o)
	second := two.lead(&holders, t)
	await(t, "the second to know the first", func() bool { s := two.Standing(); return s.Leader == "one" && !s.Leading })
	first.end(t) // in order: the second has it at once
	await(t, "the second leader", second.leading.Load)
	if got := two.Positions(); len(got) != 1 || got[0].Seq != 1 {
		t.Errorf("the second leader finds positions %v", got)
	}
	p.Positions[0].Seq = 2
	if err := one.Append(p); err == nil {
		t.Error("an instance that has lost the link writes positions")
	}
	again := one.lead(&holders, t)
	second.stop()
	two.crash()
	<-second.over
	await(t, "the first to lead again", again.leading.Load)
	one.append(p)
	again.end(t)
}

// TestOutOfTouchStopsByItself freezes NATS: nobody can be told anything, so
// everything stops, and goes on when it thaws.
func TestOutOfTouchStopsByItself(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, options(t, server, "a"))
	var holders atomic.Int32
	l := i.lead(&holders, t)
	i.owns(4)
	await(t, "the leader", l.leading.Load)
	i.append(pack(1, numbered(0, 10, 10)...))
	await(t, "the events", func() bool { return i.readers["a"].Stats().Waiting == 10 })
	server.Pause()
	await(t, "the end of leading", func() bool { return !l.leading.Load() })
	await(t, "the end of delivering", func() bool { return i.Standing().Partitions == 0 })
	i.nothing("a")
	if err := i.Append(pack(1, chat("x", "late"))); err == nil {
		t.Error("a frozen server takes events")
	}
	server.Resume()
	await(t, "leading again", l.leading.Load)
	got := i.deliver("a", 10)
	if len(different(got)) != 10 {
		t.Errorf("delivered %v", got)
	}
	l.end(t)
}

// TestServerDies kills nats-server under load: Append fails and is repeated, the
// deliveries wait, and nothing is lost or out of order.
func TestServerDies(t *testing.T) {
	t.Parallel()
	const peers = 11
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, options(t, server, "a"))
	i.owns(4)
	i.hold()
	var j journal
	w := i.work("a", j.note)
	insist := func(p outbox.Pack) {
		await(t, "an append", func() bool { return i.Append(p) == nil })
	}
	sent := 0
	for round := range 3 {
		down := make(chan struct{})
		go func() {
			defer close(down)
			if round == 1 {
				server.Stop()
			} else {
				server.Kill()
			}
			for i.Err() == nil { // until it has noticed
				<-time.After(time.Millisecond)
			}
			server.Start()
		}()
		for running := true; running; {
			select {
			case <-down:
				running = false
			default:
			}
			insist(pack(1, numbered(sent, 20, peers)...))
			sent += 20
		}
	}
	await(t, "all events", func() bool { return len(different(j.all())) == sent })
	w.end()
	checkOrder(t, different(j.all()), peers)
	t.Logf("%d events, %d again", sent, len(j.all())-sent)
	if again := len(j.all()) - sent; again > 3*outbox.DefaultRedelivery {
		t.Errorf("%d events were delivered again", again)
	}
	await(t, "a healthy engine", func() bool { return i.Err() == nil })
}

func TestStartsBeforeTheServer(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	server.Kill()
	o := options(t, server, "a")
	i := open(t, o)
	if i.Err() == nil || i.Append(pack(1, chat("x", "0"))) == nil {
		t.Error("it works without a server")
	}
	var holders atomic.Int32
	l := i.lead(&holders, t)
	server.Start()
	await(t, "the leader", l.leading.Load)
	i.append(pack(1, chat("x", "1")))
	if got := i.deliver("a", 1); got[0] != "1" {
		t.Errorf("delivered %v", got)
	}
	l.end(t)
	i.close()

	server.Kill() // what is wrong for good is found later, and ends Lead
	o.Partitions = 5
	wrong := open(t, o)
	server.Start()
	err := wrong.Lead(t.Context(), func(context.Context) error { return errors.New("led") })
	var partitions *jetstream.PartitionsError
	if !errors.As(err, &partitions) {
		t.Errorf("Lead: %v", err)
	}
}

func TestFullOutbox(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "slow")
	o.MaxSize = 1 << 20 // of which a pack is as little as it usually is
	i := open(t, o)
	i.owns(4)
	i.hold()
	shed := make(chan int, 1000)
	i.OnShed(func(_ string, n int, _ bool) { shed <- n })
	position := func(n int) outbox.Pack {
		p := pack(1, numbered(n*20, 20, 50)...)
		for _, e := range p.Entries {
			e.Event.Packet = string(make([]byte, 1000))
		}
		p.Positions = []outbox.Position{{Source: "s", Epoch: "e", Seq: uint64(n)}}
		return p
	}
	n, err := 0, error(nil)
	for ; err == nil && n < 1000; n++ {
		err = i.Append(position(n))
	}
	if !errors.Is(err, outbox.ErrFull) {
		t.Fatalf("after %d packs: %v", n, err)
	}
	if i.Err() != nil {
		t.Errorf("a full outbox is no failure: %v", i.Err())
	}
	// A source that cannot wait is taken at the cost of the oldest.
	await(t, "events to be shed", func() bool {
		p := position(n)
		n++
		p.Positions = nil
		if err := i.Append(p); err != nil && !errors.Is(err, outbox.ErrFull) {
			t.Fatal(err)
		}
		return i.readers["slow"].Stats().Shed > 0
	})
	await(t, "somebody to be told", func() bool { return len(shed) > 0 }) // after it was counted
	await(t, "room for those who wait", func() bool { return i.Append(position(9999)) == nil })
}

// TestReplicas loses one of three servers, the one that it is connected to.
func TestReplicas(t *testing.T) {
	t.Parallel()
	servers := harness.NATSCluster(t, harness.NATSOptions{})
	o := options(t, servers[0], "a")
	for _, s := range servers[1:] {
		o.URL += "," + s.URL()
	}
	o.Replicas = 3
	i := open(t, o) // before the servers have agreed
	i.owns(4)
	i.hold()
	var j journal
	w := i.work("a", j.note)
	sent := 0
	load := func(n int) {
		for range n {
			p := pack(1, numbered(sent, 10, 11)...)
			await(t, "an append", func() bool { return i.Append(p) == nil })
			sent += 10
		}
	}
	load(10)
	for _, s := range servers {
		if i.ConnectedTo(s.URL()) {
			s.Kill()
			break
		}
	}
	load(10)
	await(t, "all events", func() bool { return len(different(j.all())) == sent })
	w.end()
	checkOrder(t, different(j.all()), 11)
	await(t, "the servers to take what was delivered", func() bool { return i.Flush() == nil })
	i.owns(4) // if the servers took long, again
	await(t, "a healthy engine", func() bool { return i.Err() == nil })
}

// A partition is delivered by somebody, although its owner lost it while another instance
// came, and now has its share without it.
func TestNoPartitionIsLeft(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{})
	a := open(t, options(t, server, "x"))
	await(t, "all partitions", func() bool { return a.Standing().Partitions == 4 })
	resume := a.Lapse()
	b := open(t, options(t, server, "x"))
	await(t, "the other instance", func() bool { return a.Standing().Instances == 2 })
	resume()
	await(t, "all partitions", func() bool { return a.Standing().Partitions == 2 && b.Standing().Partitions == 2 })
}

// The holder of the link appends although other instances do so all the time.
func TestHolderIsNotStarved(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{})
	a := open(t, options(t, server, "x"))
	a.hold()
	stop := make(chan struct{})
	var others sync.WaitGroup
	for n := range 2 {
		b := open(t, options(t, server, "x"))
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				e := chat("peer", fmt.Sprint("own ", n, " ", i))
				e.Replayed = true
				_ = b.Append(pack(1, e)) // only that it tries counts
			}
		})
	}
	for i := range 50 {
		if err := a.Append(pack(1, chat("peer", fmt.Sprint(i)))); err != nil {
			t.Errorf("append %d: %v", i, err)
			break
		}
	}
	close(stop)
	others.Wait()
}

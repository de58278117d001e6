package jetstream_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// ownEvent is an event that any instance may append.
func ownEvent(peer, id string) *event.Event {
	e := chat(peer, id)
	e.Replayed = true
	return e
}

// An append whose answer is lost, and which is repeated, is stored once.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	way := newProxy(t, strings.TrimPrefix(server.URL(), "nats://"))
	for _, holds := range []bool{true, false} {
		t.Run(fmt.Sprint("holder ", holds), func(t *testing.T) {
			o := patient(t, server)
			o.Prefix = fmt.Sprint("ANSWERS_", holds)
			other := open(t, o)
			o.URL = "nats://" + way.addr()
			i := open(t, o)
			i.owns(2)
			other.owns(2)
			if holds {
				i.hold()
			} else {
				other.hold()
			}
			ack := fmt.Sprintf(`{"stream":"%s_EVENTS","seq":`, o.Prefix)
			for n := range 3 {
				p := pack(1, ownEvent("x", fmt.Sprint(n)), ownEvent("y", fmt.Sprint("other ", n)))
				way.lose.Store(&ack)
				if err := i.Append(p); err == nil || !way.cut.Load() {
					t.Fatalf("without an answer Append returns %v", err)
				}
				way.lose.Store(nil)
				way.setCut(false)
				i.insist(p)
			}
			i.insist(pack(1, ownEvent("x", "end"), ownEvent("y", "end")))
			for _, one := range []*instance{i, other} {
				await(t, "all partitions", func() bool { return one.Standing().Partitions == 2 })
			}
			var j journal
			w1, w2 := i.work("a", j.note), other.work("a", j.note)
			await(t, "the end", func() bool { return strings.Count(strings.Join(j.all(), ","), "end") == 2 })
			w1.end()
			w2.end()
			if got := j.all(); len(got) != 8 || len(different(got)) != 7 {
				t.Errorf("delivered %v", got)
			}
		})
	}
}

// While nothing can be appended, what was refused is not kept.
func TestRefusedPacksAreNotKept(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, patient(t, server))
	i.hold()
	server.Kill()
	await(t, "the loss of the connection", func() bool { return i.Err() != nil })
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for n := range 100 {
		e := chat("x", fmt.Sprint(n))
		e.Packet = strings.Repeat("x", 900_000)
		if i.Append(pack(1, e)) == nil {
			t.Fatal("it is appended")
		}
	}
	if after := heap(); after > before+20<<20 {
		t.Errorf("%d MiB are kept of 100 packs of 0.9 MB", (after-before)>>20)
	}
	server.Start()
}

// What other instances append between keeps the positions that the holder has written.
func TestPositionsNeverFallBack(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	holder := open(t, options(t, server, "a"))
	holder.hold()
	stop := make(chan struct{})
	var others sync.WaitGroup
	for n := range 2 {
		other := open(t, options(t, server, "a"))
		others.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				_ = other.Append(pack(1, ownEvent("peer", fmt.Sprint("own ", n, " ", i)))) // only that it tries counts
			}
		})
	}
	for i := range uint64(300) {
		p := outbox.Pack{Positions: []outbox.Position{{Source: "s", Epoch: "e", Seq: i}}}
		if err := holder.Append(p); err != nil {
			t.Errorf("append %d: %v", i, err)
			break
		}
		if got, err := holder.LogPositions(); err != nil || len(got) != 1 || got[0].Seq != i {
			t.Errorf("after position %d the log ends with %v, %v", i, got, err)
			break
		}
	}
	close(stop)
	others.Wait()
}

// An event that does not fit into a message of NATS becomes one dead letter for each backend,
// and keeps nothing else from being delivered. Neither does a letter that does not fit.
func TestEventThatIsTooLarge(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{Extra: "max_payload: 65536\n"})
	e, err := jetstream.Open(options(t, server, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{Engine: e, t: t}
	t.Cleanup(i.close)
	list := []*hanging{{name: "a", epochs: make(map[string]uint64)}, {name: "b", epochs: make(map[string]uint64)}}
	p, err := pusher.New(pusher.Options{Backends: []backends.Backend{list[0], list[1]}, Outbox: e, Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	i.owns(4)
	i.hold()
	big := chat("x", "big")
	big.Packet = strings.Repeat("x", 70_000)
	p.Bury([]outbox.DeadLetter{{Event: big, Reason: outbox.ReasonUndecodable, Err: "why", Accepted: time.Now()}})
	fits := chat("x", "fits")
	fits.Packet = strings.Repeat("x", e.Largest()-event.BinarySize(chat("x", "fits")))
	p.Push([]event.Event{*chat("x", "1"), *big, *fits, *chat("x", "2")})
	for _, b := range list {
		await(t, "deliveries to "+b.name, func() bool { _, done := b.count(); return done == 3 })
	}
	var letters []outbox.DeadLetter
	await(t, "three letters", func() bool {
		if letters, err = e.DeadLetters().List(outbox.LetterFilter{}); err != nil {
			t.Fatal(err)
		}
		return len(letters) == 3
	})
	reasons := make(map[string]string)
	for _, d := range letters {
		reasons[d.Backend] = d.Reason
		if d.Event.ID != "big" || d.Event.Packet != "" || !strings.Contains(d.Err, "max_payload") {
			t.Errorf("letter %+v", d)
		}
	}
	if diff := cmp.Diff(map[string]string{"": outbox.ReasonUndecodable, "a": "too_large", "b": "too_large"}, reasons); diff != "" {
		t.Error(diff)
	}
}

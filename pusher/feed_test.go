package pusher_test

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

func unread(id string) []outbox.DeadLetter {
	return []outbox.DeadLetter{{Event: &event.Event{ID: id, Packet: "<message"}, Reason: outbox.ReasonUndecodable, Err: "malformed markup"}}
}

func TestBuryAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, stop := openOutbox(t, t.TempDir(), "b")
		reg := prometheus.NewRegistry()
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box, Metrics: pusher.NewMetrics(reg)})
		var said []string
		kept := func(what string) func(error) {
			return func(err error) { said = append(said, fmt.Sprint(what, " ", err)) }
		}
		p.PushAcked([]event.Event{of("x", "1")}, []outbox.Position{{Source: "s", Epoch: "e", Seq: 1}}, kept("1"))
		p.BuryAcked(unread("2"), []outbox.Position{{Source: "s", Epoch: "e", Seq: 2}}, kept("2"))
		p.PushAcked([]event.Event{of("x", "3")}, []outbox.Position{{Source: "s", Epoch: "e", Seq: 3}}, kept("3"))
		p.Bury(unread("4"))
		pass(time.Second)
		if diff := cmp.Diff([]string{"1 <nil>", "2 <nil>", "3 <nil>"}, said); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]outbox.Position{{Source: "s", Epoch: "e", Seq: 3}}, box.Positions()); diff != "" {
			t.Error(diff)
		}
		// There is no event in them that a backend could take.
		if n, err := p.Replay(outbox.LetterFilter{}); n != 0 || err != nil {
			t.Errorf("replayed %d, %v", n, err)
		}
		var ids []string
		for _, d := range letters(t, box.DeadLetters()) {
			if d.Reason != outbox.ReasonUndecodable || d.Backend != "" || d.Err != "malformed markup" {
				t.Errorf("dead letter %+v", d)
			}
			ids = append(ids, d.Event.ID)
		}
		slices.Sort(ids) // those of acknowledged feeds wait in a line of their own
		if diff := cmp.Diff([]string{"2", "4"}, ids); diff != "" {
			t.Error(diff)
		}
		if got := value(t, reg, "eventpusher_dead_letters_total{backend=,reason=undecodable}"); got != 2 {
			t.Errorf("%v are counted, want 2", got)
		}
		if err := p.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		p.BuryAcked(unread("5"), []outbox.Position{{Source: "s", Epoch: "e", Seq: 4}}, kept("5"))
		if len(said) != 4 || said[3] == "5 <nil>" {
			t.Errorf("after the end: %v", said)
		}
		stop()
	})
}

// TestPositionsOfOnePack stand once for each source, and for no more than is in it.
func TestPositionsOfOnePack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		box := newSlowDisk(func(outbox.Pack) error {
			if broken.Load() {
				return errors.New("no disk")
			}
			return nil
		})
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box})
		for seq := range uint64(300) {
			for _, source := range []string{"s1", "s2", "s3"} {
				p.PushAcked([]event.Event{of("x", source)}, []outbox.Position{{Source: source, Epoch: "e", Seq: seq + 1}}, func(error) {})
			}
		}
		for range 200 { // more than one pack, by the size of the letters
			p.BuryAcked([]outbox.DeadLetter{{Event: &event.Event{Packet: string(make([]byte, 64<<10))}, Reason: outbox.ReasonUndecodable}},
				[]outbox.Position{{Source: "s2", Epoch: "f", Seq: 1}}, func(error) {})
		}
		pass(time.Second)
		broken.Store(false)
		pass(time.Second)
		box.mu.Lock()
		defer box.mu.Unlock()
		if n := len(box.packs); n < 3 || n > 50 {
			t.Errorf("%d packs", n)
		}
		events := make(map[string]uint64)
		for _, pack := range box.packs {
			for _, e := range pack.Entries {
				events[e.Event.ID]++
			}
			if len(pack.Positions) > 3 {
				t.Errorf("%d positions of three sources", len(pack.Positions))
			}
			for _, at := range pack.Positions {
				if at.Epoch == "e" && at.Seq != events[at.Source] {
					t.Errorf("%s stands at %d behind %d events", at.Source, at.Seq, events[at.Source])
				}
			}
		}
		want := []outbox.Position{{Source: "s1", Epoch: "e", Seq: 300}, {Source: "s2", Epoch: "f", Seq: 1}, {Source: "s3", Epoch: "e", Seq: 300}}
		if diff := cmp.Diff(want, box.Positions()); diff != "" {
			t.Error(diff)
		}
	})
}

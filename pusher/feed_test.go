package pusher_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
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

// feedsHeard notes what feeds are told of their events.
type feedsHeard struct {
	mu   sync.Mutex
	said []string
}

func (f *feedsHeard) Kept(positions []outbox.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range positions {
		f.said = append(f.said, fmt.Sprint("kept ", at.Source, " ", at.Seq))
	}
}

func (f *feedsHeard) Refused(source string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, "refused "+source)
}

// heard returns what was said since the last call.
func (f *feedsHeard) heard() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := f.said
	f.said = nil
	return said
}

func place(source string, seq uint64) outbox.Position {
	return outbox.Position{Source: source, Epoch: "e", Seq: seq}
}

func unread(id string) []outbox.DeadLetter {
	return []outbox.DeadLetter{{Event: &event.Event{ID: id, Packet: "<message"}, Reason: outbox.ReasonUndecodable, Err: "malformed markup"}}
}

func TestBuryFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, stop := openOutbox(t, t.TempDir())
		reg, feeds := prometheus.NewRegistry(), &feedsHeard{}
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box, Metrics: pusher.NewMetrics(reg), Feeds: feeds})
		if !p.PushFeed([]event.Event{of("x", "1")}, place("s", 1)) || !p.BuryFeed(unread("2"), place("s", 2)) ||
			!p.PushFeed([]event.Event{of("x", "3")}, place("s", 3)) {
			t.Error("something is not accepted")
		}
		p.Bury(unread("4"))
		pass(time.Second)
		if said := feeds.heard(); len(said) == 0 || said[len(said)-1] != "kept s 3" {
			t.Errorf("heard %v", said)
		}
		if diff := cmp.Diff([]outbox.Position{{Source: "s", Epoch: "e", Seq: 3}}, box.Positions()); diff != "" {
			t.Error(diff)
		}
		// There is no event in them that a backend could take.
		if n, err := p.Replay(t.Context(), outbox.LetterFilter{}); n != 0 || err != nil {
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
		p.Drain(t.Context())
		if p.BuryFeed(unread("5"), place("s", 4)) {
			t.Error("accepted after the end")
		}
		stop()
	})
}

// TestPositionsOfOnePack stand once for each source, and for no more than is in it.
func TestPositionsOfOnePack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		box := newSlowDisk(t, func(outbox.Pack) error {
			if broken.Load() {
				return errors.New("no disk")
			}
			return nil
		})
		p := start(t, pusher.Options{Backends: one(&fakeBackend{name: "b"}), Outbox: box})
		for seq := range uint64(300) {
			for _, source := range []string{"s1", "s2", "s3"} {
				p.PushFeed([]event.Event{of("x", source)}, place(source, seq+1))
			}
		}
		for range 200 { // more than one pack, by the size of the letters
			p.BuryFeed([]outbox.DeadLetter{{Event: &event.Event{Packet: string(make([]byte, 64<<10))}, Reason: outbox.ReasonUndecodable}},
				outbox.Position{Source: "s2", Epoch: "f", Seq: 1})
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

package jetstream

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/event"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// The partition of a key must never change: what waits was divided by it.
func TestPartitionsNeverChange(t *testing.T) {
	for key, want := range map[string]int{"": 5, "alice@example.org bob@example.org": 8, "zoë@example.org": 2} {
		if got := partitionOf(key, 16); got != want {
			t.Errorf("%q is in partition %d, and was in %d", key, got, want)
		}
	}
	var count [16]int
	for n := range 16_000 {
		count[partitionOf(fmt.Sprintf("user%d@example.org", n), 16)]++
	}
	for p, n := range count {
		if n < 800 || n > 1200 {
			t.Errorf("partition %d has %d of 16000 keys", p, n)
		}
	}
}

func TestParkedMessages(t *testing.T) {
	n := names{"P"}
	e := &event.Event{ID: "1", Direction: event.In, From: "a@h/r", To: "b@h"}
	for _, id := range []outbox.ParkedID{outbox.EventID(3, 1<<40), outbox.ReplayID(63, 7)} {
		m := parkedMessage(n, 12, &outbox.ParkedEvent{ID: id, Event: e, Accepted: time.Unix(5, 6).UTC(), Attempts: 4})
		p, err := readParked(n, &natsrpc.Record{Subject: m.Subject, Header: m.Header, Data: m.Data})
		want := outbox.Restored{ID: id, Key: []byte(e.Key()), Accepted: time.Unix(5, 6).UTC(), Attempts: 4, Bytes: len(m.Data)}
		if diff := cmp.Diff(want, p); err != nil || diff != "" {
			t.Errorf("%s: %v %s", m.Subject, err, diff)
		}
	}
}

func FuzzReadParked(f *testing.F) {
	f.Add("P.state.parked.1.2.3", "1 2 YQ==")
	f.Add("P.state.replay.1.2.3", "-1 2 YQ==")
	f.Add("P.state.parked.1.2", "1")
	f.Add("Q.state.parked.1.2.3", "1 2 YQ==")
	f.Fuzz(func(t *testing.T, subject, header string) {
		n := names{"P"}
		p, err := readParked(n, &natsrpc.Record{Subject: subject, Header: nats.Header{headerParked: {header}}, Data: []byte{1}})
		if err != nil {
			return
		}
		again := parkedMessage(n, 1, &outbox.ParkedEvent{ID: p.ID, Event: &event.Event{User: "x"}, Accepted: p.Accepted, Attempts: p.Attempts})
		if q, err := readParked(n, &natsrpc.Record{Subject: again.Subject, Header: again.Header, Data: again.Data}); err != nil || q.ID != p.ID {
			t.Errorf("%s becomes %s: %v", subject, again.Subject, err)
		}
	})
}

func TestRegisters(t *testing.T) {
	want := register{owner: "me", epoch: 7, commits: 3, progress: map[registration]outbox.Progress{
		{2, 1 << 60}: {Floor: 7, Top: 12, Pending: []uint64{8, 11}}, {3, 1}: {Floor: 1, Top: 1},
	}}
	got, err := decodeRegister(want.append(nil))
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(register{}, registration{})); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	list := parkedList{{2, 9}: {1 << 50: 3, 5: 0}, {4, 1}: {}}
	again, err := decodeParkedList(list.append(nil))
	if diff := cmp.Diff(list, again, cmp.AllowUnexported(registration{})); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	newer := want.append(nil)
	newer[0] = formatVersion + 1
	var format *FormatError
	if _, err := decodeRegister(newer); !errors.As(err, &format) {
		t.Errorf("a register of a later version: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	e := &event.Event{ID: "1", Kind: event.Chat, User: "u@h"}
	c := commit{term: 3, id: 4, accepted: time.Unix(5, 6).UTC(), positions: []outbox.Position{{Source: "s", Epoch: "e", Seq: 1}}}
	f.Add(appendEntry(c.append(nil, 1), 7, 5, e))
	f.Add((&register{owner: "me", progress: map[registration]outbox.Progress{{1, 2}: {Floor: 3, Top: 4}}}).append(nil))
	f.Add(parkedList{{1, 2}: {3: 4}}.append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRegister(b); err == nil {
			again, err := decodeRegister(r.append(nil))
			if err != nil || again.owner != r.owner || len(again.progress) != len(r.progress) {
				t.Errorf("%v becomes %v: %v", r, again, err)
			}
		}
		if l, err := decodeParkedList(b); err == nil {
			if again, err := decodeParkedList(l.append(nil)); err != nil || len(again) != len(l) {
				t.Errorf("%v becomes %v: %v", l, again, err)
			}
		}
		if c, err := decodeCommit(b); err == nil {
			for i := range c.entries {
				_, _ = outbox.DecodeEvent(c.entries[i].encoded) // it must not panic
			}
		}
	})
}

func TestCommits(t *testing.T) {
	e := &event.Event{ID: "1", Kind: event.Chat, User: "u@h", Time: time.Unix(1, 0).UTC()}
	want := commit{term: 3, id: 4, accepted: time.Unix(5, 6).UTC(), positions: []outbox.Position{{Source: "s", Epoch: "e", Seq: 1}}}
	got, err := decodeCommit(appendEntry(appendEntry(want.append(nil, 2), 7, 5, e), 63, 1<<63, e))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.entries) != 2 || got.entries[0].partition != 7 || got.entries[0].readers != 5 || got.entries[1].partition != 63 || got.entries[1].readers != 1<<63 {
		t.Errorf("entries %+v", got.entries)
	}
	for _, en := range got.entries {
		if one, err := outbox.DecodeEvent(en.encoded); err != nil || cmp.Diff(e, one) != "" {
			t.Errorf("%v %s", err, cmp.Diff(e, one))
		}
	}
	if got.entries = nil; cmp.Diff(&want, got, cmp.AllowUnexported(commit{})) != "" {
		t.Error(cmp.Diff(&want, got, cmp.AllowUnexported(commit{})))
	}
}

// Every partition has exactly one instance that should have it, whoever counts.
func TestSharesAddUp(t *testing.T) {
	for _, instances := range []int{1, 2, 3, 5, 16, 20} {
		total := 0
		for rank := range instances {
			n := shareOf(rank, instances, 16)
			if n < 16/instances || n > 16/instances+1 {
				t.Errorf("number %d of %d has %d", rank, instances, n)
			}
			total += n
		}
		if total != 16 {
			t.Errorf("%d instances should have %d of 16", instances, total)
		}
	}
}

func TestServerVersions(t *testing.T) {
	for version, fine := range map[string]bool{"2.12.0": true, "2.12.1-RC.1": true, "2.15.2": true, "3.0.0": true, "2.9.10": false, "2.11.17": false, "1.99.0": false, "": false} {
		err := checkServer(version)
		var old *ServerError
		if (err == nil) != fine || err != nil && !errors.As(err, &old) {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestDifferences(t *testing.T) {
	o := Options{Options: natsrpc.Options{Prefix: "P"}}
	o.complete()
	for _, want := range o.streams() {
		if got := differences(want, want); len(got) > 0 {
			t.Errorf("with itself: %v", got)
		}
		for name, change := range map[string]func(*js.StreamConfig){
			"subjects":      func(c *js.StreamConfig) { c.Subjects = []string{"Q.>"} },
			"retention":     func(c *js.StreamConfig) { c.Retention = js.WorkQueuePolicy },
			"storage":       func(c *js.StreamConfig) { c.Storage = js.MemoryStorage },
			"replicas":      func(c *js.StreamConfig) { c.Replicas = 3 },
			"max_age":       func(c *js.StreamConfig) { c.MaxAge = time.Hour },
			"allow_atomic":  func(c *js.StreamConfig) { c.AllowAtomicPublish = !c.AllowAtomicPublish },
			"allow_msg_ttl": func(c *js.StreamConfig) { c.AllowMsgTTL = !c.AllowMsgTTL },
			"allow_direct":  func(c *js.StreamConfig) { c.AllowDirect = false },
			"sealed":        func(c *js.StreamConfig) { c.Sealed = true },
		} {
			got := want
			change(&got)
			if list := differences(want, got); len(list) != 1 {
				t.Errorf("%s of %s: %v", name, want.Name, list)
			}
		}
	}
}

// A stretch of the log has no holes, and drops its oldest messages.
func TestStretch(t *testing.T) {
	var s stretch
	for seq := range uint64(10) {
		s.add(cached{seq: seq + 1, bytes: cacheBytes / 4})
	}
	if first := s.list[0].seq; first < 6 {
		t.Errorf("keeps messages from %d on", first)
	}
	if got := s.from(9); len(got) != 2 || got[0].seq != 9 {
		t.Errorf("from 9 on: %v", got)
	}
	if s.from(1) != nil || s.from(11) != nil {
		t.Error("returns what is not there")
	}
	s.add(cached{seq: 20})
	if len(s.list) != 1 || s.bytes != 0 {
		t.Errorf("keeps %d messages, %d bytes over a hole", len(s.list), s.bytes)
	}
}

func TestSurplus(t *testing.T) {
	state := js.StreamState{Msgs: 1000, FirstSeq: 5001, Bytes: 100}
	for tooMuch, want := range map[int64]uint64{1: 5012, 50: 5502, 100: 6002} {
		if got := surplus(state, tooMuch); got != want {
			t.Errorf("%d bytes too much: before %d, want %d", tooMuch, got, want)
		}
	}
}

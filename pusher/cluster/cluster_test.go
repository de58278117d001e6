package cluster

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"eventpusher/internal/natsrpc"
)

// bench is a Cluster whose clock and snapshots the test makes.
type bench struct {
	*Cluster
	t     *testing.T
	clock time.Duration
	seq   uint64
	state map[string]natsrpc.Record
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, clock: time.Hour, state: make(map[string]natsrpc.Record)}
	b.Cluster = New(Options{
		Prefix: "p", Name: "me", Watch: []string{"x.*"},
		Leases: [...]Lease{Link: {Expire: 14 * time.Second, Stop: 12 * time.Second}, Deliver: {Expire: 8 * time.Second, Stop: 7 * time.Second}},
	})
	b.now = func() time.Duration { return b.clock }
	t.Cleanup(b.endTerm)
	return b
}

// next is the sequence of the next record.
func (b *bench) next() uint64 { b.seq++; return b.seq }

func (b *bench) put(subject string, content any) {
	data, err := json.Marshal(content)
	if err != nil {
		b.t.Fatal(err)
	}
	b.state[subject] = natsrpc.Record{Subject: subject, Seq: b.next(), Data: data}
}

func (b *bench) beat(id string) {
	b.put("p.member."+id, heartbeat{Name: id, Uses: []string{"a"}, Mark: b.seq})
}

// confirm is for a heartbeat that was sent at that time, with what is seen by now.
func (b *bench) confirm(sent time.Duration, seq uint64) { b.Cluster.confirm(sent, b.seen, seq) }

// pass lets time pass with a snapshot each quarter of a second, during which these
// instances send heartbeats.
func (b *bench) pass(d time.Duration, beating ...string) (v View) {
	for end := b.clock + d; b.clock < end; b.clock += snapshotPause {
		for _, id := range beating {
			b.beat(id)
		}
		v = b.look()
	}
	return v
}

func (b *bench) look() View {
	var all []natsrpc.Record
	for _, r := range b.state {
		all = append(all, r)
	}
	return b.take(all)
}

func TestInstancesExpire(t *testing.T) {
	b := newBench(t)
	if v := b.pass(3*time.Second, "x", "y"); !slices.Equal(v.Alive, []string{"x", "y"}) {
		t.Fatalf("alive: %v", v.Alive)
	}
	if v := b.pass(7*time.Second, "y"); !slices.Equal(v.Alive, []string{"x", "y"}) {
		t.Errorf("after 7 s of silence alive: %v", v.Alive)
	}
	if v := b.pass(2*time.Second, "y"); !slices.Equal(v.Alive, []string{"y"}) || !b.Expired("x", Deliver) || b.Expired("x", Link) {
		t.Errorf("after 9 s of silence alive: %v", v.Alive)
	}
	b.pass(6*time.Second, "y")
	if !b.Expired("x", Link) || b.Expired("y", Deliver) || b.Size() != 1 {
		t.Error("after 15 s of silence the link of x is not free")
	}
	if v := b.pass(time.Second, "x"); !slices.Contains(v.Alive, "x") {
		t.Error("an instance that is heard again is not alive")
	}
}

// An instance that retires lives, and no view counts it.
func TestRetiringInstance(t *testing.T) {
	b := newBench(t)
	b.put("p.member.x", heartbeat{Name: "x", Retiring: true})
	b.beat("y")
	b.beat(b.ID())
	if v := b.look(); !slices.Contains(v.Alive, b.ID()) || slices.Contains(v.Alive, "x") || b.Size() != 3 {
		t.Errorf("view %v of %d instances", v.Alive, b.Size())
	}
	b.Retire()
	if v := b.look(); !slices.Equal(v.Alive, []string{"y"}) {
		t.Errorf("after Retire: %v", v.Alive)
	}
}

// Silence is evidence only while heartbeats would be seen.
func TestSilenceCountsOnlyWhileReading(t *testing.T) {
	b := newBench(t)
	b.pass(2*time.Second, "x")
	b.clock += time.Hour // without a snapshot, since NATS was away
	if b.look(); b.Expired("x", Deliver) {
		t.Error("an instance has expired although nothing could be read")
	}
	// An owner without a record is silent from when it was first asked about.
	if b.Expired("gone", Deliver) {
		t.Error("expired before its time")
	}
	if b.pass(9 * time.Second); !b.Expired("gone", Deliver) {
		t.Error("an owner without a record never expires")
	}
}

// A replica that lags shows what was there before.
func TestOldRecordsAreNoSignOfLife(t *testing.T) {
	b := newBench(t)
	b.pass(time.Second, "x")
	old := b.state["p.member.x"]
	b.pass(time.Second, "x")
	b.state["p.member.x"] = old
	if b.pass(9 * time.Second); !b.Expired("x", Deliver) {
		t.Error("an old record keeps an instance alive")
	}
}

func TestRightsLapse(t *testing.T) {
	b := newBench(t)
	if _, ok := b.Grant(Deliver); ok {
		t.Error("a right before the first heartbeat is confirmed")
	}
	b.confirm(b.clock, b.next())
	deliver, ok := b.Grant(Deliver)
	link, ok2 := b.Grant(Link)
	if !ok || !ok2 {
		t.Fatal("no right after a heartbeat")
	}
	for range 20 { // each sent a second before it is confirmed
		sent := b.clock
		b.clock += time.Second
		b.confirm(sent, b.next())
	}
	if !b.Valid(Deliver, deliver) || !b.Valid(Link, link) {
		t.Error("a right lapses although heartbeats are confirmed")
	}
	b.clock += 6 * time.Second // 7 since the last one was sent
	if b.Valid(Deliver, deliver) || !b.Valid(Link, link) {
		t.Error("without heartbeats deliveries stop after 7 s and the link after 12 s")
	}
	// The instance was paused: the heartbeat after that does not bring back what was held.
	b.confirm(b.clock, b.next())
	if b.Valid(Deliver, deliver) || !b.Valid(Link, link) {
		t.Error("a right that has lapsed is valid again")
	}
	if again, ok := b.Grant(Deliver); !ok || again == deliver {
		t.Error("no new right after a pause")
	}
	b.clock += time.Hour
	b.confirm(b.clock, b.next())
	if b.Valid(Link, link) {
		t.Error("a link that has lapsed is valid again")
	}
}

// After a power cut of all servers the sequences come again. What was held before is gone,
// and heartbeats with smaller sequences count.
func TestSequencesComeAgain(t *testing.T) {
	b := newBench(t)
	b.seq = 10_000
	b.confirm(b.clock, b.next())
	b.put("p.link", record{Owner: "x", Name: "x"})
	b.pass(2*time.Second, "x", "y")
	deliver, _ := b.Grant(Deliver)
	link, _ := b.Grant(Link)
	mark := b.Mark()
	b.seq = 100
	b.put("p.link", record{Owner: "y", Name: "y"})
	b.confirm(b.clock, b.next())
	if b.Valid(Deliver, deliver) || b.Valid(Link, link) {
		t.Error("rights of before the power cut are valid")
	}
	if _, ok := b.Grant(Deliver); !ok {
		t.Error("no new right")
	}
	if v := b.pass(9*time.Second, "x", "y"); !slices.Equal(v.Alive, []string{"x", "y"}) || b.Expired("x", Deliver) {
		t.Errorf("alive: %v", v.Alive)
	}
	if s := b.Standing(); s.Leader != "y" {
		t.Errorf("standing: %+v", s)
	}
	if b.Mark() != mark || mark < 10_000 {
		t.Errorf("the mark was %d and is %d", mark, b.Mark())
	}
}

// The sequences may have passed this instance's own heartbeat again before its next one is
// stored. What it has seen of the others tells all the same.
func TestSequencesPassTheOwnHeartbeat(t *testing.T) {
	b := newBench(t)
	b.confirm(b.clock, b.next())
	b.seq = 20_000 // by what others have written since
	b.put("p.link", record{Owner: "x", Name: "x"})
	b.pass(time.Second, "x", "y")
	deliver, _ := b.Grant(Deliver)
	b.seq = 100
	b.put("p.link", record{Owner: "y", Name: "y"})
	b.confirm(b.clock, b.next())
	if b.Valid(Deliver, deliver) {
		t.Error("a right of before the power cut is valid")
	}
	if v := b.pass(9*time.Second, "x", "y"); !slices.Equal(v.Alive, []string{"x", "y"}) {
		t.Errorf("alive: %v", v.Alive)
	}
	if s := b.Standing(); s.Leader != "y" {
		t.Errorf("standing: %+v", s)
	}
}

func TestTermEndsWithItsHolder(t *testing.T) {
	b := newBench(t)
	b.put("p.link", record{Owner: "x", Name: "x"})
	b.pass(time.Second, "x")
	term := b.Term()
	b.put("p.link", record{Owner: "y", Name: "y"})
	b.pass(time.Second, "x", "y")
	if term.Err() == nil {
		t.Error("the term goes on after the link has changed hands")
	}
	term = b.Term()
	if s := b.Standing(); s.Leader != "y" || s.Leading || s.Instances != 2 {
		t.Errorf("standing: %+v", s)
	}
	b.pass(13*time.Second, "x")
	if term.Err() != nil {
		t.Error("the term ends before its holder has expired")
	}
	b.pass(2*time.Second, "x")
	if s := b.Standing(); term.Err() == nil || s.Leader != "" {
		t.Errorf("the holder has expired, and the standing is %+v", s)
	}
}

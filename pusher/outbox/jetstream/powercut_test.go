package jetstream_test

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// patient are options whose leases last over a restart of the server.
func patient(t *testing.T, server *harness.NATSServer) jetstream.Options {
	o := options(t, server, "a")
	o.Takeover = time.Minute
	return o
}

// insist appends as soon as the outbox takes it.
func (i *instance) insist(p outbox.Pack) {
	i.t.Helper()
	await(i.t, "an append", func() bool { return i.Append(p) == nil })
}

// one appends each event in a message of its own.
func (i *instance) one(events ...*event.Event) {
	i.t.Helper()
	for _, e := range events {
		i.insist(pack(1, e))
	}
}

// The log may lose its end in a power cut while the link is held. The holder goes on by
// itself.
func TestLogLosesItsEnd(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, patient(t, server))
	i.owns(4)
	i.hold()
	powerCut := harness.Save(server)
	i.one(numbered(0, 40, 40)...)
	i.deliver("a", 40)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	powerCut("TEST_EVENTS")
	i.one(numbered(40, 40, 40)...)
	if got := different(i.deliver("a", 40)); len(got) != 40 || slices.Contains(got, "39") {
		t.Errorf("delivered %v", got)
	}
}

// The numbers of messages that a power cut has taken were read by all instances. They must
// not come again.
func TestNumbersNeverComeAgain(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := patient(t, server)
	o.WindowEvents = 1 // as few as there can be: more stay in the cache
	i, other := open(t, o), open(t, o)
	i.owns(2)
	other.owns(2)
	i.hold()
	powerCut := harness.Save(server)
	for n := range 40 {
		i.insist(pack(1, numbered(n*20, 20, 20)...))
	}
	for _, one := range []*instance{i, other} {
		await(t, "events that were read", func() bool { return one.readers["a"].Stats().Waiting > 100 })
	}
	powerCut("TEST_EVENTS")
	i.letGo()
	i.hold()
	i.one(numbered(1000, 40, 20)...)
	var j journal
	w1, w2 := i.work("a", j.note), other.work("a", j.note)
	await(t, "the events after the power cut", func() bool {
		got := make(map[string]bool)
		for _, id := range j.all() {
			got[id] = true
		}
		for _, e := range numbered(1000, 40, 20) {
			if !got[e.ID] {
				return false
			}
		}
		return true
	})
	w1.end()
	w2.end()
	checkOrder(t, different(j.all()), 20)
}

// After a power cut of everything the sequences of heartbeats, registers and of the link
// come again, and are much smaller than the instances remember.
func TestPowerCutOfEverything(t *testing.T) {
	t.Parallel()
	t.Run("one server", func(t *testing.T) {
		powerCutOfEverything(t, 1, harness.NATS(t, harness.NATSOptions{}))
	})
	t.Run("three servers", func(t *testing.T) {
		all := harness.NATSCluster(t, harness.NATSOptions{})
		powerCutOfEverything(t, 3, all[:]...)
	})
}

func powerCutOfEverything(t *testing.T, replicas int, servers ...*harness.NATSServer) {
	o := patient(t, servers[0])
	for _, s := range servers[1:] {
		o.URL += "," + s.URL()
	}
	o.Replicas = replicas
	one, two := open(t, o), open(t, o)
	one.owns(2)
	two.owns(2)
	one.hold()
	powerCut := harness.Save(servers...)
	j := streams(t, servers[0])
	await(t, "20000 records that nobody needs", func() bool {
		for range 1000 {
			_ = j.Conn().Publish("TEST.state.junk", nil) // the acknowledgement tells
		}
		ack, err := j.Publish(t.Context(), "TEST.state.junk", nil)
		return err == nil && ack.Sequence > 20_000
	})
	one.insist(pack(1, numbered(0, 40, 40)...))
	one.owns(2)
	two.owns(2)
	var got journal
	w1, w2 := one.work("a", got.note), two.work("a", got.note)
	await(t, "the events before the power cut", func() bool { return len(different(got.all())) == 40 })
	powerCut()
	one.one(numbered(40, 40, 40)...)
	await(t, "the events after the power cut", func() bool { return len(different(got.all())) == 80 })
	one.owns(2)
	two.owns(2)
	w1.end()
	w2.end()
	if s := two.Standing(); s.Instances != 2 || s.Leading {
		t.Errorf("standing: %+v", s)
	}
}

// A backend that was added shortly before a power cut of everything is there afterwards.
func TestPowerCutAfterABackendWasAdded(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, patient(t, server))
	i.owns(4)
	i.hold()
	powerCut := harness.Save(server)
	await(t, "a healthy engine", func() bool { return i.Err() == nil })
	r, err := i.Reader("new", func() {})
	if err != nil {
		t.Fatal(err)
	}
	i.readers["new"] = r
	powerCut()
	await(t, "both backends", func() bool {
		list, err := i.Backends()
		return err == nil && len(list) == 2
	})
	i.insist(pack(2, chat("x", "1")))
	i.owns(4)
	for _, backend := range []string{"a", "new"} {
		if got := i.deliver(backend, 1); got[0] != "1" {
			t.Errorf("%s got %v", backend, got)
		}
	}
}

// A stream that was deleted begins after what its backends had settled.
func TestDeletedLog(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	i := open(t, o)
	i.owns(4)
	for n := range 20 {
		i.append(pack(1, numbered(10*n, 10, 10)...))
	}
	i.deliver("a", 200)
	i.close()
	if err := streams(t, server).DeleteStream(t.Context(), "TEST_EVENTS"); err != nil {
		t.Fatal(err)
	}
	i = open(t, o)
	i.owns(4)
	i.append(pack(1, numbered(1000, 10, 10)...))
	if got := i.deliver("a", 10); len(different(got)) != 10 {
		t.Errorf("delivered %v", got)
	}
	if _, messages := i.LogSize(); messages > 5 {
		t.Errorf("the log has %d messages, most of them empty", messages)
	}
}

// A term that cannot begin is tried again, more and more seldom, and said once.
func TestTermThatCannotBegin(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	said := make(chan struct{}, 100)
	o.Log = counting("the link cannot be acquired yet", said)
	i := open(t, o)
	i.owns(4)
	i.append(pack(1, numbered(0, 10, 10)...))
	i.letGo()
	j := streams(t, server)
	s, err := j.Stream(t.Context(), "TEST_EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	c := s.CachedInfo().Config
	c.MaxBytes = 1
	c.MaxMsgSize = 1 // it takes nothing any more
	if _, err := j.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	links := make(chan *nats.Msg, 100)
	sub, err := j.Conn().ChanSubscribe("TEST.state.cluster.link", links)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	began := time.Now()
	done := make(chan struct{})
	go func() { defer close(done); i.hold() }()
	await(t, "three attempts", func() bool { return len(links) >= 6 })
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("three attempts within %v", took)
	}
	if len(said) != 1 {
		t.Errorf("%d log lines", len(said))
	}
	c.MaxBytes, c.MaxMsgSize = -1, -1
	if _, err := j.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	<-done
	i.append(pack(1, numbered(10, 10, 10)...))
	if got := i.deliver("a", 20); len(different(got)) != 20 {
		t.Errorf("delivered %v", got)
	}
	if err := i.Err(); err != nil {
		t.Error(err)
	}
}

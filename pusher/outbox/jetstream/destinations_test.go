package jetstream_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox"
)

// abandoned has 20 events wait for the backend old, one of them parked and another a dead letter, and
// returns two running instances that have not configured it and share them.
func abandoned(t *testing.T) (instances [2]*instance, old [2]outbox.Reader) {
	t.Helper()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "old", "new")
	o.ParkAttempts = 1
	before := open(t, o)
	before.owns(4)
	before.append(pack(2, numbered(0, 20, 7)...))
	before.deliver("new", 20)
	before.settle("old", outbox.Retry, before.take("old", 1)...)
	before.settle("old", outbox.Dead, before.take("old", 1)...)
	before.close()
	o.Backends = []string{"new"}
	for n := range instances {
		i := open(t, o)
		r, err := i.Reader("old", nil)
		if err != nil {
			t.Fatal(err)
		}
		instances[n], old[n] = i, r
	}
	instances[0].owns(2)
	instances[1].owns(2)
	instances[1].hold()
	await(t, "the events of old", func() bool { return left(old) == 19 })
	return instances, old
}

// left is how much waits for the readers.
func left(old [2]outbox.Reader) (n int) {
	for _, r := range old {
		s := r.Stats()
		n += s.Waiting + s.InFlight
	}
	return n
}

// knows waits until an instance knows of no other backends.
func (i *instance) knows(backends ...string) {
	i.t.Helper()
	await(i.t, "backends "+strings.Join(backends, ", "), func() bool {
		var names []string
		known, err := i.Backends()
		for _, b := range known {
			names = append(names, b.Name)
		}
		return err == nil && slices.Equal(names, backends)
	})
}

// TestMoveWhileInstancesRun gives what waits for a backend to another one, by an instance
// that does not hold the link. Each instance delivers what was in its own partitions.
func TestMoveWhileInstancesRun(t *testing.T) {
	t.Parallel()
	i, old := abandoned(t)
	for _, r := range old {
		if s := r.Stats(); s.Waiting > 0 && (s.Oldest.IsZero() || time.Since(s.Oldest) > limit) {
			t.Errorf("oldest: %v", s.Oldest)
		}
	}
	if err := old[0].Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := outbox.Move(t.Context(), i[0].Engine, "old", i[0].readers["new"], "new", i[0].Append); n == 0 || err != nil {
		t.Fatalf("moved %d, %v", n, err)
	}
	var j journal
	for _, one := range i {
		w := one.work("new", j.note)
		defer w.end()
	}
	await(t, "the events of old", func() bool { return len(different(j.all())) == 19 })
	checkOrder(t, different(j.all()), 7)
	if n := len(j.all()); n != 19 {
		t.Errorf("%d deliveries of 19 events", n)
	}
	await(t, "the moved dead letter", func() bool {
		list, err := i[1].DeadLetters().List(outbox.LetterFilter{})
		return err == nil && len(list) == 1 && list[0].Backend == "new"
	})
	for _, one := range i {
		one.knows("new")
	}
	await(t, "old to be through", func() bool { return i[0].Merged() == 0 })
	i[1].append(pack(1, numbered(20, 7, 7)...))
	await(t, "new events", func() bool { return len(different(j.all())) == 26 })
	if err := old[1].Close(); err != nil {
		t.Error(err)
	}
}

// TestForgetWhileInstancesRun gives up what waits in the partitions of all instances.
func TestForgetWhileInstancesRun(t *testing.T) {
	t.Parallel()
	i, old := abandoned(t)
	if err := old[0].Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := i[0].Forget("old"); n == 0 || err != nil {
		t.Fatalf("forgot %d, %v", n, err)
	}
	i[1].knows("new")
	await(t, "the other instance to give it up", func() bool { return left(old) == 0 })
	if err := old[1].Close(); err != nil {
		t.Error(err)
	}
	if _, err := i[1].Forget("old"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forgotten twice: %v", err)
	}
}

// TestBackendOfAnotherInstance cannot be forgotten, renamed or moved. Once it is not configured
// there any more it expires everywhere.
func TestBackendOfAnotherInstance(t *testing.T) {
	t.Parallel()
	i, old := abandoned(t)
	o := i[0].options
	o.Backends = []string{"new", "old"}
	third := open(t, o)
	await(t, "partitions of the third", func() bool { return third.Standing().Partitions > 0 })
	if err := old[0].Close(); err != nil {
		t.Fatal(err)
	}
	_, forget := i[0].Forget("old")
	_, merge := i[0].Merge("old", "new")
	for what, err := range map[string]error{"forget": forget, "rename": i[0].Rename("old", "older"), "move": merge} {
		if err == nil || !strings.Contains(err.Error(), "an instance is running and delivers to old") {
			t.Errorf("%s: %v", what, err)
		}
	}
	third.close()
	r, err := i[0].Reader("old", nil)
	if err != nil {
		t.Fatal(err)
	}
	old[0] = r
	expired := 0
	await(t, "the events to expire", func() bool {
		for _, r := range old {
			n, err := r.Expire(time.Now().Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			expired += n
		}
		return expired == 19
	})
	await(t, "the dead letters", func() bool {
		list, err := i[1].DeadLetters().List(outbox.LetterFilter{Backend: "old"})
		return err == nil && len(list) == 20
	})
}

// TestReadersComeAndGo closes and opens readers of two instances under load, while partitions
// move between them, and expects every event, in order within its conversation.
func TestReadersComeAndGo(t *testing.T) {
	t.Parallel()
	const peers, events = 23, 10
	o := options(t, harness.NATS(t, harness.NATSOptions{}), "a", "b")
	var j journal
	all := []*instance{open(t, o), open(t, o)}
	all[0].hold()
	sent := 0
	for round := range 24 {
		for _, i := range all {
			w := i.work("a", j.note)
			all[0].append(pack(2, numbered(sent, events, peers)...))
			sent += events
			w.end()
			if err := i.readers["a"].Close(); err != nil {
				t.Fatal(err)
			}
			all[0].append(pack(2, numbered(sent, events, peers)...))
			sent += events
			i.read("a")
		}
		switch round % 6 {
		case 2:
			all[1].owns(2)
		case 5: // partitions come to it while its readers come and go
			all[1].close()
			all[1] = open(t, o)
		}
	}
	for _, i := range all {
		w := i.work("a", j.note)
		defer w.end()
	}
	await(t, "all events", func() bool { return len(different(j.all())) == sent })
	checkOrder(t, different(j.all()), peers)
	if again := len(j.all()) - sent; again > 0 {
		t.Errorf("%d events were delivered again", again)
	}
}

// TestReaderWhileNATSIsAway: backends that were named at the start can be read without NATS, a new
// one cannot: what is appended for it has to be kept.
func TestReaderWhileNATSIsAway(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, options(t, server, "a", "b"))
	i.owns(4)
	i.append(pack(2, chat("x", "1")))
	server.Kill()
	await(t, "the end of the connection", func() bool { return i.Err() != nil })
	_ = i.readers["a"].Close() // that it cannot save is said by Err, too
	i.read("a")
	if _, err := i.Reader("new", func() {}); err == nil {
		t.Error("a new backend can be read")
	}
	server.Start()
	i.owns(4)
	i.deliver("a", 1)
	i.read("new")
	i.append(pack(3, chat("x", "2")))
	for _, backend := range []string{"a", "new"} {
		if got := i.deliver(backend, 1); got[0] != "2" {
			t.Errorf("%s got %v", backend, got)
		}
	}
	i.deliver("b", 2)
}

// TestFullOfAbandonedEvents: if the log is too large, a backend that is not configured gives up its
// oldest events as others do, and those that are up to date lose none.
func TestFullOfAbandonedEvents(t *testing.T) {
	t.Parallel()
	o := options(t, harness.NATS(t, harness.NATSOptions{}), "old", "new")
	o.MaxSize = 1 << 20
	open(t, o).close()
	o.Backends = []string{"new"}
	i := open(t, o)
	old, err := i.Reader("old", nil)
	if err != nil {
		t.Fatal(err)
	}
	i.owns(4)
	i.hold()
	sent := 0
	await(t, "events of old to be given up", func() bool {
		p := pack(2, numbered(sent, 20, 50)...) // new has bit 0, old 1
		for _, e := range p.Entries {
			e.Event.Packet = string(make([]byte, 1000))
		}
		switch err := i.Append(p); {
		case err == nil:
			i.deliver("new", 20)
			sent += 20
		case !errors.Is(err, outbox.ErrFull):
			t.Fatal(err)
		}
		return old.Stats().Shed > 0
	})
	if s := i.readers["new"].Stats(); s.Shed > 0 {
		t.Errorf("new has given up %d of %d events", s.Shed, sent)
	}
	await(t, "room", func() bool {
		return i.Append(outbox.Pack{Positions: []outbox.Position{{Source: "s", Epoch: "e", Seq: 1}}}) == nil
	})
}

// TestRetiring: an instance that retires keeps what it has, and acquires nothing more.
func TestRetiring(t *testing.T) {
	t.Parallel()
	o := options(t, harness.NATS(t, harness.NATSOptions{}), "a")
	o.Partitions = 9
	var i [3]*instance
	for n := range i {
		i[n] = open(t, o)
	}
	for n := range i {
		i[n].owns(3)
	}
	i[0].Retire()
	i[1].close()
	i[2].owns(6)
	if n := i[0].Standing().Partitions; n != 3 {
		t.Errorf("it has %d", n)
	}
}

// TestAnnouncedBeforeRegistered: whoever forgets a backend sees that it is in use before it
// can be registered.
func TestAnnouncedBeforeRegistered(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	nc := streams(t, server).Conn()
	written := make(chan *nats.Msg, 10_000)
	if _, err := nc.ChanSubscribe("TEST.state.>", written); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	announced := func(backend string) {
		t.Helper()
		for named := false; ; {
			select {
			case m := <-written:
				if strings.HasPrefix(m.Subject, "TEST.state.cluster.member.") {
					named = named || strings.Contains(string(m.Data), `"`+backend+`"`)
				} else if m.Subject == "TEST.state.meta" {
					if !named {
						t.Errorf("%s was registered before a heartbeat named it", backend)
					}
					return
				}
			case <-time.After(limit):
				t.Fatalf("%s is not registered", backend)
			}
		}
	}
	i := open(t, options(t, server, "a"))
	announced("a")
	i.owns(4)
	i.read("new")
	announced("new")
}

// TestForgottenIsNotSaved: partitions keep what they have of a backend that nobody reads until it
// is forgotten, and then nothing, so that what they save does not grow for ever.
func TestForgottenIsNotSaved(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "new", "old")
	o.Partitions, o.ParkAttempts = 1, 1
	before := open(t, o)
	before.owns(1)
	before.append(pack(2, chat("x", "1")))
	before.deliver("new", 1)
	before.settle("old", outbox.Retry, before.take("old", 1)...)
	before.close()
	o.Backends = []string{"new"}
	i := open(t, o)
	i.owns(1)
	if listed, progress := i.Registrations(); listed != 1 || progress != 2 {
		t.Fatalf("before: %d lists, progress of %d", listed, progress)
	}
	if _, err := i.Forget("old"); err != nil {
		t.Fatal(err)
	}
	if listed, progress := i.Registrations(); listed != 0 || progress != 1 {
		t.Errorf("after: %d lists, progress of %d", listed, progress)
	}
}

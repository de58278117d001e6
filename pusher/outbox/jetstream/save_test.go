package jetstream_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox"
)

// If more parked events die than one batch takes, and the servers refuse the dead letters,
// no event is lost: the tombstones do not come before the letters.
func TestTombstonesComeLast(t *testing.T) {
	t.Parallel()
	const parked = 1000
	server := harness.NATS(t, harness.NATSOptions{Extra: `
authorization { users: [
  { user: all, password: all }
  { user: some, password: some, permissions: { publish: { deny: ["TEST.state.letter.>"] } } }
] }
`})
	o := tight(t, server)
	o.WindowEvents, o.Redelivery = 4*parked, parked
	o.Username, o.Password, o.Log = "some", "some", slog.New(slog.DiscardHandler) // of each letter that is refused
	i := open(t, o)
	i.owns(1)
	i.append(pack(1, numbered(0, parked, parked)...))
	i.retry(time.Hour, false, i.take("a", parked)...)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	i.expire(parked)
	if err := i.Flush(); err == nil {
		t.Fatal("it is saved without the letters")
	}
	i.crash()

	o.Username, o.Password = "all", "all"
	next := open(t, o)
	next.owns(1)
	next.expire(parked)
	if err := next.Flush(); err != nil {
		t.Fatal(err)
	}
	await(t, "all letters", func() bool {
		list, err := next.DeadLetters().List(outbox.LetterFilter{})
		return err == nil && len(list) == parked
	})
	next.close() // which writes the rest of the tombstones
	again := open(t, o)
	again.owns(1)
	if s := again.readers["a"].Stats(); s.Parked != 0 || s.Lost != 0 {
		t.Errorf("stats %+v", s)
	}
	if n := again.Parked(); n != 0 {
		t.Errorf("%d parked events are kept although they are letters", n)
	}
}

// expire lets n events become dead letters.
func (i *instance) expire(n int) {
	i.t.Helper()
	expired := 0
	await(i.t, fmt.Sprint(n, " events to expire"), func() bool {
		n1, err := i.readers["a"].Expire(time.Now().Add(time.Hour))
		if err != nil {
			i.t.Fatal(err)
		}
		expired += n1
		return expired == n
	})
}

// If more events are parked than one message can list, the rest become dead letters, and
// everything is saved.
func TestManyParkedEvents(t *testing.T) {
	t.Parallel()
	const events = 10_000
	server := harness.NATS(t, harness.NATSOptions{Extra: "max_payload: 32768\n"})
	o := tight(t, server)
	o.WindowEvents, o.Redelivery = 2*events, events
	i := open(t, o)
	i.owns(1)
	for n := 0; n < events; n += 1000 {
		i.append(pack(1, numbered(n, 1000, events)...))
	}
	i.retry(time.Hour, false, i.take("a", events)...)
	await(t, "a save", func() bool { return i.Flush() == nil })
	s := i.readers["a"].Stats()
	await(t, "the dead letters", func() bool {
		list, err := i.DeadLetters().List(outbox.LetterFilter{Reason: outbox.ReasonParkedFull})
		return err == nil && s.Parked > 100 && len(list) == events-s.Parked
	})
	if err := i.Err(); err != nil {
		t.Error(err)
	}
}

// What other instances append does not make an instance look for replayed letters.
func TestBellOfAppends(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	one, two := open(t, options(t, server, "a")), open(t, options(t, server, "a"))
	one.owns(2)
	two.owns(2)
	one.hold()
	looks := make(chan *nats.Msg, 10_000)
	sub, err := streams(t, server).Conn().ChanSubscribe("$JS.API.DIRECT.GET.TEST_STATE", looks)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for n := range 500 {
		one.append(pack(1, chat("x", fmt.Sprint(n))))
	}
	got := two.deliverAny(one, 500)
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	replays := 0
	for len(looks) > 0 {
		if m := <-looks; strings.Contains(string(m.Data), "TEST.state.replay.") {
			replays++
		}
	}
	// Each of two instances looks once a second, and when it has acquired something.
	if most := 2*int(time.Since(began).Seconds()) + 10; replays > most {
		t.Errorf("%d looks for replayed letters over 500 appends, want at most %d", replays, most)
	}
	if len(different(got)) != 500 {
		t.Errorf("delivered %d", len(different(got)))
	}
}

// deliverAny delivers n events through this instance or another one.
func (i *instance) deliverAny(other *instance, n int) []string {
	i.t.Helper()
	var j journal
	w1, w2 := i.work("a", j.note), other.work("a", j.note)
	await(i.t, fmt.Sprint(n, " events"), func() bool { return len(different(j.all())) >= n })
	w1.end()
	w2.end()
	return slices.Clone(j.all())
}

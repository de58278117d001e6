package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/internal/natsrpc"
	"eventpusher/internal/tlsconfig"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// numbered are n events of so many conversations, called 0, 1, 2 ...
func numbered(from, n, peers int) (list []*event.Event) {
	for i := from; i < from+n; i++ {
		list = append(list, chat(fmt.Sprint("peer", i%peers), fmt.Sprint(i)))
	}
	return list
}

func TestDeliversInOrderAndTrims(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	i := open(t, options(t, server, "a", "b"))
	i.owns(4)
	i.append(pack(2, numbered(0, 200, 7)...))
	i.append(pack(1, numbered(200, 50, 7)...)) // for a alone
	for backend, n := range map[string]int{"a": 250, "b": 200} {
		got := i.deliver(backend, n)
		checkOrder(t, got, 7)
		if slices.Sort(got); len(slices.Compact(got)) != n {
			t.Errorf("%s got only %d different events", backend, len(slices.Compact(got)))
		}
		i.nothing(backend)
	}
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	await(t, "a trimmed log", func() bool {
		if _, err := i.Trim(); err != nil {
			t.Fatal(err)
		}
		_, messages := i.LogSize()
		return messages == 1 // the last one has the positions
	})
	for name, r := range i.readers {
		await(t, "the count to become zero", func() bool { return r.Stats().Waiting == 0 })
		if diff := cmp.Diff(outbox.Stats{}, r.Stats()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if err := i.Err(); err != nil {
		t.Error(err)
	}
}

// checkOrder fails if the numbers of a conversation are not ascending.
func checkOrder(t *testing.T, got []string, peers int) {
	t.Helper()
	last := make(map[int]int)
	for _, id := range got {
		n := 0
		fmt.Sscan(id, &n)
		if before, ok := last[n%peers]; ok && n < before {
			t.Errorf("%d came after %d of the same conversation", n, before)
		}
		last[n%peers] = n
	}
}

func TestGoesOnAfterCloseAndCrash(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	first := open(t, o)
	first.owns(4)
	first.append(pack(1, numbered(0, 40, 40)...))
	got := first.deliver("a", 15)
	held := first.take("a", 5)
	first.settle("a", outbox.Requeue, held...)
	first.close()

	second := open(t, o)
	second.owns(4)
	got = append(got, second.deliver("a", 25)...)
	second.nothing("a")
	if slices.Sort(got); len(slices.Compact(got)) != 40 {
		t.Errorf("%d different events in 40 deliveries", len(slices.Compact(got)))
	}
	second.append(pack(1, numbered(40, 30, 30)...))
	second.deliver("a", 10)
	if err := second.Flush(); err != nil {
		t.Fatal(err)
	}
	second.deliver("a", 5) // not saved
	second.crash()

	third := open(t, o)
	third.owns(4) // when the claims of the dead one are free
	got = third.deliver("a", 20)
	third.nothing("a")
	if slices.Sort(got); len(slices.Compact(got)) != 20 {
		t.Errorf("%d different events in 20 deliveries", len(slices.Compact(got)))
	}
}

func TestPositionsSurvive(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	first := open(t, o)
	p := pack(1, chat("x", "1"))
	p.Positions = []outbox.Position{{Source: "s2", Epoch: "e", Seq: 3}, {Source: "s1", Epoch: "e", Seq: 1}}
	first.append(p)
	first.append(outbox.Pack{Positions: []outbox.Position{{Source: "s1", Epoch: "e", Seq: 2}}})
	want := []outbox.Position{{Source: "s1", Epoch: "e", Seq: 2}, {Source: "s2", Epoch: "e", Seq: 3}}
	if diff := cmp.Diff(want, first.Positions()); diff != "" {
		t.Error(diff)
	}
	first.close()
	if diff := cmp.Diff(want, open(t, o).Positions()); diff != "" {
		t.Error(diff)
	}
}

func TestNewBackendBeginsAtTheEnd(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	first := open(t, options(t, server, "old"))
	first.append(pack(1, numbered(0, 5, 5)...))
	first.close()
	second := open(t, options(t, server, "old", "new"))
	second.owns(4)
	second.append(pack(2, numbered(5, 3, 5)...))
	if got := second.deliver("new", 3); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"5", "6", "7"}) {
		t.Errorf("new got %v", got)
	}
	second.nothing("new")
	second.deliver("old", 8)
	second.close()

	// What waits for a backend that is not configured does not keep the outbox from opening.
	third := open(t, options(t, server, "new"))
	third.owns(4)
	third.append(pack(1, chat("x", "8")))
	if got := third.deliver("new", 1); got[0] != "8" {
		t.Errorf("delivered %v", got)
	}
}

func TestRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	open(t, options(t, server, "a")).close()
	o := options(t, server, "a")
	o.Partitions = 3
	_, err := jetstream.Open(o)
	var partitions *jetstream.PartitionsError
	if !errors.As(err, &partitions) || partitions.Have != 4 || partitions.Want != 3 {
		t.Errorf("other partitions: %v", err)
	}
	o = options(t, server, "a")
	o.Replicas = 3
	var settings *jetstream.SettingsError
	if _, err := jetstream.Open(o); !errors.As(err, &settings) || !strings.Contains(err.Error(), "replicas is 1, and must be 3") {
		t.Errorf("other replicas: %v", err)
	}
	o.Prefix = "OTHER" // nothing is there, and one server cannot keep three copies
	if _, err := jetstream.Open(o); err == nil || !strings.Contains(err.Error(), "replicas") {
		t.Errorf("too many replicas: %v", err)
	}
}

func TestServersThatCannotServe(t *testing.T) {
	t.Parallel()
	t.Run("no JetStream", func(t *testing.T) {
		server := harness.NATS(t, harness.NATSOptions{NoJetStream: true})
		if _, err := jetstream.Open(options(t, server, "a")); err == nil || !strings.Contains(err.Error(), "start nats-server with JetStream") {
			t.Errorf("error: %v", err)
		}
	})
	t.Run("too old", func(t *testing.T) {
		server := harness.NATS(t, harness.NATSOptions{Old: true})
		var old *jetstream.ServerError
		if _, err := jetstream.Open(options(t, server, "a")); !errors.As(err, &old) || !strings.Contains(err.Error(), "2.12 or later is needed") {
			t.Errorf("error: %v", err)
		}
		if _, err := jetstream.OpenLetters(t.Context(), options(t, server, "a")); !errors.As(err, &old) {
			t.Errorf("letters: %v", err)
		}
	})
	t.Run("credentials", func(t *testing.T) {
		server := harness.NATS(t, harness.NATSOptions{Username: "u", Password: "right"})
		o := options(t, server, "a")
		if _, err := jetstream.Open(o); err == nil || !strings.Contains(err.Error(), "check credentials_file") {
			t.Errorf("without: %v", err)
		}
		o.Username, o.Password = "u", "wrong-secret"
		if _, err := jetstream.Open(o); err == nil || strings.Contains(err.Error(), "wrong-secret") {
			t.Errorf("wrong: %v", err)
		}
		o.Password = "right"
		open(t, o).owns(4)
	})
}

func TestParkedAndRetried(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a")
	o.ParkAttempts = 1
	first := open(t, o)
	first.owns(4)
	first.append(pack(1, chat("bad", "b1"), chat("good", "g1"), chat("bad", "b2")))
	items := first.take("a", 2) // b1 and g1
	for _, it := range items {
		if it.Event.ID == "b1" {
			if err := first.readers["a"].Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Retry, Delay: time.Hour}}); err != nil {
				t.Fatal(err)
			}
		} else {
			first.settle("a", outbox.Delivered, it)
		}
	}
	first.append(pack(1, chat("bad", "b3")))
	await(t, "three parked events", func() bool { return first.readers["a"].Stats().Parked == 3 })
	first.nothing("a")
	first.close()

	second := open(t, o) // which does not know of the hour
	second.owns(4)
	if got := second.deliver("a", 3); !slices.Equal(got, []string{"b1", "b2", "b3"}) {
		t.Errorf("parked events came as %v", got)
	}
	second.append(pack(1, chat("bad", "b4")))
	if items := second.take("a", 1); items[0].Parked() {
		t.Error("a conversation that works again is parked")
	} else {
		second.settle("a", outbox.Delivered, items...)
	}
	second.close()
	third := open(t, o)
	third.owns(4)
	<-time.After(200 * time.Millisecond) // nothing is to be seen, however long one waits
	third.nothing("a")
}

func TestDeadLettersAndReplay(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a", "b")
	i := open(t, o)
	i.owns(4)
	i.append(pack(2, chat("x", "1"), chat("y", "2")))
	i.settle("a", outbox.Dead, i.take("a", 2)...)
	i.deliver("b", 2)
	i.hold()
	if err := i.Bury(outbox.DeadLetter{Event: chat("z", "3"), Reason: "filter", Err: "why"}); err != nil {
		t.Fatal(err)
	}
	var list []outbox.DeadLetter
	await(t, "dead letters", func() (done bool) {
		var err error
		if list, err = i.DeadLetters().List(outbox.LetterFilter{}); err != nil {
			t.Fatal(err)
		}
		return len(list) == 3
	})
	letters, err := jetstream.OpenLetters(t.Context(), o) // as a command does
	if err != nil {
		t.Fatal(err)
	}
	defer letters.Close()
	for name, f := range map[string]struct {
		filter outbox.LetterFilter
		want   int
	}{
		"all": {outbox.LetterFilter{}, 3}, "backend": {outbox.LetterFilter{Backend: "a"}, 2}, "none": {outbox.LetterFilter{Backend: outbox.NoBackend}, 1},
		"event": {outbox.LetterFilter{EventID: "2"}, 1}, "number": {outbox.LetterFilter{ID: list[1].ID}, 1}, "unknown": {outbox.LetterFilter{ID: 99}, 0},
		"page": {outbox.LetterFilter{After: list[0].ID, Limit: 1}, 1},
	} {
		got, err := letters.List(f.filter)
		if err != nil || len(got) != f.want {
			t.Errorf("%s: %d, want %d (%v)", name, len(got), f.want, err)
		}
	}
	if _, err := letters.Get(99); !errors.Is(err, outbox.ErrNoLetter) {
		t.Errorf("a letter that is not there: %v", err)
	}
	if d, err := letters.Get(list[0].ID); err != nil || cmp.Diff(list[0], d) != "" {
		t.Errorf("one letter: %v %s", err, cmp.Diff(list[0], d))
	}
	one := slices.IndexFunc(list, func(d outbox.DeadLetter) bool { return d.Event.ID == "1" })
	if n, err := letters.Replay(outbox.LetterFilter{ID: list[one].ID}); n != 1 || err != nil {
		t.Errorf("replay: %d, %v", n, err)
	}
	items := i.take("a", 1)
	if e := items[0].Event; e.ID != "1" || !e.Replayed {
		t.Errorf("replayed: %+v", e)
	}
	i.settle("a", outbox.Delivered, items...)
	i.close()
	if n, err := letters.Replay(outbox.LetterFilter{}); n != 1 || err != nil { // not the one of no backend
		t.Errorf("replay while nobody runs: %d, %v", n, err)
	}
	if n, err := letters.Drop(outbox.LetterFilter{}); n != 1 || err != nil {
		t.Errorf("drop: %d, %v", n, err)
	}
	again := open(t, o)
	again.owns(4)
	if got := again.deliver("a", 1); got[0] != "2" {
		t.Errorf("replayed after the start: %v", got)
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "a", "b")
	o.ParkAttempts = 1
	i := open(t, o)
	i.owns(4)
	i.append(pack(2, numbered(0, 6, 6)...))
	i.deliver("b", 6)
	for _, it := range i.take("a", 2) { // parked
		if err := i.readers["a"].Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Retry, Delay: time.Hour}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := jetstream.Forget(t.Context(), o, "a"); err == nil || !strings.Contains(err.Error(), "delivers to a") {
		t.Errorf("while an instance has it: %v", err)
	}
	i.close()
	if _, err := jetstream.Forget(t.Context(), o, "nobody"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown backend: %v", err)
	}
	if n, err := jetstream.Forget(t.Context(), o, "a"); n == 0 || err != nil {
		t.Errorf("%d packs, %v", n, err)
	}
	o.Backends = []string{"b", "a"} // which is new now
	again := open(t, o)
	again.owns(4)
	again.append(pack(2, chat("x", "new")))
	for _, backend := range o.Backends {
		if got := again.deliver(backend, 1); got[0] != "new" {
			t.Errorf("%s got %v", backend, got)
		}
		again.nothing(backend)
	}
	if _, err := jetstream.OpenLetters(t.Context(), jetstream.Options{Options: natsrpc.Options{URL: server.URL(), Prefix: "NOTHING"}}); err == nil || !strings.Contains(err.Error(), "there is none in NATS") {
		t.Errorf("letters of an outbox that is not there: %v", err)
	}
}

// TestNarrowRights runs with the rights that docs/scale-out.md names, over TLS.
func TestNarrowRights(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{TLS: true, Extra: `
authorization { users: [ { user: u, password: right, permissions: {
  publish: { allow: ["TEST.>", "$KV.TEST-push.>", "$KV.TEST-devices.>", "$JS.API.>"] }
  subscribe: { allow: ["_INBOX.>", "TEST.ask", "TEST.ask.>", "TEST.tip"] }
  allow_responses: true } } ] }
`})
	o := options(t, server, "a")
	o.Username, o.Password = "u", "right"
	if _, err := jetstream.Open(o); err == nil {
		t.Error("a certificate of a stranger is accepted")
	}
	var err error
	if o.TLS, err = tlsconfig.Client(&config.TLS{CACertFile: server.CAFile}, "127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	i := open(t, o)
	var holders atomic.Int32
	l := i.lead(&holders, t)
	i.owns(4)
	await(t, "the leader", l.leading.Load)
	p := pack(1, chat("x", "1"), chat("y", "2"))
	p.Positions = []outbox.Position{{Source: "s", Epoch: "e", Seq: 1}}
	i.append(p)
	i.settle("a", outbox.Dead, i.take("a", 2)...)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	replayed := 0
	await(t, "the servers to copy the letters, which then are replayed", func() bool {
		n, err := i.Replay(outbox.LetterFilter{})
		if err != nil {
			t.Fatal(err)
		}
		replayed += n
		return replayed == 2
	})
	i.deliver("a", 2)
	if err := i.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Trim(); err != nil {
		t.Error(err)
	}
	for _, serve := range []func(func(context.Context, []byte) []byte) (func(), error){i.Answer, i.AnswerAll} {
		stop, err := serve(func(context.Context, []byte) []byte { return []byte("!") })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	await(t, "answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		answer, err1 := i.Ask(ctx, []byte("?"))
		all, err2 := i.AskAll(ctx, []byte("?"))
		return errors.Join(err1, err2) == nil && string(answer) == "!" && len(all) == 1
	})
	for _, name := range []string{"push", "devices"} {
		useBucket(t, o, name)
	}
	l.end(t)
}

// useBucket does with a bucket what its users do.
func useBucket(t *testing.T, o jetstream.Options, name string) {
	t.Helper()
	b, err := natsrpc.OpenBucket(o.Options, name)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	kv, err := b.KeyValue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	revision, err := kv.Create(t.Context(), "k", []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	if revision, err = kv.Update(t.Context(), "k", []byte("2"), revision); err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(t.Context(), "k"); err != nil || string(e.Value()) != "2" {
		t.Errorf("%s: %v, %v", name, e, err)
	}
	all, err := kv.WatchAll(t.Context(), js.IgnoreDeletes())
	if err != nil {
		t.Fatal(err)
	}
	if e := <-all.Updates(); e == nil || string(e.Value()) != "2" {
		t.Errorf("%s: watched %v", name, e)
	}
	if err := all.Stop(); err != nil {
		t.Error(err)
	}
	if err := kv.Delete(t.Context(), "k", js.LastRevision(revision)); err != nil {
		t.Error(err)
	}
}

// Events in streams of an earlier version are not left behind in silence.
func TestEarlierStreams(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	j := streams(t, server)
	for n, name := range []string{"TEST_LOG_00", "TEST_LOG_01", "TEST_PARKED"} {
		if _, err := j.CreateStream(t.Context(), js.StreamConfig{Name: name, Subjects: []string{fmt.Sprint("TEST.log.", n)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Publish(t.Context(), "TEST.log.1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	var earlier *jetstream.EarlierError
	_, err := jetstream.Open(options(t, server, "a"))
	if !errors.As(err, &earlier) || !slices.Equal(earlier.Streams, []string{"TEST_LOG_01 (1 messages)"}) || !strings.Contains(err.Error(), "nats stream rm") {
		t.Errorf("error: %v", err)
	}
	s, err := j.Stream(t.Context(), "TEST_LOG_01")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	open(t, options(t, server, "a")).owns(4)
}

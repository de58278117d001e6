package jetstream_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

func TestMain(m *testing.M) {
	beLoser()
	goleak.VerifyTestMain(m)
}

// limit bounds every wait; it only matters when something is broken.
const limit = harness.WaitLimit

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", limit, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// testLog writes into the test's log until the test ends.
type testLog struct {
	t  testing.TB
	mu *sync.Mutex
	on *bool
}

func (l testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *l.on {
		l.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

func logger(t testing.TB) *slog.Logger {
	l := testLog{t, new(sync.Mutex), new(bool)}
	*l.on = true
	t.Cleanup(func() {
		l.mu.Lock()
		*l.on = false
		l.mu.Unlock()
	})
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// streams returns a way to the streams of a server.
func streams(t testing.TB, server *harness.NATSServer) js.JetStream {
	t.Helper()
	nc, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	j, err := js.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// counting returns a log that sends to said at each line that begins with message.
func counting(message string, said chan<- struct{}) *slog.Logger {
	return slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.MessageKey && strings.HasPrefix(a.Value.String(), message) {
			said <- struct{}{}
		}
		return a
	}}))
}

// chat is an event of the conversation of a user with peer.
func chat(peer, id string) *event.Event {
	return &event.Event{
		ID: id, Kind: event.Chat, Type: "chat", Direction: event.In, From: "user@example.org/r", To: jid.JID(peer + "@example.org"),
		User: "user@example.org", Body: "hello " + id, HasBody: true, Class: event.Content, Time: time.Unix(1700000000, 0).UTC(),
		Packet: "<message>" + id + "</message>",
	}
}

// pack is a pack of events for all the first n readers.
func pack(readers int, events ...*event.Event) outbox.Pack {
	var p outbox.Pack
	for _, e := range events {
		p.Entries = append(p.Entries, outbox.Entry{Event: e, Subscribers: 1<<readers - 1})
	}
	return p
}

// instance is an engine with its readers.
type instance struct {
	*jetstream.Engine
	t       testing.TB
	options jetstream.Options
	readers map[string]outbox.Reader
	wake    map[string]chan struct{}
	closed  bool
	letGo   func() // of the link, and waits; nil while this instance does not want it
}

func options(t testing.TB, server *harness.NATSServer, backends ...string) jetstream.Options {
	return jetstream.Options{
		Options:    natsrpc.Options{URL: server.URL(), Prefix: "TEST", Log: logger(t)},
		Partitions: 4, Backends: backends, Takeover: jetstream.MinTakeover, MaxLetterBytes: 16 << 20,
	}
}

// open opens an engine and its readers; the test closes it if nobody has.
func open(t testing.TB, o jetstream.Options) *instance {
	t.Helper()
	e, err := jetstream.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	i := &instance{Engine: e, t: t, options: o, readers: make(map[string]outbox.Reader), wake: make(map[string]chan struct{})}
	t.Cleanup(func() {
		if !i.closed {
			i.close()
		}
	})
	for _, b := range o.Backends {
		i.read(b)
	}
	return i
}

// read opens the reader of a backend.
func (i *instance) read(backend string) {
	i.t.Helper()
	wake := make(chan struct{}, 1)
	i.wake[backend] = wake
	r, err := i.Reader(backend, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		i.t.Fatal(err)
	}
	i.readers[backend] = r
}

// hold has the instance hold the link, as appending needs it, until it is closed.
func (i *instance) hold() {
	i.t.Helper()
	if i.letGo != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	var leading atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = i.Lead(ctx, func(ctx context.Context) error { // the test sees what comes of it
			leading.Store(true)
			<-ctx.Done()
			leading.Store(false)
			return nil
		})
	}()
	i.letGo = func() {
		stop()
		<-done
		i.letGo = nil
	}
	await(i.t, "the link", leading.Load)
}

func (i *instance) close() {
	i.t.Helper()
	i.closed = true
	if i.letGo != nil {
		i.letGo()
	}
	if err := i.Close(); err != nil {
		i.t.Errorf("close: %v", err)
	}
}

func (i *instance) crash() {
	i.closed = true
	i.Crash()
	if i.letGo != nil {
		i.letGo()
	}
}

// owns waits until the instance has so many partitions.
func (i *instance) owns(n int) {
	i.t.Helper()
	defer func() {
		if i.t.Failed() {
			i.t.Log(i.Dump())
		}
	}()
	await(i.t, fmt.Sprint(n, " partitions"), func() bool { return i.Standing().Partitions == n })
}

func (i *instance) append(p outbox.Pack) {
	i.t.Helper()
	i.hold()
	if err := i.Append(p); err != nil {
		i.t.Fatal(err)
	}
}

// take waits for n events of a backend.
func (i *instance) take(backend string, n int) (items []*outbox.Item) {
	i.t.Helper()
	await(i.t, fmt.Sprint(n, " events of ", backend), func() bool {
		items, _, _ = i.readers[backend].Take(items, n-len(items), false)
		items = i.readers[backend].Load(items)
		return len(items) == n
	})
	return items
}

// nothing takes from a backend, and fails if there is anything.
func (i *instance) nothing(backend string) {
	i.t.Helper()
	if items, _, _ := i.readers[backend].Take(nil, 10, false); len(items) > 0 {
		i.t.Errorf("%s has %v", backend, ids(items))
	}
}

func (i *instance) settle(backend string, o outbox.Outcome, items ...*outbox.Item) {
	i.t.Helper()
	var list []outbox.Settlement
	for _, it := range items {
		list = append(list, outbox.Settlement{Item: it, Outcome: o, Reason: "permanent"})
	}
	if err := i.readers[backend].Settle(list); err != nil {
		i.t.Fatal(err)
	}
}

// deliver takes n events and delivers them one by one, so that each key's next
// one comes.
func (i *instance) deliver(backend string, n int) (list []string) {
	i.t.Helper()
	for range n {
		items := i.take(backend, 1)
		list = append(list, ids(items)...)
		i.settle(backend, outbox.Delivered, items...)
	}
	return list
}

func ids(items []*outbox.Item) (list []string) {
	for _, it := range items {
		list = append(list, it.Event.ID)
	}
	return list
}

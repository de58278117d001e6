package xmppside

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/catalog"
	"eventpusher/backends/push"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/store"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/outboxtest"
)

const feedComponent, feedHost = "events.example.org", "example.org"

// fullDisk is an outbox that takes nothing while it is full.
type fullDisk struct {
	*outbox.Embedded
	full atomic.Bool
}

func (d *fullDisk) Append(p outbox.Pack) error {
	if d.full.Load() {
		return outbox.ErrFull
	}
	return d.Embedded.Append(p)
}

// publishers is a desk with a link, an outbox that may be full, one device at a stand-in
// for Google, and the server that publishes.
type publishers struct {
	t       *testing.T
	disk    *fullDisk
	desk    *Devices
	store   store.Devices
	google  *pushtest.Sink
	session *xmppserver.Session
	backend *push.Backend
	node    string
	payload string
}

// newPublishers begins without the desk running.
func newPublishers(t *testing.T) *publishers {
	t.Helper()
	server, err := xmppserver.New(xmppserver.Options{Component: feedComponent, Secret: "secret", Hosts: []string{feedHost}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	w := &publishers{t: t, disk: &fullDisk{Embedded: outboxtest.Open(t)}, google: pushtest.StartSink(t)}
	cfg, problems := config.Parse(fmt.Appendf(nil, `
[component]
address = %q
name = %q
secret = "secret"
[general]
hosts = [%q]
[outbox]
path = %q
[modules.mod_event_pusher.push]
[[push.app]]
name = "chat"
[push.app.fcm]
credentials = %q
url = %q
cacertfile = %q
`, server.Addr(), feedComponent, feedHost, t.TempDir(), pushtest.ServiceAccount(t, w.google.URL).Reveal(), w.google.URL, w.google.CAFile), nil, "")
	if cfg == nil {
		t.Fatal(problems)
	}
	log := slog.New(slog.DiscardHandler)
	built, err := catalog.Build(cfg, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	backend := built[0].(*push.Backend)
	p, err := pusher.New(pusher.Options{Backends: []backends.Backend{backend}, Outbox: w.disk})
	if err != nil {
		t.Fatal(err)
	}
	if w.store, err = store.OpenDevices(filepath.Join(t.TempDir(), store.DevicesFile), 0, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	backend.Devices().Attach(w.store)
	w.desk = NewDevices(DevicesOptions{Own: feedComponent, Apps: backend.Devices().Apps(), Store: w.store, Served: jid.NewDomains(feedHost), Refused: backend.PublishRefused, Keep: p.PushAcked})
	link, err := component.New(cfg.Component, cfg.General.Hosts, component.Options{IQ: w.desk.Handlers()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	linked, pushed := make(chan error, 1), make(chan error, 1)
	go func() { linked <- link.Run(ctx) }()
	go func() { pushed <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		for _, err := range []error{<-linked, <-pushed, backend.Close(), w.store.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	if w.session, err = server.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := devices.NewRegistry(w.store, backend.Devices().Apps()).Register(t.Context(), devices.Request{Kind: "fcm", Token: "first"})
	if err != nil {
		t.Fatal(err)
	}
	w.backend, w.node, w.payload = backend, c.Node, payload(c.Node, c.Secret, oneItem)
	return w
}

// waits waits until a publish waits to be looked at.
func (w *publishers) waits() {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !w.desk.publishes.busy(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal("the publish is not waiting")
		}
	}
}

// run runs the desk until the test ends.
func (w *publishers) run() { w.t.Cleanup(w.runUntil()) }

// runUntil runs the desk until end is called.
func (w *publishers) runUntil() (end func()) {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.desk.Run(ctx) }()
	return func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}
}

func (w *publishers) publish(id string) {
	w.t.Helper()
	if err := w.session.Send("<iq to='" + feedComponent + "' from='" + feedHost + "' type='set' id='" + id + "'>" + w.payload + "</iq>"); err != nil {
		w.t.Fatal(err)
	}
}

// answered checks the answers that come next, in any order.
func (w *publishers) answered(want ...string) {
	w.t.Helper()
	var got []string
	for range want {
		s, err := w.session.Receive(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		said := s.ID + " " + s.Type
		if strings.Contains(s.Inner, "type='wait'") && strings.Contains(s.Inner, "<resource-constraint ") {
			said += " wait"
		}
		got = append(got, said)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		w.t.Errorf("answered %q, want %q", got, want)
	}
}

// delivered waits until so many notifications have reached the device, and checks that
// there are no more.
func (w *publishers) delivered(want int) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); w.google.Taken() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%d of %d were delivered", w.google.Taken(), want)
		}
	}
	if n := w.google.Taken(); n != want {
		w.t.Errorf("%d were delivered, want %d", n, want)
	}
}

// TestPublishIsNotKept: a server is told to try again when its notification cannot be
// kept in time. One that has found a place in the end is delivered late, once.
func TestPublishIsNotKept(t *testing.T) {
	w := newPublishers(t)
	w.desk.patience = 50 * time.Millisecond
	w.disk.full.Store(true)
	w.run()
	w.publish("1")
	w.answered("1 error wait")
	if n := w.google.Taken(); n != 0 {
		t.Errorf("%d were delivered before they were kept", n)
	}
	w.disk.full.Store(false)
	w.delivered(1)
}

// TestRefusedPublishCounts: a registration with a wrong secret leaves a trace.
func TestRefusedPublishCounts(t *testing.T) {
	w := newPublishers(t)
	w.payload = strings.Replace(w.payload, "'secret'><value>", "'secret'><value>x", 1)
	w.run()
	w.publish("1")
	w.answered("1 error")
	if n := w.backend.Counts()["publish_forbidden"]; n != 1 {
		t.Errorf("counted as %v", w.backend.Counts())
	}
}

// TestPublishQueueIsFull: a server that publishes more than is looked at is told to try
// again at once, and of what was refused nothing is kept.
func TestPublishQueueIsFull(t *testing.T) {
	w := newPublishers(t)
	w.desk.publishes = newTurns(turnLimits{each: 2, all: 9, bytes: 1 << 20})
	for _, id := range []string{"1", "2", "3", "4"} {
		w.publish(id)
	}
	w.answered("3 error wait", "4 error wait")
	w.run()
	w.answered("1 result", "2 result")
	w.publish("5")
	w.answered("5 result")
	w.delivered(3)
}

// TestPublishAtTheEnd: whoever still waits when the desk closes is told to try again.
func TestPublishAtTheEnd(t *testing.T) {
	w := newPublishers(t)
	w.desk.publishes = newTurns(turnLimits{each: 1, all: 9, bytes: 1 << 20})
	w.publish("1")
	w.waits()
	ended, end := context.WithCancel(t.Context())
	end()
	if err := w.desk.Run(ended); err != nil {
		t.Error(err)
	}
	w.answered("1 error wait")
	w.delivered(0)
}

// hangingStore does not answer for one device before the gate opens.
type hangingStore struct {
	store.Devices
	node  string
	gate  chan struct{}
	asked atomic.Int32 // and has not answered yet
}

func (s *hangingStore) Verify(ctx context.Context, node, secret string) (store.Device, error) {
	if node == s.node {
		s.asked.Add(1)
		defer s.asked.Add(-1)
		select {
		case <-s.gate:
		case <-ctx.Done():
			return store.Device{}, ctx.Err()
		}
	}
	return s.Devices.Verify(ctx, node, secret)
}

// hang has the store hang for the device, and registers one for which it does not.
func (w *publishers) hang() (s *hangingStore, other string) {
	w.t.Helper()
	s = &hangingStore{Devices: w.store, node: w.node, gate: make(chan struct{})}
	registry := devices.NewRegistry(s, w.backend.Devices().Apps())
	w.desk.registry = registry
	c, err := registry.Register(w.t.Context(), devices.Request{Kind: "fcm", Token: "second"})
	if err != nil {
		w.t.Fatal(err)
	}
	return s, payload(c.Node, c.Secret, oneItem)
}

// TestPublishWaitsForStore: a store that takes its time over one device holds up no other,
// and what is for the one keeps its order.
func TestPublishWaitsForStore(t *testing.T) {
	w := newPublishers(t)
	s, other := w.hang()
	w.run()
	w.publish("1")
	w.publish("2")
	w.payload = other
	w.publish("3")
	w.answered("3 result")
	if n := s.asked.Load(); n > 1 {
		t.Errorf("the store is asked about %d notifications for one device at once", n)
	}
	close(s.gate)
	w.answered("1 result", "2 result")
}

// TestStopWhileStoreHangs: whoever waits for the store when the desk closes is told to try
// again, and so is who waits behind him.
func TestStopWhileStoreHangs(t *testing.T) {
	w := newPublishers(t)
	s, other := w.hang()
	stop := w.runUntil()
	w.publish("1")
	w.publish("2")
	w.payload = other
	w.publish("3")
	w.answered("3 result")
	for deadline := time.Now().Add(time.Minute); s.asked.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the store is not asked")
		}
	}
	stop()
	w.answered("1 error wait", "2 error wait")
}

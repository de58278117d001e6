package component

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"eventpusher/component/eventfeed"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testName   = "events.example.org"
	testHost   = "example.org"
	testSecret = "correct horse battery"
)

// serverOptions are those of a server that takes the component of testConfig.
func serverOptions() xmppserver.Options {
	return xmppserver.Options{Component: testName, Secret: testSecret, Hosts: []string{testHost}}
}

// startServer listens until the test ends.
func startServer(t testing.TB, o xmppserver.Options) *xmppserver.Server {
	t.Helper()
	server, err := xmppserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server
}

func testConfig(address string) config.Component {
	return config.Component{Address: address, Name: testName, Secret: testSecret, Forwarders: []string{testHost}}
}

// watched is a Link that runs, with the bodies of the facts that it handed over.
type watched struct {
	*Link
	*hearing
	t        testing.TB
	registry *prometheus.Registry
	facts    chan string
	ctx      context.Context
	stop     context.CancelFunc
	stopped  chan error
}

// hearing is a Sink of feeds that do not acknowledge; the functions are set before the link
// runs.
type hearing struct {
	Discard
	handler func(*trust.Fact)
	settled func(jid.JID, []jid.JID)
	began   func() // at each connection
}

// Take implements Sink.
func (h *hearing) Take(f *trust.Fact, at eventfeed.Position) bool {
	if f != nil {
		h.handler(f)
	}
	return true
}

// Attached implements Sink.
func (h *hearing) Attached() { h.began() }

// Settled implements Sink.
func (h *hearing) Settled(host jid.JID, users []jid.JID) { h.settled(host, users) }

// newWatched returns a Link that does not run yet.
func newWatched(t testing.TB, cfg config.Component, log *slog.Logger) *watched {
	t.Helper()
	w := &watched{t: t, registry: prometheus.NewRegistry(), facts: make(chan string, 1000), stopped: make(chan error, 1)}
	w.hearing = &hearing{handler: func(f *trust.Fact) { w.facts <- f.Body }, settled: func(jid.JID, []jid.JID) {}, began: func() {}}
	link, err := New(cfg, []string{testHost}, Options{
		Sink: w.hearing, Metrics: NewMetrics(w.registry), Log: log, Version: "1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Link = link
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

func (w *watched) start() *watched {
	go func() { w.stopped <- w.Run(w.ctx) }()
	return w
}

// end stops the link and waits for it.
func (w *watched) end() {
	w.t.Helper()
	w.stop()
	if err := <-w.stopped; err != nil {
		w.t.Errorf("Run ended with %v", err)
	}
}

func (w *watched) wantFact(want string) {
	w.t.Helper()
	select {
	case got := <-w.facts:
		if got != want {
			w.t.Fatalf("fact %q, want %q", got, want)
		}
	case <-time.After(time.Minute): // only against a test that hangs
		w.t.Fatalf("no fact, want %q; status %+v", want, w.Status())
	}
}

// counter returns the value of one series; labels are values in the order of
// their names.
func (w *watched) counter(name string, labels ...string) float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			for i, l := range m.GetLabel() {
				if l.GetValue() != labels[i] {
					continue series
				}
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

// inMemory makes the link dial the server over pipes, for tests with fake time.
// Each call of the link to dial counts.
func (w *watched) inMemory(server *xmppserver.Server) {
	w.dial = func(context.Context, string) (net.Conn, error) {
		here, there := net.Pipe()
		server.Attach(there)
		return here, nil
	}
}

// dialsOnceMore makes the link wait with its second dial for lost: until the server has
// noticed the end of the first connection, another one is a conflict.
func (w *watched) dialsOnceMore(lost <-chan struct{}) {
	dial, dials := w.dial, 0
	w.dial = func(ctx context.Context, address string) (net.Conn, error) {
		if dials++; dials == 2 {
			select {
			case <-lost:
			case <-ctx.Done():
			}
		}
		return dial(ctx, address)
	}
}

func accept(t testing.TB, server *xmppserver.Server) *xmppserver.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	session, err := server.Accept(ctx)
	if err != nil {
		t.Fatalf("no component came: %v", err)
	}
	return session
}

func receive(t testing.TB, session *xmppserver.Session) xmppserver.Stanza {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := session.Receive(ctx)
	if err != nil {
		t.Fatalf("nothing received: %v", err)
	}
	return s
}

func send(t testing.TB, session *xmppserver.Session, xml string) {
	t.Helper()
	if err := session.Send(xml); err != nil {
		t.Fatal(err)
	}
}

// logged is one message of a user as mod_service_log hands it on.
func logged(body string) string {
	return "<message from='example.org' to='events.example.org'><forwarded xmlns='urn:xmpp:forward:0'>" +
		"<message xmlns='jabber:client' from='alice@example.org/r1' to='bob@example.org' type='chat'><body>" + body + "</body></message></forwarded></message>"
}

// attempt runs one connection and returns why it ended.
func (w *watched) attempt() *LinkError {
	w.t.Helper()
	_, err := w.connect(w.ctx)
	var failed *LinkError
	if !errors.As(err, &failed) {
		w.t.Fatalf("%v is no LinkError", err)
	}
	return failed
}

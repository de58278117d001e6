//go:build linux

package component

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/harness"
)

// reconnecting is a Link at a real server whose connection a test can cut.
type reconnecting struct {
	*watched

	mu    sync.Mutex
	conn  net.Conn // the last one
	dials int
}

func newReconnecting(t *testing.T, server *harness.XMPPServer) *reconnecting {
	t.Helper()
	r := &reconnecting{watched: newSettling(t, server.ComponentAddr(server.Component))}
	cfg := config.Component{
		Address: server.ComponentAddr(server.Component), Name: server.Component, Secret: config.Secret(server.Secret),
		Forwarders: []string{server.Domain}, ReconnectMin: time.Millisecond, ReconnectMax: 10 * time.Millisecond,
	}
	handler := r.handler
	r.handler = func(s *trust.Fact) {
		if s.Kind == stanza.Presence && (s.Type == "" || s.Type == "unavailable") {
			handler(s)
		}
	}
	link, err := New(cfg, []string{server.Domain}, Options{
		Sink: r.hearing, Metrics: r.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	link.dial = func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := dialTCP(ctx, address)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.conn = conn
		r.dials++
		return conn, err
	}
	r.Link = link
	r.start()
	return r
}

// cut closes the connection and returns when the link has dialled again. Servers refuse
// that as long as they have not noticed, so there may be several attempts.
func (r *reconnecting) cut() {
	r.t.Helper()
	r.mu.Lock()
	before := r.dials
	r.conn.Close()
	r.mu.Unlock()
	dialled := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.dials > before
	}
	for deadline := time.Now().Add(harness.WaitLimit); !dialled(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("the link does not dial again: %+v", r.Status())
		}
	}
}

// until returns the facts up to the first with that beginning.
func (r *reconnecting) until(prefix string) []string {
	r.t.Helper()
	var facts []string
	for {
		select {
		case f := <-r.facts:
			if facts = append(facts, f); strings.HasPrefix(f, prefix) {
				return facts
			}
		case <-time.After(harness.WaitLimit):
			r.t.Fatalf("no fact %q after %q", prefix, facts)
		}
	}
}

// subscribe gives the component a subscription to the presence of a user.
func (r *reconnecting) subscribe(c *harness.Client) {
	r.t.Helper()
	r.ready()
	if err := r.Send([]byte("<presence type='subscribe' from='events.localhost' to='" + c.BareJID() + "'/>")); err != nil {
		r.t.Fatal(err)
	}
	c.Wait("the request", func(text string) bool {
		return strings.HasPrefix(text, "<presence") && strings.Contains(text, "subscribe")
	})
	c.Send("<presence to='events.localhost' type='subscribed'/>")
	c.Ping()
}

// TestProsodySettles has one session end while the link is down, under the privilege
// and under subscriptions: the others are told of before the host is settled.
func TestProsodySettles(t *testing.T) {
	t.Run("privilege", func(t *testing.T) {
		server := harness.Prosody(t, harness.ProsodyOptions{Privilege: true, Modules: []string{"version"}})
		for _, user := range []string{"alice", "bob"} {
			server.Login(t, user, "r").Presence()
		}
		r := newReconnecting(t, server)
		for range 3 {
			facts := r.until("settled localhost")
			slices.Sort(facts)
			if want := []string{"alice@localhost/r privilege", "bob@localhost/r privilege", "settled localhost"}; !slices.Equal(facts, want) {
				t.Fatalf("got %q, want %q", facts, want)
			}
			r.cut()
		}
		r.end()
	})
	t.Run("direct", func(t *testing.T) {
		server := harness.Prosody(t, harness.ProsodyOptions{Modules: []string{"version"}})
		r := newReconnecting(t, server)
		alice, bob := server.Login(t, "alice", "r"), server.Login(t, "bob", "r")
		alice.Presence()
		bob.Presence()
		r.subscribe(alice)
		// Prosody answers the probe that follows the first presence.
		r.until("alice@localhost/r direct")
		r.until("alice@localhost/r direct")
		bob.Send("<presence to='events.localhost'/>") // not subscribed
		r.until("bob@localhost/r direct")
		bob.Ping()
		r.cut()
		// alice is still there: told of before she is settled. Of bob nothing is known.
		if facts := r.until("settled"); !slices.Equal(facts, []string{"alice@localhost/r direct", "settled localhost [alice@localhost]"}) {
			t.Errorf("got %q", facts)
		}
		// Once bob is subscribed too, the silence of all means something.
		r.subscribe(bob)
		r.cut()
		r.until("settled localhost [alice@localhost bob@localhost]")
		if facts := r.until("settled localhost"); !slices.Equal(facts, []string{"settled localhost"}) {
			t.Errorf("got %q", facts)
		}
		r.end()
	})
}

// ejabberd sends no snapshot and answers probes out of order, so nothing is
// settled; the answers to the probes themselves come.
func TestEjabberdSettlesNothing(t *testing.T) {
	server := harness.Ejabberd(t, harness.EjabberdOptions{Privilege: true})
	alice := server.Login(t, "alice", "r")
	alice.Presence()
	r := newReconnecting(t, server)
	granted := func() {
		t.Helper()
		for deadline := time.Now().Add(harness.WaitLimit); !r.Connected() || len(r.Status().Hosts[0].Privileges) == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no privileges on this connection: %+v", r.Status())
			}
		}
	}
	granted()
	if _, err := r.Request(t.Context(), Request{To: "nobody@localhost/none", Type: Get, Payload: []byte(pingPayload)}); err == nil {
		t.Error("somebody who does not exist has answered")
	}
	bob := server.Login(t, "bob", "r")
	bob.Presence()
	r.until("bob@localhost/r privilege")
	r.cut()
	granted()
	alice.Send("<presence type='unavailable'/>")
	alice.Ping()
	if facts := r.until("alice@localhost/r privilege"); len(facts) != 1 {
		t.Errorf("got %q", facts)
	}
	r.end()
}

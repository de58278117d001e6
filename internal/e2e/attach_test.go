package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/internal/harness"
)

// expect compares what arrives at all services with the lines of the facts.
func (w *world) expect(mark func(text string), name string, facts ...[]string) {
	w.t.Helper()
	want := slices.Sorted(slices.Values(slices.Concat(facts...)))
	if diff := cmp.Diff(want, w.collect(want, mark), cmpopts.EquateEmpty()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// marker returns a way to send marks: chat messages from dave, who is not
// available, to erin, who never is.
func marker(t *testing.T, server *harness.XMPPServer) func(text string) {
	dave := server.Login(t, "dave", "marker")
	n := 0
	return func(text string) {
		n++
		dave.Sendf("<message to='erin@localhost' id='mark%d' type='chat'>%s</message>", n, body(text))
	}
}

// TestTLS attaches over direct TLS, verified by the server's own authority.
func TestTLS(t *testing.T) {
	server := harness.Ejabberd(t, harness.EjabberdOptions{ServiceLog: true, Users: users})
	w := newWorld(t, server.ComponentTLSAddr(server.Component), fmt.Sprintf("tls = { cacertfile = %q }", server.CAFile))
	alice := server.Login(t, "alice", "tls")
	alice.Presence()
	w.expect(marker(t, server), "online", statusLines("alice@localhost/tls", true))
}

// TestPrivilege takes presence from XEP-0356, in the version of each server.
func TestPrivilege(t *testing.T) {
	for _, f := range []struct {
		name  string
		start func(t *testing.T) *harness.XMPPServer
		drops bool // the server tells that a socket was dropped
	}{
		{"prosody", func(t *testing.T) *harness.XMPPServer {
			return harness.Prosody(t, harness.ProsodyOptions{Privilege: true, Users: users})
		}, true},
		{"ejabberd", func(t *testing.T) *harness.XMPPServer {
			return harness.Ejabberd(t, harness.EjabberdOptions{Privilege: true, Users: users})
		}, false},
	} {
		t.Run(f.name, func(t *testing.T) {
			server := f.start(t)
			early := server.Login(t, "carol", "early")
			early.Presence()
			w := newWorld(t, server.ComponentAddr(server.Component), "")
			// Without a message feed only what is addressed to the component is seen.
			dave := server.Login(t, "dave", "marker")
			var snapshot []string
			if f.drops { // Prosody also says who is there already
				snapshot = statusLines("carol@localhost/early", true)
			}
			alice := server.Login(t, "alice", "p1")
			alice.Presence()
			w.wait("online", snapshot, statusLines("alice@localhost/p1", true))
			alice.Send("<presence><show>away</show></presence>")
			alice.Send("<presence type='unavailable'/>")
			w.wait("update, then offline", statusLines("alice@localhost/p1", false))
			bob := server.Login(t, "bob", "p2")
			bob.Presence()
			w.wait("bob", statusLines("bob@localhost/p2", true))
			bob.Drop()
			if f.drops {
				w.wait("dropped socket", statusLines("bob@localhost/p2", false))
			}
			dave.Presence()
			w.wait("last", statusLines("dave@localhost/marker", true))
		})
	}
}

// wait is expect where no marks can be sent: what comes too much is seen by the
// next call.
func (w *world) wait(name string, facts ...[]string) {
	w.t.Helper()
	want := slices.Sorted(slices.Values(slices.Concat(facts...)))
	var got []string
	w.patiently(func() bool {
		got = append(got, w.news()...)
		return len(got) >= len(want)
	})
	slices.Sort(got)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestDirect uses a server that forwards nothing: users address the component.
func TestDirect(t *testing.T) {
	server := harness.Prosody(t, harness.ProsodyOptions{Users: users})
	w := newWorld(t, server.ComponentAddr(server.Component), "")
	alice := server.Login(t, "alice", "d1")
	alice.Presence()
	alice.Send("<presence to='events.localhost'/>")
	w.wait("directed presence", statusLines("alice@localhost/d1", true))
	alice.Send("<message to='events.localhost' type='chat' id='d1'><body>hello</body></message>")
	w.wait("message", sentLines("alice@localhost/d1", "events.localhost", "hello"))
	alice.Drop()
	w.wait("dropped", statusLines("alice@localhost/d1", false))
}

// TestServerRestart reattaches after the server was killed. Only the event-feed says
// that the sessions of before have ended; the next login under the same resource must
// be told all the same.
func TestServerRestart(t *testing.T) {
	for _, f := range flavours {
		t.Run(f.name, func(t *testing.T) {
			server := f.start(t)
			w := newWorld(t, server.ComponentAddr(server.Component), "")
			alice := server.Login(t, "alice", "again")
			alice.Presence()
			w.expect(marker(t, server), "online", statusLines("alice@localhost/again", true))
			server.Kill()
			await(t, "the end of readiness", func() bool { return !w.ready() })
			server.Start()
			await(t, "readiness", w.ready)
			alice = server.Login(t, "alice", "again")
			alice.Presence()
			online := statusLines("alice@localhost/again", true)
			if f.acknowledged { // the snapshot says that the session of before is gone
				online = append(online, statusLines("alice@localhost/again", false)...)
			}
			w.expect(marker(t, server), "online after the restart", online)
			alice.Send("<presence><show>away</show></presence>")
			alice.Send("<presence type='unavailable'/>")
			w.expect(marker(t, server), "update, then offline", statusLines("alice@localhost/again", false))
		})
	}
}

// TestSinksDown starts while no service answers, which must neither delay nor
// lose anything.
func TestSinksDown(t *testing.T) {
	server := harness.Prosody(t, harness.ProsodyOptions{Firewall: true, Users: users})
	w := prepareWorld(t)
	w.sink.Refuse()
	w.sns.Stop()
	w.start(server.ComponentAddr(server.Component), "")
	await(t, "readiness", w.ready)
	alice := server.Login(t, "alice", "s1")
	alice.Presence()
	const messages = 20
	for i := range messages {
		alice.Sendf("<message to='bob@localhost' type='chat' id='s%d'>%s</message>", i, body(fmt.Sprint("kept ", i)))
	}
	w.consumer.Wait(1 + 2*messages) // RabbitMQ is not held up by the others
	w.sink.Accept()
	w.sns.Start()
	requests := w.sink.Wait(messages)
	for i, r := range requests {
		if got, want := r.Form.Get("message"), fmt.Sprint("kept ", i); got != want {
			t.Errorf("request %d is %q, want %q: the order of a conversation must be kept", i, got, want)
		}
	}
	w.sns.WaitMessages(pmTopic, messages)
	w.sns.WaitMessages(presenceTopic, 1)
}

package e2e

import (
	"testing"

	"eventpusher/backends/backendtest"
	"eventpusher/internal/harness"
)

// TestSessionsThatEndUnheard has one session end while the link is down: Prosody's
// snapshot lacks it after the reconnection, so it is offline, and who is still there
// makes no event.
func TestSessionsThatEndUnheard(t *testing.T) {
	server := harness.Prosody(t, harness.ProsodyOptions{Privilege: true, Modules: []string{"version"}, Users: users})
	proxy := backendtest.StartProxy(t, server.ComponentAddr(server.Component))
	w := newWorld(t, proxy.Address(), "")
	alice, bob := server.Login(t, "alice", "a"), server.Login(t, "bob", "b")
	alice.Presence()
	bob.Presence()
	w.wait("online", statusLines("alice@localhost/a", true), statusLines("bob@localhost/b", true))
	proxy.Down()
	await(t, "the end of the link", func() bool { return !w.ready() })
	alice.CloseStream()
	proxy.Resume()
	w.wait("alice is gone", statusLines("alice@localhost/a", false))
	await(t, "the link", w.ready)
	bob.Send("<presence type='unavailable'/>")
	w.wait("bob goes", statusLines("bob@localhost/b", false))
}

package e2e

import (
	"os"
	"slices"
	"strings"
	"testing"

	"eventpusher/internal/harness"
)

// documented returns the line of the ejabberd page that begins with prefix, with the
// names of the tests' servers.
func documented(t *testing.T, prefix string) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/servers/ejabberd.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(page)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, prefix) {
			return strings.ReplaceAll(line, "example.org", "localhost")
		}
	}
	t.Fatalf("the page has no line %q", prefix)
	return ""
}

// TestSubscription closes the offline gap of a stock ejabberd as its page says: the
// component is in the rosters of alice and bob, not in carol's.
func TestSubscription(t *testing.T) {
	erlang := harness.NewErlangShell(t)
	server := harness.Ejabberd(t, harness.EjabberdOptions{
		ServiceLog: true, MUC: "muc.localhost", Users: users, Modules: "  mod_admin_extra: {}\n", Eval: erlang.Eval(""),
	})
	command := strings.Fields(strings.ReplaceAll(documented(t, "ejabberdctl add_rosteritem alice"), `""`, "EMPTY"))
	add := func(user string) {
		t.Helper()
		args := slices.Clone(command[1:])
		for i, arg := range args {
			switch arg {
			case "alice":
				args[i] = user
			case "EMPTY":
				args[i] = ""
			}
		}
		erlang.Ctl(args...)
	}
	add("alice")
	add("bob")

	w := newWorld(t, server.ComponentAddr(server.Component), documented(t, "feeds = "))
	mark := marker(t, server)
	alice := server.Login(t, "alice", "lone")
	alice.Presence()
	w.expect(mark, "online", statusLines("alice@localhost/lone", true))
	alice.Send("<presence><show>away</show></presence>")
	alice.Send("<message to='bob@localhost' type='chat' id='s1'>" + body("kept for bob") + "</message>")
	w.expect(mark, "an update and a message", localChat("alice@localhost/lone", "bob@localhost", "kept for bob"))
	alice.Drop()
	w.expect(mark, "the socket of a lone user is dropped", statusLines("alice@localhost/lone", false))

	bob := server.Login(t, "bob", "desk")
	bob.Presence()
	w.expect(mark, "another user", statusLines("bob@localhost/desk", true))
	alice = server.Login(t, "alice", "lone")
	alice.Presence()
	w.expect(mark, "the same resource again", statusLines("alice@localhost/lone", true))
	alice.CloseStream()
	w.expect(mark, "a stream is closed without a goodbye", statusLines("alice@localhost/lone", false))
	bob.Send("<presence type='unavailable'/>")
	w.expect(mark, "a goodbye, which both feeds report", statusLines("bob@localhost/desk", false))
	bob.Drop()
	w.expect(mark, "the end of a session that had said goodbye")

	carol := server.Login(t, "carol", "unknown")
	carol.Presence()
	w.expect(mark, "a user who has no such contact", statusLines("carol@localhost/unknown", true))
	carol.Send("<presence type='unavailable'/>")
	carol.Drop()
	w.expect(mark, "makes no offline event")

	early := server.Login(t, "mallory", "early")
	early.Presence()
	w.expect(mark, "a session from before the contact was added", statusLines("mallory@localhost/early", true))
	add("mallory")
	early.Drop()
	w.expect(mark, "its end", statusLines("mallory@localhost/early", false))
}

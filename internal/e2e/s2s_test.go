package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
)

// federated starts the server of a flavour with the event-feed so that it talks to
// other servers.
func federated(t *testing.T, f flavour) *harness.XMPPServer {
	if f.name == "prosody event-feed" {
		return harness.Prosody(t, harness.ProsodyOptions{EventFeed: true, Federation: true, MUC: "muc.localhost", Users: users})
	}
	return harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true, Federation: true, MUC: "muc.localhost", Users: users})
}

// TestFederation has another server exchange messages with ours and try to control
// the feed and to forge events. It can do what any server of the internet can.
func TestFederation(t *testing.T) {
	acknowledged(t, func(t *testing.T, f flavour) {
		server := federated(t, f)
		remote := server.Federate(t)
		alice := server.Login(t, "alice", "a")
		alice.Presence()
		foreignControl(t, server, remote, alice)

		w := newWorld(t, server.ComponentAddr(server.Component), "")
		mark := marker(t, server)
		w.expect(mark, "who is there", statusLines("alice@localhost/a", true))
		foreignChat(w, mark, remote, alice)
		foreignForgeries(w, mark, remote)
	})
}

// feedPosition is what a module says at the beginning of a connection.
type feedPosition struct {
	Source, Epoch string
	First, Next   int
}

var feedAttribute = regexp.MustCompile(`\b(source|epoch|first|next)=["']([^"']*)["']`)

// attachFeed attaches a component that takes what the module keeps.
func attachFeed(t *testing.T, server *harness.XMPPServer) (c *harness.Client, at feedPosition) {
	t.Helper()
	c = server.AttachComponent(t, server.Component)
	for _, m := range feedAttribute.FindAllStringSubmatch(c.WaitFor("<hello"), -1) {
		switch n, _ := strconv.Atoi(m[2]); m[1] {
		case "source":
			at.Source = m[2]
		case "epoch":
			at.Epoch = m[2]
		case "first":
			at.First = n
		case "next":
			at.Next = n
		}
	}
	c.Sendf("<message from='%s' to='localhost'><resume xmlns='urn:eventpusher:feed:1' source='%s'/></message>", server.Component, at.Source)
	return c, at
}

var feedEvent = regexp.MustCompile(`<event\b[^>]*\bseq=["'](\d+)["']`)

// sequence lists the numbers of the events that a component has got.
func sequence(c *harness.Client) (all []string) {
	for _, stanza := range c.Stanzas() {
		if m := feedEvent.FindStringSubmatch(stanza); m != nil {
			all = append(all, m[1])
		}
	}
	return all
}

// foreignControl shows that another server can neither acknowledge events nor ask
// for them again or for a snapshot, be it in its own name, in that of one of its
// users, or in the name of the component.
func foreignControl(t *testing.T, server *harness.XMPPServer, remote *harness.RemoteServer, alice *harness.Client) {
	say := func(text string) {
		alice.Sendf("<message to='erin@localhost' type='headline'>%s</message>", body(text))
		alice.Ping()
	}
	for i := range 4 {
		say(fmt.Sprint("kept ", i))
	}
	c, at := attachFeed(t, server)
	numbered := func(last int) (all []string) {
		for i := at.First; i <= last; i++ {
			all = append(all, strconv.Itoa(i))
		}
		return all
	}
	c.WaitFor("kept 3")
	at.Next = at.First + len(sequence(c)) // the greeting may be older than the last message

	control := func(verb, from string, seq int) string {
		return fmt.Sprintf("<message from='%s' to='localhost'><%s xmlns='urn:eventpusher:feed:1' source='%s' epoch='%s' seq='%d' id='forged'/></message>",
			from, verb, at.Source, at.Epoch, seq)
	}
	for _, forged := range []struct {
		verb string
		seq  int
	}{{"resume", at.First - 1}, {"snapshot", 0}, {"ack", at.Next - 1}} {
		remote.Send(control(forged.verb, remote.Domain, forged.seq))
		remote.Send(control(forged.verb, "zoe@"+remote.Domain+"/x", forged.seq))
		imposture(t, remote, "localhost", control(forged.verb, server.Component, forged.seq))
	}
	remote.Ping("localhost")
	say("behind the forgeries")
	c.WaitFor("behind the forgeries")
	if diff := cmp.Diff(numbered(at.Next), sequence(c)); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	c.CloseStream()

	c, again := attachFeed(t, server)
	want := at
	want.Next++
	if again != want {
		t.Errorf("after the forgeries the feed is at %+v, want %+v", again, want)
	}
	// The component itself is obeyed.
	c.WaitFor("behind the forgeries")
	c.Send(control("ack", server.Component, at.Next))
	c.Sendf("<iq type='get' id='acked' from='%s' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", server.Component)
	c.WaitFor("<iq", "acked")
	c.CloseStream()
	c, again = attachFeed(t, server)
	if again.First != again.Next {
		t.Errorf("after its acknowledgement the feed is at %+v", again)
	}
	c.CloseStream()
}

// imposture lets another server speak in the name of somebody of ours: under a
// domain that it claims to be, and on a stream of its own. Our server refuses both.
func imposture(t *testing.T, remote *harness.RemoteServer, to, stanza string) {
	t.Helper()
	for _, domain := range []string{"events.localhost", "localhost", "muc.localhost"} {
		s, answer := remote.Claim(domain, to)
		if strings.Contains(answer, "valid") && !strings.Contains(answer, "invalid") {
			t.Errorf("another server is taken for %s: %s", domain, answer)
		}
		_ = s.TrySend(stanza) // it may be closed by now
		s.WaitEnd()
	}
	s, answer := remote.Claim(remote.Domain, to)
	if !strings.Contains(answer, "valid") {
		t.Errorf("another server is not taken for itself: %s", answer)
	}
	s.Send(stanza)
	s.WaitEnd() // invalid-from, RFC 6120 section 4.9.3.9
}

// foreignChat exchanges messages with users of another server, in a room too: what
// they send makes "out" for who receives it, and what is sent to them "in".
func foreignChat(w *world, mark func(string), remote *harness.RemoteServer, alice *harness.Client) {
	zoe := jid.JID("zoe@" + remote.Domain + "/x")
	send := func(to, kind, text string) {
		remote.Send(fmt.Sprintf("<message from='%s' to='%s' type='%s' id='%s'>%s</message>", zoe, to, kind, strings.ReplaceAll(text, " ", ""), body(text)))
	}
	send("alice@localhost", "chat", "hello alice")
	w.expect(mark, "a message from another server", []string{receivedLine("chat_msg", zoe, "alice@localhost", "hello alice")})
	send("alice@localhost/a", "chat", "hello device")
	w.expect(mark, "a message to a session", []string{receivedLine("chat_msg", zoe, "alice@localhost/a", "hello device")})
	alice.Sendf("<message to='%s' type='chat' id='az'>%s</message>", zoe, body("hello zoe"))
	remote.WaitFor("<message", "hello zoe")
	w.expect(mark, "a message to another server", sentLines("alice@localhost/a", zoe, "hello zoe"))

	alice.Join(room, "Alice")
	remote.Send(fmt.Sprintf("<presence from='%s' to='%s/Zoe'><x xmlns='http://jabber.org/protocol/muc'/></presence>", zoe, room))
	remote.WaitFor("<message", "<subject")
	w.expect(mark, "somebody from another server enters")
	send(room, "groupchat", "hello all")
	w.expect(mark, "and speaks", []string{receivedLine("groupchat_msg", room+"/Zoe", "alice@localhost/a", "hello all")})
	alice.Sendf("<message to='%s' type='groupchat' id='ar'>%s</message>", room, body("hello room"))
	remote.WaitFor("<message", "hello room")
	w.expect(mark, "somebody here speaks", roomLines("alice@localhost/a", "Alice", "hello room", "alice@localhost/a"))
}

// foreignForgeries sends all that could make events or move the feed if the
// component believed it.
func foreignForgeries(w *world, mark func(string), remote *harness.RemoteServer) {
	untrusted := func() (n int) {
		for _, reason := range []string{"untrusted_feed", "untrusted_forward"} {
			count, err := strconv.Atoi(w.metric(w.t, `eventpusher_stanzas_total{dialect="direct",trust="`+reason+`"}`))
			if err != nil {
				w.t.Error(err)
			}
			n += count
		}
		return n
	}
	before, counted := w.source(), untrusted()
	forged := 0
	for _, from := range []string{remote.Domain, "mallory@" + remote.Domain + "/x"} {
		for _, xml := range forgeries() {
			if !strings.HasPrefix(xml, "<message to='localhost'") && (strings.Contains(xml, "urn:xmpp:forward") || strings.Contains(xml, "urn:eventpusher")) {
				forged++
			}
			remote.Send(strings.Replace(xml, " to=", " from='"+from+"' to=", 1))
		}
	}
	for _, host := range []string{"localhost", "events.localhost"} {
		imposture(w.t, remote, "events.localhost", "<message from='"+host+"' to='events.localhost'>"+
			"<hello xmlns='urn:eventpusher:feed:1' source='evil' epoch='1' first='1' next='1' hosts='localhost'/></message>")
	}
	remote.Ping("localhost")
	w.expect(mark, "forgeries of another server")
	await(w.t, "the count of forgeries", func() bool { return untrusted() == counted+forged })
	after := w.source()
	after.Received, after.Committed = before.Received, before.Committed // the mark moved them
	if diff := cmp.Diff(before, after); diff != "" {
		w.t.Errorf("forgeries changed the feed (-before +after):\n%s", diff)
	}
	if got := w.metric(w.t, `eventpusher_component_connects_total{result="connected"}`); got != "1" {
		w.t.Errorf("the link was set up %s times", got)
	}
}

//go:build linux

package prosody_test

import (
	"fmt"
	"strings"
	"testing"

	"eventpusher/internal/harness"
)

// A message in a user's name is the user's own if a session or the server's API has sent
// it; if a component has, it is only one that the recipient gets. What reaches nobody is
// said to, or is no event at all.
func TestSenders(t *testing.T) {
	t.Parallel()
	s := harness.Prosody(t, harness.ProsodyOptions{
		EventFeed: true, PluginPaths: []string{"feeds/prosody/testdata/plugins"}, Modules: []string{"feed_probe", "blocklist"},
		Components: []string{"events.localhost", "other.localhost"}, Privilege: true,
		Config: "validate_from_addresses = false",
	})
	p := attach(t, s)
	p.hello()
	p.resumeNothing()
	alice, bob, other := s.Login(t, "alice", "r1"), s.Login(t, "bob", "desk"), s.AttachComponent(t, "other.localhost")
	bob.Presence()
	bob.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='dave@localhost'/><item jid='spam.other.localhost'/></block>")
	alice.Join("hall", "ally")

	const client = "<message xmlns='jabber:client'" // inside an element of another namespace
	plugin := func(what string) func(string) {
		return func(stanza string) {
			alice.IQ("set", "localhost", "<do xmlns='urn:test:probe' what='"+what+"'>"+strings.Replace(stanza, "<message", client, 1)+"</do>")
		}
	}
	component := func(stanza string) {
		other.Send(stanza)
		settled(t, other)
	}
	privileged := func(stanza string) {
		component("<message from='other.localhost' to='localhost'><privilege xmlns='urn:xmpp:privilege:2'>" +
			"<forwarded xmlns='urn:xmpp:forward:0'>" + strings.Replace(stanza, "<message", client, 1) + "</forwarded></privilege></message>")
	}
	ways := map[string]func(string){"API": plugin("send"), "REST": plugin("rest"), "component": component, "privilege": privileged}
	const hall, notification = "hall@conference.localhost", "<event xmlns='http://jabber.org/protocol/pubsub#event'/>"

	barriers := 0
	next := func() []received {
		barriers++
		id := fmt.Sprintf("barrier-%d", barriers)
		alice.Sendf("<message id='%s' to='nobody@other.localhost' type='headline'/>", id)
		return p.until(id)
	}
	next()
	for _, c := range []struct {
		way, from, to, kind, content string
		want                         []string
	}{
		{"API", "alice@localhost", "bob@localhost", "chat", "", []string{"message-sent alice@localhost to=bob@localhost <message m chat>"}},
		{"API", "alice@localhost/x", "bob@localhost/desk", "chat", "", []string{"message-sent alice@localhost/x to=bob@localhost/desk <message m chat>"}},
		{"API", "alice@localhost", "carol@localhost", "chat", "", []string{
			"message-sent alice@localhost to=carol@localhost <message m chat>", "message-offline carol@localhost <message m chat>"}},
		{"API", "alice@localhost", "nobody@localhost", "chat", "", []string{"message-sent alice@localhost to=nobody@localhost reached=false <message m chat>"}},
		{"API", "dave@localhost", "bob@localhost", "chat", "", []string{"message-sent dave@localhost to=bob@localhost reached=false <message m chat>"}},
		{"API", "alice@localhost", "localhost", "normal", "", []string{"message-sent alice@localhost to=localhost <message m normal>"}},
		{"API", "alice@localhost", "eve@elsewhere.example", "chat", "", []string{"message-sent alice@localhost to=eve@elsewhere.example <message m chat>"}},
		{"API", "alice@localhost/r1", hall, "groupchat", "", []string{
			"message-sent alice@localhost/r1 to=" + hall + " <message m groupchat>", "message-received alice@localhost/r1 to=alice@localhost/r1 <message m groupchat>"}},
		{"API", "alice@localhost", hall + "/ally", "chat", "", []string{"message-sent alice@localhost to=" + hall + "/ally <message m chat>"}},
		{"API", "alice@localhost", "bob@localhost", "error", "<error type='cancel'/>", nil},
		{"API", "alice@localhost", "eve@elsewhere.example", "error", "<error type='cancel'/>", nil},
		{"API", "alice@localhost", "bob@localhost", "headline", notification, nil},
		{"component", "alice@localhost", "bob@localhost", "headline", notification, nil},
		{"component", "x@other.localhost", "bob@localhost", "headline", notification, []string{"message-received bob@localhost to=bob@localhost <message m headline>"}},
		{"API", "alice@localhost", "eve@elsewhere.example", "headline", notification, nil},
		{"API", "localhost", "bob@localhost", "headline", "", []string{"message-received bob@localhost to=bob@localhost <message m headline>"}},
		{"API", "localhost", "carol@localhost", "normal", "", []string{
			"message-received carol@localhost to=carol@localhost <message m normal>", "message-offline carol@localhost <message m normal>"}},
		{"API", "localhost", "carol@localhost", "headline", "", nil},
		{"API", "localhost", "nobody@localhost", "normal", "", nil},

		{"REST", "alice@localhost/rest", "bob@localhost", "chat", "", []string{"message-sent alice@localhost/rest to=bob@localhost <message m chat>"}},
		{"REST", "dave@localhost", "bob@localhost", "chat", "", []string{"message-sent dave@localhost to=bob@localhost reached=false <message m chat>"}},
		{"REST", "alice@localhost/rest", hall, "groupchat", "", []string{"message-sent alice@localhost/rest to=" + hall + " <message m groupchat>"}},
		{"REST", "alice@localhost/rest", "eve@elsewhere.example", "chat", "", []string{"message-sent alice@localhost/rest to=eve@elsewhere.example <message m chat>"}},

		{"component", "alice@localhost", "bob@localhost", "chat", "", []string{"message-received bob@localhost to=bob@localhost <message m chat>"}},
		{"component", "alice@localhost", "carol@localhost/gone", "chat", "", []string{
			"message-received carol@localhost/gone to=carol@localhost/gone <message m chat>", "message-offline carol@localhost <message m chat>"}},
		{"component", "alice@localhost", "nobody@localhost", "chat", "", nil},
		{"component", "dave@localhost", "bob@localhost", "chat", "", nil},
		{"component", "alice@localhost", "localhost", "chat", "", nil},
		{"component", "alice@localhost/r1", hall, "groupchat", "", []string{"message-received alice@localhost/r1 to=alice@localhost/r1 <message m groupchat>"}},
		{"component", "localhost", "bob@localhost", "chat", "", []string{"message-received bob@localhost to=bob@localhost <message m chat>"}},
		{"component", "x@spam.other.localhost", "bob@localhost", "chat", "", nil},
		{"component", "x@other.localhost", "bob@localhost", "groupchat", "", nil}, // no room has sent it to a session
		{"component", "x@other.localhost", "bob@localhost/desk", "groupchat", "", []string{"message-received bob@localhost/desk to=bob@localhost/desk <message m groupchat>"}},

		{"privilege", "alice@localhost", "bob@localhost", "chat", "", []string{"message-received bob@localhost to=bob@localhost <message m chat>"}},
		{"privilege", "alice@localhost", "alice@localhost", "chat", "", []string{
			"message-received alice@localhost to=alice@localhost <message m chat>", "message-offline alice@localhost <message m chat>"}},
		{"privilege", "alice@localhost", "x@other.localhost", "chat", "", nil},
	} {
		ways[c.way](fmt.Sprintf("<message id='m' from='%s' to='%s' type='%s'><body>Hi</body>%s</message>", c.from, c.to, c.kind, c.content))
		if diff := diffOf(c.want, next()); diff != "" {
			t.Errorf("%s: %s from %s to %s (-want +got):\n%s", c.way, c.kind, c.from, c.to, diff)
		}
	}
}

// TestResent: a message that Prosody sends another server once more, since that has not
// acknowledged it, was sent by its user once.
func TestResent(t *testing.T) {
	t.Parallel()
	s := harness.Prosody(t, harness.ProsodyOptions{
		EventFeed: true, PluginPaths: []string{"feeds/prosody/testdata/plugins"}, Modules: []string{"feed_probe"},
		Federation: true, Config: "smacks_s2s_resend = true",
	})
	p := attach(t, s)
	if strings.HasPrefix(p.hello().Hello.Server, "Prosody 0.") {
		t.Skip("Prosody resends since version 13")
	}
	p.resumeNothing()
	remote := s.Federate(t)
	alice := s.Login(t, "alice", "r1")
	say := func(id string) {
		alice.Sendf("<message id='%s' type='chat' to='romeo@%s'><body>Hi</body></message>", id, remote.Domain)
		remote.WaitFor("<message", id)
	}
	say("m1") // and what is sent from now on is kept until it is acknowledged
	say("m2")
	remote.Hangup()
	remote.WaitFor("<message", "m2", "urn:xmpp:delay")
	want := []string{
		"session-start alice@localhost/r1",
		fmt.Sprintf("message-sent alice@localhost/r1 to=romeo@%s <message m1 chat>", remote.Domain),
		fmt.Sprintf("message-sent alice@localhost/r1 to=romeo@%s <message m2 chat>", remote.Domain),
	}
	alice.Send("<message id='end' type='headline' to='nobody@localhost'/>")
	if diff := diffOf(want, p.until("end")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

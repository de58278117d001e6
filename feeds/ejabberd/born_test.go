//go:build linux

package ejabberd_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

var privilegeNS = regexp.MustCompile(`<privilege xmlns=['"]([^'"]+)`)

// openNode publishes an item, by which its users make a node that everybody may follow
// (XEP-0163).
const openNode = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='tune'><item id='%s'><tune xmlns='urn:tune'/></item></publish>" +
	"<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
	"<field var='pubsub#access_model'><value>open</value></field></x></publish-options></pubsub>"

// TestBorn: each way in which a message can come into being makes the events of its kind,
// once, whoever it claims to be from.
func TestBorn(t *testing.T) {
	t.Parallel()
	erlang := harness.NewErlangShell(t)
	s := harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed: true, Federation: true, Eval: erlang.Eval(""), Privilege: true,
		Components: []string{"events.localhost", "gateway.localhost", "liar.localhost"}, Unchecked: []string{"liar.localhost"},
		API: []string{"send_message", "send_stanza"}, RoomOptions: "{allow_subscription: true}",
		Modules: "  mod_admin_extra: {}\n  mod_multicast:\n    access: all\n",
	})
	remote := s.Federate(t)
	c := attach(t, s)
	gateway, liar := s.AttachComponent(t, "gateway.localhost"), s.AttachComponent(t, "liar.localhost")
	privileges := privilegeNS.FindStringSubmatch(gateway.WaitFor("<privilege", "outgoing"))[1]
	alice, bob, desk := s.Login(t, "alice", "r1"), s.Login(t, "bob", "phone"), s.Login(t, "bob", "desk")
	alice.Presence()
	bob.Presence()
	desk.Presence() // of the same priority: both get what is for bob
	room := "tea@" + s.MUC
	both := func(parts ...string) {
		bob.WaitFor(parts...)
		desk.WaitFor(parts...)
	}

	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{
			"a component without from check writes in a user's name", func() {
				liar.Send("<message type='chat' id='l1' from='alice@localhost/r1' to='bob@localhost'><body>Full</body></message>")
				both("l1")
				liar.Send("<message type='chat' id='l2' from='alice@localhost' to='bob@localhost/desk'><body>Bare</body></message>")
				desk.WaitFor("l2")
				liar.Send("<message type='chat' id='l3' from='alice@localhost/r1' to='x@elsewhere.example'><body>Away</body></message>")
			},
			[]string{
				"message-received bob@localhost to=bob@localhost [message Full]",
				"message-received bob@localhost/desk to=bob@localhost/desk [message Bare]",
			},
		},
		{
			"a gateway writes in a user's name by privilege", func() {
				gateway.Sendf("<message from='gateway.localhost' to='localhost'><privilege xmlns='%s'><forwarded xmlns='urn:xmpp:forward:0'>"+
					"<message xmlns='jabber:client' type='chat' id='g1' from='alice@localhost' to='bob@localhost'><body>Bridged</body></message></forwarded></privilege></message>", privileges)
				both("g1")
			},
			[]string{"message-received bob@localhost to=bob@localhost [message Bridged]"},
		},
		{
			"a gateway writes in its own name, and another server's user in his", func() {
				gateway.Send("<message type='chat' id='g2' from='x@gateway.localhost' to='bob@localhost'><body>From there</body></message>")
				both("g2")
				remote.Send(fmt.Sprintf("<message type='chat' id='f1' from='romeo@%s/orchard' to='bob@localhost'><body>From afar</body></message>", remote.Domain))
				both("f1")
			},
			[]string{
				"message-received bob@localhost to=bob@localhost [message From there]",
				"message-received bob@localhost to=bob@localhost [message From afar]",
			},
		},
		{
			"the server's API in a user's name", func() {
				for range 2 { // the same again is another message
					s.API("send_message", map[string]string{"type": "chat", "from": "alice@localhost", "to": "bob@localhost", "subject": "", "body": "By HTTP"})
				}
				both("By HTTP")
				erlang.Ctl("send_message", "chat", "alice@localhost/r1", "bob@localhost/desk", "", "By ctl")
				desk.WaitFor("By ctl")
				s.API("send_stanza", map[string]string{"from": "alice@localhost/api", "to": "bob@localhost", "stanza": "<message type='chat' id='a1'><body>A stanza</body></message>"})
				both("a1")
				erlang.Ctl("send_message", "chat", "alice@localhost", "x@elsewhere.example", "", "Away")
			},
			[]string{
				"message-sent alice@localhost to=bob@localhost [message By HTTP]",
				"message-sent alice@localhost to=bob@localhost [message By HTTP]",
				"message-sent alice@localhost/r1 to=bob@localhost/desk [message By ctl]",
				"message-sent alice@localhost/api to=bob@localhost [message A stanza]",
				"message-sent alice@localhost to=x@elsewhere.example [message Away]",
			},
		},
		{
			"the server itself", func() {
				s.API("send_message", map[string]string{"type": "chat", "from": "localhost", "to": "bob@localhost", "subject": "", "body": "Welcome"})
				both("Welcome")
				erlang.Ctl("send_message", "chat", "localhost", "x@elsewhere.example", "", "Not for a user here")
			},
			[]string{"message-received bob@localhost to=bob@localhost [message Welcome]"},
		},
		{
			"the server to a user who is offline", func() {
				erlang.Ctl("send_message", "chat", "localhost", "carol@localhost", "", "Later")
				liar.Send("<message type='chat' id='l4' from='alice@localhost/r1' to='carol@localhost'><body>Feigned</body></message>")
				c.await("message-offline", "carol@localhost", 2)
			},
			[]string{
				"message-received carol@localhost to=carol@localhost [message Later]", "message-offline carol@localhost [message Later]",
				"message-received carol@localhost to=carol@localhost [message Feigned]", "message-offline carol@localhost [message Feigned]",
			},
		},
		{
			"stored messages are handed over", func() {
				carol := s.Login(t, "carol", "r1")
				carol.Presence()
				carol.WaitFor("Later", "urn:xmpp:delay")
				carol.WaitFor("Feigned", "urn:xmpp:delay")
				carol.CloseStream()
				c.await("session-end", "carol@localhost", 1)
			},
			[]string{
				"session-start carol@localhost/r1", "online carol@localhost/r1 [presence ]",
				"offline carol@localhost/r1 [presence unavailable]", "session-end carol@localhost/r1 reason=closed",
			},
		},
		{
			"a room, and one who subscribes to it", func() {
				alice.Join("tea", "ally")
				bob.IQ("set", room, "<subscribe xmlns='urn:xmpp:mucsub:0' nick='bobby'><event node='urn:xmpp:mucsub:nodes:messages'/></subscribe>")
				alice.Sendf("<message type='groupchat' id='r1' to='%s'><body>In the room</body></message>", room)
				both("r1", "pubsub#event")
				alice.WaitFor("<message", "r1", "/ally")
				liar.Sendf("<message type='groupchat' id='r2' from='%s' to='%s'><body>Feigned</body></message>", alice.JID, room)
				both("r2", "pubsub#event")
				alice.WaitFor("<message", "r2", "/ally")
			},
			[]string{
				"room-join alice@localhost/r1 room=" + room + " nick=ally",
				"message-received alice@localhost/r1 to=alice@localhost/r1 [message ]", // the subject
				"message-sent alice@localhost/r1 to=" + room + " [message In the room]",
				"message-received alice@localhost/r1 to=alice@localhost/r1 [message In the room]",
				"message-received bob@localhost to=bob@localhost [message ]", // wrapped
				"message-received alice@localhost/r1 to=alice@localhost/r1 [message Feigned]",
				"message-received bob@localhost to=bob@localhost [message ]",
			},
		},
		{
			"several recipients at once", func() {
				alice.Send("<message type='chat' id='x1' to='multicast.localhost'><addresses xmlns='http://jabber.org/protocol/address'>" +
					"<address type='to' jid='bob@localhost'/><address type='to' jid='dave@localhost'/></addresses><body>To all</body></message>")
				both("x1")
				c.await("message-offline", "dave@localhost", 1)
			},
			[]string{
				"message-sent alice@localhost/r1 to=multicast.localhost [message To all]",
				"message-received bob@localhost to=bob@localhost [message To all]",
				"message-received dave@localhost to=dave@localhost [message To all]",
				"message-offline dave@localhost [message To all]",
			},
		},
		{
			"what a user publishes, for one who has subscribed to it", func() {
				alice.IQ("set", "", fmt.Sprintf(openNode, "t1"))
				bob.IQ("set", "alice@localhost", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='tune' jid='bob@localhost'/></pubsub>")
				alice.IQ("set", "", fmt.Sprintf(openNode, "t2"))
				bob.WaitFor("<message", "t2", "pubsub#event")
				s.API("send_stanza", map[string]string{"from": "alice@localhost", "to": "bob@localhost",
					"stanza": "<message type='headline' id='t3'><event xmlns='http://jabber.org/protocol/pubsub#event'/></message>"})
				both("t3")
				gateway.Send("<message type='headline' id='t4' from='x@gateway.localhost' to='bob@localhost'><event xmlns='http://jabber.org/protocol/pubsub#event'/></message>")
				both("t4")
			},
			// Nobody has written the first ones. A node elsewhere may be anything.
			[]string{"message-received bob@localhost to=bob@localhost [message ]"},
		},
		{
			"what a user's list blocks does not happen", func() {
				bob.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='alice@localhost'/><item jid='spam@gateway.localhost'/></block>")
				liar.Send("<message type='chat' id='b1' from='alice@localhost/r1' to='bob@localhost'><body>Blocked</body></message>")
				gateway.Send("<message type='chat' id='b2' from='spam@gateway.localhost' to='bob@localhost/desk'><body>Blocked</body></message>")
				gateway.WaitFor("b2", "error")
				bob.Send("<message type='chat' id='b3' to='alice@localhost'><body>He blocks her, so he cannot write either</body></message>")
				bob.WaitFor("b3", "error")
				alice.Send("<message type='chat' id='b4' to='bob@localhost'><body>Sent all the same</body></message>")
				alice.WaitFor("b4", "error")
			},
			[]string{"message-sent alice@localhost/r1 to=bob@localhost reached=false [message Sent all the same]"},
		},
		{
			"and nothing is stored that it blocks", func() {
				bob.CloseStream()
				desk.CloseStream()
				c.await("session-end", "bob@localhost", 2)
				gateway.Send("<message type='chat' id='b5' from='spam@gateway.localhost' to='bob@localhost'><body>Blocked</body></message>")
				gateway.WaitFor("b5", "error")
				gateway.Send("<message type='chat' id='b6' from='x@gateway.localhost' to='bob@localhost'><body>Not blocked</body></message>")
				c.await("message-offline", "bob@localhost", 1)
			},
			[]string{
				"offline bob@localhost/desk [presence unavailable]", "offline bob@localhost/phone [presence unavailable]",
				"session-end bob@localhost/desk reason=closed", "session-end bob@localhost/phone reason=closed",
				"message-received bob@localhost to=bob@localhost [message Not blocked]",
				"message-offline bob@localhost [message Not blocked]",
			},
		},
	} {
		got := lines(c.step(step.do))
		slices.Sort(got) // several processes tell, and each step waits for all
		slices.Sort(step.want)
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	// What a subscriber gets is forwarded as the room has wrapped it.
	wrapped := slices.DeleteFunc(c.since(0), func(e event) bool {
		return e.User != "bob@localhost" || e.decode().From != room || !strings.Contains(e.Stanza, "urn:xmpp:mucsub:nodes:messages")
	})
	if len(wrapped) != 2 || !strings.Contains(wrapped[0].Stanza, "In the room") {
		t.Errorf("for the subscriber: %v", lines(wrapped))
	}
	c.sound()
}

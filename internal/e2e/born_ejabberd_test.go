package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/internal/harness"
)

// bornFeeds are the columns of the table in docs/servers/ejabberd.md.
var bornFeeds = []string{"event_feed", "service_log", "privilege"}

// born is an ejabberd on which a message can come into being in all ways.
type born struct {
	t                *testing.T
	server           *harness.XMPPServer
	remote           *harness.RemoteServer
	gateway, liar    *harness.Client
	alice, bob       *harness.Client
	privileges       string // namespace of XEP-0356
	room, remoteUser string
}

func newBorn(t *testing.T, feed string) *born {
	b := &born{t: t, server: harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed: feed == "event_feed", ServiceLog: feed == "service_log", Privilege: true,
		Federation: true, MUC: "muc.localhost", Users: users,
		Components: []string{"events.localhost", "gateway.localhost", "liar.localhost"}, Unchecked: []string{"liar.localhost"},
		API: []string{"send_message"}, RoomOptions: "{allow_subscription: true}",
		Modules: "  mod_admin_extra: {}\n",
	})}
	s := b.server
	b.remote, b.gateway, b.liar = s.Federate(t), s.AttachComponent(t, "gateway.localhost"), s.AttachComponent(t, "liar.localhost")
	b.remoteUser, b.room = "romeo@"+b.remote.Domain, "tea@muc.localhost"
	b.privileges = regexp.MustCompile(`<privilege xmlns=['"]([^'"]+)`).FindStringSubmatch(b.gateway.WaitFor("<privilege", "outgoing"))[1]
	return b
}

// login begins the sessions, so that each feed sees them.
func (b *born) login(t *testing.T) {
	b.alice, b.bob = b.server.Login(t, "alice", "a"), b.server.Login(t, "bob", "b")
	b.alice.Presence()
	b.bob.Presence()
	b.alice.Join(b.room, "ally")
}

func (b *born) api(from, to, text string) {
	b.server.API("send_message", map[string]string{"type": "chat", "from": from, "to": to, "subject": "", "body": text})
}

// bornWays are the rows: how a message comes into being, and the chat events that each
// feed makes of it, as in MongooseIM's RabbitMQ backend: who, and sent or recv.
var bornWays = []struct {
	name                  string
	do                    func(b *born)
	eventFeed, serviceLog []string
}{
	{
		"a client to a user", func(b *born) {
			b.alice.Send("<message type='chat' id='w1' to='bob@localhost'><body>By a client</body></message>")
			b.bob.WaitFor("w1")
		},
		[]string{"alice@localhost sent", "bob@localhost recv"}, []string{"alice@localhost sent", "bob@localhost recv"},
	},
	{
		"a client to another server", func(b *born) {
			b.alice.Sendf("<message type='chat' id='w2' to='%s'><body>Out</body></message>", b.remoteUser)
			b.remote.WaitFor("w2")
		},
		[]string{"alice@localhost sent"}, []string{"alice@localhost sent"},
	},
	{
		"another server", func(b *born) {
			b.remote.Send(fmt.Sprintf("<message type='chat' id='w3' from='%s/x' to='bob@localhost'><body>In</body></message>", b.remoteUser))
			b.bob.WaitFor("w3")
		},
		[]string{"bob@localhost recv"}, []string{"bob@localhost recv"},
	},
	{
		"a component or gateway in its own name", func(b *born) {
			b.gateway.Send("<message type='chat' id='w4' from='x@gateway.localhost' to='bob@localhost'><body>Own name</body></message>")
			b.bob.WaitFor("w4")
		},
		[]string{"bob@localhost recv"}, []string{"bob@localhost recv"},
	},
	{
		"a component in a user's name, without from check", func(b *born) {
			b.liar.Send("<message type='chat' id='w5' from='alice@localhost/a' to='bob@localhost'><body>Feigned</body></message>")
			b.bob.WaitFor("w5")
		},
		[]string{"bob@localhost recv"}, []string{"alice@localhost sent", "bob@localhost recv"},
	},
	{
		"a gateway in a user's name, by XEP-0356", func(b *born) {
			b.gateway.Sendf("<message from='gateway.localhost' to='localhost'><privilege xmlns='%s'><forwarded xmlns='urn:xmpp:forward:0'>"+
				"<message xmlns='jabber:client' type='chat' id='w6' from='alice@localhost' to='bob@localhost'><body>Bridged</body></message></forwarded></privilege></message>", b.privileges)
			b.bob.WaitFor("w6")
		},
		[]string{"bob@localhost recv"}, nil,
	},
	{
		"the API in a user's name", func(b *born) {
			b.api("alice@localhost/a", "bob@localhost", "By the API")
			b.bob.WaitFor("By the API")
		},
		[]string{"alice@localhost sent", "bob@localhost recv"}, []string{"alice@localhost sent", "bob@localhost recv"},
	},
	{
		"the server itself", func(b *born) {
			b.api("localhost", "bob@localhost", "Welcome")
			b.bob.WaitFor("Welcome")
		},
		// mod_service_log copies it as sent and as received.
		[]string{"bob@localhost recv"}, []string{"bob@localhost recv"},
	},
	{
		"a client in a room", func(b *born) {
			b.alice.Sendf("<message type='groupchat' id='w9' to='%s'><body>In the room</body></message>", b.room)
			b.alice.WaitFor("<message", "w9", "/ally")
		},
		[]string{"alice@localhost sent", "tea@muc.localhost recv", "alice@localhost recv"},
		[]string{"alice@localhost sent", "tea@muc.localhost recv", "alice@localhost recv"},
	},
	{
		"a room to a subscriber (MUC/Sub)", func(b *born) {
			b.bob.IQ("set", b.room, "<subscribe xmlns='urn:xmpp:mucsub:0' nick='bobby'><event node='urn:xmpp:mucsub:nodes:messages'/></subscribe>")
			b.alice.Sendf("<message type='groupchat' id='w10' to='%s'><body>For subscribers</body></message>", b.room)
			b.bob.WaitFor("<message", "w10", "pubsub#event")
			b.alice.WaitFor("<message", "w10", "/ally")
		},
		[]string{"alice@localhost sent", "tea@muc.localhost recv", "alice@localhost recv", "bob@localhost recv"},
		[]string{"alice@localhost sent", "tea@muc.localhost recv", "alice@localhost recv", "bob@localhost recv"},
	},
	{
		"a notification of what a user publishes", func(b *born) {
			const publish = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='tune'><item id='%s'><tune xmlns='urn:tune'/></item></publish>" +
				"<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
				"<field var='pubsub#access_model'><value>open</value></field></x></publish-options></pubsub>"
			b.alice.IQ("set", "", fmt.Sprintf(publish, "t1"))
			b.bob.IQ("set", "alice@localhost", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='tune' jid='bob@localhost'/></pubsub>")
			b.alice.IQ("set", "", fmt.Sprintf(publish, "t2"))
			b.bob.WaitFor("<message", "t2", "pubsub#event")
		},
		nil, nil,
	},
	{
		"from one whom the recipient blocks", func(b *born) {
			b.bob.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='spam@gateway.localhost'/></block>")
			b.gateway.Send("<message type='chat' id='w11' from='spam@gateway.localhost' to='bob@localhost'><body>Blocked</body></message>")
			b.gateway.WaitFor("w11", "error")
		},
		nil, nil,
	},
	{
		"of a user whom the recipient blocks", func(b *born) {
			b.bob.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='alice@localhost'/></block>")
			b.alice.Send("<message type='chat' id='w13' to='bob@localhost'><body>Bounced</body></message>")
			b.alice.WaitFor("w13", "error")
		},
		[]string{"alice@localhost sent"}, []string{"alice@localhost sent", "bob@localhost recv"},
	},
	{
		"to an account that does not exist", func(b *born) {
			b.alice.Send("<message type='chat' id='w14' to='nobody@localhost'><body>Bounced</body></message>")
			b.alice.WaitFor("w14", "error")
		},
		[]string{"alice@localhost sent"}, []string{"alice@localhost sent", "nobody@localhost recv"},
	},
	{
		"the API in a user's bare address", func(b *born) {
			b.api("alice@localhost", "dave@localhost", "By the API")
		},
		[]string{"alice@localhost sent", "dave@localhost recv"}, nil,
	},
	{
		"the server itself to a user who is offline", func(b *born) {
			b.api("localhost", "carol@localhost", "Welcome back")
			carol := b.server.Login(b.t, "carol", "c")
			carol.Presence()
			carol.WaitFor("Welcome back", "urn:xmpp:delay")
			carol.CloseStream()
		},
		// service_log reports it when it is sent and again when it is handed over.
		[]string{"carol@localhost recv"}, []string{"carol@localhost recv", "carol@localhost recv"},
	},
	{
		"to one whom the sender blocks", func(b *born) {
			b.alice.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='carol@localhost'/></block>")
			b.alice.Send("<message type='chat' id='w12' to='carol@localhost'><body>Refused</body></message>")
			b.alice.WaitFor("w12", "error")
		},
		nil, []string{"alice@localhost sent", "carol@localhost recv"},
	},
}

// TestBorn: each cell of the table in docs/servers/ejabberd.md.
func TestBorn(t *testing.T) {
	for _, feed := range bornFeeds {
		t.Run(feed, func(t *testing.T) {
			b := newBorn(t, feed)
			w := prepareWorld(t)
			w.start(b.server.ComponentAddr(b.server.Component), "muc_hosts = [\"muc.localhost\"]")
			await(t, "readiness", w.ready)
			b.login(t)
			chats := func() (lines []string) {
				for _, line := range w.news() {
					parts := strings.Fields(line)
					if parts[0] == "RABBIT" && parts[1] != "presence" {
						who, what, _ := strings.Cut(parts[2], "."+parts[1]+"_")
						lines = append(lines, who+" "+what)
					}
				}
				return lines
			}
			for _, way := range bornWays {
				want := map[string][]string{"event_feed": way.eventFeed, "service_log": way.serviceLog}[feed]
				way.do(b)
				var got []string
				poll(limit/4, func() bool { got = append(got, chats()...); return len(got) >= len(want) })
				// What came too much has come before another message.
				end := []string{"alice@localhost sent", "erin@localhost recv"}
				if feed == "privilege" {
					end = nil // it tells of no message, and has had the time of all the rows
				}
				b.alice.Send("<message type='chat' to='erin@localhost'><body>END</body></message>")
				poll(limit/4, func() bool { got = append(got, chats()...); return len(got) >= len(want)+len(end) })
				want = slices.Sorted(slices.Values(append(slices.Clone(want), end...)))
				slices.Sort(got)
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", way.name, diff)
				}
			}
		})
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
)

// The lines that one fact makes at all services.

func statusLines(full jid.JID, online bool) []string {
	return []string{
		fmt.Sprintf("RABBIT presence %s %s", full.Bare(), object("user_id", full.String(), "present", online)),
		fmt.Sprintf("SNS %s %s", presenceTopic, object("user_id", full.Bare().String(), "present", online)),
	}
}

// sentLines are those of a chat message that a local user sent (direction in).
func sentLines(from, to jid.JID, text string) []string {
	form, _ := json.Marshal([]string{from.Local(), from.Domain(), to.Local(), text})
	return []string{
		"HTTP " + string(form),
		fmt.Sprintf("RABBIT chat_msg %s.chat_msg_sent %s", from.Bare(), chatObject(from, to, text)),
		fmt.Sprintf("SNS %s %s", pmTopic, chatObject(from.Bare(), to.Bare(), text)),
	}
}

// receivedLine is that of a message on its way to a local user (direction out).
func receivedLine(exchange string, from, to jid.JID, text string) string {
	return fmt.Sprintf("RABBIT %s %s.%s_recv %s", exchange, to.Bare(), exchange, chatObject(from, to, text))
}

// localChat is a chat message between two local users.
func localChat(from, to jid.JID, text string) []string {
	return append(sentLines(from, to, text), receivedLine("chat_msg", from, to, text))
}

func chatObject(from, to jid.JID, text string) string {
	return object("from_user_id", from.String(), "to_user_id", to.String(), "message", text)
}

// object is JSON with sorted keys.
func object(pairs ...any) string {
	m := make(map[string]any)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	data, _ := json.Marshal(m)
	return string(data)
}

// TestRules drives what is easy to get wrong through both servers, and what a
// hostile user can send.
func TestRules(t *testing.T) {
	for _, f := range flavours {
		t.Run(f.name, func(t *testing.T) {
			server := f.start(t)
			w := newWorld(t, server.ComponentAddr(server.Component), "")
			s := &session{t: t, server: server, dave: server.Login(t, "dave", "marker")}
			alice := server.Login(t, "alice", "a1")
			bob := server.Login(t, "bob", "b1")
			mallory := server.Login(t, "mallory", "m1")
			expect := func(name string, want ...[]string) {
				t.Helper()
				all := slices.Sorted(slices.Values(slices.Concat(want...)))
				got := w.collect(all, func(text string) { s.msg(s.dave, "erin@localhost", body(text)) })
				if diff := cmp.Diff(all, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", name, diff)
				}
			}

			alice.Send("<presence/>")
			bob.Send("<presence/>")
			expect("online", statusLines("alice@localhost/a1", true), statusLines("bob@localhost/b1", true))

			for _, xml := range forgeries() {
				mallory.Send(xml)
			}
			expect("forgeries")
			if _, metrics := w.get("/metrics"); !strings.Contains(metrics, `eventpusher_component_connects_total{result="connected"} 1`+"\n") {
				t.Error("the link was set up again")
			}

			// The second is no copy of the first, although nothing tells them apart.
			alice.Send("<message to='bob@localhost' type='chat'><body>again</body></message>")
			alice.Send("<message to='bob@localhost' type='chat'><body>again</body></message>")
			again := localChat("alice@localhost/a1", "bob@localhost", "again")
			expect("two equal messages without an id", again, again)

			// An id proves nothing either.
			for range 4 {
				alice.Send("<message to='bob@localhost' type='chat' id='alarm'><body>alarm</body></message>")
			}
			alarm := localChat("alice@localhost/a1", "bob@localhost", "alarm")
			expect("four equal messages with one id", alarm, alarm, alarm, alarm)

			alice.Send("<message to='bob@localhost' type='chat' id='blank'><body> \n </body></message>")
			blank := localChat("alice@localhost/a1", "bob@localhost", "")
			expect("a blank body", blank[1:]) // no line of HTTP's, which comes first

			alice.Send("<message to='alice@localhost' type='chat'><body>note</body></message>")
			expect("message to oneself without an id", localChat("alice@localhost/a1", "alice@localhost", "note"))

			other := server.Login(t, "alice", "a2")
			other.EnableCarbons()
			other.Send("<presence/>")
			expect("second resource", statusLines("alice@localhost/a2", true))
			s.msg(alice, "bob@localhost/b1", body("with sent carbon"))
			s.msg(bob, "alice@localhost/a1", body("with received carbon"))
			expect("carbons",
				localChat("alice@localhost/a1", "bob@localhost/b1", "with sent carbon"),
				localChat("bob@localhost/b1", "alice@localhost/a1", "with received carbon"))

			alice.IQ("set", "", "<query xmlns='urn:xmpp:mam:2'/>")
			expect("archive query")

			s.msg(alice, "carol@localhost", body("for later"))
			expect("offline message", localChat("alice@localhost/a1", "carol@localhost", "for later"))
			carol := server.Login(t, "carol", "c1")
			carol.Send("<presence/>")
			carol.WaitFor("<message", "for later")
			expect("offline redelivery", statusLines("carol@localhost/c1", true))

			alice.Join(room, "Alice")
			s.typed(alice, room, body("in the room"), "groupchat")
			expect("room message", roomLines("alice@localhost/a1", "Alice", "in the room", "alice@localhost/a1"))
			carol.Join(room, "Carol")
			expect("history at a join", []string{receivedLine("groupchat_msg", room+"/Alice", "carol@localhost/c1", "in the room")})

			if strings.HasPrefix(f.name, "ejabberd") {
				// Who subscribes to a room gets what is said there in a wrapper (MUC/Sub).
				bob.IQ("set", room, "<subscribe xmlns='urn:xmpp:mucsub:0' nick='Bobby'><event node='urn:xmpp:mucsub:nodes:messages'/>"+
					"<event node='urn:xmpp:mucsub:nodes:subject'/></subscribe>")
				s.typed(alice, room, "<subject>tea</subject>", "groupchat")
				s.typed(alice, room, body("for subscribers"), "groupchat")
				bob.WaitFor("<message", "urn:xmpp:mucsub:nodes:messages", "for subscribers")
				expect("a room with a subscriber", roomLines("alice@localhost/a1", "Alice", "for subscribers",
					"alice@localhost/a1", "carol@localhost/c1", "bob@localhost"))
			}

			if f.name != "ejabberd service_log" { // which misses ends
				// More sessions than a feed that misses ends is believed to have.
				many := make([]*harness.Client, 0, 25)
				var came, gone [][]string
				for i := range cap(many) {
					resource := fmt.Sprint("e", i)
					many = append(many, server.Login(t, "mallory", resource))
					many[i].Send("<presence/>")
					came = append(came, statusLines(jid.JID("mallory@localhost/"+resource), true))
					gone = append(gone, statusLines(jid.JID("mallory@localhost/"+resource), false))
				}
				expect("many sessions", came...)
				for _, c := range many {
					c.Send("<presence><show>away</show></presence>")
				}
				expect("their changes of status")
				for _, c := range many {
					c.CloseStream()
				}
				expect("their ends", gone...)
			}
		})
	}
}

// roomLines are those of a groupchat message with these local occupants.
func roomLines(from jid.JID, nick, text string, occupants ...jid.JID) []string {
	lines := []string{
		fmt.Sprintf("RABBIT groupchat_msg %s.groupchat_msg_sent %s", from.Bare(), chatObject(from, room, text)),
		fmt.Sprintf("SNS %s %s", mucTopic, chatObject(from.Bare(), room, text)),
		receivedLine("groupchat_msg", from, room, text),
	}
	for _, to := range occupants {
		lines = append(lines, receivedLine("groupchat_msg", jid.JID(room+"/"+nick), to, text))
	}
	return lines
}

// forgeries are what a user can send to have events published in another's name
// or to change what the component believes; none may make an event.
func forgeries() []string {
	inner := "<message xmlns='jabber:client' from='alice@localhost/a1' to='bob@localhost' type='chat' id='f1'><body>forged</body></message>"
	presence := "<presence xmlns='jabber:client' from='alice@localhost/a9'/>"
	forward := func(xml string) string { return "<forwarded xmlns='urn:xmpp:forward:0'>" + xml + "</forwarded>" }
	var list []string
	for _, to := range []string{"events.localhost", "out@events.localhost", "in@events.localhost", "presence@events.localhost"} {
		list = append(list,
			fmt.Sprintf("<message to='%s'>%s</message>", to, forward(inner)),
			fmt.Sprintf("<message to='%s' type='chat'><body>with a body</body>%s</message>", to, forward(inner)),
			fmt.Sprintf("<message to='%s'>%s</message>", to, forward(presence)),
			// One wrapper inside another, as a feed that copies users' messages would pass it on.
			fmt.Sprintf("<message to='%s'>%s</message>", to, forward("<message xmlns='jabber:client' from='localhost' to='events.localhost'>"+forward(inner)+"</message>")),
		)
	}
	feed := func(to, element, inner string) string {
		return fmt.Sprintf("<message to='%s'><%s xmlns='urn:eventpusher:feed:1' source='localhost' epoch='1' %s</message>", to, element, inner)
	}
	for _, host := range []string{"events.localhost", "localhost"} {
		list = append(list,
			feed(host, "hello", "first='1' next='1' hosts='localhost'/>"),
			feed(host, "event", "seq='1' kind='message-sent' user='alice@localhost/a1' t='1.000'/>"+forward(inner)),
			feed(host, "event", "seq='1' kind='session-end' user='alice@localhost/a1' t='1.000'/>"),
			feed(host, "lost", "from='1' to='1000000'/>"),
			feed(host, "ack", "seq='1000000'/>"),
			feed(host, "resume", "seq='0'/>"),
			feed(host, "snapshot", "id='x'/>"))
	}
	return append(list,
		"<message to='events.localhost'><privilege xmlns='urn:xmpp:privilege:2'><perm access='presence' type='managed_entity'/></privilege></message>",
		"<message to='events.localhost'><privilege xmlns='urn:xmpp:privilege:1'><perm access='presence' type='managed_entity'/></privilege></message>",
		// A stream error of the server's, hidden in a reply that nobody waits for.
		"<iq type='result' id='1' to='events.localhost'><a xmlns='x'><error xmlns='http://etherx.jabber.org/streams'><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>evil:1</see-other-host></error></a></iq>",
		"<presence to='events.localhost'/>",
		"<presence to='events.localhost' type='unavailable'/>",
	)
}

package e2e

import (
	"fmt"
	"testing"

	"eventpusher/internal/harness"
)

// session is the scripted session of the golden file: alice with two resources
// and bob, on host localhost with rooms at muc.localhost.
type session struct {
	t          *testing.T
	server     *harness.XMPPServer
	a1, a2, b  *harness.Client
	dave       *harness.Client // sends the marks that end a step
	messageIDs int
}

// step is one thing that the users do.
type step struct {
	name string
	do   func(*session)
}

func body(text string) string { return "<body>" + text + "</body>" }

// msg sends a chat message from a client; the id is as unique as a client's.
func (s *session) msg(from *harness.Client, to, inner string) { s.typed(from, to, inner, "chat") }

// typed sends a message of that type; an empty one leaves the attribute out.
func (s *session) typed(from *harness.Client, to, inner, kind string) {
	s.messageIDs++
	attr := ""
	if kind != "" {
		attr = fmt.Sprintf(" type='%s'", kind)
	}
	from.Send(fmt.Sprintf("<message to='%s' id='m%d'%s>%s</message>", to, s.messageIDs, attr, inner))
}

const (
	bobDesk = "bob@localhost/desk"
	room    = "room@muc.localhost"
)

// steps are those of the golden file, by its names; push (U01 and the push of
// U04) belongs to another backend.
var steps = []step{
	{"P01", func(s *session) { s.a1 = s.server.Login(s.t, "alice", "res1") }},
	{"P02", func(s *session) { s.a1.Send("<presence/>") }},
	{"P03", func(s *session) { s.a2 = s.server.Login(s.t, "alice", "res2"); s.a2.Send("<presence/>") }},
	{"P04", func(s *session) {
		s.a1.Send("<presence><show>away</show><status>brb</status><priority>5</priority></presence>")
	}},
	{"P05", func(s *session) { s.a2.Send("<presence type='unavailable'/>") }},
	{"P06", func(s *session) { s.a2.Send("<presence/>") }},
	{"P07", func(s *session) { s.a2.Send("<presence to='bob@localhost'/>") }},
	{"P08", func(s *session) {
		s.b = s.server.Login(s.t, "bob", "desk")
		s.b.Send("<presence><priority>-1</priority></presence>")
	}},
	{"P09", func(s *session) { s.b.Send("<presence/>") }},
	{"P11", func(s *session) { s.b.Send("<presence to='alice@localhost' type='subscribe'/>") }},

	{"C01", func(s *session) { s.msg(s.a1, bobDesk, body("C01 Hello, Bob")) }},
	{"C02", func(s *session) { s.msg(s.a1, "bob@localhost", body("C02 to bare")) }},
	{"C03", func(s *session) { s.msg(s.a1, bobDesk, body("C03 Zażółć gęślą jaźń 日本語 \u00a0\u2028|")) }},
	{"C04", func(s *session) { s.msg(s.a1, bobDesk, body("C04 😀👨‍👩‍👧 🇵🇱")) }},
	{"C05", func(s *session) {
		s.msg(s.a1, bobDesk, body("C05 &lt;b&gt; &amp; &quot;q&quot; &apos;a&apos; &#233; &#x1F600; &amp;amp;"))
	}},
	{"C06", func(s *session) { s.msg(s.a1, bobDesk, body(`C06 <![CDATA[<x a="1">&amp;</x>]]> tail`)) }},
	{"C07", func(s *session) {
		s.msg(s.a1, bobDesk, body("C07 a\nb\tc\r\nd&#13;e / \\ \x7f \" ' % + = &amp; "))
	}},
	{"C08", func(s *session) { s.msg(s.a1, bobDesk, "<body/>") }},
	{"C10", func(s *session) { s.msg(s.a1, bobDesk, "<composing xmlns='http://jabber.org/protocol/chatstates'/>") }},
	{"C11", func(s *session) { s.msg(s.a1, bobDesk, "<displayed xmlns='urn:xmpp:chat-markers:0' id='m1'/>") }},
	{"C12", func(s *session) {
		s.msg(s.a1, bobDesk, "<body xml:lang='en'>C12 hi</body><body xml:lang='pl'>C12 cześć</body>")
	}},
	{"C17", func(s *session) { s.typed(s.a1, bobDesk, body("C17 normal"), "normal") }},
	{"C18", func(s *session) { s.typed(s.a1, bobDesk, body("C18 typeless"), "") }},
	{"C19", func(s *session) { s.typed(s.a1, bobDesk, body("C19 headline"), "headline") }},
	{"C20", func(s *session) {
		s.typed(s.a1, bobDesk, body("C20 error")+"<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>", "error")
	}},
	{"C21", func(s *session) { s.typed(s.a1, bobDesk, body("C21 bogus"), "bogus") }},
	{"C22", func(s *session) { s.msg(s.a1, "alice@localhost/res2", body("C22 self")) }},
	{"C23", func(s *session) { s.msg(s.a1, "alice@localhost", body("C23 self bare")) }},
	{"C24", func(s *session) { s.a1.Send("<message type='chat' id='x'>" + body("C24 no to") + "</message>") }},
	{"C25", func(s *session) { s.msg(s.a1, "carol@localhost", body("C25 offline")) }},

	{"M01", func(s *session) { s.join(s.a1, "Alice") }},
	{"M02", func(s *session) {
		s.a1.Send("<iq to='" + room + "' type='set' id='own'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query></iq>")
	}},
	{"M03", func(s *session) { s.join(s.b, "Bob") }},
	{"M04", func(s *session) { s.typed(s.a1, room, body("M04 Hi, Everyone!"), "groupchat") }},
	{"M05", func(s *session) { s.typed(s.a1, room, "<subject>topic</subject>", "groupchat") }},
	{"M06", func(s *session) {
		s.typed(s.a1, room, "<displayed xmlns='urn:xmpp:chat-markers:0' id='m1'/>", "groupchat")
	}},

	{"U02", func(s *session) { s.a2.CloseStream() }},
	{"U03", func(s *session) { s.a1.Drop() }},
	{"U04", func(s *session) { s.msg(s.b, "alice@localhost", body("U04 wake up 😀 &lt;&amp;")) }},
}

func (s *session) join(c *harness.Client, nick string) {
	c.Send("<presence to='" + room + "/" + nick + "'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
}

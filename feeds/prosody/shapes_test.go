//go:build linux

package prosody_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"eventpusher/internal/harness"
)

// shaper makes well-formed content of messages, of any shape that a server lets pass.
type shaper struct{ *rand.Rand }

func (s shaper) one(of ...string) string { return of[s.IntN(len(of))] }

// characters are some that XML 1.0 allows (section 2.2), as themselves or as references.
func (s shaper) characters(n int) string {
	var b strings.Builder
	for range n {
		switch r := rune(s.IntN(0x110000)); s.IntN(6) {
		case 0:
			b.WriteString(s.one("&lt;", "&gt;", "&amp;", "&apos;", "&quot;", "&#13;", "&#10;", "&#x9;", "\n", "\t", "]]&gt;", "--"))
		case 1:
			if r >= 0x20 && (r < 0xd800 || r > 0xdfff) && r != 0xfffe && r != 0xffff {
				fmt.Fprintf(&b, "&#%d;", r)
			}
		case 2:
			b.WriteString(s.one("\u0085", "\u00a0", "\u2028", "\ufeff", "\ufffd", "\ufdd0", "\U0001f468\u200d\U0001f469", "\U0010fffd", "\u202e", "e\u0301", "\x7f"))
		default:
			b.WriteString(s.one("a", "Z", "0", " ", "<![CDATA[<x a='1'>&amp;]] >]]>", "'", "\"", "="))
		}
	}
	return b.String()
}

// value is the text of an attribute between apostrophes.
func (s shaper) value(n int) string {
	return strings.NewReplacer("<![CDATA[<x a='1'>&amp;]] >]]>", "", "'", "&apos;").Replace(s.characters(n))
}

func (s shaper) name() string {
	return s.one("x", "body", "message", "event", "forwarded", "result", "delay", "é-1._", "subject", "thread", "iq", "stream")
}

func (s shaper) namespace() string {
	return s.one("urn:x", "jabber:client", "urn:eventpusher:feed:1", "urn:xmpp:forward:0", "urn:xmpp:carbons:2", "jabber:server",
		"http://etherx.jabber.org/streams", "urn:q?a=1&amp;b=&apos;", "jabber:component:accept", "urn:xmpp:mam:2")
}

// element is one with so much below it.
func (s shaper) element(depth, width int) string {
	name := s.name()
	start := "<" + name
	if s.IntN(2) == 0 {
		start += " xmlns='" + s.namespace() + "'"
	}
	if s.IntN(3) == 0 {
		start += " xmlns:p='" + s.namespace() + "' p:a='" + s.value(3) + "' xml:lang='" + s.one("de", "", "en-GB") + "'"
	}
	for i := range s.IntN(4) {
		start += fmt.Sprintf(" a%d='%s'", i, s.value(s.IntN(20)))
	}
	if depth == 0 || s.IntN(8) == 0 {
		return start + "/>"
	}
	var b strings.Builder
	for range 1 + s.IntN(width) {
		b.WriteString(s.characters(s.IntN(4)))
		b.WriteString(s.element(depth-1, width))
	}
	return start + ">" + b.String() + "</" + name + ">"
}

// content is what one message has inside. Prosody takes 256 KiB of a client.
func (s shaper) content() string {
	const large = 64 << 10
	switch s.IntN(8) {
	case 0:
		return "<body>deep and wide</body>" + s.element(5, 3)
	case 1:
		n := s.one("60", "100", "999", "1001", "3000", "12000")
		depth := 0
		fmt.Sscan(n, &depth)
		open := s.one("<x>", "<x xmlns='urn:x'>", "<message xmlns='jabber:client'>", "<a:x xmlns:a='urn:a'>")
		end := "</" + strings.FieldsFunc(open, func(r rune) bool { return r == '<' || r == ' ' || r == '>' })[0] + ">"
		depth = min(depth, 120<<10/(len(open)+len(end)))
		return strings.Repeat(open, depth) + "in" + strings.Repeat(end, depth) + "<body>very deep</body>"
	case 2:
		return "<body>" + s.characters(large/4) + "</body>"
	case 3:
		return "<x xmlns='urn:x' a='" + strings.Repeat("&amp;", large/5) + "'/><body>one long attribute</body>"
	case 4:
		return "<x xmlns='" + strings.Repeat("n", large) + "'/><body>a long namespace</body>"
	case 5:
		var b strings.Builder
		for i := range 1500 {
			fmt.Fprintf(&b, "<n%d xmlns='urn:n%d' xmlns:q='urn:q%d' q:a='%d'/>", i, i, i, i)
		}
		return b.String() + "<body>many namespaces</body>"
	case 6:
		return "<" + strings.Repeat("n", large) + " xmlns='urn:x'/><body>a long name</body>"
	}
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, " a%d='%s'", i, s.value(5))
	}
	return "<x xmlns='urn:x'" + b.String() + "/>" + strings.Repeat("<body>again</body>", 3)
}

// TestShapes sends messages of all shapes through server, module and program. Each makes
// its events or is buried as unreadable, and those after it arrive.
func TestShapes(t *testing.T) {
	t.Parallel()
	s := harness.Prosody(t, harness.ProsodyOptions{
		EventFeed: true, PluginPaths: []string{"feeds/prosody/testdata/plugins"}, Modules: []string{"feed_probe"},
		Components: []string{"events.localhost", "other.localhost"},
	})
	b := &births{t: t, s: s}
	b.component, b.alice, b.bob, b.mark = s.AttachComponent(t, "other.localhost"), s.Login(t, "alice", "r1"), s.Login(t, "bob", "desk"), s.Login(t, "dave", "mark")
	b.bob.Presence()
	b.alice.Join("club", "ally")
	b.alice.MembersOnly("club", true)
	b.alice.Affiliate("club", "carol@localhost member")
	p := attachProgram(t, s)
	b.mark.Presence()
	b.after(p, func() {})

	const missed = `eventpusher_events_total{direction="",kind="missed"}`
	const batch, batches = 10, 21
	for n := range batches {
		way := []struct {
			name, format string
			from         *harness.Client
			reports      int            // facts of the feed for one message, each of which can be unreadable
			want         map[string]int // for one message
		}{
			{"from a user", "<message id='s' type='chat' to='bob@localhost'>%s</message>", b.alice, 1, map[string]int{chatIn: 1, chatOut: 1}},
			{"from elsewhere", "<message id='s' type='chat' from='eve@other.localhost/r' to='bob@localhost'>%s</message>", b.component, 1, map[string]int{chatOut: 1}},
			{"in a room", "<message id='s' type='groupchat' to='club@conference.localhost'>%s</message>", b.alice, 3, map[string]int{chatIn: 1, chatOut: 2, missed: 1}},
		}[n%3]
		got := b.after(p, func() {
			for i := range batch {
				content := shaper{rand.New(rand.NewPCG(uint64(n), uint64(i)))}.content()
				way.from.Sendf(way.format, content)
				// The XML parser of Debian 13 (Expat 2.6 and later) looks at a long tag that came in
				// pieces only when as much has come again.
				way.from.Send(strings.Repeat(" ", len(content)))
			}
			settled(t, b.component)
			b.alice.Ping()
		})
		for name, count := range way.want {
			if want := count * (batch - got[buried]/way.reports); got[name] != want {
				t.Errorf("batch %d, %s: %s has grown by %d, want %d with %d buried", n, way.name, name, got[name], want, got[buried])
			}
		}
	}
	b.alice.IQ("set", "localhost", "<do xmlns='urn:test:probe' what='none' kind='errors'/>")
}

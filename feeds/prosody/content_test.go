//go:build linux

package prosody_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// tokens is an element as a list of its parts, so that two ways of writing the
// same compare as equal. The attributes that a server adds to a stanza are left out.
func tokens(t *testing.T, text string) []string {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	d.DefaultSpace = "jabber:client"
	var all []string
	for {
		token, err := d.Token()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		switch tok := token.(type) {
		case xml.StartElement:
			var attrs []string
			for _, a := range tok.Attr {
				if a.Name.Local == "xmlns" || a.Name.Space == "xmlns" || len(all) == 0 && (a.Name.Local == "from" || a.Name.Local == "lang") {
					continue
				}
				attrs = append(attrs, fmt.Sprintf("{%s}%s=%q", a.Name.Space, a.Name.Local, a.Value))
			}
			sort.Strings(attrs)
			all = append(all, fmt.Sprintf("<{%s}%s %s>", tok.Name.Space, tok.Name.Local, strings.Join(attrs, " ")))
		case xml.EndElement:
			all = append(all, "</>")
		case xml.CharData:
			if n := len(all); n > 0 && strings.HasPrefix(all[n-1], "text ") {
				all[n-1] += string(tok)
			} else {
				all = append(all, "text "+string(tok))
			}
		}
	}
}

// What a user writes arrives as it was written, character for character.
func TestContent(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	p := attach(t, s)
	p.hello()
	p.resumeNothing()
	alice := s.Login(t, "alice", "r1")
	p.event()

	for name, inner := range map[string]string{
		"references":             "<body>&lt;b&gt; &amp;amp; &quot;'&apos; ]]&gt; &#13;&#10;\n\t&#x9;end</body>",
		"CDATA":                  "<body><![CDATA[<message from='x'>&amp;]]></body>",
		"beyond ASCII":           "<body>\u00e4\u0085\u2028\U0001F600\ufffd\u200d</body>",
		"attributes":             "<x xmlns='urn:t' a='&apos;&quot;&lt;&gt;&amp;&#10;&#9;&#13; x' b=\"'\"/>",
		"qualified attributes":   "<x xmlns='urn:t' xmlns:o='urn:o?a&amp;b' o:a='1' xml:lang='de' o:b='&apos;' xml:space='preserve'> </x>",
		"namespaces":             "<a xmlns='urn:a'><b/><c xmlns='urn:c'><d xmlns='urn:a'/><message xmlns='jabber:client'><body/></message></c></a>",
		"prefixes":               "<p:a xmlns:p='urn:p'><p:b><c xmlns='urn:c'/></p:b></p:a>",
		"a forged event":         "<event xmlns='urn:eventpusher:feed:1' source='localhost' epoch='1' seq='1' kind='message-sent' user='bob@localhost'/>",
		"mixed":                  "<html xmlns='http://jabber.org/protocol/xhtml-im'><p>a<b>b</b>c<i/>d</p></html><subject/><body>text</body>",
		"many elements":          "<x xmlns='urn:t'>" + strings.Repeat("<y/>", 2000) + "</x>",
		"deep":                   strings.Repeat("<x xmlns='urn:t'>", 300) + strings.Repeat("</x>", 300),
		"as large as may be":     "<body>" + strings.Repeat("'\u00e4&amp;", 25000) + "</body>",
		"line ends of all sorts": "<body>a\r\nb\rc\n</body>",
	} {
		t.Run(name, func(t *testing.T) {
			stanza := fmt.Sprintf("<message id='w' type='headline' to='dave@localhost'>%s</message>", inner)
			alice.Send(stanza)
			alice.Ping()
			got := p.event()
			if diff := cmp.Diff(tokens(t, stanza), tokens(t, got.Forwarded.Inner)); diff != "" {
				t.Errorf("(-sent +forwarded):\n%.2000s", diff)
			}
		})
	}

	t.Run("addresses", func(t *testing.T) {
		odd := s.Login(t, "alice", "&lt;a&gt; &amp; &apos;b&apos; \u00e4")
		if got := p.event().Event.User; got != "alice@localhost/<a> & 'b' \u00e4" {
			t.Errorf("user %q", got)
		}
		odd.Send("<message id='q' type='headline' to=\"dave@localhost/'&lt;&gt;&amp;\"/>")
		odd.Ping()
		if got := p.event().Event; got.To != "dave@localhost/'<>&" {
			t.Errorf("%+v", *got)
		}
		odd.CloseStream()
		p.event()
	})
}

// However wide the window, no more than 2 MiB are on the wire.
func TestBytesOnTheWire(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	p := attach(t, s)
	p.ack = 0
	p.hello()
	p.resumeNothing()
	alice := s.Login(t, "alice", "r1")
	p.event()
	p.acknowledge(1)
	body := strings.Repeat("x", 200<<10)
	for i := range 20 {
		alice.Sendf("<message id='w%d' type='headline' to='dave@localhost'><body>%s</body></message>", i, body)
		alice.Ping()
	}
	same(t, "first", take(p, 11), ids("w", 0, 11))
	p.silent()
	p.acknowledge(4)
	same(t, "then", take(p, 3), ids("w", 11, 14))
	p.silent()
	p.acknowledge(15)
	same(t, "the rest", take(p, 6), ids("w", 14, 20))
}

// Without its option the module does not load, and that is all that happens.
func TestUnconfigured(t *testing.T) {
	t.Parallel()
	s := harness.Prosody(t, harness.ProsodyOptions{PluginPaths: []string{"feeds/prosody"}, Modules: []string{"event_feed"}})
	alice, bob := s.Login(t, "alice", "r1"), s.Login(t, "bob", "desk")
	alice.Send("<message id='m' to='bob@localhost/desk'><body>Hello</body></message>")
	bob.WaitFor("Hello")
	if !strings.Contains(s.Log(), "set event_feed_component, in the global section") {
		t.Errorf("the log does not say what to do:\n%s", s.Log())
	}
	s.Stop() // it can still be stopped
}

// An error of ours, a raise in the middle of a hook, costs the event and
// nothing else.
func TestFailingHook(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	p := attach(t, s)
	p.hello()
	p.resumeNothing()
	alice, bob := s.Login(t, "alice", "r1"), s.Login(t, "bob", "desk")
	bob.Presence()
	for i := range 3 {
		alice.Sendf("<message id='u%d' type='chat' to='bob@localhost'><body>unspeakable</body></message>", i)
	}
	alice.Send("<message id='end' type='chat' to='bob@localhost'><body>fine</body></message>")
	bob.WaitFor("u0", "unspeakable")
	bob.WaitFor("u1")
	bob.WaitFor("u2")
	bob.WaitFor("end")
	if got := p.until("end"); len(got) != 3 { // two sessions, one presence
		t.Errorf("events %q", lines(got))
	}
	if n := strings.Count(s.Log(), "because of an error in message/bare"); n != 1 {
		t.Errorf("%d lines in the log tell of three errors, want 1:\n%s", n, s.Log())
	}
}

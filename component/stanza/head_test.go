package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// wrapped returns a wrapper of the event-feed around inner, with so many bytes of members
// in the start tag of the feed's element.
func wrapped(members int, inner string) string {
	list := ""
	if members > 0 {
		list = " members='" + strings.Repeat("m", members) + "'"
	}
	return "<message from='example.org' to='events.example.org'><event xmlns='" + feedURI + "'" + list +
		" source='s1' epoch='e1' seq='7' kind='room-missed'/>" + inner + "</message>"
}

// follower is a stanza after a wrapper.
const follower = "<presence from='alice@example.org/r1'/>"

// checkHead reads a wrapper and what follows it, and fails the test unless the place of the
// event is known and the next stanza is whole.
func checkHead(t *testing.T, r io.Reader, l Limits) {
	t.Helper()
	reader := NewReader(r, l)
	var env Envelope
	frame, err := reader.Next(&env)
	if err != nil && !errors.As(err, new(*StanzaError)) {
		t.Fatalf("the stream ends: %v", err)
	}
	if frame.Kind != MessageFrame {
		t.Fatalf("frame of kind %v", frame.Kind)
	}
	if f := env.Feed; f == nil || f.Element != FeedEvent || f.Source != "s1" || f.Epoch != "e1" || f.Seq != 7 {
		t.Fatalf("fault %v, error %v, kept %d bytes: the feed's element is %+v", frame.Fault, err, len(frame.Bytes), f)
	}
	if env.Outer.From != "example.org" || env.Outer.To != "events.example.org" {
		t.Fatalf("from %q to %q", env.Outer.From, env.Outer.To)
	}
	if frame, err = reader.Next(&env); err != nil || frame.Fault != NoFault {
		t.Fatalf("the next stanza: fault %v, %v", frame.Fault, err)
	}
	want := Envelope{Outer: Stanza{Kind: Presence, From: "alice@example.org/r1"}}
	raw := env.Outer.Raw
	env.Outer.Raw = ""
	if diff := cmp.Diff(want, env); diff != "" || raw != strings.Replace(follower, " ", clientDecl+" ", 1) {
		t.Fatalf("the next stanza is %q (-want +got):\n%s", raw, diff)
	}
	if _, err := reader.Next(&env); err != io.EOF {
		t.Fatal(err)
	}
}

// TestFeedHeadOfRefused reads the place of an event whose stanza is refused, however long
// the start tag of the feed's element is and wherever the fault shows.
func TestFeedHeadOfRefused(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("<x>", n) + strings.Repeat("</x>", n) }
	const bound = 64 << 10
	room := bound - len(wrapped(1, "")) // for members, so that the start tag ends within bound
	l := Limits{Size: bound, Depth: 60}
	for _, c := range []struct {
		name    string
		members int
		inner   string
	}{
		{"too deep after a short start tag", 0, deep(62)},
		{"too deep after 33 KiB", 33 << 10, deep(62)},
		{"too deep after the longest start tag", room, deep(62)},
		{"too large", 0, strings.Repeat("x", bound)},
		{"too large after 33 KiB", 33 << 10, strings.Repeat("x", 1<<20)},
		{"too large after the longest start tag", room, strings.Repeat("x", 1<<20)},
		{"too large and too deep", room, strings.Repeat(deep(70), 1000)},
		{"not allowed in XMPP", room - 100, "<!-- comment -->"},
		{"more attributes than a stanza may have", 0, "<x " + strings.Repeat("a", 100) + manyAttrs() + "/>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stream := wrapped(c.members, c.inner) + follower
			checkHead(t, strings.NewReader(stream), l)
			checkHead(t, iotest.OneByteReader(strings.NewReader(stream)), l)
			checkHead(t, iotest.HalfReader(strings.NewReader(stream)), l)
		})
	}
}

func manyAttrs() string {
	var b strings.Builder
	b.WriteString("=''")
	for i := range maxAttrs {
		b.WriteString(" a" + strings.Repeat("b", i) + "=''")
	}
	return b.String()
}

// TestDecodeDeep nests deep: neither the decoder nor the
// framer recurses, so a limit on depth protects nothing but memory.
func TestDecodeDeep(t *testing.T) {
	const depth = 100_000
	frame := []byte("<message>" + strings.Repeat("<x>", depth-1) + strings.Repeat("</x>", depth-1) + "</message>")
	l := Limits{Size: len(frame), Depth: depth}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would shrink the stack
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var env Envelope
	if err := NewDecoder(l).Decode(frame, &env); err != nil {
		t.Error(err)
	}
	if got := frameAll(bytes.NewReader(frame), l); len(got.Frames) != 1 || got.Frames[0].Fault != NoFault {
		t.Errorf("%d frames, %s", len(got.Frames), got.Err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.StackInuse) - int64(before.StackInuse); grown > 8<<20 {
		t.Errorf("the stack has grown by %d bytes", grown)
	}
}

// FuzzFeedHead puts any well-formed content into a wrapper, so many times and behind a
// start tag of that length, and cuts the stream somewhere: the place of the event is known
// and the next stanza whole.
func FuzzFeedHead(f *testing.F) {
	f.Add([]byte("<a><b><c><d><e><f/></e></d></c></b></a>"), uint16(40_000), byte(0), uint16(100))
	f.Add([]byte("x<![CDATA[</message>]]>&#13;<!-- --><?x ?>"), uint16(0), byte(255), uint16(300))
	f.Add([]byte("<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'><body>x</body></message></forwarded>"), uint16(0), byte(1), uint16(0))
	f.Add([]byte("<event xmlns='"+feedURI+"' source='s2' epoch='e2' seq='8'/>"), uint16(60_000), byte(20), uint16(65_000))
	f.Fuzz(func(t *testing.T, inner []byte, members uint16, times byte, at uint16) {
		if !isContent(inner) {
			return
		}
		const bound = 64 << 10
		stream := wrapped(int(members)%(bound-512), strings.Repeat(string(inner), int(times))) + follower
		cut := min(int(at), len(stream))
		pieces := func() io.Reader {
			return io.MultiReader(strings.NewReader(stream[:cut]), strings.NewReader(stream[cut:]))
		}
		checkHead(t, pieces(), Limits{Size: bound, Depth: 5})
		checkHead(t, pieces(), Limits{})
	})
}

// isContent reports whether b is what a conforming server may write inside an element.
func isContent(b []byte) bool {
	d := xml.NewDecoder(io.MultiReader(strings.NewReader("<x>"), bytes.NewReader(b), strings.NewReader("</x>")))
	var open []xml.Name
	for ended := false; ; {
		tok, err := d.RawToken()
		if err != nil {
			return err == io.EOF && ended
		}
		if ended {
			return false
		}
		switch tok := tok.(type) {
		case xml.Directive:
			return false // not in an element (XML 1.0 section 3.1)
		case xml.StartElement:
			open = append(open, tok.Name)
		case xml.EndElement:
			last := len(open) - 1
			if open[last] != tok.Name {
				return false
			}
			open = open[:last]
			ended = last == 0
		}
	}
}

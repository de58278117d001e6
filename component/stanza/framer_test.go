package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// framed is what a framer made of a stream: its frames, copied, and how it ended.
type framed struct {
	Frames []Frame
	Err    string
}

func frameAll(r io.Reader, l Limits) (out framed) {
	f := NewFramer(r, l)
	for {
		frame, err := f.Next()
		if err != nil {
			out.Err = err.Error()
			if _, again := f.Next(); again == nil || again.Error() != out.Err {
				out.Err += ", then something else"
			}
			return out
		}
		frame.Bytes = bytes.Clone(frame.Bytes)
		out.Frames = append(out.Frames, frame)
	}
}

func broken(d Defect, offset int64) string { return (&SyntaxError{d, offset}).Error() }

const truncatedErr = "unexpected EOF"

var streams = []struct {
	name, stream string
	want         framed
}{
	{"nothing", "", framed{Err: "EOF"}},
	{"keepalives", " \n\t\r ", framed{Err: "EOF"}},
	{"stanzas", " <message a='>'><body>x</body></message>\n<presence/><iq\n/> <messages/><x:message/>", framed{[]Frame{
		{Kind: MessageFrame, Bytes: []byte("<message a='>'><body>x</body></message>")},
		{Kind: PresenceFrame, Bytes: []byte("<presence/>")},
		{Kind: OtherFrame, Bytes: []byte("<iq\n/>")},
		{Kind: OtherFrame, Bytes: []byte("<messages/>")},
		{Kind: OtherFrame, Bytes: []byte("<x:message/>")},
	}, "EOF"}},
	{"end", "<stream:error><conflict/></stream:error></stream:stream >\n<message/>", framed{[]Frame{
		{Kind: OtherFrame, Bytes: []byte("<stream:error><conflict/></stream:error>")},
		{Kind: EndFrame, Bytes: []byte("</stream:stream >")},
	}, "EOF"}},
	{"quotes", `<message a="/>'" b='">'/><presence a='/'>x</presence>`, framed{[]Frame{
		{Kind: MessageFrame, Bytes: []byte(`<message a="/>'" b='">'/>`)},
		{Kind: PresenceFrame, Bytes: []byte("<presence a='/'>x</presence>")},
	}, "EOF"}},
	{"CDATA, comment, PI", "<message><![CDATA[</message>]]</b>]>]]]><!-- </message> -- > ---><?x </message>? ??></message>", framed{[]Frame{
		{Kind: MessageFrame, Bytes: []byte("<message><![CDATA[</message>]]</b>]>]]]><!-- </message> -- > ---><?x </message>? ??></message>")},
	}, "EOF"}},
	{"comment opens and does not close", "<message><!--></message>", framed{Err: truncatedErr}},
	{"cut in a tag", "<message/><mess", framed{[]Frame{{Kind: MessageFrame, Bytes: []byte("<message/>")}}, truncatedErr}},
	{"cut in the text", "<message>abc", framed{Err: truncatedErr}},
	{"text between stanzas", "<message/> x<message/>", framed{[]Frame{{Kind: MessageFrame, Bytes: []byte("<message/>")}}, broken(StrayText, 11)}},
	{"comment between stanzas", "<message/><!-- --><message/>", framed{[]Frame{{Kind: MessageFrame, Bytes: []byte("<message/>")}}, broken(RestrictedXML, 11)}},
	{"PI between stanzas", "<?xml?><message/>", framed{Err: broken(RestrictedXML, 1)}},
	{"DOCTYPE between stanzas", "<!DOCTYPE x>", framed{Err: broken(RestrictedXML, 1)}},
	{"CDATA between stanzas", "<![CDATA[ ]]>", framed{Err: broken(RestrictedXML, 1)}},
	{"DOCTYPE in a stanza", "<message><!DOCTYPE x [<!ENTITY", framed{Err: broken(RestrictedXML, 11)}},
	{"no CDATA", "<message><![CDATE[ ]]></message>", framed{Err: broken(Malformed, 16)}},
	{"end of another element", "<message><a></message>", framed{Err: broken(TagMismatch, 22)}},
	{"elements crossed", "<message><a><b></a></b></message>", framed{Err: broken(TagMismatch, 19)}},
	{"end of no element", "<message/></message>", framed{[]Frame{{Kind: MessageFrame, Bytes: []byte("<message/>")}}, broken(TagMismatch, 20)}},
	{"end of a longer name", "</stream:streams>", framed{Err: broken(TagMismatch, 17)}},
	{"attribute in an end tag", "<message></message a=''>", framed{Err: broken(Malformed, 19)}},
	{"quote not closed", "<message a='><body>it's</body></message>", framed{Err: broken(BadAttribute, 13)}},
	{"bracket in a tag", "<message <body/>", framed{Err: broken(Malformed, 9)}},
	{"no name", "<message>< a/></message>", framed{Err: broken(Malformed, 10)}},
	{"too large", "<message from='a'>" + strings.Repeat("x", 200) + "<a/></message><presence/>", framed{[]Frame{
		{Kind: MessageFrame, Bytes: []byte("<message from='a'>" + strings.Repeat("x", 82)), Fault: TooLarge},
		{Kind: PresenceFrame, Bytes: []byte("<presence/>")},
	}, "EOF"}},
	{"as large as may be", "<message>" + strings.Repeat("x", 81) + "</message>", framed{[]Frame{
		{Kind: MessageFrame, Bytes: []byte("<message>" + strings.Repeat("x", 81) + "</message>")},
	}, "EOF"}},
	{"too large by one", "<message>" + strings.Repeat("x", 82) + "</message>", framed{[]Frame{
		{Kind: MessageFrame, Bytes: []byte("<message>" + strings.Repeat("x", 82) + "</message")[:100], Fault: TooLarge},
	}, "EOF"}},
	{"too large for its name", "<" + strings.Repeat("m", 200) + "/><presence/>", framed{[]Frame{
		{Kind: OtherFrame, Bytes: []byte("<" + strings.Repeat("m", 99)), Fault: TooLarge},
		{Kind: PresenceFrame, Bytes: []byte("<presence/>")},
	}, "EOF"}},
	{"too deep", "<a><b><c><d/></c></b></a><message><a><b><c></c></b></a></message><presence><a><b/></a></presence>", framed{[]Frame{
		{Kind: OtherFrame, Bytes: []byte("<a><b><c><d/></c></b></a>"), Fault: TooDeep},
		{Kind: MessageFrame, Bytes: []byte("<message><a><b><c></c></b></a></message>"), Fault: TooDeep},
		{Kind: PresenceFrame, Bytes: []byte("<presence><a><b/></a></presence>")},
	}, "EOF"}},
	{"broken while skipped", "<a><b><c><d><e></x></d></c></wrong>", framed{Err: broken(TagMismatch, 35)}},
	{"cut while skipped", "<message>" + strings.Repeat("x", 200), framed{Err: truncatedErr}},
}

// small are limits that the table reaches.
var small = Limits{Size: 100, Depth: 3}

func TestFramer(t *testing.T) {
	for _, c := range streams {
		t.Run(c.name, func(t *testing.T) {
			got := frameAll(strings.NewReader(c.stream), small)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			got = frameAll(iotest.DataErrReader(strings.NewReader(c.stream)), small)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("with the error beside the data (-want +got):\n%s", diff)
			}
			got = frameAll(iotest.OneByteReader(strings.NewReader(c.stream)), small)
			if diff := cmp.Diff(c.want, got, samePrefix()); diff != "" {
				t.Errorf("byte by byte (-want +got):\n%s", diff)
			}
		})
	}
}

// samePrefix takes two frames for equal whose faults showed after different reads, so
// that more or less of them was kept.
func samePrefix() cmp.Option {
	return cmp.Comparer(func(a, b Frame) bool {
		if a.Fault == NoFault && b.Fault == NoFault {
			return a.Kind == b.Kind && bytes.Equal(a.Bytes, b.Bytes)
		}
		return a.Fault != NoFault && b.Fault != NoFault && a.Kind == b.Kind &&
			(bytes.HasPrefix(a.Bytes, b.Bytes) || bytes.HasPrefix(b.Bytes, a.Bytes))
	})
}

// The frames of the captures are the elements that encoding/xml finds in them.
func TestFramerCaptures(t *testing.T) {
	for name, stream := range captures(t) {
		want, end := elements(stream)
		var got []string
		for _, frame := range frames(t, stream) {
			if frame.Kind == EndFrame {
				got = append(got, "end")
			} else {
				got = append(got, string(frame.Bytes))
			}
		}
		if end {
			want = append(want, "end")
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-encoding/xml +framer):\n%s", name, diff)
		}
	}
}

// elements returns the top-level elements that encoding/xml finds in a stream until it
// meets an error or something that RFC 6120 forbids, and whether it met the end.
func elements(stream []byte) (all []string, end bool) {
	d := xml.NewDecoder(io.MultiReader(strings.NewReader(streamHeader), bytes.NewReader(stream)))
	if _, err := d.RawToken(); err != nil {
		return nil, false
	}
	var open []xml.Name
	var start int64
	for {
		from := d.InputOffset() - int64(len(streamHeader))
		tok, err := d.RawToken()
		if err != nil {
			return all, false
		}
		to := d.InputOffset() - int64(len(streamHeader))
		switch tok := tok.(type) {
		case xml.StartElement:
			if len(open) == 0 {
				start = from
			}
			open = append(open, tok.Name)
		case xml.EndElement:
			if len(open) == 0 {
				return all, tok.Name == xml.Name{Space: "stream", Local: "stream"}
			}
			if open[len(open)-1] != tok.Name {
				return all, false
			}
			open = open[:len(open)-1]
			if len(open) == 0 {
				all = append(all, string(stream[start:to]))
			}
		case xml.CharData:
			if len(open) == 0 && strings.Trim(string(stream[from:to]), " \t\r\n") != "" {
				return all, false
			}
		default:
			if len(open) == 0 {
				return all, false
			}
		}
	}
}

// A giant in small pieces costs no more than its length, and its memory goes when it
// is used up.
func TestFramerGiant(t *testing.T) {
	giant := "<message><body>" + strings.Repeat("x", DefaultSize-100) + "</body></message>"
	tooLarge := "<message from='a'><body>" + strings.Repeat("y", 2*DefaultSize) + "</body></message>"
	r := iotest.HalfReader(strings.NewReader("<presence/>" + giant + "<presence/>" + tooLarge + "<presence/>"))
	f := NewFramer(r, Limits{})
	expect := func(kind FrameKind, n int, fault Fault) {
		t.Helper()
		frame, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		if frame.Kind != kind || len(frame.Bytes) != n || frame.Fault != fault {
			t.Fatalf("%v of %d bytes, %v; want %v of %d, %v", frame.Kind, len(frame.Bytes), frame.Fault, kind, n, fault)
		}
	}
	expect(PresenceFrame, 11, NoFault)
	expect(MessageFrame, len(giant), NoFault)
	expect(PresenceFrame, 11, NoFault)
	expect(MessageFrame, keepSize, TooLarge)
	if len(f.buf) > DefaultSize+1 {
		t.Errorf("buffer of %d bytes", len(f.buf))
	}
	expect(PresenceFrame, 11, NoFault)
	if _, err := f.Next(); err != io.EOF {
		t.Fatal(err)
	}
	if len(f.buf) != bufferSize {
		t.Errorf("buffer of %d bytes, want %d", len(f.buf), bufferSize)
	}
}

// countingReader delivers one byte at a time and no more than it has.
type countingReader struct {
	left  int
	reads int
}

func (r *countingReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	r.left--
	r.reads++
	p[0] = 'x'
	return 1, nil
}

// A stanza that comes byte by byte is looked at once: the scanner takes each byte and
// never asks for one again.
func TestFramerLooksOnce(t *testing.T) {
	const n = 300_000
	r := &countingReader{left: n}
	f := NewFramer(io.MultiReader(strings.NewReader("<message>"), r), Limits{Size: 2 * n})
	if _, err := f.Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if f.offset != n+int64(len("<message>")) || r.reads != n {
		t.Errorf("scanned %d bytes in %d reads, want %d", f.offset, r.reads, n)
	}
}

// An error of the reader that passes, like a deadline, loses nothing.
func TestFramerGoesOn(t *testing.T) {
	stream := "<message>" + strings.Repeat("x", 300) + "</message> <presence/>"
	for at := 1; at < len(stream); at++ {
		r := io.MultiReader(strings.NewReader(stream[:at]), iotest.ErrReader(os.ErrDeadlineExceeded))
		again := strings.NewReader(stream[at:])
		f := NewFramer(r, small)
		var got []FrameKind
		failed := 0
		for {
			frame, err := f.Next()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				failed++
				f.r = again
				continue
			}
			if err != nil {
				if err != io.EOF {
					t.Fatalf("cut at %d: %v", at, err)
				}
				break
			}
			got = append(got, frame.Kind)
		}
		if failed != 1 || len(got) != 2 || got[0] != MessageFrame || got[1] != PresenceFrame {
			t.Fatalf("cut at %d: %v after %d errors", at, got, failed)
		}
	}
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

func TestFramerNoProgress(t *testing.T) {
	if _, err := NewFramer(idleReader{}, Limits{}).Next(); err != io.ErrNoProgress {
		t.Errorf("got %v", err)
	}
}

func TestFramerAllocatesNothing(t *testing.T) {
	data := bytes.Join(corpus(t), []byte(" "))
	f := NewFramer(&looped{data: data, n: 1 << 30}, Limits{})
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := f.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a frame", n)
	}
}

// FuzzFramer cuts a stream at every byte and at one chosen place, with and without
// limits that it reaches, and compares the frames to the elements that encoding/xml
// finds.
func FuzzFramer(f *testing.F) {
	for _, c := range streams {
		f.Add([]byte(c.stream), uint16(len(c.stream)/2))
	}
	f.Add(bytes.Join(corpus(f)[:3], []byte("\n")), uint16(1000))
	f.Fuzz(func(t *testing.T, stream []byte, at uint16) {
		whole := frameAll(bytes.NewReader(stream), Limits{})
		cut := min(int(at), len(stream))
		twice := frameAll(io.MultiReader(bytes.NewReader(stream[:cut]), bytes.NewReader(stream[cut:])), Limits{})
		single := frameAll(iotest.OneByteReader(bytes.NewReader(stream)), Limits{})
		for _, other := range []framed{twice, single} {
			if diff := cmp.Diff(whole, other, samePrefix()); diff != "" {
				t.Fatalf("in pieces (-whole +pieces):\n%s", diff)
			}
		}
		compareElements(t, stream, whole)
		limited(t, stream, whole, cut)
	})
}

// compareElements checks the frames of a stream against encoding/xml, as far as it
// goes.
func compareElements(t *testing.T, stream []byte, got framed) {
	t.Helper()
	want, _ := elements(stream)
	for i, e := range want {
		if i >= len(got.Frames) {
			t.Fatalf("encoding/xml finds %q, the framer %s", e, got.Err)
		}
		if frame := got.Frames[i]; frame.Fault == NoFault && string(frame.Bytes) != e {
			t.Fatalf("encoding/xml finds %q, the framer %q", e, frame.Bytes)
		}
	}
}

// limited checks that limits change nothing but the frames beyond them.
func limited(t *testing.T, stream []byte, whole framed, cut int) {
	t.Helper()
	got := frameAll(io.MultiReader(bytes.NewReader(stream[:cut]), bytes.NewReader(stream[cut:])), small)
	if len(got.Frames) < len(whole.Frames) {
		t.Fatalf("%d of %d frames, then %s", len(got.Frames), len(whole.Frames), got.Err)
	}
	for i, want := range whole.Frames {
		frame := got.Frames[i]
		if frame.Fault == NoFault {
			if len(frame.Bytes) > small.Size || frame.Kind != want.Kind || !bytes.Equal(frame.Bytes, want.Bytes) {
				t.Fatalf("frame %q, want %q", frame.Bytes, want.Bytes)
			}
			continue
		}
		if len(frame.Bytes) > small.Size || !bytes.HasPrefix(want.Bytes, frame.Bytes) {
			t.Fatalf("%v: kept %q of %q", frame.Fault, frame.Bytes, want.Bytes)
		}
		if frame.Fault == TooLarge && want.Fault == NoFault && len(want.Bytes) <= small.Size {
			t.Fatalf("%d bytes are too many", len(want.Bytes))
		}
	}
	// A mismatch deeper than the limit goes unseen: names are not kept there.
	if got.Err != whole.Err && !strings.Contains(whole.Err, TagMismatch.String()) {
		t.Fatalf("ends with %q, want %q", got.Err, whole.Err)
	}
}

package stanza

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// read is what was read of a stream: its frames, what they hold, and how it ended.
type read struct {
	Frames    []Frame
	Envelopes []Envelope
	Refused   []string
	Err       string
}

// readAll reads a stream with next. An envelope that next leaves alone, or one of a
// refused stanza, shows in the result as it is.
func readAll(next func(*Envelope) (Frame, error)) (out read) {
	for {
		env := Envelope{Forward: ForwardedOther}
		frame, err := next(&env)
		var refused *StanzaError
		if err != nil && !errors.As(err, &refused) {
			out.Err = err.Error()
			return out
		}
		frame.Bytes = bytes.Clone(frame.Bytes)
		out.Frames = append(out.Frames, frame)
		out.Envelopes = append(out.Envelopes, env)
		if refused != nil {
			out.Refused = append(out.Refused, refused.Error())
		} else {
			out.Refused = append(out.Refused, "")
		}
	}
}

// twoPasses reads a stream with a Framer and a Decoder.
func twoPasses(r io.Reader, l Limits) read {
	f, d := NewFramer(r, l), NewDecoder(l)
	return readAll(func(env *Envelope) (Frame, error) {
		frame, err := f.Next()
		if err == nil && (frame.Kind == MessageFrame || frame.Kind == PresenceFrame) {
			if err = d.Decode(frame.Bytes, env); frame.Fault != NoFault {
				err = nil
			}
		}
		return frame, err
	})
}

// compareReader checks that a Reader reads what a Framer and a Decoder do, wherever
// the stream is cut. Only how much is left of a faulty element depends on the cuts.
func compareReader(t *testing.T, stream []byte, at int, l Limits) {
	t.Helper()
	want := twoPasses(bytes.NewReader(stream), l)
	at = min(at, len(stream))
	for _, c := range []struct {
		name string
		r    io.Reader
	}{
		{"whole", bytes.NewReader(stream)},
		{"in two", io.MultiReader(bytes.NewReader(stream[:at]), bytes.NewReader(stream[at:]))},
		{"byte by byte", iotest.OneByteReader(bytes.NewReader(stream))},
		{"with the error beside the data", iotest.DataErrReader(bytes.NewReader(stream))},
	} {
		r := NewReader(c.r, l)
		got := readAll(r.Next)
		if diff := cmp.Diff(want, got, samePrefix()); diff != "" {
			t.Fatalf("%s (-framer and decoder +reader):\n%s%q", c.name, diff, stream)
		}
		if _, err := r.Next(&Envelope{}); err == nil || err.Error() != got.Err {
			t.Fatalf("%s: ends with %s, then %v", c.name, got.Err, err)
		}
	}
}

// mixed is a stream of all frames that the decoder's tests know.
func mixed() []byte {
	var stream bytes.Buffer
	for _, c := range accepted {
		stream.WriteString(c.frame + "\n")
	}
	for _, c := range refused {
		// Only what a framer gets over.
		frame := []byte(c.frame)
		if got := frameAll(bytes.NewReader(frame), Limits{}); got.Err == io.EOF.Error() {
			stream.Write(frame)
		}
	}
	return stream.Bytes()
}

func TestReader(t *testing.T) {
	for _, c := range streams {
		t.Run(c.name, func(t *testing.T) {
			for at := range len(c.stream) {
				compareReader(t, []byte(c.stream), at, small)
			}
			compareReader(t, []byte(c.stream), 0, Limits{})
		})
	}
	t.Run("all frames", func(t *testing.T) {
		stream := mixed()
		if got := twoPasses(bytes.NewReader(stream), Limits{}); len(got.Frames) < len(accepted) || got.Err != "EOF" {
			t.Fatalf("%d frames, then %s", len(got.Frames), got.Err)
		}
		compareReader(t, stream, len(stream)/2, Limits{})
		compareReader(t, stream, len(stream)/3, tight)
	})
}

func TestReaderCaptures(t *testing.T) {
	for name, stream := range captures(t) {
		t.Run(name, func(t *testing.T) {
			compareReader(t, stream, len(stream)/2, Limits{})
		})
	}
	// More than one buffer, so that stanzas are cut at its end.
	t.Run("corpus", func(t *testing.T) {
		stream := bytes.Repeat(bytes.Join(corpus(t), []byte("\n")), 20)
		if len(stream) < 4*bufferSize {
			t.Fatalf("%d bytes, too few", len(stream))
		}
		compareReader(t, stream, 3*bufferSize/2, Limits{})
	})
}

// A stanza that is not UTF-8 must not lead the decoder to the bytes behind it, or
// behind the buffer.
func TestReaderEncoding(t *testing.T) {
	for _, c := range []string{
		"<message>\xEF</message><presence/>", "<message>\xEF\xBF</message><presence/>",
		"<message a='\xEF'/><presence/>", "<message><\xFF/></message><presence/>",
		"<message>\xEF\xBF\xBF</message><presence/>", "<message/>\xEF", "<message/><message>\xEF",
		"<message><![CDATA[\xEF]]></message><presence/>", "<message><body>\xC5</body></message><presence/>",
	} {
		for at := range len(c) {
			compareReader(t, []byte(c), at, Limits{})
		}
	}
}

func TestReaderAllocations(t *testing.T) {
	stanza := corpus(t)[0]
	r := NewReader(&looped{data: append(bytes.Clone(stanza), '\n'), n: 1 << 30}, Limits{})
	var env Envelope
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := r.Next(&env); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

// FuzzReader compares a Reader to a Framer and a Decoder.
func FuzzReader(f *testing.F) {
	for _, c := range streams {
		f.Add([]byte(c.stream), uint16(len(c.stream)/2))
	}
	for _, c := range accepted {
		f.Add([]byte(c.frame+"<presence/>"), uint16(len(c.frame)/2))
	}
	for _, c := range refused {
		f.Add([]byte(c.frame+"<presence/>"), uint16(len(c.frame)/2))
	}
	for _, c := range feedFrames {
		f.Add([]byte(c.frame+"<presence/>"), uint16(len(c.frame)/2))
	}
	f.Add(bytes.Join(corpus(f)[:3], []byte("\n")), uint16(1000))
	f.Fuzz(func(t *testing.T, stream []byte, at uint16) {
		compareReader(t, stream, int(at), tight)
		compareReader(t, stream, int(at), small)
	})
}

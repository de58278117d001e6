package stanza

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// streamHeader opens the stream in which every frame of the tests stands.
const streamHeader = `<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>`

// frames cuts a stream, behind its header, into copies of its frames.
func frames(tb testing.TB, stream []byte) []Frame {
	tb.Helper()
	f := NewFramer(bytes.NewReader(stream), Limits{})
	var all []Frame
	for {
		frame, err := f.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			tb.Fatal(err)
		}
		frame.Bytes = bytes.Clone(frame.Bytes)
		all = append(all, frame)
	}
}

// corpus returns the stanzas on which all parsing figures are taken: 811 bytes on
// average.
func corpus(tb testing.TB) [][]byte {
	tb.Helper()
	data, err := os.ReadFile("testdata/stanzas.xml")
	if err != nil {
		tb.Fatal(err)
	}
	_, data, found := bytes.Cut(data, []byte("'3BF96D32'>"))
	if !found {
		tb.Fatal("no stream header in the corpus")
	}
	var all [][]byte
	for _, frame := range frames(tb, data) {
		if frame.Kind == MessageFrame || frame.Kind == PresenceFrame {
			all = append(all, frame.Bytes)
		}
	}
	if len(all) != 20 {
		tb.Fatalf("%d stanzas in the corpus, want 20", len(all))
	}
	return all
}

// captures returns what component streams of real servers carried behind the
// handshake, by file name.
func captures(tb testing.TB) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob("testdata/captures/*/*.xml")
	if err != nil || len(names) == 0 {
		tb.Fatalf("no captures: %v", err)
	}
	all := make(map[string][]byte, len(names))
	for _, name := range names {
		if all[name], err = os.ReadFile(name); err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

package segment

import (
	"errors"
	"io"
	"testing"
)

func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, _, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAppendAndRead(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentSize: 200}
	l := mustOpen(t, o)
	for i := range 10 {
		if first, err := l.Append([]byte("payload of a pack"), 2); err != nil || first != uint64(1+2*i) {
			t.Fatal(first, err)
		}
	}
	r, err := l.Reader(4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for want := uint64(3); want < 21; want += 2 {
		if p, err := r.Next(); err != nil || p.First != want || p.Events != 2 || string(p.Payload) != "payload of a pack" {
			t.Fatalf("%+v, %v; want %d", p, err, want)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

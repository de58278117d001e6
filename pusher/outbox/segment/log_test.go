package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	if o.disk == nil {
		o.disk = unsynced{}
	}
	l, _, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustAppend(t testing.TB, l *Log, payload []byte, events int) Pack {
	t.Helper()
	first, err := l.Append(payload, events)
	if err != nil {
		t.Fatal(err)
	}
	return Pack{First: first, Events: events, Payload: bytes.Clone(payload)}
}

func mustReader(t testing.TB, l *Log, from uint64) *Reader {
	t.Helper()
	r, err := l.Reader(from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// readAll reads to the end.
func readAll(t testing.TB, r *Reader) (packs []Pack) {
	t.Helper()
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return packs
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Payload = bytes.Clone(p.Payload)
		packs = append(packs, p)
	}
}

// samePack is for where cmp.Diff takes too long.
func samePack(a, b Pack) bool {
	return a.First == b.First && a.Events == b.Events && bytes.Equal(a.Payload, b.Payload)
}

// noise returns n random bytes.
func noise(rnd *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, rnd.Uint64())
	}
	return b[:n]
}

// fill appends n packs of two or three events each, about four to a segment of
// 200 bytes.
func fill(t testing.TB, l *Log, n int) (packs []Pack) {
	t.Helper()
	for i := range n {
		packs = append(packs, mustAppend(t, l, fmt.Appendf(nil, "payload %d", len(packs)), 2+i%2))
	}
	return packs
}

const smallSegments = 200

func TestNewLogIsEmpty(t *testing.T) {
	o := Options{Dir: filepath.Join(t.TempDir(), "a", "b")}
	l, found, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if diff := cmp.Diff(Recovery{Segments: 1, Bytes: headerSize, First: 1, Next: 1}, found); diff != "" {
		t.Error(diff)
	}
	r := mustReader(t, l, 1)
	if p, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("read %+v, %v", p, err)
	}
	info, err := os.Stat(o.Dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	info, err = os.Stat(l.path(l.active()))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestReaderBeginsAtThePackThatHoldsTheEvent(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: smallSegments})
	packs := fill(t, l, 20)
	if len(l.segments) < 4 {
		t.Fatalf("%d segments", len(l.segments))
	}
	for i, p := range packs {
		for n := p.First; n < p.First+uint64(p.Events); n++ {
			if diff := cmp.Diff(packs[i:], readAll(t, mustReader(t, l, n))); diff != "" {
				t.Fatalf("from %d: %s", n, diff)
			}
		}
	}
	if rest := readAll(t, mustReader(t, l, l.Next())); len(rest) != 0 {
		t.Errorf("read %+v behind the end", rest)
	}
	if _, err := l.Reader(l.Next() + 1); err == nil {
		t.Error("a reader begins in the future")
	}
}

func TestReaderGoesOnAfterCatchingUp(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: smallSegments, disk: osDisk{}})
	r := mustReader(t, l, 1)
	for i := range 50 {
		want := mustAppend(t, l, bytes.Repeat([]byte{byte(i)}, 1+i*i), 1)
		if i%7 == 3 {
			if err := l.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff([]Pack{want}, readAll(t, r)); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestPackLargerThanSegmentAndReadAhead(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: smallSegments})
	var want []Pack
	for _, size := range []int{1, 300, chunk - recordSize, chunk, 3 * chunk, 9 * chunk, 10, 9 << 20, 5, 6} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(i * size >> 3)
		}
		want = append(want, mustAppend(t, l, payload, 1))
	}
	if cap(l.buf) > 8<<20 {
		t.Errorf("%d bytes are kept for appending", cap(l.buf))
	}
	r := mustReader(t, l, 1)
	got := readAll(t, r)
	if len(got) != len(want) {
		t.Fatalf("%d packs", len(got))
	}
	for i := range want {
		if got[i].First != want[i].First || !bytes.Equal(got[i].Payload, want[i].Payload) {
			t.Errorf("pack %d differs", i)
		}
	}
	if cap(r.scan.buf) > 8*chunk {
		t.Errorf("%d bytes are kept for reading", cap(r.scan.buf))
	}
}

func TestAppendRefuses(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir()})
	for _, c := range []struct {
		name    string
		payload []byte
		events  int
	}{
		{"no payload", nil, 1},
		{"no event", []byte("x"), 0},
		{"negative", []byte("x"), -1},
		{"more events than bytes", []byte("x"), 2},
		{"too large", make([]byte, MaxPayload+1), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if first, err := l.Append(c.payload, c.events); err == nil {
				t.Errorf("appended as %d", first)
			}
		})
	}
	if l.Next() != 1 || l.Size() != headerSize {
		t.Errorf("next %d, size %d", l.Next(), l.Size())
	}
}

func TestClosed(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir()})
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Append([]byte("x"), 1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := l.Rotate(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestTrim(t *testing.T) {
	o := Options{Dir: t.TempDir(), SegmentSize: smallSegments}
	l := mustOpen(t, o)
	packs := fill(t, l, 20)
	second, third := l.segments[1].first, l.segments[2].first
	before := l.Size()
	old := mustReader(t, l, 1)
	if freed, err := l.Trim(second - 1); freed != 0 || err != nil {
		t.Fatalf("freed %d of a segment with one event still wanted, %v", freed, err)
	}
	freed, err := l.Trim(third)
	if err != nil || freed == 0 || l.Size() != before-freed || l.First() != third {
		t.Fatalf("freed %d, %v; size %d of %d, first %d", freed, err, l.Size(), before, l.First())
	}
	if _, err := l.Reader(third - 1); !errors.Is(err, ErrTrimmed) {
		t.Error(err)
	}
	// A reader inside of a removed file reads that to its end, and then says so.
	for {
		p, err := old.Next()
		if errors.Is(err, ErrTrimmed) {
			break
		}
		if err != nil || p.First >= second {
			t.Fatalf("%+v, %v", p, err)
		}
	}
	if _, err := l.Trim(l.Next() + 100); err != nil {
		t.Fatal(err)
	}
	if len(l.segments) != 1 {
		t.Errorf("%d segments", len(l.segments))
	}
	last := readAll(t, mustReader(t, l, l.First()))
	if diff := cmp.Diff(packs[len(packs)-len(last):], last); diff != "" || len(last) == 0 {
		t.Error(diff)
	}
	names, err := filepath.Glob(filepath.Join(o.Dir, "*"))
	if err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestReaderAtTheEndOfATrimmedSegmentGoesOn(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir()})
	fill(t, l, 3)
	r := mustReader(t, l, 1)
	readAll(t, r)
	if err := l.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := l.Rotate(); err != nil { // of an empty one: nothing
		t.Fatal(err)
	}
	want := mustAppend(t, l, []byte("behind"), 1)
	if _, err := l.Trim(l.Next()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Pack{want}, readAll(t, r)); diff != "" {
		t.Error(diff)
	}
}

// TestModel compares random work, with reopening, against a list in memory.
func TestModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 7))
			o := Options{Dir: t.TempDir(), SegmentSize: 1 + rnd.Int64N(6000), disk: unsynced{}}
			l := mustOpen(t, o)
			var model []Pack
			next, wanted := uint64(1), uint64(1)
			for range 300 {
				switch rnd.IntN(12) {
				case 0:
					if err := l.Rotate(); err != nil {
						t.Fatal(err)
					}
				case 1:
					wanted += rnd.Uint64N(next - wanted + 1)
					if _, err := l.Trim(wanted); err != nil {
						t.Fatal(err)
					}
					if l.First() > wanted || len(l.segments) > 1 && l.segments[1].first <= wanted {
						t.Fatalf("trimmed before %d, first is %d", wanted, l.First())
					}
				case 2:
					if rnd.IntN(2) == 0 {
						_ = l.Close()
					}
					torn := rnd.Int64N(3) * rnd.Int64N(40)
					f, err := os.OpenFile(l.path(l.active()), os.O_WRONLY|os.O_APPEND, 0)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.Write(make([]byte, torn)); err != nil {
						t.Fatal(err)
					}
					_ = f.Close()
					var found Recovery
					if l, found, err = Open(o); err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					if len(found.Holes) != 0 || (torn > 0) != (len(found.Cuts) == 1) || torn > 0 && found.Cuts[0].Bytes != torn {
						t.Fatalf("%d bytes torn: %+v", torn, found)
					}
				case 3:
					first := l.First()
					from := first + rnd.Uint64N(next-first+1)
					want := model
					for len(want) > 0 && want[0].First+uint64(want[0].Events) <= from {
						want = want[1:]
					}
					if got := readAll(t, mustReader(t, l, from)); !slices.EqualFunc(want, got, samePack) {
						t.Fatalf("from %d: %s", from, cmp.Diff(want, got))
					}
				default:
					payload := noise(rnd, 1+rnd.IntN(1+rnd.IntN(9000)))
					p := mustAppend(t, l, payload, 1+rnd.IntN(min(len(payload), 50)))
					if p.First != next {
						t.Fatalf("number %d, want %d", p.First, next)
					}
					next += uint64(p.Events)
					model = append(model, p)
				}
				if l.Next() != next || l.First() > wanted {
					t.Fatalf("next %d, want %d; first %d, wanted %d", l.Next(), next, l.First(), wanted)
				}
			}
			var onDisk int64
			for _, s := range l.segments {
				info, err := os.Stat(l.path(s))
				if err != nil {
					t.Fatal(err)
				}
				onDisk += info.Size()
			}
			if onDisk != l.Size() {
				t.Errorf("size %d, on disk %d", l.Size(), onDisk)
			}
		})
	}
}

func TestReadersWhileAppending(t *testing.T) {
	const packs, readers = 1500, 3
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 4000})
	var wg sync.WaitGroup
	var mu sync.Mutex
	cursors := make([]uint64, readers)
	grown := make([]chan struct{}, readers)
	for i := range readers {
		cursors[i] = 1
		grown[i] = make(chan struct{}, 1)
		r := mustReader(t, l, 1)
		wg.Go(func() {
			next := uint64(1)
			for next <= packs*2 {
				p, err := r.Next()
				if errors.Is(err, io.EOF) {
					<-grown[i]
					continue
				}
				if err != nil || p.First != next || p.Events != 2 || len(p.Payload) != int(next%700)+2 || p.Payload[0] != byte(next) {
					t.Errorf("want %d: %+v, %v", next, p, err)
					return
				}
				next += 2
				mu.Lock()
				cursors[i] = next
				mu.Unlock()
				if next%128 == 1 {
					if again, err := l.Reader(next); err != nil {
						t.Error(err)
						return
					} else {
						_ = again.Close()
					}
				}
			}
		})
	}
	wg.Go(func() {
		for slowest := uint64(0); slowest <= packs*2 && !t.Failed(); runtime.Gosched() {
			mu.Lock()
			slowest = slices.Min(cursors)
			mu.Unlock()
			if _, err := l.Trim(slowest); err != nil {
				t.Error(err)
			}
			if first := l.First(); first > slowest || l.Size() < headerSize || l.Next() < slowest {
				t.Errorf("first %d, slowest %d, next %d, size %d", first, slowest, l.Next(), l.Size())
			}
		}
	})
	payload := make([]byte, 1000)
	for n := uint64(1); n <= packs*2; n += 2 {
		payload[0] = byte(n)
		if _, err := l.Append(payload[:n%700+2], 2); err != nil {
			t.Error(err)
			break
		}
		for _, g := range grown {
			select {
			case g <- struct{}{}:
			default:
			}
		}
	}
	for _, g := range grown {
		close(g)
	}
	wg.Wait()
	if l.Next() != packs*2+1 {
		t.Errorf("next %d", l.Next())
	}
	if freed, err := l.Trim(l.Next()); err != nil || freed == 0 && l.First() == 1 {
		t.Errorf("freed %d, %v", freed, err)
	}
}

func TestSurplus(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: 1000})
	if got := l.Surplus(0); got != 1 {
		t.Errorf("of an empty log: %d", got)
	}
	for range 10 { // one of them fills a file
		if _, err := l.Append(make([]byte, 900), 3); err != nil {
			t.Fatal(err)
		}
	}
	for size, want := range map[int64]uint64{0: 28, l.Size(): 1, l.Size() - 1: 4, l.Size() * 2: 1, l.Size()/2 + 1: 16, l.Size() / 2: 16, l.Size()/2 - 1: 19} {
		if got := l.Surplus(size); got != want {
			t.Errorf("for %d of %d bytes: %d, want %d", size, l.Size(), got, want)
		}
	}
	if _, err := l.Trim(l.Surplus(l.Size() / 2)); err != nil {
		t.Fatal(err)
	}
	if l.Size() != 5*(48+24+900) {
		t.Errorf("%d bytes are left", l.Size())
	}
}

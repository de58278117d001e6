package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// specimen is a finished log whose files tests damage: two sealed segments and a
// last one.
type specimen struct {
	packs []Pack
	files map[string][]byte
	names []string // ascending
	end   uint64
}

func newSpecimen(t testing.TB) *specimen {
	t.Helper()
	dir := t.TempDir()
	l := mustOpen(t, Options{Dir: dir, SegmentSize: smallSegments})
	s := &specimen{packs: fill(t, l, 11), files: map[string][]byte{}, end: l.Next()}
	for _, segment := range l.segments {
		b, err := os.ReadFile(l.path(segment))
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(l.path(segment))
		s.files[name] = b
		s.names = append(s.names, name)
	}
	if len(s.names) != 3 {
		t.Fatalf("%d segments", len(s.names))
	}
	return s
}

// write lays the files out, with the one that was changed; nil leaves it out.
func (s *specimen) write(t testing.TB, dir, name string, changed []byte) {
	t.Helper()
	old, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for n, b := range s.files {
		if n == name {
			b = changed
		}
		if b == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// outcome is what became of each event of a specimen; together they are all.
type outcome struct {
	refused bool   // Open had to be told to skip
	holes   bool   // Open went on and reported what readers will meet
	read    []Pack // intact
	skipped uint64 // events that a reader reported
	cut     uint64 // events at the end of the log, reported by Open
}

// examine opens the damaged log, accepting the loss if it has to, reads all and
// fails unless every event was read as written or reported.
func (s *specimen) examine(t testing.TB, dir string) (got outcome) {
	t.Helper()
	o := Options{Dir: dir, SegmentSize: smallSegments, disk: unsynced{}}
	l, found, err := Open(o)
	var corrupt *CorruptionError
	if errors.As(err, &corrupt) {
		if !strings.HasPrefix(corrupt.File, dir) || corrupt.Next < corrupt.First || corrupt.Next > s.end || corrupt.Reason == "" {
			t.Errorf("unclear: %+v", corrupt)
		}
		got.refused = true
		o.Skip = true
		l, found, err = Open(o)
		if err == nil && len(found.Holes) == 0 {
			t.Error("what was refused is not reported when it is accepted")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	got.holes = !got.refused && len(found.Holes) > 0
	if got.cut = s.end - l.Next(); got.cut > 0 && len(found.Cuts) == 0 && !got.refused {
		t.Errorf("the log ends at %d instead of %d, and Open said %+v", l.Next(), s.end, found)
	}
	got.read, got.skipped = s.account(t, l, nil)

	// It works from here on, and what was accepted is not met again.
	added := mustAppend(t, l, []byte("behind"), 3)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o.Skip = false
	l, found, err = Open(o)
	if err != nil || len(found.Cuts)+len(found.Holes) > 0 {
		t.Fatalf("opened again: %+v, %v", found, err)
	}
	defer l.Close()
	again, skipped := s.account(t, l, &added)
	if skipped != got.skipped {
		t.Errorf("skipped %d events, then %d", got.skipped, skipped)
	}
	if diff := cmp.Diff(append(got.read[:len(got.read):len(got.read)], added), again); diff != "" {
		t.Error(diff)
	}
	return got
}

// account reads the whole log and fails unless each event is read as written, or
// reported as not readable.
func (s *specimen) account(t testing.TB, l *Log, added *Pack) (read []Pack, skipped uint64) {
	t.Helper()
	r, err := l.Reader(l.First())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want := map[uint64]Pack{}
	for _, p := range s.packs {
		want[p.First] = p
	}
	if added != nil {
		want[added.First] = *added
	}
	next := l.First()
	for range 1000 {
		p, err := r.Next()
		var corrupt *CorruptionError
		switch {
		case err == nil:
			if p.First != next || !samePack(p, want[p.First]) {
				t.Fatalf("at %d read %+v", next, p)
			}
			next += uint64(p.Events)
			p.Payload = bytes.Clone(p.Payload)
			read = append(read, p)
		case errors.Is(err, io.EOF):
			if next != l.Next() {
				t.Fatalf("at the end at %d, the log ends at %d", next, l.Next())
			}
			return read, skipped
		case errors.As(err, &corrupt):
			if _, again := r.Next(); !errors.Is(again, err) {
				t.Errorf("then %v", again)
			}
			if corrupt.First != next {
				t.Fatalf("at %d: %v", next, corrupt)
			}
			n := r.Skip()
			next += n
			skipped += n
			if r.Skip() != 0 {
				t.Error("skipped twice")
			}
		default:
			t.Fatal(err)
		}
	}
	t.Fatal("the reader does not come to an end")
	return nil, 0
}

// offsets returns where the records of a file begin, and its end.
func offsets(b []byte) (at []int) {
	for off := headerSize; off < len(b); off += recordSize + int(binary.LittleEndian.Uint32(b[off:])) {
		at = append(at, off)
	}
	return append(at, len(b))
}

func (s *specimen) events(packs []Pack) (n uint64) {
	for _, p := range packs {
		n += uint64(p.Events)
	}
	return n
}

func TestUndamaged(t *testing.T) {
	s := newSpecimen(t)
	dir := t.TempDir()
	s.write(t, dir, "", nil)
	if diff := cmp.Diff(outcome{read: s.packs}, s.examine(t, dir), cmp.AllowUnexported(outcome{})); diff != "" {
		t.Error(diff)
	}
}

// TestTruncatedLast cuts the last file at every byte: exactly the whole records
// before are recovered and the rest is reported.
func TestTruncatedLast(t *testing.T) {
	s := newSpecimen(t)
	name := s.names[2]
	whole := s.files[name]
	at := offsets(whole)
	if len(at) < 4 {
		t.Fatal("too few records")
	}
	dir := t.TempDir()
	for n := headerSize; n < len(whole); n++ {
		s.write(t, dir, name, whole[:n])
		lost := 0
		for _, off := range at[1:] {
			if n < off {
				lost++
			}
		}
		keep := len(s.packs) - lost
		l, found, err := Open(Options{Dir: dir, SegmentSize: smallSegments, disk: unsynced{}})
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		var wantCut []Cut
		if off := at[len(at)-1-lost]; off < n {
			wantCut = []Cut{{File: filepath.Join(dir, name), Offset: int64(off), Bytes: int64(n - off)}}
		}
		if diff := cmp.Diff(wantCut, found.Cuts); diff != "" || len(found.Holes) != 0 {
			t.Errorf("%d bytes: %v %s", n, found, diff)
		}
		if got := readAll(t, mustReader(t, l, 1)); !cmp.Equal(got, s.packs[:keep]) {
			t.Errorf("%d bytes: %s", n, cmp.Diff(s.packs[:keep], got))
		}
		if p := mustAppend(t, l, []byte("next"), 1); p.First != s.packs[keep].First {
			t.Errorf("%d bytes: next is %d, want %d", n, p.First, s.packs[keep].First)
		}
		_ = l.Close()
		l = mustOpen(t, Options{Dir: dir})
		if got := readAll(t, mustReader(t, l, 1)); len(got) != keep+1 {
			t.Errorf("%d bytes: %d packs after opening again", n, len(got))
		}
		_ = l.Close()
	}
	// Within the header: never left by a crash, hence refused.
	for n := range headerSize {
		s.write(t, dir, name, whole[:n])
		if got := s.examine(t, dir); !got.refused || got.skipped != 0 {
			t.Errorf("%d bytes: %+v", n, got)
		}
	}
}

// TestTruncatedEarlier cuts a sealed file at every byte: it is always noticed at
// Open, and only the records cut are lost.
func TestTruncatedEarlier(t *testing.T) {
	s := newSpecimen(t)
	name := s.names[1]
	whole := s.files[name]
	at := offsets(whole)
	first, last := s.segmentPacks(1)
	dir := t.TempDir()
	for n := range whole {
		s.write(t, dir, name, whole[:n])
		kept := 0
		for _, off := range at[1:] {
			if off <= n {
				kept++
			}
		}
		got := s.examine(t, dir)
		want := append(s.packs[:first+kept:first+kept], s.packs[last:]...)
		lost := s.events(s.packs[first+kept : last])
		if diff := cmp.Diff(outcome{refused: true, read: want, skipped: lost}, got, cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%d bytes: %s", n, diff)
		}
	}
}

// segmentPacks returns which packs are in a file.
func (s *specimen) segmentPacks(file int) (from, to int) {
	for i := range file {
		from += len(offsets(s.files[s.names[i]])) - 1
	}
	return from, from + len(offsets(s.files[s.names[file]])) - 1
}

// TestFlipped changes every byte of every file in several ways: everything but
// the record that has it is read, and that one is reported.
func TestFlipped(t *testing.T) {
	s := newSpecimen(t)
	dir := t.TempDir()
	for file, name := range s.names {
		whole := s.files[name]
		at := offsets(whole)
		from, to := s.segmentPacks(file)
		for i := range whole {
			hit := from // the pack that has the byte
			for hit < to && i >= at[hit-from+1] {
				hit++
			}
			for _, mask := range []byte{0x01, 0xff} {
				changed := bytes.Clone(whole)
				changed[i] ^= mask
				s.write(t, dir, name, changed)
				want := outcome{read: append(s.packs[:hit:hit], s.packs[hit+1:]...)}
				events := uint64(s.packs[hit].Events)
				switch {
				case i < headerSize: // the name has what the header said
					want.refused, want.read = true, s.packs
				case hit == len(s.packs)-1: // as if it had never been written whole
					want.cut = events
				case file == len(s.names)-1:
					want.holes, want.skipped = true, events
				default: // found when it is read
					want.skipped = events
				}
				if diff := cmp.Diff(want, s.examine(t, dir), cmp.AllowUnexported(outcome{})); diff != "" {
					t.Fatalf("file %d, byte %d, mask %#x: %s", file, i, mask, diff)
				}
			}
		}
	}
}

// TestBytesAddedOrRemoved moves what is behind to where it is not expected.
func TestBytesAddedOrRemoved(t *testing.T) {
	s := newSpecimen(t)
	dir := t.TempDir()
	for file, name := range s.names {
		whole := s.files[name]
		at := offsets(whole)
		from, _ := s.segmentPacks(file)
		record := uint64(s.packs[from+1].Events)
		for _, c := range []struct {
			name    string
			changed []byte
			lost    uint64 // events, at most
		}{
			{"bytes before a record", splice(whole, at[1], at[1], []byte("garbage")), 0},
			{"zeros before a record", splice(whole, at[1], at[1], make([]byte, 100)), 0},
			{"a record twice", splice(whole, at[1], at[1], whole[at[0]:at[1]]), 0},
			{"a record removed", splice(whole, at[1], at[2], nil), record},
			{"a byte of a header removed", splice(whole, at[1]+5, at[1]+6, nil), record},
			{"a byte of a payload removed", splice(whole, at[1]+recordSize+2, at[1]+recordSize+3, nil), record},
			{"a record of zeros", splice(whole, at[1], at[2], make([]byte, at[2]-at[1])), record},
		} {
			t.Run(fmt.Sprintf("%s in file %d", c.name, file), func(t *testing.T) {
				s.write(t, dir, name, c.changed)
				got := s.examine(t, dir)
				// A file that is now shorter or longer than when it was sealed is
				// refused or cut; its last record may go with that.
				allowed := c.lost
				if file < len(s.names)-1 && len(c.changed) > len(whole) {
					_, to := s.segmentPacks(file)
					for i := to - 1; i >= from && at[i-from+1]+len(c.changed)-len(whole) > len(whole); i-- {
						allowed += uint64(s.packs[i].Events)
					}
				}
				if got.skipped+got.cut > allowed || s.events(got.read)+got.skipped+got.cut != s.end-1 {
					t.Errorf("at most %d may be lost: %+v", allowed, got)
				}
				if file == len(s.names)-1 && !got.holes {
					t.Error("not reported at the start")
				}
			})
		}
	}
}

func splice(b []byte, from, to int, put []byte) []byte {
	return append(append(bytes.Clone(b[:from]), put...), b[to:]...)
}

func TestGarbageBehind(t *testing.T) {
	s := newSpecimen(t)
	dir := t.TempDir()
	for file, name := range s.names {
		for _, c := range []struct {
			name    string
			garbage []byte
		}{
			{"one byte", []byte{1}},
			{"zeros", make([]byte, 5000)},
			{"half a record", s.files[name][headerSize : headerSize+recordSize+3]},
		} {
			t.Run(fmt.Sprintf("%s, file %d", c.name, file), func(t *testing.T) {
				s.write(t, dir, name, append(bytes.Clone(s.files[name]), c.garbage...))
				if diff := cmp.Diff(outcome{read: s.packs}, s.examine(t, dir), cmp.AllowUnexported(outcome{})); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestNothingLeftOfTheFirstRecord begins a file with garbage and a record that is
// known to have been there and cannot be read: no event is left in it, so there is
// nothing to seal.
func TestNothingLeftOfTheFirstRecord(t *testing.T) {
	s := newSpecimen(t)
	name := s.names[2]
	at := offsets(s.files[name])
	changed := splice(s.files[name][:at[1]], at[0], at[0], []byte("garbage"))
	changed[len(changed)-1]++
	dir := t.TempDir()
	s.write(t, dir, name, changed)
	from, _ := s.segmentPacks(2)
	want := outcome{holes: true, read: s.packs[:from], cut: s.events(s.packs[from:])}
	if diff := cmp.Diff(want, s.examine(t, dir), cmp.AllowUnexported(outcome{})); diff != "" {
		t.Error(diff)
	}
}

// TestDamageWhileRunning damages what has been appended, and then more is: only
// what cannot be read is skipped.
func TestDamageWhileRunning(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir()})
	packs := fill(t, l, 2)
	f, err := os.OpenFile(l.path(l.active()), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0}, l.active().size-1); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	r := mustReader(t, l, 1)
	behind := mustAppend(t, l, []byte("behind"), 1)
	if p, err := r.Next(); err != nil || !samePack(p, packs[0]) {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = r.Next()
	var corrupt *CorruptionError
	if !errors.As(err, &corrupt) || corrupt.First != packs[1].First || corrupt.Next != behind.First {
		t.Fatal(err)
	}
	if n := r.Skip(); n != uint64(packs[1].Events) {
		t.Errorf("skipped %d", n)
	}
	if diff := cmp.Diff([]Pack{behind}, readAll(t, r)); diff != "" {
		t.Error(diff)
	}
	// A reader that begins behind it is not concerned.
	if diff := cmp.Diff([]Pack{behind}, readAll(t, mustReader(t, l, behind.First))); diff != "" {
		t.Error(diff)
	}
}

// TestReaderBeginsInDamage wants an event that cannot be read: the events before
// it are not reported, it and those behind it are.
func TestReaderBeginsInDamage(t *testing.T) {
	for _, c := range []struct {
		name string
		at   int // of the byte in the record
	}{{"header", 9}, {"payload", recordSize}} {
		t.Run(c.name, func(t *testing.T) {
			l := mustOpen(t, Options{Dir: t.TempDir()})
			fill(t, l, 3) // 1-2, 3-5, 6-7
			b, err := os.ReadFile(l.path(l.active()))
			if err != nil {
				t.Fatal(err)
			}
			b[offsets(b)[1]+c.at] ^= 0x10
			if err := os.WriteFile(l.path(l.active()), b, 0o600); err != nil {
				t.Fatal(err)
			}
			for from, want := range map[uint64]uint64{3: 3, 4: 2, 5: 1} {
				r := mustReader(t, l, from)
				_, err := r.Next()
				var corrupt *CorruptionError
				if c.name == "payload" {
					want = 3 // its header says that it is one pack
				}
				if !errors.As(err, &corrupt) || r.Skip() != want {
					t.Errorf("from %d: %v", from, err)
				}
				if p, err := r.Next(); err != nil || p.First != 6 {
					t.Errorf("from %d: then %+v, %v", from, p, err)
				}
			}
		})
	}
}

// TestFakeRecordInPayload puts what looks like records into payloads, as somebody
// who writes messages could: the salt tells them from real ones.
func TestFakeRecordInPayload(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, Options{Dir: dir})
	fake := record{length: 3, events: 3, first: 4, sum: checksum(0, []byte("abc"))}.append(nil, 0)
	p := mustAppend(t, l, bytes.Repeat(append(fake, "abc"...), 5), 3)
	path := l.path(l.active())
	_ = l.Close()
	if err := os.Truncate(path, headerSize+recordSize+int64(len(p.Payload))-1); err != nil {
		t.Fatal(err)
	}
	l, found, err := Open(Options{Dir: dir})
	if err != nil || len(found.Cuts) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	defer l.Close()
	if got := readAll(t, mustReader(t, l, 1)); len(got) != 0 {
		t.Errorf("read %+v", got)
	}
}

func TestMissingSegment(t *testing.T) {
	s := newSpecimen(t)
	dir := t.TempDir()
	from, to := s.segmentPacks(1)

	s.write(t, dir, s.names[1], nil)
	want := outcome{refused: true, read: append(s.packs[:from:from], s.packs[to:]...), skipped: s.events(s.packs[from:to])}
	if diff := cmp.Diff(want, s.examine(t, dir), cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("in the middle: %s", diff)
	}
	s.write(t, dir, s.names[1], nil)
	_, _, err := Open(Options{Dir: dir})
	var corrupt *CorruptionError
	if !errors.As(err, &corrupt) || corrupt.First != s.packs[from].First || corrupt.Next != s.packs[to].First ||
		!strings.Contains(err.Error(), "missing") || !strings.Contains(err.Error(), "accept the loss") {
		t.Errorf("%v", err)
	}

	s.write(t, dir, s.names[0], nil) // like trimmed
	want = outcome{read: s.packs[from:]}
	if diff := cmp.Diff(want, s.examine(t, dir), cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("first: %s", diff)
	}

	// The last one leaves no trace in the log. Whoever keeps cursors notices.
	_, last := s.segmentPacks(1)
	s.write(t, dir, s.names[2], nil)
	l, found, err := Open(Options{Dir: dir, SegmentSize: smallSegments, Floor: s.end})
	if err != nil || len(found.Holes) != 1 || found.Holes[0].Events() != s.events(s.packs[last:]) || l.Next() != s.end {
		t.Fatalf("last: %+v, %v", found, err)
	}
	read, skipped := s.account(t, l, nil)
	if len(read) != last || skipped != found.Holes[0].Events() {
		t.Errorf("last: read %d, skipped %d", len(read), skipped)
	}
	_ = l.Close()
	if _, found, err = Open(Options{Dir: dir, Floor: s.end}); err != nil || len(found.Holes) != 0 {
		t.Errorf("last, opened again: %+v, %v", found, err)
	}
}

func TestFloorOfANewLog(t *testing.T) {
	l := mustOpen(t, Options{Dir: t.TempDir(), Floor: 77})
	if p := mustAppend(t, l, []byte("x"), 1); p.First != 77 || l.First() != 77 {
		t.Errorf("%+v, first %d", p, l.First())
	}
	r, err := l.Reader(76)
	if !errors.Is(err, ErrTrimmed) {
		t.Errorf("%v, %v", r, err)
	}
}

func TestLaterVersionIsRefused(t *testing.T) {
	s := newSpecimen(t)
	dir := t.TempDir()
	for _, name := range s.names {
		later := bytes.Clone(s.files[name])
		binary.LittleEndian.PutUint32(later[8:], 2)
		binary.LittleEndian.PutUint32(later[headerSize-4:], 0x12345678)
		s.write(t, dir, name, later)
		for _, skip := range []bool{false, true} {
			_, _, err := Open(Options{Dir: dir, Skip: skip})
			var version *VersionError
			if !errors.As(err, &version) || version.Version != 2 || version.File != filepath.Join(dir, name) ||
				!strings.Contains(err.Error(), "run the version that wrote it") {
				t.Errorf("%v", err)
			}
		}
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(b, later) {
			t.Errorf("it was changed: %v", err)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	s := newSpecimen(t)
	dir := t.TempDir()
	for _, c := range []struct {
		name, file, want string
	}{
		{"other name", "backup.seg", "backup.seg is no segment"},
		{"number without its zeros", "1-00000000.seg", "is no segment"},
		{"event 0", fileName(0, 1), "is no segment"},
		{"the same events twice", fileName(1, 1), "both begin with event 1"},
		{"not ours", "state.db", ""},
		{"unfinished", fileName(99, 1) + ".tmp", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.write(t, dir, "", nil)
			path := filepath.Join(dir, c.file)
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			l, _, err := Open(Options{Dir: dir})
			if err == nil {
				_ = l.Close()
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			_, err = os.Stat(path)
			if removed := errors.Is(err, os.ErrNotExist); removed != (c.name == "unfinished") {
				t.Errorf("removed: %v", removed)
			}
		})
	}
}

// FuzzDamage applies any series of damages to the files of a log; whatever comes
// of it, each event is read as written or reported.
func FuzzDamage(f *testing.F) {
	f.Add([]byte{0, 0, 60, 1})
	f.Add([]byte{1, 2, 80, 0, 2, 1, 50, 9})
	f.Add([]byte{3, 1, 70, 40, 0, 2, 0, 255})
	s := newSpecimen(f)
	f.Fuzz(func(t *testing.T, ops []byte) {
		dir := t.TempDir()
		damaged := &specimen{packs: s.packs, names: s.names, end: s.end, files: map[string][]byte{}}
		for name, b := range s.files {
			damaged.files[name] = bytes.Clone(b)
		}
		for ; len(ops) >= 4; ops = ops[4:] {
			name := s.names[ops[1]%3]
			b := damaged.files[name]
			at := min(int(ops[2]), len(b))
			switch ops[0] % 4 {
			case 0: // overwrite
				if at < len(b) {
					b[at] = ops[3]
				}
			case 1: // truncate; below the header of the last, nothing is left to say how much there was
				b = b[:min(len(b), max(at, headerSize))]
			case 2: // insert
				b = splice(b, at, at, bytes.Repeat([]byte{ops[3]}, 1+int(ops[3]%40)))
			case 3: // remove
				b = splice(b, at, min(len(b), at+int(ops[3])), nil)
			}
			damaged.files[name] = b
		}
		for _, b := range damaged.files {
			// More than one byte of version and checksum: refused, as tested above.
			if _, version, reason := decodeHeader(b); version != Version && reason == "" {
				return
			}
		}
		damaged.write(t, dir, "", nil)
		l, found, err := Open(Options{Dir: dir, disk: unsynced{}})
		if err == nil {
			_ = l.Close()
			// Whole records gone from the end of the last file leave no trace there.
			if found.Next == s.end || len(found.Cuts) > 0 {
				damaged.write(t, dir, "", nil)
				damaged.examine(t, dir)
			}
			return
		}
		damaged.examine(t, dir)
	})
}

// FuzzOpen opens any bytes as a segment, behind a header that is right or not.
func FuzzOpen(f *testing.F) {
	const salt = 7
	h := header{salt: salt, first: 1}
	good := record{length: 2, events: 1, first: 1, sum: checksum(salt, []byte("ab"))}.append(nil, salt)
	good = append(good, "ab"...)
	f.Add(good, true)
	f.Add(append(h.encode(), good...), false)
	f.Add(append(good, good...), true)
	f.Add(append([]byte{0}, good...), true)
	f.Fuzz(func(t *testing.T, b []byte, withHeader bool) {
		if withHeader {
			b = append(h.encode(), b...)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName(1, salt)), b, 0o600); err != nil {
			t.Fatal(err)
		}
		var corrupt *CorruptionError
		var version *VersionError
		l, _, err := Open(Options{Dir: dir, disk: unsynced{}})
		if errors.As(err, &version) {
			return
		}
		if errors.As(err, &corrupt) {
			l, _, err = Open(Options{Dir: dir, Skip: true, disk: unsynced{}})
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		mustAppend(t, l, []byte("x"), 1)
		r := mustReader(t, l, 1)
		next := uint64(1)
		for {
			p, err := r.Next()
			if errors.As(err, &corrupt) {
				next += r.Skip()
				continue
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || p.First != next {
				t.Fatalf("at %d: %+v, %v", next, p, err)
			}
			next += uint64(p.Events)
		}
		if next != l.Next() {
			t.Errorf("read up to %d of %d", next, l.Next())
		}
	})
}

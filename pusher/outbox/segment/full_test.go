package segment

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scriptDisk fails the operations that a test asks it to, once each.
type scriptDisk struct {
	unsynced
	failing map[string]error // by operation
	calls   []string
}

type scriptFile struct {
	unsyncedFile
	disk *scriptDisk
}

func (d *scriptDisk) call(op string) error {
	d.calls = append(d.calls, op)
	err := d.failing[op]
	delete(d.failing, op)
	return err
}

func (d *scriptDisk) Open(path string, flag int) (file, error) {
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	if err := d.call(op); err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f, err := d.unsynced.Open(path, flag)
	if err != nil {
		return nil, err
	}
	return scriptFile{f.(unsyncedFile), d}, nil
}

func (d *scriptDisk) Rename(from, to string) error {
	if err := d.call("rename"); err != nil {
		return err
	}
	return d.unsynced.Rename(from, to)
}

func (d *scriptDisk) Remove(path string) error {
	if err := d.call("remove"); err != nil {
		return err
	}
	return d.unsynced.Remove(path)
}

func (d *scriptDisk) SyncDir(string) error { return d.call("syncdir") }

func (f scriptFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.disk.call("write"); err != nil {
		n, _ := f.unsyncedFile.WriteAt(b[:len(b)/2], off)
		return n, err
	}
	return f.unsyncedFile.WriteAt(b, off)
}

func (f scriptFile) Truncate(size int64) error {
	if err := f.disk.call("truncate"); err != nil {
		return err
	}
	return f.unsyncedFile.Truncate(size)
}

func (f scriptFile) Datasync() error { return f.disk.call("sync") }

// TestAppendAfterFailure lets single operations fail: Append says so, nothing of
// the refused pack is read, and the next Append works in the file it should.
func TestAppendAfterFailure(t *testing.T) {
	full := syscall.ENOSPC
	for _, c := range []struct {
		name     string
		failing  map[string]error
		failures int // of Append until it works
		files    int // then
		calls    string
	}{
		{"disk full", map[string]error{"write": full}, 1, 1,
			"write truncate | write sync"},
		{"disk full, and the half record stays", map[string]error{"write": full, "truncate": syscall.EIO}, 1, 2,
			"write truncate | write truncate sync create write sync rename syncdir write sync"},
		{"sync", map[string]error{"sync": syscall.EIO}, 1, 2,
			"write sync truncate | write truncate sync create write sync rename syncdir write sync"},
		{"sync, then no room for a new file", map[string]error{"sync": syscall.EIO, "create": full}, 2, 2,
			"write sync truncate | write truncate sync create | create write sync rename syncdir write sync"},
		{"sync, then the name", map[string]error{"sync": syscall.EIO, "rename": full}, 2, 2,
			"write sync truncate | write truncate sync create write sync rename | create write sync rename syncdir write sync"},
		{"sync, then the directory", map[string]error{"sync": syscall.EIO, "syncdir": full}, 2, 2,
			"write sync truncate | write truncate sync create write sync rename syncdir | create write sync rename syncdir write sync"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &scriptDisk{}
			o := Options{Dir: t.TempDir(), disk: d}
			l := mustOpen(t, o)
			kept := fill(t, l, 3)
			r := mustReader(t, l, 1)
			d.failing, d.calls = c.failing, nil
			var calls []string
			for range c.failures {
				first, err := l.Append([]byte("refused"), 1)
				if err == nil || !strings.Contains(err.Error(), o.Dir) {
					t.Fatalf("appended as %d, %v", first, err)
				}
				calls = append(calls, strings.Join(d.calls, " "))
				d.calls = nil
				if l.Next() != 8 {
					t.Errorf("next is %d", l.Next())
				}
			}
			kept = append(kept, mustAppend(t, l, []byte("taken"), 1))
			calls = append(calls, strings.Join(d.calls, " "))
			if diff := cmp.Diff(c.calls, strings.Join(calls, " | ")); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(kept, readAll(t, r)); diff != "" {
				t.Error(diff)
			}
			_ = l.Close()
			l, found, err := Open(o)
			if err != nil || len(found.Cuts)+len(found.Holes) > 0 || found.Segments != c.files {
				t.Fatalf("%+v, %v", found, err)
			}
			defer l.Close()
			if diff := cmp.Diff(kept, readAll(t, mustReader(t, l, 1))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestRefusedPackIsCutOff is the case where a refused pack stays in the file
// because nothing could be done about it any more.
func TestRefusedPackIsCutOff(t *testing.T) {
	d := &scriptDisk{}
	o := Options{Dir: t.TempDir(), disk: d}
	l := mustOpen(t, o)
	kept := fill(t, l, 2)
	path, size := l.path(l.active()), l.active().size
	d.failing = map[string]error{"sync": syscall.EIO}
	if _, err := l.Append([]byte("refused"), 1); err == nil {
		t.Fatal("no error")
	}
	kept = append(kept, mustAppend(t, l, []byte("in the next file"), 1))
	_ = l.Close()
	// The disk had it after all, and forgot that it was cut off.
	refused := record{length: 7, events: 1, first: l.segments[1].first, sum: checksum(l.segments[0].salt, []byte("refused"))}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(append(refused.append(nil, l.segments[0].salt), "refused"...), size); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	l, found, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if diff := cmp.Diff([]Cut{{File: path, Offset: size, Bytes: recordSize + 7}}, found.Cuts); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(kept, readAll(t, mustReader(t, l, 1))); diff != "" {
		t.Error(diff)
	}
}

func TestTrimAfterFailure(t *testing.T) {
	d := &scriptDisk{}
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: smallSegments, disk: d})
	packs := fill(t, l, 20)
	size, segments := l.Size(), len(l.segments)
	d.failing = map[string]error{"remove": syscall.EIO}
	if freed, err := l.Trim(l.Next()); !errors.Is(err, syscall.EIO) || freed != 0 || l.First() != 1 || l.Size() != size {
		t.Errorf("freed %d, %v; first %d, size %d of %d", freed, err, l.First(), l.Size(), size)
	}
	if got := readAll(t, mustReader(t, l, 1)); len(got) != len(packs) {
		t.Errorf("%d packs", len(got))
	}
	d.failing = map[string]error{"syncdir": syscall.EIO}
	if freed, err := l.Trim(l.Next()); !errors.Is(err, syscall.EIO) || freed == 0 || len(l.segments) != segments-1 {
		t.Errorf("freed %d, %v; %d segments of %d", freed, err, len(l.segments), segments)
	}
	d.calls = nil
	if _, err := l.Trim(l.Next()); err != nil || len(l.segments) != 1 {
		t.Errorf("%v, %d segments", err, len(l.segments))
	}
	if want := strings.Repeat("remove syncdir ", segments-2); strings.Join(d.calls, " ")+" " != want {
		t.Errorf("calls %v", d.calls)
	}
}

// TestOpenFails lets each operation of Open fail: the error is the disk's and
// says where, and afterwards Open works and everything is there.
func TestOpenFails(t *testing.T) {
	s := newSpecimen(t)
	for _, c := range []struct {
		op, name string
		changed  []byte
		skip     bool
	}{
		{"open", "", nil, false},
		{"sync", "", nil, false},
		{"write", "", nil, false},
		{"syncdir", "", nil, false},
		{"truncate", s.names[2], append(bytes.Clone(s.files[s.names[2]]), 0), false},
		{"truncate", s.names[0], append(bytes.Clone(s.files[s.names[0]]), 0), false},
		{"write", s.names[1], append([]byte{0}, s.files[s.names[1]][1:]...), true},
	} {
		t.Run(c.op+" "+c.name, func(t *testing.T) {
			d := &scriptDisk{failing: map[string]error{c.op: syscall.EROFS}}
			o := Options{Dir: t.TempDir(), disk: d, Skip: c.skip}
			s.write(t, o.Dir, c.name, c.changed)
			_, _, err := Open(o)
			var corrupt *CorruptionError
			if !errors.Is(err, syscall.EROFS) || errors.As(err, &corrupt) {
				t.Fatalf("%v", err)
			}
			l, _, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if diff := cmp.Diff(s.packs, readAll(t, mustReader(t, l, 1))); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, op := range []string{"create", "write", "sync", "rename", "syncdir"} {
		t.Run("new, "+op, func(t *testing.T) {
			d := &scriptDisk{failing: map[string]error{op: syscall.EROFS}}
			o := Options{Dir: t.TempDir(), disk: d}
			if _, _, err := Open(o); !errors.Is(err, syscall.EROFS) {
				t.Fatal(err)
			}
			l := mustOpen(t, o)
			if p := mustAppend(t, l, []byte("x"), 1); p.First != 1 || len(l.segments) != 1 {
				t.Errorf("%+v in %v", p, l.segments)
			}
		})
	}
	t.Run("a file instead of the directory", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{path, filepath.Join(path, "below")} {
			if _, _, err := Open(Options{Dir: dir}); !errors.Is(err, syscall.ENOTDIR) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
		}
	})
}

func TestReadFails(t *testing.T) {
	d := &scriptDisk{}
	l := mustOpen(t, Options{Dir: t.TempDir(), SegmentSize: smallSegments, disk: d})
	packs := fill(t, l, 10)
	r := mustReader(t, l, 1)
	d.failing = map[string]error{"open": syscall.EMFILE}
	var got []Pack
	failures := 0
	for len(got) < len(packs) && failures < 2 {
		p, err := r.Next()
		if err != nil {
			if !errors.Is(err, syscall.EMFILE) {
				t.Fatal(err)
			}
			failures++
			continue
		}
		p.Payload = bytes.Clone(p.Payload)
		got = append(got, p)
	}
	if diff := cmp.Diff(packs, got); diff != "" || failures != 1 {
		t.Errorf("%d failures, %s", failures, diff)
	}
	d.failing = map[string]error{"open": syscall.EMFILE}
	if _, err := l.Reader(1); !errors.Is(err, syscall.EMFILE) {
		t.Error(err)
	}
}

package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// powerDisk is a disk that fails and whose power can be cut. The real files are
// what a running system sees; inodes hold what would be left.
type powerDisk struct {
	rnd     *rand.Rand
	faults  float64 // probability that an operation fails
	ruin    bool    // a failed sync can also ruin what was on the disk in that page
	names   map[string]*inode
	durable map[string]*inode // the directory as it is on the disk
}

// inode is a file on the disk. A page is dirty until it is on the disk or, which
// is how Linux does it, until a sync of it has failed.
type inode struct {
	content []byte
	dirty   map[int64]bool
}

type powerFile struct {
	*os.File
	disk  *powerDisk
	inode *inode
}

const pageSize = 4096

func newPowerDisk(rnd *rand.Rand) *powerDisk {
	return &powerDisk{rnd: rnd, names: map[string]*inode{}, durable: map[string]*inode{}}
}

func (d *powerDisk) fault() error {
	if d.rnd.Float64() >= d.faults {
		return nil
	}
	return []error{syscall.EIO, syscall.ENOSPC, syscall.EROFS}[d.rnd.IntN(3)]
}

func (d *powerDisk) Open(path string, flag int) (file, error) {
	if err := d.fault(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	if d.names[path] == nil {
		d.names[path] = &inode{dirty: map[int64]bool{}}
	}
	return powerFile{f, d, d.names[path]}, nil
}

func (d *powerDisk) Rename(from, to string) error {
	if err := d.fault(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return os.Rename(from, to)
}

func (d *powerDisk) Remove(path string) error {
	if err := d.fault(); err != nil {
		return err
	}
	delete(d.names, path)
	return os.Remove(path)
}

func (d *powerDisk) SyncDir(string) error {
	if err := d.fault(); err != nil {
		return err
	}
	d.durable = maps.Clone(d.names)
	return nil
}

func (f powerFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.disk.fault()
	if err != nil {
		b = b[:f.disk.rnd.IntN(len(b)+1)]
	}
	n, real := f.File.WriteAt(b, off)
	for p := off / pageSize; p*pageSize < off+int64(n); p++ {
		f.inode.dirty[p] = true
	}
	return n, errors.Join(err, real)
}

func (f powerFile) Truncate(size int64) error {
	if err := f.disk.fault(); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f powerFile) Datasync() error {
	err := f.disk.fault()
	info, real := f.Stat()
	if real != nil {
		return real
	}
	if real := f.disk.writeBack(f.inode, f.File, int(info.Size()), err != nil); real != nil {
		return real
	}
	return err
}

// writeBack brings the dirty pages and the size to the disk: all, or as chance has it.
func (d *powerDisk) writeBack(n *inode, seen io.ReaderAt, size int, failing bool) error {
	if !failing || d.rnd.IntN(2) == 0 {
		if len(n.content) > size {
			n.content = n.content[:size]
		}
		n.content = append(n.content, make([]byte, size-len(n.content))...)
	}
	page := make([]byte, pageSize)
	for _, p := range slices.Sorted(maps.Keys(n.dirty)) {
		delete(n.dirty, p)
		from := min(int(p*pageSize), size, len(n.content))
		to := min(int(p+1)*pageSize, size, len(n.content))
		if failing {
			switch d.rnd.IntN(3) {
			case 0:
				continue
			case 1: // some sectors
				to = min(to, from+512*d.rnd.IntN(8))
			}
		}
		if _, err := seen.ReadAt(page[:to-from], int64(from)); err != nil {
			return err
		}
		if failing && d.ruin && d.rnd.IntN(3) == 0 {
			page = bytes.Repeat([]byte{0xee}, pageSize)
		}
		copy(n.content[from:to], page)
	}
	return nil
}

// cut leaves of the directory what a power cut leaves.
func (d *powerDisk) cut(t *testing.T, dir string) {
	t.Helper()
	ruin := d.ruin
	d.ruin = false
	for _, path := range slices.Sorted(maps.Keys(d.names)) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err == nil {
			err = d.writeBack(d.names[path], f, int(info.Size()), true)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	d.ruin = ruin
	left := d.durable
	if d.rnd.IntN(2) == 0 {
		left = d.names
	}
	old, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	d.names, d.durable = maps.Clone(left), maps.Clone(left)
	for path, n := range left {
		if err := os.WriteFile(path, n.content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFailingDiskAndPowerCuts appends to a disk on which everything fails now and
// then, with process and machine ending at any time. What was appended without
// an error is always there, and no end alone ever looks like corruption.
func TestFailingDiskAndPowerCuts(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 11))
			d := newPowerDisk(rnd)
			d.ruin = seed%2 == 1
			o := Options{Dir: t.TempDir(), SegmentSize: 1 + rnd.Int64N(30_000), disk: d}
			l, _, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			var kept []Pack     // everything that must be there, in order
			var doubtful []Pack // of which the last one may be there
			next, wanted := uint64(1), uint64(1)
			failures, restarts := 0, 0
			for range 400 {
				d.faults = 0.08
				switch rnd.IntN(30) {
				case 0:
					_ = l.Rotate()
				case 1:
					wanted += rnd.Uint64N(next - wanted + 1)
					_, _ = l.Trim(wanted)
				case 2, 3: // the process ends, or the machine
					if len(doubtful) > 0 && d.ruin {
						break // what the disk itself has ruined has not been written again yet
					}
					_ = l.Close()
					if rnd.IntN(2) == 0 {
						d.cut(t, o.Dir)
					}
					for range rnd.IntN(3) { // opening can fail as well
						if d.ruin {
							break
						}
						if again, _, err := Open(o); err == nil {
							_ = again.Close()
						}
					}
					d.faults = 0
					restarts++
					var found Recovery
					if l, found, err = Open(o); err != nil || len(found.Holes) > 0 {
						t.Fatalf("%+v, %v", found, err)
					}
					kept, next = verify(t, l, kept, doubtful)
					doubtful = nil
				default:
					payload := noise(rnd, 1+rnd.IntN(1+rnd.IntN(20_000)))
					events := 1 + rnd.IntN(min(len(payload), 3))
					first, err := l.Append(payload, events)
					p := Pack{First: next, Events: events, Payload: payload}
					if err != nil {
						failures++
						doubtful = append(doubtful, p)
						break
					}
					if first != next {
						t.Fatalf("number %d, want %d", first, next)
					}
					kept, doubtful = append(kept, p), nil
					next += uint64(events)
				}
			}
			d.faults = 0
			if p := mustAppend(t, l, []byte("works again"), 1); p.First != next {
				t.Errorf("number %d, want %d", p.First, next)
			} else {
				kept = append(kept, p)
			}
			verify(t, l, kept, nil)
			_ = l.Close()
			d.cut(t, o.Dir)
			if l, _, err = Open(o); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			verify(t, l, kept, nil)
			if failures < 5 || restarts < 5 {
				t.Errorf("%d failures, %d restarts are no test", failures, restarts)
			}
		})
	}
}

// verify fails unless the log holds the packs kept, from its first on, and at
// most one of the doubtful ones behind them. It returns what there is.
func verify(t *testing.T, l *Log, kept, doubtful []Pack) ([]Pack, uint64) {
	t.Helper()
	trimmed := 0 // a power cut can bring some of it back
	for trimmed < len(kept) && kept[trimmed].First < l.First() {
		trimmed++
	}
	r, err := l.Reader(l.First())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := l.First()
	for i := trimmed; ; i++ {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			if i < len(kept) {
				t.Fatalf("the log ends at %d, before pack %d", next, kept[i].First)
			}
			return kept, next
		}
		if err != nil {
			t.Fatal(err)
		}
		if i == len(kept) {
			for _, q := range doubtful {
				if samePack(p, q) {
					kept = append(kept, q)
				}
			}
		}
		if i >= len(kept) || !samePack(p, kept[i]) {
			t.Fatalf("at %d unexpected pack %d of %d events", next, p.First, p.Events)
		}
		next += uint64(p.Events)
	}
}

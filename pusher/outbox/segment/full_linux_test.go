package segment

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// mountSmall mounts a file system of its own, which only root may.
func mountSmall(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount: %v; the tests with a disk that only says so cover the same", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	dir := mountSmall(t, "256k")
	o := Options{Dir: filepath.Join(dir, "log"), SegmentSize: 60_000}
	l := mustOpen(t, Options{Dir: o.Dir, SegmentSize: o.SegmentSize, disk: osDisk{}})
	var kept []Pack
	payload := bytes.Repeat([]byte("0123456789"), 500)
	for range 3 { // fill, free a file, fill again
		for {
			first, err := l.Append(payload, 1)
			if err != nil {
				if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), o.Dir) {
					t.Fatal(err)
				}
				break
			}
			kept = append(kept, Pack{First: first, Events: 1, Payload: payload})
			if len(kept) > 1000 {
				t.Fatal("the disk does not get full")
			}
		}
		if _, err := l.Append(payload, 1); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if got := readAll(t, mustReader(t, l, l.First())); !slices.EqualFunc(kept[l.First()-1:], got, samePack) {
			t.Fatalf("%d packs of %d", len(got), len(kept)-int(l.First())+1)
		}
		if freed, err := l.Trim(l.segments[1].first); err != nil || freed == 0 {
			t.Fatalf("freed %d, %v", freed, err)
		}
	}
	kept = append(kept, mustAppend(t, l, payload, 1))
	_ = l.Close()
	l, found, err := Open(o)
	if err != nil || len(found.Cuts)+len(found.Holes) > 0 {
		t.Fatalf("%+v, %v", found, err)
	}
	defer l.Close()
	if got := readAll(t, mustReader(t, l, l.First())); !slices.EqualFunc(kept[l.First()-1:], got, samePack) {
		t.Errorf("%d packs of %d", len(got), len(kept)-int(l.First())+1)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	dir := mountSmall(t, "1m")
	l := mustOpen(t, Options{Dir: dir, disk: osDisk{}})
	kept := fill(t, l, 2)
	_ = l.Close()
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Join(dir, "new")} {
		if _, _, err := Open(Options{Dir: d}); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%v", err)
		}
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, Options{Dir: dir})
	if diff := cmp.Diff(kept, readAll(t, mustReader(t, l, 1))); diff != "" {
		t.Error(diff)
	}
}

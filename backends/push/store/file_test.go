package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

func openStrings(path string) (*File, error) {
	return openFile(path, func(*bolt.Tx) (map[string][]string, int, error) { return nil, 0, nil }, cmp.Compare[string], slog.New(slog.DiscardHandler))
}

// use does all that can be done with a file, and returns the first error.
func use(path string) error {
	inspected, err := inspectFile(path)
	if err == nil {
		err = errors.Join(inspected.Each(context.Background(), func([]byte) error { return nil }), inspected.Close())
	}
	f, opened := openStrings(path)
	if opened != nil {
		return opened
	}
	errs := []error{err}
	var mu sync.Mutex
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	ctx := context.Background()
	note(f.Each(ctx, func([]byte) error { return nil }))
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			key := fmt.Sprintf("user%d@example.org", i*40)
			_, err := f.Get(ctx, key)
			note(err)
			note(f.Change(ctx, key, func([]byte) ([]byte, error) {
				if i%3 == 0 {
					return nil, nil
				}
				return bytes.Repeat([]byte("x"), 300), nil
			}))
		})
	}
	all.Wait()
	f.Look([]byte("index"), "x")
	note(f.Close())
	i := slices.IndexFunc(errs, func(err error) bool { return err != nil })
	if i < 0 {
		return nil
	}
	return errs[i]
}

// TestDamagedFile: a file with any damage is answered by an error that names the file, never
// by a panic or a fault, and with what to do.
func TestDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "push.db")
	f, err := openStrings(path)
	if err != nil {
		t.Fatal(err)
	}
	var fill sync.WaitGroup
	for i := range 1200 {
		value := bytes.Repeat([]byte{'v'}, 50+rand.IntN(300))
		fill.Go(func() {
			if err := f.Change(t.Context(), fmt.Sprintf("user%d@example.org", i), func([]byte) ([]byte, error) { return value, nil }); err != nil {
				t.Error(err)
			}
		})
	}
	fill.Wait()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := use(path); err != nil {
		t.Fatal(err)
	}
	var noticed atomic.Int32
	var rounds errgroup.Group
	rounds.SetLimit(20) // each waits for the disk
	for round := range 100 {
		damaged := filepath.Join(t.TempDir(), "push.db")
		rounds.Go(func() error {
			if err := os.WriteFile(damaged, damage(slices.Clone(sound), round), 0o600); err != nil {
				return err
			}
			if err := use(damaged); err != nil {
				noticed.Add(1)
				if !strings.Contains(err.Error(), damaged) {
					t.Errorf("the error does not name the file: %v", err)
				}
			}
			return nil
		})
	}
	if err := rounds.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := noticed.Load(); n < 15 {
		t.Errorf("of 100 damages %d were noticed", n)
	}
}

// damage changes the contents of a file in one of four ways.
func damage(b []byte, way int) []byte {
	random := func(b []byte) {
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
	}
	page := rand.IntN(len(b)/4096) * 4096
	switch way % 4 {
	case 0:
		return b[:rand.IntN(len(b))]
	case 1:
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
	case 2:
		random(b[page : page+16]) // the head of a page
	default:
		random(b[page : page+4096])
	}
	return b
}

// TestLinkedFile: a file that is a symbolic link, which whoever can enter the directory can
// make, is neither read nor written.
func TestLinkedFile(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	path := filepath.Join(t.TempDir(), "push.db")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	if _, err := openStrings(path); err == nil || !strings.Contains(err.Error(), path+" is a symbolic link") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target: %v", err)
	}
}

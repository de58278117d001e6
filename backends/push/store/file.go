package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"

	"eventpusher/internal/boltfile"
)

var listsBucket = []byte("lists")

// File implements Values in a file of its own. What Change has returned without an error has
// been synced to the disk. Contexts do not matter to it.
type File struct {
	db *boltfile.DB

	writing sync.Mutex // held by the one who writes
	mu      sync.Mutex
	pending []*change
}

// change is one call of Change that is not written yet.
type change struct {
	key  []byte
	edit func([]byte) ([]byte, error)
	done chan error // of one place
}

var _ Values = (*File)(nil)

// Convert takes out of a file the lists that an earlier version has written, by their keys.
// leftOut is how many entries it cannot read.
type Convert[T any] func(tx *bolt.Tx) (lists map[string][]T, leftOut int, err error)

// openFile opens the file, or begins one. Only one process can have it open. Converted lists
// are merged into those of the file in one transaction: of two elements that are equal by
// order the converted one stays, since an earlier version has run last. Entries that cannot
// be read are counted in a warning.
func openFile[T any](path string, convert Convert[T], order func(a, b T) int, log *slog.Logger) (*File, error) {
	db, err := open(path, false)
	if err != nil {
		return nil, err
	}
	leftOut := 0
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(listsBucket)
		if err != nil {
			return err
		}
		var lists map[string][]T
		if lists, leftOut, err = convert(tx); err != nil {
			return err
		}
		for key, list := range lists {
			readable, err := merge(b, []byte(key), list, order)
			if err != nil {
				return err
			}
			if !readable {
				leftOut++
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	if leftOut > 0 {
		log.Warn("push: entries of an earlier version cannot be read and were removed; clients have to register again", "file", path, "entries", leftOut)
	}
	return &File{db: db}, nil
}

// merge adds a list to that of a key. If that one cannot be read, it is replaced.
func merge[T any](b *bolt.Bucket, key []byte, list []T, order func(a, b T) int) (readable bool, err error) {
	var before []T
	value := b.Get(key)
	if readable = value == nil || json.Unmarshal(value, &before) == nil; readable {
		list = append(list, before...)
	}
	slices.SortStableFunc(list, order)
	list = slices.CompactFunc(list, func(a, b T) bool { return order(a, b) == 0 })
	if value, err = json.Marshal(list); err != nil {
		return readable, err
	}
	return readable, b.Put(key, value)
}

// inspectFile opens the file for reading, while no other process has it open for writing;
// Change fails. The error of a file that is not there is fs.ErrNotExist.
func inspectFile(path string) (*File, error) {
	if _, err := os.Stat(path); err != nil { // bbolt would try to make one
		return nil, err
	}
	db, err := open(path, true)
	if err != nil {
		return nil, err
	}
	err = db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(listsBucket) == nil {
			return errors.New("an earlier version or something else has made it; the next start of an instance converts it")
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	return &File{db: db}, nil
}

func open(path string, readOnly bool) (*boltfile.DB, error) {
	return boltfile.Open(path, boltfile.Options{ReadOnly: readOnly, Remedy: "restore it from a copy, or move it away: clients then have to register again"})
}

// Get implements Values.
func (f *File) Get(_ context.Context, key string) (value []byte, err error) {
	err = f.db.View(func(tx *bolt.Tx) error {
		value = bytes.Clone(tx.Bucket(listsBucket).Get([]byte(key)))
		return nil
	})
	return value, err
}

// Change implements Values. Changes that come while another one is written share the next
// write to the disk.
func (f *File) Change(_ context.Context, key string, edit func([]byte) ([]byte, error)) error {
	c := &change{[]byte(key), edit, make(chan error, 1)}
	f.mu.Lock()
	f.pending = append(f.pending, c)
	f.mu.Unlock()
	f.writing.Lock()
	f.mu.Lock()
	list := f.pending
	f.pending = nil
	f.mu.Unlock()
	f.write(list)
	f.writing.Unlock()
	return <-c.done
}

// write writes changes in one transaction. If one of them fails, each gets its own.
func (f *File) write(list []*change) {
	if len(list) == 0 {
		return
	}
	err := f.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(listsBucket)
		for _, c := range list {
			if err := c.apply(b); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range list {
		if err != nil && len(list) > 1 {
			f.write([]*change{c})
			continue
		}
		c.done <- err
	}
}

func (c *change) apply(b *bolt.Bucket) error {
	value, err := c.edit(b.Get(c.key))
	switch {
	case err != nil:
		return err
	case value == nil:
		return b.Delete(c.key)
	}
	return b.Put(c.key, value)
}

// Each implements Values.
func (f *File) Each(_ context.Context, each func([]byte) error) error {
	return f.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(listsBucket).ForEach(func(_, value []byte) error { return each(value) })
	})
}

// Close implements Values.
func (f *File) Close() error { return f.db.Close() }

// Look returns the value of a key in a bucket that Convert has made, nil if there is none.
func (f *File) Look(bucket []byte, key string) (value []byte) {
	_ = f.db.View(func(tx *bolt.Tx) error { // it returns no error of its own
		if b := tx.Bucket(bucket); b != nil {
			value = bytes.Clone(b.Get([]byte(key)))
		}
		return nil
	})
	return value
}

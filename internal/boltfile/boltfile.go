// Package boltfile is bbolt with errors in place of panics and faults: a file that is damaged
// must not end the program, and must be named.
package boltfile

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// lockTimeout is how long Open waits for another process to let go of the file.
const lockTimeout = 2 * time.Second

// DB is an open file. Its methods are safe for concurrent use. Once damage was met, all but
// Close return the same error.
type DB struct {
	bolt   *bolt.DB
	path   string
	remedy string
	file   *os.File
	broken atomic.Pointer[DamageError]
}

// Options say how a file is opened.
type Options struct {
	// Remedy says in an error what to do about a damaged file.
	Remedy   string
	ReadOnly bool
	// Mapping is how much address space, in bytes, the file gets at once, so that its growth
	// need not wait for transactions that read; Growth is by how much it grows. 0: bbolt's
	// defaults.
	Mapping, Growth int
}

// DamageError says that a file cannot be used.
type DamageError struct {
	Path   string
	Cause  any
	Remedy string
}

// Error implements error; it says what can be done.
func (e *DamageError) Error() string {
	return fmt.Sprintf("%s is damaged (%v): %s", e.Path, e.Cause, e.Remedy)
}

// Open opens a file, or begins one unless it is opened for reading. It waits up to 2 s for
// another process that has the file open. The error is a *DamageError if the file cannot be
// used as it is, and fs.ErrNotExist if there is none to read. It names the file.
func Open(path string, o Options) (db *DB, err error) {
	db = &DB{path: path, remedy: o.Remedy}
	defer func() {
		if err != nil {
			err, db = errors.Join(err, db.Close()), nil
		}
	}()
	defer db.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	opened, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: lockTimeout, ReadOnly: o.ReadOnly, FreelistType: bolt.FreelistMapType, InitialMmapSize: o.Mapping, NoStatistics: true, OpenFile: db.open,
	})
	if err != nil {
		return db, db.refused(err)
	}
	db.bolt = opened
	if o.Growth > 0 {
		opened.AllocSize = o.Growth
	}
	// The file is mapped; reading behind its end would be a fault.
	var want int64
	err = opened.View(func(tx *bolt.Tx) error {
		want = tx.Size()
		return nil
	})
	if err != nil {
		return db, err
	}
	info, err := db.file.Stat()
	if err == nil && info.Size() < want {
		err = db.damaged(fmt.Sprintf("%d bytes of %d are there", info.Size(), want))
	}
	return db, err
}

// open opens the file for bbolt. It follows no symbolic link, by which a user who can enter
// the directory could have another file overwritten.
func (d *DB) open(path string, flag int, mode os.FileMode) (f *os.File, err error) {
	d.file, err = os.OpenFile(path, flag|unix.O_NOFOLLOW, mode)
	return d.file, err
}

// refused explains why bbolt does not open the file.
func (d *DB) refused(err error) error {
	var failed syscall.Errno
	switch {
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s is a symbolic link, which is not followed: move the file itself to that place", d.path)
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("another process has %s open", d.path)
	case errors.As(err, &failed): // a full or read-only disk is no damage
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return d.damaged(err)
}

// damaged remembers that the file is damaged.
func (d *DB) damaged(cause any) error {
	d.broken.CompareAndSwap(nil, &DamageError{d.path, cause, d.remedy})
	return d.broken.Load()
}

// guard turns a panic of bbolt into an error. It is deferred.
func (d *DB) guard(err *error) {
	if p := recover(); p != nil {
		*err = d.damaged(p)
	}
}

// Update runs a transaction that reads and writes, one at a time. It returns when the
// transaction is on the disk; if it returns an error, nothing has changed.
func (d *DB) Update(f func(*bolt.Tx) error) error { return d.do(d.bolt.Update, f) }

// View runs a transaction that reads.
func (d *DB) View(f func(*bolt.Tx) error) error { return d.do(d.bolt.View, f) }

func (d *DB) do(run func(func(*bolt.Tx) error) error, f func(*bolt.Tx) error) (err error) {
	if broken := d.broken.Load(); broken != nil {
		return broken // bbolt may hold its locks still
	}
	defer d.guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return run(f)
}

// Path returns the path that Open was given.
func (d *DB) Path() string { return d.path }

// Close closes the file after the transactions that are under way.
func (d *DB) Close() (err error) {
	switch {
	case d.bolt != nil && d.broken.Load() == nil:
		return d.bolt.Close()
	case d.file == nil:
		return nil
	}
	// bbolt would wait for its locks. The lock on the file ends with the descriptor.
	if err = d.file.Close(); errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

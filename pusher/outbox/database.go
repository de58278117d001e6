package outbox

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// database is bbolt, which panics or faults where its file is damaged, with
// errors instead: an outbox must be able to say what is wrong with it.
type database struct{ *bolt.DB }

// stateMapping is how much address space state.db gets at once, so that its
// growth does not have to wait for transactions that read.
const stateMapping = 256 << 20

// stateGrowth is by how much the file grows at once.
const stateGrowth = 1 << 20

// damageError says that state.db cannot be used.
type damageError struct {
	path  string
	cause any
}

// Error implements error; it says what can be done.
func (e *damageError) Error() string {
	return fmt.Sprintf("outbox: %s is damaged (%v): restore it from a copy, or move it and the directory segments away to begin anew without what waits",
		e.path, e.cause)
}

// guard turns a panic of bbolt into an error. It is deferred.
func guard(path string, err *error) {
	if p := recover(); p != nil {
		*err = &damageError{path, p}
	}
}

// openDatabase opens a bbolt file, or begins one.
func openDatabase(path string) (db database, err error) {
	defer guard(path, &err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	b, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: DefaultLockTimeout, FreelistType: bolt.FreelistMapType, InitialMmapSize: stateMapping, NoStatistics: true,
	})
	var refused syscall.Errno
	switch {
	case errors.As(err, &refused): // a full or read-only disk is no damage
		return db, fmt.Errorf("outbox: %s: %w", path, err)
	case err != nil:
		return db, &damageError{path, err}
	}
	b.AllocSize = stateGrowth
	db.DB = b
	// The file is mapped; reading behind its end would be a fault.
	var want int64
	err = db.View(func(tx *bolt.Tx) error {
		want = tx.Size()
		return nil
	})
	if fi, e := os.Stat(path); err == nil && e == nil && fi.Size() < want {
		err = &damageError{path, fmt.Sprintf("%d bytes of %d are there", fi.Size(), want)}
	}
	if err != nil {
		return db, errors.Join(err, b.Close())
	}
	return db, nil
}

// Update is bbolt's.
func (d database) Update(f func(*bolt.Tx) error) (err error) {
	defer guard(d.Path(), &err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return d.DB.Update(f)
}

// View is bbolt's.
func (d database) View(f func(*bolt.Tx) error) (err error) {
	defer guard(d.Path(), &err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return d.DB.View(f)
}

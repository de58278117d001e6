package outbox

import (
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Crash ends an Embedded as a killed process would end it: what has not been
// saved by now is not saved.
func (e *Embedded) Crash() {
	e.stop()
	_ = e.closeFiles()
}

// Quick shortens what tests would wait for.
func (o EmbeddedOptions) Quick(save time.Duration, segment int64) EmbeddedOptions {
	o.saveInterval, o.segmentSize = save, segment
	return o
}

// LogSize returns the bytes of the log.
func (e *Embedded) LogSize() int64 { return e.seg.Size() }

// BlockSaves keeps the saver from saving until the function it returns is called.
func (e *Embedded) BlockSaves() (release func()) {
	begun, end := make(chan struct{}), make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- e.db.Update(func(*bolt.Tx) error {
			close(begun)
			<-end
			return nil
		})
	}()
	<-begun
	return func() {
		close(end)
		if err := <-ended; err != nil {
			panic(err)
		}
	}
}

// CloseDatabase makes all that writes to the database fail.
func (e *Embedded) CloseDatabase() error { return e.db.Close() }

// Appended returns how many events of a backend that is not read the log has had.
func (e *Embedded) Appended(backend string) uint64 {
	e.endMu.Lock()
	defer e.endMu.Unlock()
	rec, err := e.unread(backend)
	if err != nil {
		return 0
	}
	return e.end.appended[rec.id]
}

// Flush returns when everything is saved.
func (e *Embedded) Flush() error { return e.flush() }

// SetFormat writes another format version into a closed outbox.
func SetFormat(path string, version byte) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte{version}) })
}

// Letters returns the dead letters of which no Cut has told yet.
func (w *Window) Letters() []DeadLetter { return w.out.Letters }

// RemoveUnreadIndex makes state.db one of an earlier version, which counted so many
// undecodable letters, of no bytes that matter, among the others.
func RemoveUnreadIndex(path string, letters int) error {
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Update(func(tx *bolt.Tx) error {
		totals, err := loadTotals(tx)
		if err != nil {
			return err
		}
		totals.kept += uint64(letters)
		totals.bytes += 1 << 20
		return errors.Join(totals.save(tx), tx.DeleteBucket(bucketUnread))
	})
}

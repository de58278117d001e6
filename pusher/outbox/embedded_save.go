package outbox

import (
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// How long the saver waits after an error, and for events that it may give up.
const (
	savePause  = 20 // times the usual interval: a second
	spacePause = 20 * time.Millisecond
)

// saveLoop saves what has changed: soon, so that many changes share a
// transaction, or at once when somebody waits for it.
func (e *Embedded) saveLoop() {
	defer close(e.saverDone)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-e.closing:
			return
		case <-e.urgent:
		case <-e.dirty:
			timer.Reset(e.o.saveInterval)
			select {
			case <-e.closing:
				return
			case <-e.urgent:
			case <-timer.C:
			}
		}
		err := e.save(false)
		switch {
		case err != nil:
			if e.saveErr.Set(err) {
				e.log.Error("the outbox cannot save what was delivered; deliveries stop until it can", "err", err)
			}
		case e.saveErr.Set(nil):
			e.log.Info("the outbox saves again what was delivered")
		}
		pause := time.Duration(0)
		if err != nil {
			pause = savePause * e.o.saveInterval
		} else if !e.makeSpace() {
			pause = spacePause
		}
		if pause > 0 {
			timer.Reset(pause)
			select {
			case <-e.closing:
				return
			case <-timer.C:
			}
			signal(e.urgent)
		}
	}
}

// flush returns when everything that has changed so far is on disk, and these letters.
// If it returns an error, none of the letters is kept.
func (e *Embedded) flush(letters ...DeadLetter) error {
	done := make(chan error, 1)
	e.flushMu.Lock()
	e.buried = append(e.buried, letters...) // with their flusher: the same save has both
	e.flushers = append(e.flushers, done)
	e.flushMu.Unlock()
	signal(e.urgent)
	select {
	case err := <-done:
		return err
	case <-e.saverDone:
		return errors.New("outbox: closed")
	}
}

// snapshot is what one save writes of one reader.
type snapshot struct {
	r      *embeddedReader
	record readerRecord
	cut    Cut
}

// snapshot returns what is to be saved, nil when nothing has changed.
func (r *embeddedReader) snapshot() *snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.dirty {
		return nil
	}
	c := r.cut()
	return &snapshot{r: r, cut: c, record: readerRecord{
		id: r.id, Progress: c.Progress,
		done: r.appended - min(uint64(max(r.remaining, 0)), r.appended), shed: r.shed, lost: r.lost,
	}}
}

// confirm tells the reader that the snapshot is on disk.
func (s *snapshot) confirm() {
	r := s.r
	r.mu.Lock()
	notify := r.Window.saved(&s.cut)
	r.saved = s.record
	refill := r.behind() && r.halfEmpty()
	r.mu.Unlock()
	if notify {
		r.notify()
	}
	if refill {
		signal(r.wake)
	}
}

// write puts a snapshot into a transaction.
func (s *snapshot) write(tx *bolt.Tx, letters *Letters) (lost int, err error) {
	parked := tx.Bucket(bucketParked)
	for i := range s.cut.Parked {
		if err := s.cut.Parked[i].save(tx); err != nil {
			return 0, err
		}
	}
	for _, t := range s.cut.Tries {
		if err := t.save(tx); err != nil {
			return 0, err
		}
	}
	for i := range s.cut.Freed {
		if err := parked.Delete(s.cut.Freed[i][:]); err != nil {
			return 0, err
		}
	}
	if lost, err = letters.put(tx, s.cut.Letters); err != nil {
		return 0, err
	}
	return lost, tx.Bucket(bucketReaders).Put([]byte(s.r.backend), s.record.append(nil))
}

// save writes all that has changed in one transaction, and then frees the files
// that nobody needs any more. Only one goroutine calls it at a time.
func (e *Embedded) save(closing bool) error {
	e.flushMu.Lock()
	flushers, buried := e.flushers, e.buried
	e.flushers, e.buried = nil, nil
	e.flushMu.Unlock()
	e.endMu.Lock()
	end, endDirty := e.end, e.endDirty
	e.endDirty = false
	e.endMu.Unlock()
	// The positions may be newer than end, never older.
	end.positions = e.positions.recent()

	var list []*snapshot
	for _, r := range e.readers() {
		if s := r.snapshot(); s != nil {
			list = append(list, s)
		}
	}
	var err error
	lost := 0
	if len(list)+len(buried) > 0 || endDirty || closing {
		lost, err = e.write(list, buried, &end, closing)
	}
	if err != nil {
		err = fmt.Errorf("outbox: save: %w", err)
		for _, s := range list {
			s.r.Undo(&s.cut)
		}
		e.markEnd()
	} else {
		for _, s := range list {
			s.confirm()
		}
		if lost > 0 {
			e.log.Error("too many dead letters: the oldest were given up", "events", lost)
		}
	}
	saved := err
	if err == nil {
		err = e.trim()
	}
	// The callers of Bury and Append learn whether it is saved, not whether files were removed.
	for _, f := range flushers {
		f <- saved
	}
	return err
}

// write puts all that is to be saved into one transaction. It returns how many of the
// oldest dead letters had to go for new ones.
func (e *Embedded) write(list []*snapshot, buried []DeadLetter, end *endRecord, closing bool) (lost int, err error) {
	err = e.db.Update(func(tx *bolt.Tx) error {
		for _, s := range list {
			n, err := s.write(tx, e.letters)
			lost += n
			if err != nil {
				return err
			}
		}
		n, err := e.letters.put(tx, buried)
		lost += n
		if err == nil {
			err = end.save(tx)
		}
		if err == nil && closing {
			err = tx.Bucket(bucketMeta).Put(keyClean, []byte{1})
		}
		return err
	})
	return lost, err
}

// trim removes the files of the log that every backend has passed.
func (e *Embedded) trim() error {
	least := e.seg.Next()
	for _, rec := range e.registry.all() { // read first: a reader that closes leaves its record there
		if r := e.reader(rec.name); r != nil {
			r.mu.Lock()
			rec.readerRecord = r.saved
			r.mu.Unlock()
		}
		least = min(least, rec.Floor)
	}
	if least <= e.trimmed {
		return nil
	}
	freed, err := e.seg.Trim(least)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	e.trimmed = least
	if freed > 0 {
		for _, r := range e.readers() {
			signal(r.wake)
		}
	}
	return nil
}

// shedStep is how many events are given up between two looks at the size.
const shedStep = 1024

// makeSpace makes the backend that is furthest behind give up its oldest events
// while the log is too large, and only those in files that have to go: others would
// be given up for nothing while a delivery that hangs keeps these files. It returns
// false when that does not help at once.
func (e *Embedded) makeSpace() bool {
	if e.seg.Size() <= e.o.MaxSize {
		return true
	}
	var slowest *embeddedReader
	least := uint64(0)
	for _, r := range e.readers() {
		r.mu.Lock()
		if slowest == nil || r.floor() < least {
			slowest, least = r, r.floor()
		}
		r.mu.Unlock()
	}
	if slowest == nil {
		return true
	}
	n, episode := slowest.giveUp(e.seg.Surplus(e.o.MaxSize), shedStep)
	if n == 0 {
		signal(slowest.wake)
		return false // in flight, or not read yet
	}
	signal(e.urgent) // saved, it lets files go; then see again
	signal(slowest.wake)
	if f := e.shed.Load(); f != nil {
		(*f)(slowest.backend, n, episode)
	}
	return true
}

// giveUp drops at most limit of the oldest events before a number that no lane holds.
func (r *embeddedReader) giveUp(before uint64, limit int) (n int, episode bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n = r.Window.giveUp(before, limit); n > 0 {
		episode = !r.shedding
		r.shedding = true
		r.shed += uint64(n)
	}
	return n, episode
}

package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/event"
)

// The bounds of what is kept of dead letters; beyond them the oldest go. Those of reason
// ReasonUndecodable have a bound of their own and count for no other: users can make a
// server send what cannot be read, and must not push the others out.
const (
	DefaultMaxLetters     = 100_000
	DefaultMaxLetterBytes = 1 << 30
	MaxUndecodable        = 1000
)

// Letters is the DeadLetters of the embedded engine.
type Letters struct {
	db        database
	lock      *os.File // of its own; nil inside an Embedded
	maxEvents uint64
	maxBytes  uint64
}

// letterTotals counts the dead letters, without those of reason ReasonUndecodable.
type letterTotals struct {
	kept, bytes uint64
	lost        uint64 // the oldest ones, given up because there were too many
}

func loadTotals(tx *bolt.Tx) (letterTotals, error) {
	b := tx.Bucket(bucketMeta).Get(keyTotals)
	if b == nil {
		return letterTotals{}, nil
	}
	d := NewDecoder(b)
	t := letterTotals{kept: d.Uvarint(), bytes: d.Uvarint(), lost: d.Uvarint()}
	return t, d.Err()
}

func (t *letterTotals) save(tx *bolt.Tx) error {
	b := binary.AppendUvarint(nil, t.kept)
	b = binary.AppendUvarint(b, t.bytes)
	return tx.Bucket(bucketMeta).Put(keyTotals, binary.AppendUvarint(b, t.lost))
}

// OpenLetters opens the dead letters of the outbox in dir while no process runs
// on it; it waits for at most timeout for one that does. Close it at the end.
func OpenLetters(dir string, timeout time.Duration) (*Letters, error) {
	return openAlone(dir, timeout)
}

// Exists reports whether dir holds an outbox.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "state.db"))
	return err == nil
}

func openAlone(dir string, timeout time.Duration) (*Letters, error) {
	// An empty directory must not become an outbox because somebody looked.
	if _, err := os.Stat(filepath.Join(dir, "state.db")); err != nil {
		return nil, fmt.Errorf("outbox: there is none in %s: %w", dir, err)
	}
	lock, err := lockDir(dir, timeout)
	if err != nil {
		return nil, err
	}
	db, err := openState(filepath.Join(dir, "state.db"))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &Letters{db: db, lock: lock, maxEvents: DefaultMaxLetters, maxBytes: DefaultMaxLetterBytes}, nil
}

// Close gives the outbox free. It is for what OpenLetters has returned.
func (l *Letters) Close() error {
	if l.lock == nil {
		return nil
	}
	return errors.Join(l.db.Close(), l.lock.Close())
}

func letterKey(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func appendLetter(dst []byte, d *DeadLetter) []byte {
	dst = appendText(dst, d.Backend)
	dst = appendText(dst, d.Reason)
	dst = appendText(dst, d.Err)
	dst = binary.AppendUvarint(dst, uint64(d.Attempts))
	dst = appendTime(dst, d.Accepted)
	dst = appendTime(dst, d.Died)
	return event.AppendBinary(dst, d.Event)
}

func decodeLetter(k, v []byte) (DeadLetter, error) {
	d := NewDecoder(v)
	l := DeadLetter{
		ID: binary.BigEndian.Uint64(k), Backend: d.Text(), Reason: d.Text(), Err: d.Text(),
		Attempts: int(d.Uvarint()), Accepted: d.Time(), Died: d.Time(),
	}
	err := d.Err()
	if err == nil {
		l.Event, err = decodeEvent(d.b)
	}
	if err != nil {
		return l, fmt.Errorf("dead letter %d: %w", l.ID, err)
	}
	return l, nil
}

// put keeps letters and returns how many of the oldest had to go for them.
func (l *Letters) put(tx *bolt.Tx, letters []DeadLetter) (lost int, err error) {
	if len(letters) == 0 {
		return 0, nil
	}
	b, unread := tx.Bucket(bucketLetters), tx.Bucket(bucketUnread)
	totals, err := loadTotals(tx)
	for i := range letters {
		d := &letters[i]
		if d.Event == nil {
			d.Event = &event.Event{}
		}
		var id uint64
		if err == nil {
			id, err = b.NextSequence()
		}
		if err != nil {
			return 0, err
		}
		v := appendLetter(nil, d)
		if d.Reason == ReasonUndecodable {
			err = unread.Put(letterKey(id), nil)
		} else {
			totals.kept++
			totals.bytes += uint64(len(v))
		}
		if err == nil {
			err = b.Put(letterKey(id), v)
		}
	}
	c := b.Cursor()
	for k, v := c.First(); err == nil && k != nil && (totals.kept > l.maxEvents || totals.bytes > l.maxBytes && totals.kept > 1); k, v = c.First() {
		for unread.Get(k) != nil {
			k, v = c.Next()
		}
		totals.kept--
		totals.bytes -= uint64(len(v))
		totals.lost++
		lost++
		err = c.Delete()
	}
	for n := countKeys(unread); err == nil && n > MaxUndecodable; n-- {
		k, _ := unread.Cursor().First()
		err = errors.Join(b.Delete(k), unread.Delete(k))
	}
	if err == nil {
		err = totals.save(tx)
	}
	return lost, err
}

// countKeys counts the keys of a bucket that holds few.
func countKeys(b *bolt.Bucket) (n int) {
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		n++
	}
	return n
}

// indexUnread fills bucketUnread if it is not there yet: earlier versions counted these
// letters among the others.
func indexUnread(tx *bolt.Tx) error {
	if tx.Bucket(bucketUnread) != nil {
		return nil
	}
	unread, err := tx.CreateBucket(bucketUnread)
	if err != nil {
		return err
	}
	totals, err := loadTotals(tx)
	if err != nil {
		return err
	}
	c := tx.Bucket(bucketLetters).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		d, err := decodeLetter(k, v)
		if err != nil {
			return err
		}
		if d.Reason != ReasonUndecodable {
			continue
		}
		totals.kept--
		totals.bytes -= uint64(len(v))
		if err := unread.Put(k, nil); err != nil {
			return err
		}
	}
	return totals.save(tx)
}

// each calls f with what the filter selects until f returns false.
func (l *Letters) each(tx *bolt.Tx, f LetterFilter, visit func(d DeadLetter, size int) (bool, error)) error {
	c := tx.Bucket(bucketLetters).Cursor()
	first := f.After + 1
	if f.ID != 0 {
		first = max(first, f.ID)
	}
	found := 0
	for k, v := c.Seek(letterKey(first)); k != nil; k, v = c.Next() {
		d, err := decodeLetter(k, v)
		if err != nil {
			return err
		}
		if f.ID != 0 && d.ID > f.ID || f.Limit > 0 && found == f.Limit {
			return nil
		}
		if !f.Selects(&d) {
			continue
		}
		found++
		if more, err := visit(d, len(v)); err != nil || !more {
			return err
		}
	}
	return nil
}

// List implements DeadLetters.
func (l *Letters) List(f LetterFilter) ([]DeadLetter, error) {
	var out []DeadLetter
	err := l.db.View(func(tx *bolt.Tx) error {
		return l.each(tx, f, func(d DeadLetter, _ int) (bool, error) {
			out = append(out, d)
			return true, nil
		})
	})
	return out, err
}

// Get implements DeadLetters.
func (l *Letters) Get(id uint64) (d DeadLetter, err error) {
	err = l.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketLetters).Get(letterKey(id))
		if v == nil {
			return fmt.Errorf("%w: %d", ErrNoLetter, id)
		}
		var err error
		d, err = decodeLetter(letterKey(id), v)
		return err
	})
	return d, err
}

// letterStep is how many letters one transaction removes or replays, so that
// the deliveries never wait long for it.
const letterStep = 500

// Drop implements DeadLetters.
func (l *Letters) Drop(f LetterFilter) (int, error) {
	return l.remove(f, func(*bolt.Tx, DeadLetter) (bool, error) { return true, nil }, nil)
}

// remove takes away what the filter selects and take agrees to, in several
// transactions; done is called after each.
func (l *Letters) remove(f LetterFilter, take func(tx *bolt.Tx, d DeadLetter) (bool, error), done func()) (int, error) {
	removed := 0
	for {
		visited, taken := 0, 0
		err := l.db.Update(func(tx *bolt.Tx) error {
			totals, err := loadTotals(tx)
			if err != nil {
				return err
			}
			var gone [][]byte
			err = l.each(tx, f, func(d DeadLetter, size int) (bool, error) {
				visited++
				f.After = d.ID // the next transaction begins behind it
				ok, err := take(tx, d)
				if ok && err == nil {
					taken++
					gone = append(gone, letterKey(d.ID))
					if d.Reason != ReasonUndecodable {
						totals.kept--
						totals.bytes -= uint64(size)
					}
				}
				return visited < letterStep, err
			})
			for _, k := range gone {
				if err == nil {
					err = errors.Join(tx.Bucket(bucketLetters).Delete(k), tx.Bucket(bucketUnread).Delete(k))
				}
			}
			if err != nil {
				return err
			}
			return totals.save(tx)
		})
		if err != nil {
			return removed, err
		}
		removed += taken
		if done != nil {
			done()
		}
		if f.Limit > 0 {
			if f.Limit -= visited; f.Limit == 0 {
				return removed, nil
			}
		}
		if visited < letterStep {
			return removed, nil
		}
	}
}

// replay moves a letter to what is parked for its backend, in the transaction.
// It gets its own key and its whole time anew.
func replay(tx *bolt.Tx, d DeadLetter, reader uint8, now time.Time) (ParkedEvent, error) {
	e := *d.Event
	e.Replayed = true
	p := ParkedEvent{ID: ReplayID(reader, d.ID), Event: &e, Accepted: now}
	return p, p.save(tx)
}

// Replay moves the selected dead letters to their backends, which get them when
// the outbox runs again; see Outbox.Replay. It is for what OpenLetters has
// returned.
func (l *Letters) Replay(f LetterFilter) (int, error) {
	var readers map[string]readerRecord
	err := l.db.View(func(tx *bolt.Tx) (err error) {
		readers, err = loadReaders(tx)
		return err
	})
	if err != nil {
		return 0, err
	}
	now := time.Now()
	return l.remove(f, func(tx *bolt.Tx, d DeadLetter) (bool, error) {
		r, ok := readers[d.Backend]
		if !ok {
			return false, nil
		}
		_, err := replay(tx, d, r.id, now)
		return true, err
	}, nil)
}

package outbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/event"
)

// ParkedID is the place of a parked event: the backend's number, a class, then
// the event's number in the log or, for replayed dead letters, the letter's.
type ParkedID [10]byte

const (
	parkedEvent  = 0
	parkedReplay = 1
)

func newParkedID(reader, class uint8, seq uint64) (id ParkedID) {
	id[0], id[1] = reader, class
	binary.BigEndian.PutUint64(id[2:], seq)
	return id
}

// ReplayID is the place of a dead letter that goes to a backend once more.
func ReplayID(reader uint8, letter uint64) ParkedID { return newParkedID(reader, parkedReplay, letter) }

// EventID is the place of a parked event of the log.
func EventID(reader uint8, number uint64) ParkedID { return newParkedID(reader, parkedEvent, number) }

// Replay reports whether it is that of a replayed dead letter.
func (id ParkedID) Replay() bool { return id[1] == parkedReplay }

// Reader is the backend's number.
func (id ParkedID) Reader() uint8 { return id[0] }

// Number is the event's number in the log, or the dead letter's.
func (id ParkedID) Number() uint64 { return binary.BigEndian.Uint64(id[2:]) }

// ParkedEvent is one parked event.
type ParkedEvent struct {
	ID       ParkedID
	Event    *event.Event
	Accepted time.Time
	Attempts int // that counted, before it was parked
}

// save writes the record. The key stands before the event, so that a start
// decodes no event.
func (p *ParkedEvent) save(tx *bolt.Tx) error {
	b := appendParkedHead(nil, p.Accepted, p.Attempts, p.Event.Key())
	return tx.Bucket(bucketParked).Put(p.ID[:], event.AppendBinary(b, p.Event))
}

func appendParkedHead(dst []byte, accepted time.Time, attempts int, key string) []byte {
	dst = appendTime(dst, accepted)
	dst = binary.AppendUvarint(dst, uint64(attempts))
	return appendText(dst, key)
}

// ParkedTry says how often a parked event has been tried by now.
type ParkedTry struct {
	ID       ParkedID
	Attempts int
}

// save changes the record of the event, so that neither the pauses between its
// attempts nor the count that its dead letter shows begin anew after a restart. It
// writes the event once more, which is little: of all that is parked for a backend,
// few are tried at a time.
func (t ParkedTry) save(tx *bolt.Tx) error {
	parked := tx.Bucket(bucketParked)
	v := parked.Get(t.ID[:])
	if v == nil {
		return nil // it became a dead letter instead
	}
	accepted, _, key, encoded, err := parkedHead(v)
	if err != nil {
		return err
	}
	b := appendParkedHead(make([]byte, 0, len(v)+binary.MaxVarintLen64), accepted, t.Attempts, string(key))
	return parked.Put(t.ID[:], append(b, encoded...))
}

// parkedHead decodes everything but the event.
func parkedHead(v []byte) (accepted time.Time, attempts int, key, encoded []byte, err error) {
	d := NewDecoder(v)
	accepted, attempts, key = d.Time(), int(d.Uvarint()), d.Bytes()
	return accepted, attempts, key, d.b, d.Err()
}

// loadParked returns one parked event, or ErrLost.
func loadParked(db database, id ParkedID) (e *event.Event, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		_, _, _, encoded, err := parkedHead(tx.Bucket(bucketParked).Get(id[:]))
		if err == nil {
			e, err = decodeEvent(encoded)
		}
		if err != nil {
			return fmt.Errorf("%w: number %d: %w", ErrLost, id.Number(), err)
		}
		return nil
	})
	return e, err
}

// eachParked calls f with every parked event of a backend, oldest first.
func eachParked(tx *bolt.Tx, reader uint8, f func(id ParkedID, v []byte) error) error {
	c := tx.Bucket(bucketParked).Cursor()
	prefix := []byte{reader}
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := f(ParkedID(k), v); err != nil {
			return err
		}
	}
	return nil
}

func forgetParked(tx *bolt.Tx, reader uint8) (n int, err error) {
	var ids []ParkedID
	err = eachParked(tx, reader, func(id ParkedID, _ []byte) error {
		ids = append(ids, id)
		return nil
	})
	for _, id := range ids {
		if err == nil {
			err = tx.Bucket(bucketParked).Delete(id[:])
		}
	}
	return len(ids), err
}

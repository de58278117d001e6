package outbox

import (
	"bytes"
	"encoding/binary"
	"time"

	bolt "go.etcd.io/bbolt"

	"eventpusher/event"
)

// parkedID is the place of a parked event: the backend's number, a class, then
// the event's number in the log or, for replayed dead letters, the letter's.
type parkedID [10]byte

const (
	parkedEvent  = 0
	parkedReplay = 1
)

func newParkedID(reader, class uint8, seq uint64) (id parkedID) {
	id[0], id[1] = reader, class
	binary.BigEndian.PutUint64(id[2:], seq)
	return id
}

func (id parkedID) replay() bool { return id[1] == parkedReplay }
func (id parkedID) seq() uint64  { return binary.BigEndian.Uint64(id[2:]) }

// parkedRecord is one parked event.
type parkedRecord struct {
	id       parkedID
	event    *event.Event
	accepted time.Time
	attempts int
}

// save writes the record. The key stands before the event, so that a start
// decodes no event.
func (p *parkedRecord) save(tx *bolt.Tx) error {
	b := appendTime(nil, p.accepted)
	b = binary.AppendUvarint(b, uint64(p.attempts))
	b = appendText(b, p.event.Key())
	return tx.Bucket(bucketParked).Put(p.id[:], event.AppendBinary(b, p.event))
}

// parkedHead decodes everything but the event.
func parkedHead(v []byte) (accepted time.Time, attempts int, key, encoded []byte, err error) {
	d := decoder{b: v}
	accepted, attempts, key = d.time(), int(d.uvarint()), d.bytes()
	return accepted, attempts, key, d.b, d.err()
}

// loadParked returns one parked event.
func loadParked(db database, id parkedID) (e *event.Event, err error) {
	err = db.View(func(tx *bolt.Tx) error {
		_, _, _, encoded, err := parkedHead(tx.Bucket(bucketParked).Get(id[:]))
		if err == nil {
			e, err = decodeEvent(encoded)
		}
		return err
	})
	return e, err
}

// eachParked calls f with every parked event of a backend, oldest first.
func eachParked(tx *bolt.Tx, reader uint8, f func(id parkedID, v []byte) error) error {
	c := tx.Bucket(bucketParked).Cursor()
	prefix := []byte{reader}
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		if err := f(parkedID(k), v); err != nil {
			return err
		}
	}
	return nil
}

func forgetParked(tx *bolt.Tx, reader uint8) (n int, err error) {
	var ids []parkedID
	err = eachParked(tx, reader, func(id parkedID, _ []byte) error {
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

package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// stateVersion is the format of the whole directory: of the packs, and of
// everything in state.db.
const stateVersion = 1

// The buckets of state.db, and the keys of the first.
var (
	bucketMeta    = []byte("meta")
	bucketReaders = []byte("readers") // name: readerRecord
	bucketParked  = []byte("parked")  // parkedID: parkedRecord
	bucketLetters = []byte("letters") // ID: letterRecord
	bucketUnread  = []byte("unread")  // ID of each letter of reason ReasonUndecodable: nothing

	keyFormat = []byte("format")  // stateVersion
	keyEnd    = []byte("end")     // endRecord
	keyClean  = []byte("clean")   // there after an orderly Close
	keyTotals = []byte("letters") // letterTotals
)

// FormatError says that the outbox was written by a newer eventpusher.
type FormatError struct {
	Path    string
	Version uint64
}

// Error implements error; it says what can be done.
func (e *FormatError) Error() string {
	return fmt.Sprintf("outbox: %s has format %d and this eventpusher knows formats up to %d: run the version that wrote it, or let that version empty the outbox first",
		e.Path, e.Version, stateVersion)
}

// openState opens state.db, or begins it.
func openState(path string) (database, error) {
	db, err := openDatabase(path)
	if err != nil {
		return db, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			var err error
			for _, name := range [][]byte{bucketMeta, bucketReaders, bucketParked, bucketLetters, bucketUnread} {
				if _, e := tx.CreateBucketIfNotExists(name); err == nil {
					err = e
				}
			}
			if err != nil {
				return err
			}
			return tx.Bucket(bucketMeta).Put(keyFormat, binary.AppendUvarint(nil, stateVersion))
		}
		d := NewDecoder(meta.Get(keyFormat))
		if v := d.Uvarint(); d.Err() != nil || v > stateVersion {
			return &FormatError{Path: path, Version: v}
		}
		return indexUnread(tx)
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// readerRecord is what is kept of one backend.
type readerRecord struct {
	id uint8 // its bit in the packs
	Progress
	// done counts its events that are settled, parked or given up, out of those
	// that the packs count as appended.
	done uint64
	shed uint64 // given up because the outbox was full
	lost uint64 // passed over because they could not be read any more
}

func (r *readerRecord) append(dst []byte) []byte {
	dst = append(dst, r.id)
	for _, v := range []uint64{r.Floor, r.Top, r.done, r.shed, r.lost, uint64(len(r.Pending))} {
		dst = binary.AppendUvarint(dst, v)
	}
	last := r.Floor
	for _, n := range r.Pending {
		dst = binary.AppendUvarint(dst, n-last)
		last = n
	}
	return dst
}

func decodeReader(b []byte) (readerRecord, error) {
	d := NewDecoder(b)
	r := readerRecord{id: d.Byte(), Progress: Progress{Floor: d.Uvarint(), Top: d.Uvarint()}, done: d.Uvarint(), shed: d.Uvarint(), lost: d.Uvarint()}
	last := r.Floor
	for range d.Count() {
		last += d.Uvarint()
		r.Pending = append(r.Pending, last)
	}
	if r.id >= MaxReaders {
		d.Fail()
	}
	return r, d.Err()
}

// loadReaders returns what is kept of all backends.
func loadReaders(tx *bolt.Tx) (map[string]readerRecord, error) {
	all := make(map[string]readerRecord)
	err := tx.Bucket(bucketReaders).ForEach(func(name, v []byte) error {
		r, err := decodeReader(v)
		if err != nil {
			return fmt.Errorf("backend %s: %w", name, err)
		}
		all[string(name)] = r
		return nil
	})
	return all, err
}

// endRecord says how far the log had come at some time. Unlike the last pack it
// is there even when all packs have been trimmed.
type endRecord struct {
	next      uint64
	appended  [MaxReaders]uint64
	positions []Position
}

func (e *endRecord) save(tx *bolt.Tx) error {
	b := binary.AppendUvarint(nil, e.next)
	b = appendAppended(b, &e.appended)
	return tx.Bucket(bucketMeta).Put(keyEnd, appendPositions(b, e.positions))
}

func loadEnd(tx *bolt.Tx) (endRecord, error) {
	b := tx.Bucket(bucketMeta).Get(keyEnd)
	if b == nil {
		return endRecord{next: 1}, nil
	}
	d := NewDecoder(b)
	e := endRecord{next: d.Uvarint(), appended: d.appended(), positions: d.positions()}
	return e, d.Err()
}

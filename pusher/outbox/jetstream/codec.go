package jetstream

import (
	"encoding/binary"
	"fmt"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// formatVersion is the format of everything in the streams; 1 was that of earlier streams.
const formatVersion = 2

// FormatError says that a record was written by a newer eventpusher.
type FormatError struct {
	Prefix  string
	Version int
}

// Error implements error; it says what can be done.
func (e *FormatError) Error() string {
	return fmt.Sprintf("outbox: the streams of %s have format %d and this eventpusher knows formats up to %d: run the version that wrote them", e.Prefix, e.Version, formatVersion)
}

// decode returns a Decoder of what comes after the first byte, the version.
func decode(b []byte) (*outbox.Decoder, error) {
	d := outbox.NewDecoder(b)
	if v := d.Byte(); v > formatVersion {
		return nil, &FormatError{Version: int(v)}
	}
	return d, d.Err()
}

func appendText[T []byte | string](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// commit is one message of the log.
type commit struct {
	term      uint64 // of the link's holder who appended it
	id        uint64 // tells it from every other
	accepted  time.Time
	positions []outbox.Position // of all sources, after this message
	entries   []entry
}

// entry is one event of the log.
type entry struct {
	partition int
	readers   outbox.Subscribers // by the numbers of the registry
	encoded   []byte
	event     *event.Event // nil until it is decoded
	key       uint64       // its hash, with event
	size      int          // outbox.Size, with event
}

// append writes the message but for the entries; so many have to follow.
func (c *commit) append(dst []byte, entries int) []byte {
	dst = append(dst, formatVersion)
	dst = binary.AppendUvarint(dst, c.term)
	dst = binary.BigEndian.AppendUint64(dst, c.id)
	dst = binary.AppendUvarint(dst, uint64(c.accepted.UnixNano()))
	dst = appendText(dst, outbox.AppendPositions(nil, c.positions))
	return binary.AppendUvarint(dst, uint64(entries))
}

// appendEntry writes one entry.
func appendEntry(dst []byte, partition int, readers outbox.Subscribers, e *event.Event) []byte {
	dst = append(dst, byte(partition))
	return event.AppendBinary(binary.AppendUvarint(dst, uint64(readers)), e)
}

// decodeCommit reads a message of the log. The entries keep parts of b.
func decodeCommit(b []byte) (*commit, error) {
	d, err := decode(b)
	if err != nil {
		return nil, err
	}
	c := &commit{term: d.Uvarint(), id: d.Uint64(), accepted: time.Unix(0, int64(d.Uvarint())).UTC()}
	if c.positions, err = outbox.DecodePositions(d.Bytes()); err != nil {
		return nil, err
	}
	c.entries = make([]entry, d.Count())
	for i := range c.entries {
		e := &c.entries[i]
		e.partition, e.readers, e.encoded = int(d.Byte()), outbox.Subscribers(d.Uvarint()), d.Encoded()
	}
	return c, d.Err()
}

// registration tells a backend from others that have had its number.
type registration struct {
	number uint8
	id     uint64
}

// register is the record of a partition: who has it, and how far each backend has come.
// Its sequence when it was acquired is the epoch.
type register struct {
	owner    string // id of an instance; empty: nobody
	epoch    uint64 // 0: the sequence of this very record
	commits  uint64 // of the owner in this epoch
	progress map[registration]outbox.Progress
}

func (r *register) append(dst []byte) []byte {
	dst = append(dst, formatVersion)
	dst = appendText(dst, r.owner)
	dst = binary.AppendUvarint(dst, r.epoch)
	dst = binary.AppendUvarint(dst, r.commits)
	dst = binary.AppendUvarint(dst, uint64(len(r.progress)))
	for b, p := range r.progress {
		dst = append(dst, b.number)
		dst = binary.BigEndian.AppendUint64(dst, b.id)
		dst = appendText(dst, outbox.AppendCut(nil, &outbox.Cut{Progress: p}))
	}
	return dst
}

func decodeRegistration(d *outbox.Decoder) registration { return registration{d.Byte(), d.Uint64()} }

func decodeRegister(b []byte) (r register, err error) {
	d, err := decode(b)
	if err != nil {
		return r, err
	}
	r.owner, r.epoch, r.commits = d.Text(), d.Uvarint(), d.Uvarint()
	r.progress = make(map[registration]outbox.Progress)
	for range d.Count() {
		backend := decodeRegistration(d)
		cut, err := outbox.DecodeCut(d.Bytes())
		if err != nil {
			return r, err
		}
		r.progress[backend] = cut.Progress
	}
	return r, d.Err()
}

// parkedList says which events of a backend are parked in a partition, and how often each
// was tried. A parked event that is not listed does not exist.
type parkedList map[registration]map[uint64]int

func (l parkedList) append(dst []byte) []byte {
	dst = append(dst, formatVersion)
	dst = binary.AppendUvarint(dst, uint64(len(l)))
	for b, list := range l {
		dst = append(dst, b.number)
		dst = binary.BigEndian.AppendUint64(dst, b.id)
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		for number, attempts := range list {
			dst = binary.AppendUvarint(dst, number)
			dst = binary.AppendUvarint(dst, uint64(attempts))
		}
	}
	return dst
}

func decodeParkedList(b []byte) (parkedList, error) {
	l := make(parkedList)
	d, err := decode(b)
	if err != nil {
		return nil, err
	}
	for range d.Count() {
		backend := decodeRegistration(d)
		list := make(map[uint64]int)
		for range d.Count() {
			number := d.Uvarint()
			list[number] = int(d.Uvarint())
		}
		l[backend] = list
	}
	return l, d.Err()
}

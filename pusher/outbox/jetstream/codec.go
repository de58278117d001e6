package jetstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// formatVersion is the format of everything in the streams; 1 was that of earlier streams.
const formatVersion = 2

// errDamaged says that bytes in a stream make no sense.
var errDamaged = errors.New("outbox: damaged record")

// FormatError says that a record was written by a newer eventpusher.
type FormatError struct {
	Prefix  string
	Version int
}

// Error implements error; it says what can be done.
func (e *FormatError) Error() string {
	return fmt.Sprintf("outbox: the streams of %s have format %d and this eventpusher knows formats up to %d: run the version that wrote them", e.Prefix, e.Version, formatVersion)
}

// decoder takes values off the front of b. After the first damage it returns zero values,
// so that it has to be asked only once, at the end.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) err() error {
	if d.bad {
		return errDamaged
	}
	return nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// bytes returns n bytes, which stay part of the input.
func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// text returns a length and so many bytes.
func (d *decoder) text() []byte { return d.bytes(d.uvarint()) }

// count returns a number of things that take at least one byte each.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

// version checks the first byte.
func (d *decoder) version() error {
	switch v := d.bytes(1); {
	case d.bad:
		return errDamaged
	case v[0] > formatVersion:
		return &FormatError{Version: int(v[0])}
	}
	return nil
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
	d := decoder{b: b}
	if err := d.version(); err != nil {
		return nil, err
	}
	c := &commit{term: d.uvarint()}
	if id := d.bytes(8); id != nil {
		c.id = binary.BigEndian.Uint64(id)
	}
	c.accepted = time.Unix(0, int64(d.uvarint())).UTC()
	positions := d.text()
	if d.bad {
		return nil, errDamaged
	}
	var err error
	if c.positions, err = outbox.DecodePositions(positions); err != nil {
		return nil, err
	}
	c.entries = make([]entry, d.count())
	for i := range c.entries {
		e := &c.entries[i]
		if p := d.bytes(1); p != nil {
			e.partition = int(p[0])
		}
		e.readers = outbox.Subscribers(d.uvarint())
		all := d.b
		d.text()
		e.encoded = all[:len(all)-len(d.b)]
	}
	return c, d.err()
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

func (d *decoder) registration() (b registration) {
	if n := d.bytes(9); n != nil {
		b = registration{n[0], binary.BigEndian.Uint64(n[1:])}
	}
	return b
}

func decodeRegister(b []byte) (r register, err error) {
	d := decoder{b: b}
	if err := d.version(); err != nil {
		return r, err
	}
	r.owner, r.epoch, r.commits = string(d.text()), d.uvarint(), d.uvarint()
	r.progress = make(map[registration]outbox.Progress)
	for range d.count() {
		backend := d.registration()
		cut, err := outbox.DecodeCut(d.text())
		if err != nil {
			return r, err
		}
		r.progress[backend] = cut.Progress
	}
	return r, d.err()
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
	d := decoder{b: b}
	if err := d.version(); err != nil {
		return nil, err
	}
	for range d.count() {
		backend := d.registration()
		list := make(map[uint64]int)
		for range d.count() {
			number := d.uvarint()
			list[number] = int(d.uvarint())
		}
		l[backend] = list
	}
	return l, d.err()
}

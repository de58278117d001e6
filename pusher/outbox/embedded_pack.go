package outbox

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"eventpusher/event"
)

// packVersion is the first byte of a pack.
const packVersion = 1

// packHeader is what stands before the events of a pack. Every pack repeats
// where things stand, so that the last one of the log tells all there is to know
// after a crash.
type packHeader struct {
	accepted  time.Time
	appended  [MaxReaders]uint64 // events of each reader before this pack, by the reader's number
	positions []Position         // of all sources, this pack included
}

// append writes the header; events says how many follow.
func (h *packHeader) append(dst []byte, events int) []byte {
	dst = append(dst, packVersion)
	dst = appendTime(dst, h.accepted)
	dst = appendAppended(dst, &h.appended)
	dst = appendPositions(dst, h.positions)
	return binary.AppendUvarint(dst, uint64(events))
}

func appendAppended(dst []byte, counts *[MaxReaders]uint64) []byte {
	used := 0
	for _, n := range counts {
		if n > 0 {
			used++
		}
	}
	dst = binary.AppendUvarint(dst, uint64(used))
	for id, n := range counts {
		if n > 0 {
			dst = append(dst, byte(id))
			dst = binary.AppendUvarint(dst, n)
		}
	}
	return dst
}

func (d *Decoder) appended() (counts [MaxReaders]uint64) {
	for range d.Count() {
		id := d.Byte()
		n := d.Uvarint()
		if id >= MaxReaders {
			d.Fail()
			break
		}
		counts[id] = n
	}
	return counts
}

// appendEntry writes one event with the numbers of the readers that want it. The
// event begins with its length, so that readers can pass over what they do not
// want.
func appendEntry(dst []byte, readers Subscribers, e *event.Event) []byte {
	return event.AppendBinary(binary.AppendUvarint(dst, uint64(readers)), e)
}

// packReader reads a pack's payload.
type packReader struct {
	header packHeader
	events int // that are still to come
	d      *Decoder
}

func readPack(payload []byte) (*packReader, error) {
	p := &packReader{d: NewDecoder(payload)}
	if v := p.d.Byte(); v != packVersion {
		return nil, fmt.Errorf("%w: pack of version %d, known is %d", errDamaged, v, packVersion)
	}
	p.header.accepted = p.d.Time()
	p.header.appended = p.d.appended()
	p.header.positions = p.d.positions()
	p.events = p.d.Count()
	return p, p.d.Err()
}

// next returns the readers that want the next event, and the event encoded.
func (p *packReader) next() (readers Subscribers, encoded []byte, err error) {
	readers = Subscribers(p.d.Uvarint())
	encoded = p.d.Encoded()
	if err := p.d.Err(); err != nil {
		return 0, nil, err
	}
	p.events--
	return readers, encoded, nil
}

// decodeEvent decodes what appendEntry and the other stores have written.
func decodeEvent(encoded []byte) (*event.Event, error) {
	e, rest, err := event.DecodeBinary(encoded)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, errDamaged
	}
	return &e, nil
}

// each calls f with every reader's number.
func (t Subscribers) each(f func(id int)) {
	for ; t != 0; t &= t - 1 {
		f(bits.TrailingZeros64(uint64(t)))
	}
}

package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"eventpusher/internal/jid"
)

// binaryVersion is the first byte of an event in the outbox. A field that is
// added, moved or given another meaning takes a new version; old ones stay
// readable, for what waits in an outbox outlives an update.
//
// Version 2 has Replaces and Fallback. Version 3 has a second byte of flags; events without
// those are written as version 2, which earlier programs read.
const binaryVersion = 3

// The types of metadata values.
const (
	valueNull = iota
	valueString
	valueFalse
	valueTrue
	valueInt
	valueFloat
)

// errBinary says that bytes are no event; they carry a checksum where they are
// kept, so this is a defect and not damage.
var errBinary = errors.New("event: malformed binary event")

// AppendBinary appends e to dst in the form that the outbox keeps: the length of
// the rest, version, kind, direction and class as one byte each, flags as one or two, then
// time and count as varints, then texts and metadata, each text behind its
// length. Time keeps its nanoseconds and loses its zone. A metadata value of
// another type than Metadata allows becomes what AppendPayload makes of it: an
// int an int64, anything else null.
func AppendBinary(dst []byte, e *Event) []byte {
	start := len(dst)
	var flags uint16
	for bit, set := range e.flags() {
		if *set {
			flags |= 1 << bit
		}
	}
	if more := byte(flags >> 8); more != 0 {
		dst = append(dst, binaryVersion, byte(e.Kind), byte(e.Direction), byte(e.Class), byte(flags), more)
	} else {
		dst = append(dst, binaryVersion-1, byte(e.Kind), byte(e.Direction), byte(e.Class), byte(flags))
	}
	dst = binary.AppendVarint(dst, e.Time.Unix())
	dst = binary.AppendUvarint(dst, uint64(e.Time.Nanosecond()))
	dst = binary.AppendVarint(dst, int64(e.SessionCount))
	for _, text := range e.texts() {
		dst = appendText(dst, text)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Metadata)))
	for _, key := range e.Metadata.Keys() {
		dst = appendMetadata(appendText(dst, key), e.Metadata[key])
	}
	// The length comes first although it is known last; it is mostly two bytes.
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(dst)-start))
	dst = append(dst, length[:n]...)
	copy(dst[start+n:], dst[start:len(dst)-n])
	copy(dst[start:], length[:n])
	return dst
}

// BinarySize returns how many bytes AppendBinary takes for e at most, which is about as many
// as it takes.
func BinarySize(e *Event) int {
	const fixed, length, entry = 64, 5, 16 // without texts and metadata; of one text; of one entry of the metadata
	size := fixed
	for _, text := range e.texts() {
		size += length + len(text)
	}
	for key, value := range e.Metadata {
		text, _ := value.(string)
		size += entry + len(key) + len(text)
	}
	return size
}

// texts returns the fields that are texts.
func (e *Event) texts() [12]string {
	return [...]string{
		e.ID, e.Type, string(e.From), string(e.To), string(e.User), string(e.Room),
		e.Body, e.StanzaID, e.Host, e.Dialect, e.Packet, e.Replaces,
	}
}

// flags returns the fields that are one bit, the lowest bit first.
func (e *Event) flags() [9]*bool {
	return [...]*bool{&e.HasBody, &e.Encrypted, &e.Online, &e.RecipientOffline, &e.Reconciled, &e.Unverified, &e.Replayed, &e.Fallback, &e.Stranger}
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendMetadata(dst []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		return appendText(append(dst, valueString), v)
	case bool:
		if v {
			return append(dst, valueTrue)
		}
		return append(dst, valueFalse)
	case int:
		return binary.AppendVarint(append(dst, valueInt), int64(v))
	case int64:
		return binary.AppendVarint(append(dst, valueInt), v)
	case float64:
		return binary.LittleEndian.AppendUint64(append(dst, valueFloat), math.Float64bits(v))
	}
	return append(dst, valueNull)
}

// DecodeBinary reads the event that b begins with and returns it with the bytes
// behind it. All its texts share one copy of the event's bytes, so b may be used
// again, and a text that is kept keeps the whole. Time is in UTC.
//
// The error says whether the bytes are of a later version or no event at all.
func DecodeBinary(b []byte) (Event, []byte, error) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length == 0 || length > uint64(len(b)-n) {
		return Event{}, b, errBinary
	}
	body, rest := b[n:][:length], b[n:][length:]
	version := body[0]
	if version < 1 || version > binaryVersion {
		return Event{}, b, fmt.Errorf("event: binary event of version %d, this eventpusher reads up to %d: run the version that wrote it", version, binaryVersion)
	}
	d := decoder{text: string(body[1:])}
	var e Event
	e.Kind, e.Direction, e.Class = Kind(d.byte()), Direction(d.byte()), Class(d.byte())
	flags := uint16(d.byte())
	if version > 2 {
		flags |= uint16(d.byte()) << 8
	}
	known := 0
	for bit, set := range e.flags() {
		*set = flags&(1<<bit) != 0
		known |= 1 << bit
	}
	seconds, nanoseconds := d.int(), d.uint()
	e.Time = time.Unix(seconds, int64(nanoseconds)).UTC()
	e.SessionCount = int(d.int())
	e.ID, e.Type = d.string(), d.string()
	e.From, e.To = jid.JID(d.string()), jid.JID(d.string())
	e.User, e.Room = jid.JID(d.string()), jid.JID(d.string())
	e.Body, e.StanzaID = d.string(), d.string()
	e.Host, e.Dialect, e.Packet = d.string(), d.string(), d.string()
	if version > 1 {
		e.Replaces = d.string()
	}
	e.Metadata = d.metadata()
	if d.bad || len(d.text) > 0 || version == 1 && e.Fallback || int(flags)&^known != 0 || nanoseconds > 999_999_999 {
		return Event{}, b, errBinary
	}
	return e, rest, nil
}

// decoder reads values until one is bad; from then on all are zero.
type decoder struct {
	text string // what is left; the texts of the event are cut from it
	bad  bool
}

// fail makes this value bad, and all that follow.
func (d *decoder) fail() { d.text, d.bad = "", true }

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.text)) {
		d.fail()
		return ""
	}
	s := d.text[:n]
	d.text = d.text[n:]
	return s
}

func (d *decoder) byte() byte {
	if len(d.text) == 0 {
		d.fail()
		return 0
	}
	b := d.text[0]
	d.text = d.text[1:]
	return b
}

func (d *decoder) uint() uint64 {
	if len(d.text) > 0 && d.text[0] < 0x80 { // nearly all are lengths of one byte
		v := uint64(d.text[0])
		d.text = d.text[1:]
		return v
	}
	v, n := binary.Uvarint([]byte(d.text[:min(len(d.text), binary.MaxVarintLen64)]))
	if n <= 0 {
		d.fail()
		return 0
	}
	d.text = d.text[n:]
	return v
}

func (d *decoder) int() int64 {
	v := d.uint() // zigzag, as binary.AppendVarint writes it
	return int64(v>>1) ^ -int64(v&1)
}

func (d *decoder) string() string { return d.take(d.uint()) }

// metadata reads the pairs, in ascending order as AppendBinary writes them.
func (d *decoder) metadata() Metadata {
	count := d.uint()
	if count > uint64(len(d.text)) { // each takes two bytes at least
		d.bad = true
	}
	if count == 0 || d.bad {
		return nil
	}
	m := make(Metadata, min(count, 64))
	last := ""
	for i := range count {
		key := d.string()
		if i > 0 && key <= last {
			d.bad = true
		}
		last = key
		m[key] = d.value()
		if d.bad {
			return nil
		}
	}
	return m
}

func (d *decoder) value() any {
	switch kind := d.byte(); kind {
	case valueNull:
		return nil
	case valueString:
		return d.string()
	case valueFalse, valueTrue:
		return kind == valueTrue
	case valueInt:
		return d.int()
	case valueFloat:
		if bits := d.take(8); len(bits) == 8 {
			return math.Float64frombits(binary.LittleEndian.Uint64([]byte(bits)))
		}
	}
	d.bad = true
	return nil
}

package outbox

import (
	"encoding/binary"
	"errors"
	"time"
)

// errDamaged says that bytes which this package has written make no sense.
var errDamaged = errors.New("outbox: damaged entry")

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendTime keeps nanoseconds; the zero time stays the zero time.
func appendTime(dst []byte, t time.Time) []byte {
	if t.IsZero() {
		return binary.AppendVarint(dst, 0)
	}
	return binary.AppendVarint(dst, t.UnixNano())
}

// Decoder takes values off the front of bytes that an engine has written. After the first
// damage it returns zero values, so that it has to be asked only once, at the end.
type Decoder struct {
	b       []byte
	damaged bool
}

// NewDecoder returns a Decoder of b.
func NewDecoder(b []byte) *Decoder { return &Decoder{b: b} }

// Err returns an error if something was damaged.
func (d *Decoder) Err() error {
	if d.damaged {
		return errDamaged
	}
	return nil
}

// Fail says that what comes next makes no sense.
func (d *Decoder) Fail() {
	d.b, d.damaged = nil, true
}

// Uvarint returns an unsigned varint.
func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.Fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Varint returns a signed varint.
func (d *Decoder) Varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.Fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Time returns what appendTime wrote.
func (d *Decoder) Time() time.Time {
	if ns := d.Varint(); ns != 0 {
		return time.Unix(0, ns).UTC()
	}
	return time.Time{}
}

// Byte returns one byte.
func (d *Decoder) Byte() byte {
	if len(d.b) == 0 {
		d.Fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

// Uint64 returns eight bytes as a number, the most significant first.
func (d *Decoder) Uint64() uint64 {
	if len(d.b) < 8 {
		d.Fail()
		return 0
	}
	v := binary.BigEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

// Bytes returns so many bytes as a length before them says. They stay part of the input.
func (d *Decoder) Bytes() []byte {
	n := d.Uvarint()
	if n > uint64(len(d.b)) {
		d.Fail()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// Text returns a text that stands behind its length.
func (d *Decoder) Text() string { return string(d.Bytes()) }

// Count returns a number of things that take at least one byte each.
func (d *Decoder) Count() int {
	n := d.Uvarint()
	if n > uint64(len(d.b)) {
		d.Fail()
		return 0
	}
	return int(n)
}

// Encoded returns the next event as event.AppendBinary wrote it. It stays part of the input.
func (d *Decoder) Encoded() []byte {
	all := d.b
	if len(d.Bytes()) == 0 {
		d.Fail()
	}
	return all[:len(all)-len(d.b)]
}

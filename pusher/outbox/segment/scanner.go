package segment

import (
	"encoding/binary"
	"errors"
	"io"
)

// chunk is how many bytes are read ahead.
const chunk = 128 << 10

// scanner reads the records of one file in order.
type scanner struct {
	f        io.ReaderAt
	salt     uint32
	off, end int64  // of the next record, of what may be read
	next     uint64 // number that the next record must begin with
	buf      []byte // bytes of the file from base on
	base     int64
}

// window returns n bytes at off, which must end before s.end. They stay valid
// until the next call.
func (s *scanner) window(off int64, n int) ([]byte, error) {
	if off < s.base || off+int64(n) > s.base+int64(len(s.buf)) {
		size := max(n, int(min(chunk, s.end-off)))
		if cap(s.buf) < size || cap(s.buf) > 8*chunk && size <= chunk {
			s.buf = make([]byte, max(size, chunk))
		}
		read, err := s.f.ReadAt(s.buf[:size], off)
		s.buf, s.base = s.buf[:read], off
		if read < n {
			if errors.Is(err, io.EOF) {
				return nil, &damage{"the file is shorter than it was"}
			}
			return nil, err
		}
	}
	return s.buf[off-s.base:][:n], nil
}

// peek returns the header of the next record, io.EOF at the end, or a *damage.
func (s *scanner) peek() (record, error) {
	if s.off >= s.end {
		return record{}, io.EOF
	}
	if s.end-s.off < recordSize {
		return record{}, &damage{"incomplete record"}
	}
	b, err := s.window(s.off, recordSize)
	if err != nil {
		return record{}, err
	}
	r, ok := decodeRecord(b, s.salt)
	switch {
	case !ok:
		return record{}, &damage{"damaged record header"}
	case r.first != s.next:
		return record{}, &damage{"record with an unexpected event number"}
	case int64(r.length) > s.end-s.off-recordSize:
		return record{}, &damage{"incomplete record"}
	}
	return r, nil
}

// skip goes behind the record that peek returned.
func (s *scanner) skip(r record) {
	s.off += recordSize + int64(r.length)
	s.next = r.first + uint64(r.events)
}

// read returns the next record's payload, checked; errors are those of peek.
func (s *scanner) read() (Pack, error) {
	r, err := s.peek()
	if err != nil {
		return Pack{}, err
	}
	b, err := s.window(s.off, recordSize+int(r.length))
	if err != nil {
		return Pack{}, err
	}
	if checksum(s.salt, b[recordSize:]) != r.sum {
		return Pack{}, &damage{"damaged payload"}
	}
	s.skip(r)
	return Pack{First: r.first, Events: int(r.events), Payload: b[recordSize:]}, nil
}

// maxGap is more events than a segment holds. A number further ahead than that is
// none; together with the checksum this makes finding a record where there is
// none a matter of 2^64.
const maxGap = 1 << 32

// find looks for the next record behind a damaged one: its header's checksum is
// right, it fits, and its number is not behind.
func (s *scanner) find() (off int64, first uint64, found bool) {
	for p := s.off; p+recordSize <= s.end; p++ {
		b, err := s.window(p, recordSize)
		if err != nil {
			return 0, 0, false // unreadable from here on, like a file that ends
		}
		ahead := binary.LittleEndian.Uint64(b[8:]) - s.next // huge for smaller ones
		if ahead > maxGap || ahead == 0 && p == s.off {
			continue
		}
		if r, ok := decodeRecord(b, s.salt); ok && int64(r.length) <= s.end-p-recordSize {
			return p, r.first, true
		}
	}
	return 0, 0, false
}

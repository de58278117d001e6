package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// Version is the format that this package writes, and the newest that it reads.
const Version = 1

// A segment file is a header and records, all integers little-endian.
//
// Header: magic, version u32, salt u32, number of the first event u64, number of
// the first event of the segment before u64, its final size u64, zero u32,
// CRC32C u32 of all before. The two fields about the segment before chain the
// files, so that a missing or shortened one shows without reading it.
//
// Record: length of the payload u32, number of its events u32, number of the
// first u64, CRC32C u32 of the payload, CRC32C u32 of the 20 bytes before, payload.
// The checksum of the lengths by itself lets a reader go from record to record
// without reading payloads, and find the next one behind a damaged one.
//
// All checksums but the header's start from the salt, a random number of the log.
// Without it whoever can have text of his choice logged could write records
// inside of his text, for recovery to find.
const (
	magic      = "evpushsg"
	headerSize = 48
	recordSize = 24
	extension  = ".seg"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is the beginning of a segment file.
type header struct {
	salt      uint32
	first     uint64
	prevFirst uint64 // 0: the first segment of the log
	prevSize  int64
}

func (h header) encode() []byte {
	b := append(make([]byte, 0, headerSize), magic...)
	b = binary.LittleEndian.AppendUint32(b, Version)
	b = binary.LittleEndian.AppendUint32(b, h.salt)
	b = binary.LittleEndian.AppendUint64(b, h.first)
	b = binary.LittleEndian.AppendUint64(b, h.prevFirst)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.prevSize))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeHeader returns the header in b, or what is wrong with it. A header with
// another version than ours and its own valid shape gives that version.
func decodeHeader(b []byte) (h header, version uint32, reason string) {
	if len(b) < headerSize {
		return h, 0, "the file ends within its header, and what it held is gone"
	}
	if string(b[:8]) != magic {
		return h, 0, "damaged segment header"
	}
	version = binary.LittleEndian.Uint32(b[8:])
	// A later format may put its checksum elsewhere. A damaged version is told
	// from a later one by the checksum that fits once the version is put right,
	// or by being a number that no format will reach.
	ours := append(append(make([]byte, 0, headerSize), b[:8]...), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(ours[8:], Version)
	ours = append(ours, b[12:headerSize-4]...)
	valid := crc32.Checksum(ours, castagnoli) == binary.LittleEndian.Uint32(b[headerSize-4:])
	switch {
	case version > Version && version < 256 && !valid:
		return h, version, ""
	case !valid, version != Version:
		return h, Version, "damaged segment header"
	}
	h.salt = binary.LittleEndian.Uint32(b[12:])
	h.first = binary.LittleEndian.Uint64(b[16:])
	h.prevFirst = binary.LittleEndian.Uint64(b[24:])
	h.prevSize = int64(binary.LittleEndian.Uint64(b[32:]))
	return h, Version, ""
}

// fileName names the segment: what is needed to read the records of one whose
// header is damaged stands in its name too.
func fileName(first uint64, salt uint32) string {
	return fmt.Sprintf("%020d-%08x%s", first, salt, extension)
}

func parseFileName(name string) (first uint64, salt uint32, ok bool) {
	_, err := fmt.Sscanf(strings.TrimSuffix(name, extension), "%d-%x", &first, &salt)
	return first, salt, err == nil && first > 0 && fileName(first, salt) == name
}

// record is what stands before a payload.
type record struct {
	length, events uint32
	first          uint64
	sum            uint32
}

func (r record) append(b []byte, salt uint32) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint32(b, r.length)
	b = binary.LittleEndian.AppendUint32(b, r.events)
	b = binary.LittleEndian.AppendUint64(b, r.first)
	b = binary.LittleEndian.AppendUint32(b, r.sum)
	return binary.LittleEndian.AppendUint32(b, checksum(salt, b[from:]))
}

// decodeRecord reads a record's header; it reports whether its checksum and the
// bounds that Append keeps are right.
func decodeRecord(b []byte, salt uint32) (r record, ok bool) {
	r.length = binary.LittleEndian.Uint32(b)
	r.events = binary.LittleEndian.Uint32(b[4:])
	r.first = binary.LittleEndian.Uint64(b[8:])
	r.sum = binary.LittleEndian.Uint32(b[16:])
	ok = r.events > 0 && r.events <= r.length && r.length <= MaxPayload &&
		binary.LittleEndian.Uint32(b[20:]) == checksum(salt, b[:20])
	return r, ok
}

func checksum(salt uint32, b []byte) uint32 { return crc32.Update(salt, castagnoli, b) }

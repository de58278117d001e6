package translator

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// identifier gives events their ids: half a SHA-256 each. For feeds that number
// nothing it is of where and when the
// stanza came from, a checksum of its bytes, and a running number. The number
// keeps equal stanzas at one reading of the clock apart, the time those before and
// after a restart. The place among the stanza's events picks the half, and with
// it kind and direction.
//
// The checksum is short because the digest of a whole stanza would cost more than
// all the rest of the translation, and the number tells more than the content.
type identifier struct {
	number  uint64
	scratch []byte
}

// assignReported sets the ids of the events of a report: half a SHA-256 each of the
// place in the source's sequence and what the event is about, so that they are the
// same whenever and by whatever process it is translated. Of a message that is the
// direction; of what members of a room have missed, the member; of statuses, of which a
// process makes more that knows what came before the report, the session and what has
// become of it.
func (g *identifier) assignReported(r *stanza.Report, events []event.Event) {
	b := append(g.scratch[:0], byte(trust.EventFeed))
	for _, part := range [...]string{r.Source, r.Epoch} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	b = binary.BigEndian.AppendUint64(b, r.Seq)
	prefix := len(b)
	about, ids := jid.JID(""), "" // about: what tells the events of a report apart
	for i := range events {
		e := &events[i]
		this := jid.JID("")
		switch e.Kind {
		case event.UserStatus:
			this = e.From
		case event.Missed:
			this = e.User
		}
		if this != about {
			about, ids = this, ""
			b = append(b[:prefix], about...)
		}
		if ids == "" {
			ids = hexDigest(b)
		}
		half := 0
		if e.Online || e.Direction == event.Out {
			half = 1
		}
		e.ID = ids[2*idBytes*half : 2*idBytes*(half+1)]
	}
	g.scratch = b
}

// hexDigest returns the SHA-256 of b in hexadecimal.
func hexDigest(b []byte) string {
	digest := sha256.Sum256(b)
	var text [2 * sha256.Size]byte
	hex.Encode(text[:], digest[:])
	return string(text[:])
}

// idBytes is the length of an id before it is written in hexadecimal.
const idBytes = sha256.Size / 2

// assign sets the ids of the events of s, of which there are one or two.
func (g *identifier) assign(s *trust.Fact, received time.Time, events []event.Event) {
	g.number++
	sum := g.checksum(s.Raw)
	b := append(g.scratch[:0], byte(s.Feed), byte(s.Kind), byte(s.Copy))
	b = binary.BigEndian.AppendUint64(b, g.number)
	b = binary.BigEndian.AppendUint64(b, uint64(received.UnixNano()))
	b = binary.BigEndian.AppendUint32(b, sum)
	b = binary.BigEndian.AppendUint64(b, uint64(len(s.Raw)))
	for _, part := range [...]string{string(s.Host), string(s.From), string(s.To)} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	g.scratch = b
	ids := hexDigest(b)
	for i := range events {
		events[i].ID = ids[2*idBytes*i : 2*idBytes*(i+1)]
	}
}

// checksum returns the CRC-32C of s, read by pieces so that s is not copied.
func (g *identifier) checksum(s string) uint32 {
	var sum uint32
	for len(s) > 0 {
		n := min(len(s), 1024)
		g.scratch = append(g.scratch[:0], s[:n]...)
		sum = crc32.Update(sum, castagnoli, g.scratch)
		s = s[n:]
	}
	return sum
}

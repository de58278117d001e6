package outbox

import (
	"hash/maphash"

	"eventpusher/event"
)

// entryOverhead is what an event costs beside its texts: the event itself, its
// place in a queue and in the tables.
const entryOverhead = 640

// Size estimates the memory that an event holds. All texts of a stanza share one
// buffer, of which the packet is by far the most.
func Size(e *event.Event) int {
	n := entryOverhead + len(e.Packet) + len(e.Body) + len(e.From) + len(e.To)
	for k, v := range e.Metadata {
		n += len(k) + 48
		if s, ok := v.(string); ok {
			n += len(s)
		}
	}
	return n
}

// KeyHash returns maphash.String of the event's key, and keeps no memory for it.
func KeyHash(seed maphash.Seed, e *event.Event) uint64 {
	var room [256]byte
	return maphash.Bytes(seed, e.AppendKey(room[:0]))
}

package jetstream

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// The numbers of events in a Window: the sequence of the message in the log, and the place in
// the message.
const (
	placeBits  = 12
	maxEntries = 1<<placeBits - 1
)

func numberOf(seq uint64, place int) uint64 { return seq<<placeBits | uint64(place) }

// Bounds of a direct get of the log, and of the cache.
const (
	readMessages = 64
	readBytes    = 4 << 20
	cacheBytes   = 8 << 20
)

// cache keeps messages of the log that were read or appended last, so that the backends
// read and decode each once. Safe for concurrent use.
type cache struct {
	mu         sync.Mutex
	had        uint64     // the last sequence that was ever there
	tail, back stretch    // what this instance has appended, and what it has read
	fetch      sync.Mutex // one direct get at a time: the others find its answer
}

// cached is one message.
type cached struct {
	seq   uint64
	bytes int
	*commit
}

// stretch is a part of the log without holes.
type stretch struct {
	list  []cached // ascending
	bytes int
}

// add appends a message, and drops the oldest if there are too many. A message that does
// not come right after the last replaces all.
func (s *stretch) add(m cached) {
	if n := len(s.list); n > 0 && s.list[n-1].seq+1 != m.seq {
		s.list, s.bytes = nil, 0
	}
	s.list = append(s.list, m)
	for s.bytes += m.bytes; s.bytes > cacheBytes && len(s.list) > 1; s.list = s.list[1:] {
		s.bytes -= s.list[0].bytes
	}
}

func (s *stretch) from(seq uint64) []cached {
	if len(s.list) == 0 || seq < s.list[0].seq || seq > s.list[len(s.list)-1].seq {
		return nil
	}
	rest := s.list[seq-s.list[0].seq:]
	return append([]cached(nil), rest[:min(len(rest), readMessages)]...)
}

// put adds a message that was appended.
func (c *cache) put(seq uint64, m *commit) {
	bytes := 0
	for i := range m.entries {
		bytes += m.entries[i].size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tail.add(cached{seq, bytes, m})
	c.had = max(c.had, seq)
}

// last returns the last sequence of the log that this instance has read or appended.
func (c *cache) last() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.had
}

// from returns the messages from a sequence on, nil if the first is not there.
func (c *cache) from(seq uint64) []cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	if list := c.tail.from(seq); list != nil {
		return list
	}
	return c.back.from(seq)
}

// read returns messages of the log from a sequence on, in order, none at its end.
func (e *Engine) read(ctx context.Context, seq uint64) ([]cached, error) {
	if list := e.cache.from(seq); list != nil {
		return list, nil
	}
	e.cache.fetch.Lock()
	defer e.cache.fetch.Unlock()
	if list := e.cache.from(seq); list != nil {
		return list, nil
	}
	records, err := e.set.Load().log.From(ctx, seq, "", readMessages, readBytes)
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	var list []cached
	for _, r := range records {
		m, err := decodeCommit(r.Data)
		if err != nil {
			return nil, fmt.Errorf("outbox: message %d of the log: %w", r.Seq, err)
		}
		list = append(list, cached{r.Seq, len(r.Data), m})
	}
	if len(list) > 0 {
		e.reach(list[len(list)-1].seq)
		e.cache.mu.Lock()
		for _, m := range list {
			e.cache.back.add(m)
			e.cache.had = max(e.cache.had, m.seq)
		}
		e.cache.mu.Unlock()
	}
	return list, nil
}

// decode returns the event of an entry with its key. Several readers may do so at a time.
func (c *cache) decode(seed maphash.Seed, en *entry) (*event.Event, uint64, int, error) {
	c.mu.Lock()
	ev, key, size := en.event, en.key, en.size
	c.mu.Unlock()
	if ev != nil {
		return ev, key, size, nil
	}
	ev, err := outbox.DecodeEvent(en.encoded)
	if err != nil {
		return nil, 0, 0, err
	}
	key, size = outbox.KeyHash(seed, ev), outbox.Size(ev)
	c.mu.Lock()
	defer c.mu.Unlock()
	if en.event != nil {
		return en.event, en.key, en.size, nil
	}
	en.event, en.key, en.size = ev, key, size
	return ev, key, size, nil
}

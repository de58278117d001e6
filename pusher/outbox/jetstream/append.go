package jetstream

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// writer is the state of Append, which one goroutine calls at a time.
//
// An Append that fails may have stored a part of its pack, and often nobody knows
// which: the answers did not come. The messages without an answer are kept and
// sent again before anything else, under the same ids, so that the server stores
// each once; the events of those with an answer are left out when the caller
// offers them again.
type writer struct {
	mu         sync.Mutex // Append against Replay of other goroutines
	unanswered []*message
	stored     map[*event.Event]struct{} // whose Append has failed
	body       []byte
}

// forget gives up what is left of Appends that have failed. Whoever has the link anew has
// been given its feeds' events back, and they may have come by another instance since.
// What is offered again nevertheless may then be stored twice.
func (w *writer) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unanswered, w.stored = nil, nil
}

// message is one pack of a partition on its way.
type message struct {
	partition int
	id        string
	data      []byte
	events    []*event.Event
}

// partitionOf divides keys among partitions, the same way in every instance.
func partitionOf(key string, partitions int) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, key) // never fails
	return int(h.Sum32() % uint32(partitions))
}

// largest is the size up to which an event fits into a message.
func (w *writer) largest(nc *nats.Conn) int { return int(nc.MaxPayload()) - headroom }

// Append implements outbox.Outbox. When it returns nil the streams have
// acknowledged every message and the positions are written. When NATS does not
// answer it returns an error within seconds; offered again, nothing is stored
// twice as long as the server remembers the ids (two minutes).
//
// An event that is too large for a message of this server is a dead letter at
// once.
func (e *Engine) Append(p outbox.Pack) error {
	err := e.append(&p)
	if errors.Is(err, outbox.ErrFull) {
		e.appending.set(nil)
	} else {
		e.appending.set(err)
	}
	return err
}

func (e *Engine) append(p *outbox.Pack) error {
	s := e.set.Load()
	if s == nil {
		return e.connection.get()
	}
	w := &e.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := e.publish(s, true); err != nil { // what is left of an earlier pack
		return err
	}
	list, large, bytes := e.messages(s, p)
	if err := e.size.room(bytes, len(p.Positions) > 0, e.o.MaxSize); err != nil {
		return err
	}
	if err := e.bury(s, large); err != nil {
		return err
	}
	w.unanswered = list
	if err := e.publish(s, false); err != nil {
		w.keep(list)
		return err
	}
	e.size.grow(bytes)
	if len(p.Positions) > 0 {
		ctx, cancel := e.request()
		defer cancel()
		if err := e.positions.advance(ctx, s.layout, p.Positions, e.cluster.token()); err != nil {
			w.keep(list)
			return err
		}
	}
	for i := range p.Entries {
		delete(w.stored, p.Entries[i].Event)
	}
	return nil
}

// keep notes which events are stored although their Append fails, for the caller
// offers them again.
func (w *writer) keep(list []*message) {
	for _, m := range list {
		if !slices.Contains(w.unanswered, m) {
			w.note(m)
		}
	}
}

func (w *writer) note(m *message) {
	if w.stored == nil {
		w.stored = make(map[*event.Event]struct{})
	}
	for _, e := range m.events {
		w.stored[e] = struct{}{}
	}
}

// packing is the message of one partition that is being filled.
type packing struct {
	body   []byte
	events []*event.Event
}

// messages packs the events of a pack that are wanted and not stored yet, and
// returns those apart that no message can hold.
func (e *Engine) messages(s *setup, p *outbox.Pack) (list []*message, large []outbox.DeadLetter, bytes int64) {
	now := time.Now()
	readers := *e.readers.Load()
	limit := e.writer.largest(e.nc)
	open := make(map[int]*packing)
	flush := func(partition int, k *packing) {
		m := &message{partition: partition, id: nuid.Next(), events: k.events}
		m.data = append(outbox.AppendPackHeader(make([]byte, 0, len(k.body)+32), now, len(k.events)), k.body...)
		bytes += int64(len(m.data))
		list = append(list, m)
		k.body, k.events = k.body[:0], nil
	}
	var order []int // so that equal packs make equal messages
	for _, entry := range p.Entries {
		if _, done := e.writer.stored[entry.Event]; done {
			continue
		}
		var numbers outbox.Subscribers
		(entry.Subscribers & (1<<len(readers) - 1)).Numbers(func(bit int) {
			numbers.Add(int(s.meta.Backends[readers[bit].backend].Number))
		})
		if numbers == 0 {
			continue
		}
		e.writer.body = outbox.AppendPackEntry(e.writer.body[:0], numbers, entry.Event)
		if len(e.writer.body) > limit {
			large = append(large, tooLarge(entry, readers, len(e.writer.body), limit, now)...)
			continue
		}
		n := partitionOf(entry.Event.Key(), len(s.logs))
		k := open[n]
		if k == nil {
			k = &packing{}
			open[n] = k
			order = append(order, n)
		}
		if len(k.events) > 0 && (len(k.events) == packEvents || len(k.body)+len(e.writer.body) > min(packBytes, limit)) {
			flush(n, k)
		}
		k.body = append(k.body, e.writer.body...)
		k.events = append(k.events, entry.Event)
	}
	for _, n := range order {
		if k := open[n]; len(k.events) > 0 {
			flush(n, k)
		}
	}
	return list, large, bytes
}

// reasonTooLarge is the reason of backends for what they cannot take.
const reasonTooLarge = "too_large"

// tooLarge makes dead letters of an event, one for each backend, without what
// made it large: the stanza.
func tooLarge(entry outbox.Entry, readers []*reader, size, limit int, now time.Time) (list []outbox.DeadLetter) {
	cut := *entry.Event
	cut.Packet, cut.Body, cut.Metadata = "", "", nil
	for bit, r := range readers {
		if entry.Subscribers.Has(bit) {
			list = append(list, outbox.DeadLetter{
				Event: &cut, Backend: r.backend, Reason: reasonTooLarge, Accepted: now, Died: now,
				Err: fmt.Sprintf("the event has %d bytes and NATS takes %d: raise max_payload of nats-server, or lower [component] max_stanza_size; packet and body were left out here", size, limit),
			})
		}
	}
	return list
}

// publish sends what has no answer yet. Messages of one partition go one after
// the other, for the later one must not be stored without the earlier. note says
// that the events belong to an Append that has failed.
func (e *Engine) publish(s *setup, note bool) error {
	w := &e.writer
	for len(w.unanswered) > 0 {
		var wave, rest []*message
		busy := make(map[int]bool)
		for _, m := range w.unanswered {
			if busy[m.partition] {
				rest = append(rest, m)
			} else {
				busy[m.partition] = true
				wave = append(wave, m)
			}
		}
		futures := make([]js.PubAckFuture, len(wave))
		var failed error
		for i, m := range wave {
			var err error
			futures[i], err = e.js.PublishMsgAsync(&nats.Msg{Subject: s.names.logSubject(m.partition), Data: m.data}, js.WithMsgID(m.id))
			if err != nil {
				failed = errors.Join(failed, err)
			}
		}
		var left []*message
		for i, m := range wave {
			if futures[i] != nil {
				if _, err := answer(futures[i]); err != nil {
					failed = errors.Join(failed, err)
				} else {
					if note {
						w.note(m)
					}
					continue
				}
			}
			left = append(left, m)
		}
		w.unanswered = append(left, rest...)
		if failed != nil {
			return fmt.Errorf("outbox: NATS does not take events: %w", explain(failed))
		}
	}
	w.unanswered = nil
	return nil
}

// answer waits for the acknowledgement of a message. The client gives up by
// itself after requestTimeout, and when the connection is lost.
func answer(f js.PubAckFuture) (*js.PubAck, error) {
	select {
	case ack := <-f.Ok():
		return ack, nil
	case err := <-f.Err():
		return nil, err
	}
}

// size is how much the log takes, as far as is known.
type size struct {
	measured atomic.Int64 // by sizeLoop
	grown    atomic.Int64 // appended here since
}

func (s *size) grow(n int64) { s.grown.Add(n) }

// room decides whether the log may grow by n bytes. A source that can wait has to
// at the limit; for others the slowest backend gives something up, in the
// background and thus with some delay, which is bounded here.
func (s *size) room(n int64, canWait bool, limit int64) error {
	switch grown := s.measured.Load() + s.grown.Load() + n; {
	case grown <= limit:
		return nil
	case canWait:
		return outbox.ErrFull
	case grown > limit+limit/4:
		return fmt.Errorf("%w: %d bytes are in use, and what the slowest backend has under way cannot be given up", outbox.ErrFull, grown)
	}
	return nil
}

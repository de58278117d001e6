package jetstream

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"eventpusher/event"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// writer is the state of Append, which one goroutine calls at a time. It appends one message
// at a time: of several under way, the later ones could find their expectation fulfilled
// although the first was refused.
type writer struct {
	known atomic.Pointer[[]outbox.Position] // for whoever must not wait for a request

	mu   sync.Mutex // Append against Lead
	last uint64     // the last sequence of the log
	kept []outbox.Position
	// tried are the messages whose fate is unknown. All of them expect last, so one at
	// most is stored, and once something is they never will be.
	tried map[uint64]*message
	// stored are the events of Appends that have failed although a part was stored. The
	// caller offers them again.
	stored map[*event.Event]struct{}
	body   []byte
}

// message is one message of the log on its way.
type message struct {
	commit
	data   []byte
	events []*event.Event
}

var (
	errNotHolder = errors.New("outbox: this instance does not hold the link to the XMPP server")
	errDeposed   = errors.New("outbox: another instance has acquired the link to the XMPP server")
	// errAgain says that a part of the pack is stored, so that it has to be made anew.
	errAgain = errors.New("outbox: stored in part")
)

// partitionOf divides keys among partitions, the same way in every instance.
func partitionOf(key string, partitions int) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, key) // never fails
	return int(h.Sum32() % uint32(partitions))
}

// largest is the size up to which an event fits into a message.
func (e *Engine) largest() int { return int(e.nc.MaxPayload()) - headroom }

// Append implements outbox.Outbox. Only the instance that holds the link appends, but for
// what does not come from there: replayed events, notifications that a push backend makes. If NATS does not answer Append returns an error within seconds. If the
// pack is offered again, nothing of it is stored twice.
//
// An event that is too large for a message of this server becomes a dead letter at once.
func (e *Engine) Append(p outbox.Pack) error {
	err := e.append(&p)
	if errors.Is(err, outbox.ErrFull) || errors.Is(err, errNotHolder) || errors.Is(err, errDeposed) {
		e.appending.set(nil) // the engine works
	} else {
		e.appending.set(err)
	}
	return err
}

func (e *Engine) append(p *outbox.Pack) error {
	s, w := e.set.Load(), &e.writer
	if s == nil {
		return e.connection.get()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithTimeout(e.ctx, e.o.answer())
	defer cancel()
	term := e.cluster.Holding()
	if term == 0 {
		return e.appendOwn(ctx, s, p)
	}
	for {
		list, large, bytes := e.messages(s, p, term)
		if err := e.size.room(bytes, len(p.Positions) > 0, e.o.MaxSize); err != nil {
			return err
		}
		if err := e.Bury(large...); err != nil {
			return err
		}
		err := e.storeAll(ctx, s, list)
		if errors.Is(err, errAgain) {
			continue
		}
		if err != nil {
			return fmt.Errorf("outbox: NATS does not take events: %w", natsrpc.Explain(err))
		}
		e.size.grow(bytes)
		for i := range p.Entries {
			delete(w.stored, p.Entries[i].Event)
		}
		return nil
	}
}

func (e *Engine) storeAll(ctx context.Context, s *setup, list []*message) error {
	for _, m := range list {
		if err := e.store(ctx, s, m); err != nil {
			return err
		}
	}
	return nil
}

// store appends one message. w.mu is held.
func (e *Engine) store(ctx context.Context, s *setup, m *message) error {
	w := &e.writer
	for {
		if w.tried == nil {
			w.tried = make(map[uint64]*message)
		}
		w.tried[m.id] = m // each time: it may come after another instance's message now
		last := w.last
		try, cancel := context.WithTimeout(ctx, time.Second)
		seq, err := s.log.Write(try, natsrpc.NewMsg(s.names.logSubject(), m.data, natsrpc.AfterStream(w.last)))
		cancel()
		if err == nil {
			e.decided(seq, m)
			return nil
		}
		if ctx.Err() != nil || e.connection.get() != nil {
			return err
		}
		if stored, found := e.lookAtLog(ctx, s, m.term); found != nil || stored == m {
			return found
		} else if stored != nil {
			return errAgain // of an earlier Append
		}
		if w.last == last { // else the others would always be faster
			pause(ctx, 20*time.Millisecond)
		}
	}
}

// lookAtLog looks at what follows last. It returns the message of ours that does, nil if
// nothing does yet, or errDeposed. What other instances have replayed in our term it passes.
func (e *Engine) lookAtLog(ctx context.Context, s *setup, term uint64) (*message, error) {
	w := &e.writer
	for again := false; ; again = true {
		r, ok, err := s.log.At(ctx, w.last+1)
		if err != nil {
			return nil, nil // not to be known yet
		}
		if ok { // what is tried can be nowhere else
			c, err := decodeCommit(r.Data)
			if err != nil {
				return nil, err
			}
			if m := w.tried[c.id]; m != nil {
				e.decided(r.Seq, m)
				return m, nil
			}
		}
		newest, end, err := s.newest(ctx)
		switch {
		case err != nil || end <= w.last:
			return nil, nil // the same
		case newest.term != term:
			return nil, errDeposed
		case !ok && !again:
			continue // it may have come since; or it was delivered and trimmed
		}
		w.last, w.tried = end, nil
		e.reach(end)
		e.wakeReaders()
		return nil, nil
	}
}

// decided notes that a message of ours is stored.
func (e *Engine) decided(seq uint64, m *message) {
	w := &e.writer
	w.last, w.kept, w.tried = seq, m.positions, nil
	w.known.Store(&m.positions)
	if w.stored == nil {
		w.stored = make(map[*event.Event]struct{})
	}
	for _, ev := range m.events {
		w.stored[ev] = struct{}{}
	}
	e.cache.put(seq, &m.commit)
	e.reach(seq)
	e.wakeReaders()
	e.ring(seq)
}

// messages makes the messages of what is wanted of a pack and not stored yet, usually one.
// It returns those events apart that no message can hold. Only the last message has the new
// positions.
func (e *Engine) messages(s *setup, p *outbox.Pack, term uint64) (list []*message, large []outbox.DeadLetter, bytes int64) {
	w := &e.writer
	now := time.Now()
	limit := e.largest()
	m, body := &message{}, w.body[:0]
	flush := func(positions []outbox.Position) {
		m.commit.term, m.id, m.accepted, m.positions = term, rand.Uint64(), now, positions
		m.data = append(m.commit.append(make([]byte, 0, len(body)+256), len(m.entries)), body...)
		bytes += int64(len(m.data))
		list = append(list, m)
		m, body = &message{}, body[:0]
	}
	for _, one := range p.Entries {
		if _, done := w.stored[one.Event]; done {
			continue
		}
		numbers := e.numbers(one.Subscribers)
		if numbers == 0 {
			continue
		}
		partition := partitionOf(one.Event.Key(), e.o.Partitions)
		before := len(body)
		body = appendEntry(body, partition, numbers, one.Event)
		if size := len(body) - before; size > limit {
			body = body[:before]
			large = append(large, e.tooLarge(one, size, limit, now)...)
			continue
		} else if len(body) > limit && before > 0 || len(m.entries) == maxEntries {
			tail := slices.Clone(body[before:])
			body = body[:before]
			flush(w.kept)
			body = append(body, tail...)
		}
		m.entries = append(m.entries, entry{
			partition: partition, readers: numbers, event: one.Event, key: outbox.KeyHash(e.seed, one.Event), size: outbox.Size(one.Event),
		})
		m.events = append(m.events, one.Event)
	}
	if len(m.entries)+len(p.Positions) > 0 {
		flush(outbox.MergePositions(slices.Clone(w.kept), p.Positions))
	}
	w.body = body[:0]
	if cap(w.body) > 8<<20 {
		w.body = nil
	}
	return list, large, bytes
}

// numbers turns the bits of readers into those of the registry.
func (e *Engine) numbers(subscribers outbox.Subscribers) (numbers outbox.Subscribers) {
	for bit, d := range e.destinations() {
		if subscribers.Has(bit) {
			if reg := d.reg.Load(); reg != nil {
				numbers.Add(int(reg.Number))
			}
		}
	}
	return numbers
}

// appendOwn appends events that do not come from the link, while another instance holds it. It takes over term and positions from the last message.
func (e *Engine) appendOwn(ctx context.Context, s *setup, p *outbox.Pack) error {
	for _, one := range p.Entries {
		if !ownEvent(one.Event) {
			return errNotHolder
		}
	}
	if len(p.Positions) > 0 {
		return errNotHolder
	}
	for {
		last, seq, err := s.newest(ctx)
		if err != nil {
			return err
		}
		e.writer.last, e.writer.kept, e.writer.tried = seq, last.positions, nil
		list, large, _ := e.messages(s, p, last.term)
		if err := e.Bury(large...); err != nil {
			return err
		}
		if err = e.storeAll(ctx, s, list); err == nil || ctx.Err() != nil || !errors.Is(err, errDeposed) && !errors.Is(err, errAgain) {
			if err == nil {
				e.writer.stored = nil
			}
			return err
		}
	}
}

// ownEvent reports whether an event comes from an instance's own deliveries, and not from the
// link: it was replayed, or is a notification that its push backend has made of another event.
func ownEvent(e *event.Event) bool {
	return e.Replayed || e.Kind == event.Push || e.Kind == event.Notification && e.StanzaID != ""
}

// reasonTooLarge is the reason of backends for what they cannot take.
const reasonTooLarge = "too_large"

// tooLarge makes dead letters of an event, one for each backend, without the stanza that
// made it large.
func (e *Engine) tooLarge(one outbox.Entry, size, limit int, now time.Time) (list []outbox.DeadLetter) {
	cut := *one.Event
	cut.Packet, cut.Body, cut.Metadata = "", "", nil
	for bit, d := range e.destinations() {
		if one.Subscribers.Has(bit) {
			list = append(list, outbox.DeadLetter{
				Event: &cut, Backend: d.name, Reason: reasonTooLarge, Accepted: cut.Time, Died: now,
				Err: fmt.Sprintf("the event has %d bytes and NATS takes %d: raise max_payload of nats-server, or lower [component] max_stanza_size; packet and body were left out here", size, limit),
			})
		}
	}
	return list
}

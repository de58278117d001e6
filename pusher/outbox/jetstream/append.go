package jetstream

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/event"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// writer is the state of Append, which one goroutine calls at a time. It appends one message
// at a time: of several under way, the later ones could find their expectation fulfilled
// although the first was refused.
type writer struct {
	known atomic.Pointer[[]outbox.Position]  // for callers that must not wait for a request
	end   atomic.Pointer[context.CancelFunc] // ends the term of this instance

	mu   sync.Mutex // Append against Lead
	last uint64     // the last sequence of the log
	kept []outbox.Position
	// tried is a message that may be stored right after last, now or later; nil: there is
	// none. Nothing else is appended before that is decided.
	tried *message
	// stored are the events of Appends that have failed although a part was stored. The
	// caller offers them again.
	stored map[*event.Event]struct{}
	body   []byte
}

// message is one message of the log on its way.
type message struct {
	commit
	own    bool // not of the holder of the link
	data   []byte
	events []*event.Event
}

var (
	errNotHolder = errors.New("outbox: this instance does not hold the link to the XMPP server")
	errDeposed   = errors.New("outbox: another instance has acquired the link to the XMPP server")
	errCut       = errors.New("outbox: NATS has lost the end of the log; appending goes on when the next term has begun")
)

// partitionOf divides keys among partitions, the same way in every instance.
func partitionOf(key string, partitions int) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, key) // never fails
	return int(h.Sum32() % uint32(partitions))
}

// Largest implements outbox.Outbox: the event and all positions fit into one message of the
// server.
func (e *Engine) Largest() int {
	if e.set.Load() == nil {
		return math.MaxInt // Append fails
	}
	return int(e.nc.MaxPayload()) - headroom - len(outbox.AppendPositions(nil, *e.writer.known.Load()))
}

// Append implements outbox.Outbox. Only the instance that holds the link appends what comes
// from there. Any instance appends replayed events, and notifications that a push backend
// makes. If NATS does not answer, Append returns an error within seconds. If the pack is
// offered again, nothing of it is stored twice.
func (e *Engine) Append(p outbox.Pack) error {
	err := e.append(&p)
	if errors.Is(err, outbox.ErrFull) || errors.Is(err, errNotHolder) || errors.Is(err, errDeposed) {
		e.appending.Set(nil) // the engine works
	} else {
		e.appending.Set(err)
	}
	return err
}

func (e *Engine) append(p *outbox.Pack) error {
	s, w := e.set.Load(), &e.writer
	if s == nil {
		return e.connection.Get()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithTimeout(e.ctx, e.o.answer())
	defer cancel()
	term := e.cluster.Holding()
	own := term == 0
	if own && !ownPack(p) {
		return errNotHolder
	}
	if w.tried != nil { // this pack may have its events, too
		if err := e.store(ctx, s, w.tried); w.tried != nil {
			return notTaken(err)
		}
	}
	for {
		if own {
			last, seq, err := s.newest(ctx)
			if err == nil && seq < e.cache.last() {
				err = errCut
			}
			if err != nil {
				return notTaken(err)
			}
			w.last, w.kept, term = seq, last.positions, last.term
		}
		list, bytes := e.messages(s, p, term)
		for _, m := range list {
			m.own = own
		}
		if !own {
			if err := e.size.room(bytes, len(p.Positions) > 0, e.o.MaxSize); err != nil {
				return err
			}
		}
		switch err := e.storeAll(ctx, s, list); {
		case err == nil:
			e.size.grow(bytes)
			for i := range p.Entries {
				delete(w.stored, p.Entries[i].Event)
			}
			return nil
		case !own || !errors.Is(err, errDeposed):
			return notTaken(err)
		}
	}
}

func notTaken(err error) error {
	return fmt.Errorf("outbox: NATS does not take events: %w", natsrpc.Explain(err))
}

func (e *Engine) storeAll(ctx context.Context, s *layout, list []*message) error {
	for _, m := range list {
		if err := e.store(ctx, s, m); err != nil {
			return err
		}
	}
	return nil
}

// store appends one message. If it fails and the message may be stored all the same, it
// stays in tried, except after nats.ErrMaxPayload: it cannot be sent again. w.mu is held.
func (e *Engine) store(ctx context.Context, s *layout, m *message) error {
	w := &e.writer
	for w.tried = m; ; {
		last := w.last
		try, cancel := context.WithTimeout(ctx, time.Second)
		seq, err := s.log.Write(try, natsrpc.NewMsg(s.names.logSubject(), m.data, natsrpc.AfterStream(w.last)))
		cancel()
		if err == nil {
			e.decided(seq, m)
			return nil
		}
		if errors.Is(err, nats.ErrMaxPayload) { // the server takes less than it did
			w.tried = nil
			return err
		}
		if ctx.Err() != nil || e.connection.Get() != nil {
			return err
		}
		if stored, found := e.lookAtLog(ctx, s, m); stored || found != nil {
			return found
		}
		if w.last == last { // else the others would always be faster
			pause(ctx, 20*time.Millisecond)
		}
	}
}

// lookAtLog looks at what follows last, and reports whether it is the message. The error is
// errDeposed if the message can never be stored. The holder of the link passes over messages
// of other instances. These have to make theirs anew then, with the positions of the holder.
func (e *Engine) lookAtLog(ctx context.Context, s *layout, m *message) (stored bool, err error) {
	w := &e.writer
	for again := false; ; again = true {
		r, ok, err := s.log.At(ctx, w.last+1)
		if err != nil {
			return false, nil // not to be known yet
		}
		if ok { // the message can be nowhere else
			c, err := decodeCommit(r.Data)
			if err != nil {
				return false, err
			}
			if c.id == m.id {
				e.decided(r.Seq, m)
				return true, nil
			}
		}
		newest, end, err := s.newest(ctx)
		switch {
		case err != nil || end <= w.last:
			return false, nil // the same; if the log stays shorter, checkEnd ends the term
		case !ok && !again:
			continue // it may have come since; or it was delivered and trimmed
		case newest.term != m.term || m.own:
			w.tried = nil
			return false, errDeposed
		}
		w.last = end
		e.reach(end)
		e.wakeReaders()
		return false, nil
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
// Only the last message has the new positions.
func (e *Engine) messages(s *layout, p *outbox.Pack, term uint64) (list []*message, bytes int64) {
	w := &e.writer
	now := time.Now()
	limit := e.Largest()
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
		if len(body) > limit && before > 0 || len(m.entries) == maxEntries {
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
	return list, bytes
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

// ownPack reports whether all of a pack comes from an instance's own deliveries.
func ownPack(p *outbox.Pack) bool {
	return len(p.Positions) == 0 && !slices.ContainsFunc(p.Entries, func(one outbox.Entry) bool { return !ownEvent(one.Event) })
}

// ownEvent reports whether an event comes from an instance's own deliveries, and not from the
// link: it was replayed, or is a notification that its push backend has made of another event.
func ownEvent(e *event.Event) bool {
	return e.Replayed || e.Kind == event.Push || e.Kind == event.Notification && e.StanzaID != ""
}

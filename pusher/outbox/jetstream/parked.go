package jetstream

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// headerParked is what is known of a parked event without reading it: when it was
// accepted (nanoseconds), how often it was tried, its key (base64).
const headerParked = "Eventpusher-Parked"

// parkedMessage is a parked event as it is kept.
func parkedMessage(n names, partition int, p *outbox.ParkedEvent) *nats.Msg {
	m := nats.NewMsg(n.parkedSubject(partition, p.ID))
	m.Header.Set(headerParked, fmt.Sprintf("%d %d %s", p.Accepted.UnixNano(), p.Attempts, base64.StdEncoding.EncodeToString([]byte(p.Event.Key()))))
	m.Data = event.AppendBinary(nil, p.Event)
	return m
}

// readParked reads everything but the event.
func readParked(n names, subject string, h nats.Header) (partition int, p outbox.Restored, err error) {
	bad := fmt.Errorf("outbox: %s is no parked event", subject)
	rest, ok := strings.CutPrefix(subject, n.prefix+".parked.")
	parts := strings.Split(rest, ".")
	fields := strings.Fields(h.Get(headerParked))
	if !ok || len(parts) != 4 || len(fields) != 3 {
		return 0, p, bad
	}
	partition, err1 := strconv.Atoi(parts[0])
	reader, err2 := strconv.ParseUint(parts[1], 10, 8)
	number, err3 := strconv.ParseUint(parts[3], 10, 64)
	accepted, err4 := strconv.ParseInt(fields[0], 10, 64)
	attempts, err5 := strconv.Atoi(fields[1])
	key, err6 := base64.StdEncoding.DecodeString(fields[2])
	if errors.Join(err1, err2, err3, err4, err5, err6) != nil {
		return 0, p, bad
	}
	p = outbox.Restored{ID: outbox.EventID(uint8(reader), number), Key: key, Accepted: time.Unix(0, accepted).UTC(), Attempts: attempts}
	if parts[2] == "replay" {
		p.ID = outbox.ReplayID(uint8(reader), number)
	}
	p.Bytes, _ = strconv.Atoi(h.Get("Nats-Msg-Size")) // an estimate; 0 where there is none
	return partition, p, nil
}

// parked lists what is parked for the lane, in the order of the ids, and notes
// where each is.
func (l *lane) parked(ctx context.Context, s *setup, filter string) ([]outbox.Restored, error) {
	var list []outbox.Restored
	err := scan(ctx, s.parked, s.names.parkedOf(l.o.n, l.number)+"."+filter, 0, true, func(seq uint64, m js.Msg) (bool, error) {
		_, p, err := readParked(s.names, m.Subject(), m.Headers())
		if err != nil {
			return false, err
		}
		l.mu.Lock()
		l.places[p.ID] = seq
		l.mu.Unlock()
		list = append(list, p)
		return true, nil
	})
	slices.SortFunc(list, func(a, b outbox.Restored) int { return cmp.Compare(string(a.ID[:]), string(b.ID[:])) })
	return list, err
}

// replayed takes over a dead letter that was moved here.
func (l *lane) replayed(p outbox.Restored) {
	l.w.AddReplayed(&outbox.ParkedEvent{ID: p.ID, Accepted: p.Accepted, Attempts: p.Attempts}, p.Bytes)
}

// load implements WindowOptions.Load. It waits for the servers for at most requestTimeout.
func (l *lane) load(ctx context.Context, id outbox.ParkedID) (*event.Event, error) {
	l.mu.Lock()
	seq, known := l.places[id]
	l.mu.Unlock()
	if !known {
		return nil, fmt.Errorf("%w: number %d", outbox.ErrLost, id.Number())
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	m, err := l.r.engine.set.Load().parked.GetMsg(ctx, seq)
	switch {
	case errors.Is(err, js.ErrMsgNotFound):
		return nil, fmt.Errorf("%w: sequence %d: %w", outbox.ErrLost, seq, err)
	case err != nil:
		return nil, fmt.Errorf("outbox: parked event at sequence %d: %w", seq, explain(err))
	}
	e, err := outbox.DecodeEvent(m.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: sequence %d: %w", outbox.ErrLost, seq, err)
	}
	return e, nil
}

// watchReplays hears of dead letters that any instance, or a command, gives back.
func (e *Engine) watchReplays() {
	s := e.set.Load()
	said := false
	for e.ctx.Err() == nil {
		err := e.followReplays(s)
		if err != nil && e.ctx.Err() == nil && !said {
			said = true
			e.log.Warn("replayed dead letters are not heard of at once", "err", err)
		}
		pause(e.ctx, time.Second)
	}
}

func (e *Engine) followReplays(s *setup) error {
	// No ordered consumer of the library: it goes on trying after the context's end.
	ctx, cancel := e.request()
	defer cancel()
	consumer, err := s.parked.CreateConsumer(ctx, js.ConsumerConfig{
		FilterSubject: s.names.prefix + ".parked.*.*.replay.>", DeliverPolicy: js.DeliverAllPolicy, HeadersOnly: true,
		AckPolicy: js.AckNonePolicy, InactiveThreshold: time.Minute, MemoryStorage: true, Replicas: 1,
	})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(js.NextContext(e.ctx))
		if err != nil {
			return err
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		partition, p, err := readParked(s.names, m.Subject(), m.Headers())
		if err != nil {
			e.log.Warn("a foreign message is among the parked events", "subject", m.Subject())
			continue
		}
		for _, r := range *e.readers.Load() {
			for _, l := range *r.lanes.Load() {
				if l.o.n != partition || l.number != p.ID.Reader() {
					continue
				}
				l.mu.Lock()
				known := l.places[p.ID] == meta.Sequence.Stream
				l.places[p.ID] = meta.Sequence.Stream
				l.mu.Unlock()
				if !known {
					l.replayed(p)
					r.notify()
				}
			}
		}
	}
}

// scanBatch is how many messages scan asks for at a time.
const scanBatch = 256

// scan calls visit with the messages of a stream that match filter, from a
// sequence on, until there are no more or visit returns false. What arrives
// meanwhile may be left out.
func scan(ctx context.Context, s js.Stream, filter string, from uint64, headers bool, visit func(seq uint64, m js.Msg) (bool, error)) error {
	name := s.CachedInfo().Config.Name
	c, err := s.CreateConsumer(ctx, js.ConsumerConfig{
		DeliverPolicy: js.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1), FilterSubject: filter,
		AckPolicy: js.AckNonePolicy, HeadersOnly: headers, InactiveThreshold: 30 * time.Second, MemoryStorage: true, Replicas: 1,
	})
	if err != nil {
		return fmt.Errorf("outbox: read %s: %w", name, explain(err))
	}
	defer func() { _ = s.DeleteConsumer(context.WithoutCancel(ctx), c.CachedInfo().Name) }() // or it goes by itself
	for pending := c.CachedInfo().NumPending; pending > 0; {
		batch, err := c.Fetch(int(min(scanBatch, pending)), js.FetchMaxWait(requestTimeout))
		if err != nil {
			return fmt.Errorf("outbox: read %s: %w", name, explain(err))
		}
		n := 0
		for m := range batch.Messages() {
			n++
			meta, err := m.Metadata()
			if err != nil {
				return fmt.Errorf("outbox: read %s: %w", name, err)
			}
			pending = meta.NumPending
			if more, err := visit(meta.Sequence.Stream, m); err != nil || !more {
				return err
			}
		}
		if err := batch.Error(); err != nil {
			return fmt.Errorf("outbox: read %s: %w", name, err)
		}
		if n == 0 {
			return fmt.Errorf("outbox: read %s: %d messages do not come", name, pending)
		}
	}
	return nil
}

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/event"
	"eventpusher/pusher/outbox"
)

// errMissed says that the server has sent something that did not arrive. It would
// come again, but behind later ones.
var errMissed = errors.New("outbox: a message was lost on the way")

// consume reads from the first pack that is not settled, through a consumer of its
// own. That is made anew each time: the server would hold back what a former one
// has been sent, and send it behind what is newer.
func (l *lane) consume(ctx context.Context) error {
	s := l.r.engine.set.Load()
	ctx, again := context.WithCancel(ctx)
	defer again()
	l.mu.Lock()
	l.again = again
	start := l.next
	if len(l.packs) > 0 {
		start = l.packs[0].seq
	}
	l.mu.Unlock()
	name := consumerName(l.r.backend, l.number)
	stream := s.logs[l.o.n]
	if err := stream.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, js.ErrConsumerNotFound) {
		return fmt.Errorf("outbox: consumer %s: %w", name, explain(err))
	}
	consumer, err := stream.CreateConsumer(ctx, js.ConsumerConfig{
		Durable: name, Description: "eventpusher: how far " + l.r.backend + " has come",
		DeliverPolicy: js.DeliverByStartSequencePolicy, OptStartSeq: max(start, 1),
		AckPolicy: js.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1, MaxAckPending: max(maxAckPending, 2*l.r.engine.o.lane().WindowEvents),
	})
	if err != nil {
		return fmt.Errorf("outbox: consumer %s: %w", name, explain(err))
	}
	messages, err := consumer.Messages(js.PullMaxMessages(pulled), js.WithMessagesErrOnMissingHeartbeat(false))
	if err != nil {
		return fmt.Errorf("outbox: consumer %s: %w", name, err)
	}
	defer messages.Stop()
	l.r.failure.set(nil)
	for delivered := uint64(1); ; delivered++ {
		msg, err := messages.Next(js.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("outbox: consumer %s: %w", name, err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("outbox: consumer %s: %w", name, err)
		}
		if meta.Sequence.Consumer != delivered {
			return errMissed
		}
		if err := l.arrive(ctx, msg, meta); err != nil {
			return err
		}
		for l.w.Full() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-l.wake:
			}
		}
	}
}

// hole finds out what is between the pack that should come next and the one that
// has come. Consumers of NATS 2.9 were seen to pass over messages that are there:
// then errMissed makes them begin anew. What is not there is lost.
func (l *lane) hole(ctx context.Context, next, seq uint64) error {
	s := l.r.engine.set.Load()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	first := seq
	m, err := s.logs[l.o.n].GetMsg(ctx, next, js.WithGetMsgSubject(s.names.logSubject(l.o.n)))
	switch {
	case err == nil:
		first = min(first, m.Sequence)
	case !errors.Is(err, js.ErrMsgNotFound):
		return fmt.Errorf("outbox: %s, sequence %d: %w", s.names.log(l.o.n), next, explain(err))
	}
	if first > next {
		l.r.missing(l, next, first)
		l.mu.Lock()
		l.next = first
		l.mu.Unlock()
	}
	if first < seq {
		return errMissed
	}
	return nil
}

// stalled reports whether packs up to last are in the stream, nothing keeps the
// lane from taking them, and none has come since the last call.
func (l *lane) stalled(last uint64) bool {
	room := l.w.HalfEmpty()
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.next <= last && room
	stalled := waiting && l.waited == l.next
	l.waited = 0
	if waiting && !stalled {
		l.waited = l.next
	}
	return stalled
}

// reach tells the lane that the stream ends with last. While its window is full it
// reads nothing, and would not learn that there is something to make room for.
func (l *lane) reach(last uint64) {
	l.mu.Lock()
	more := l.pending == 0 && l.next <= last
	if more {
		l.pending = last - l.next + 1
	}
	l.mu.Unlock()
	if more && l.w.Full() {
		l.r.notify()
	}
}

// arrive takes a pack into the window.
func (l *lane) arrive(ctx context.Context, msg js.Msg, meta *js.MsgMetadata) error {
	seq := meta.Sequence.Stream
	l.mu.Lock()
	next := l.next
	l.pending = meta.NumPending
	if seq < next { // we have it, or are done with it
		known := false
		for _, p := range l.packs {
			if p.seq == seq {
				p.msg, p.touched, known = msg, time.Now(), true
			}
		}
		l.mu.Unlock()
		if !known {
			_ = msg.Ack() // a lost one only makes the server ask again
		}
		return nil
	}
	l.mu.Unlock()
	if seq > next {
		if err := l.hole(ctx, next, seq); err != nil {
			return err
		}
	}
	var list []outbox.Admission
	accepted, events, err := outbox.ReadPack(msg.Data(), l.number, func(place int, e *event.Event) {
		list = append(list, outbox.Admission{
			Number: numberOf(seq, place), Event: e, Key: maphash.String(l.r.engine.seed, e.Key()), Bytes: outbox.Size(e),
		})
	})
	if err == nil && events > 1<<placeBits {
		err = fmt.Errorf("%d events in one pack", events)
	}
	if err != nil {
		return fmt.Errorf("outbox: %s, sequence %d: %w", l.r.engine.set.Load().names.log(l.o.n), seq, err)
	}
	l.mu.Lock()
	l.packs = append(l.packs, &waitingPack{seq: seq, msg: msg, touched: time.Now()})
	l.next = seq + 1
	l.packed += (float64(len(list)) - l.packed) / 16
	l.mu.Unlock()
	l.w.Admit(list, accepted, numberOf(seq+1, 0))
	l.r.engine.saver.touch()
	if len(list) > 0 {
		l.r.notify()
	}
	return nil
}

// behind reports whether the stream holds events that are not in the window.
func (l *lane) behind() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending > 0
}

// acknowledge tells the server which packs are settled as a whole. How far we
// have come stands in the progress record; this is for those who look at the
// consumer, and keeps it from sending the packs again.
func (l *lane) acknowledge(c *outbox.Cut) {
	cursor, mark := c.Floor>>placeBits, c.Top>>placeBits
	open := make(map[uint64]bool, len(c.Pending))
	for _, g := range c.Pending {
		open[g>>placeBits] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.packs[:0]
	for _, p := range l.packs {
		if p.seq < cursor || p.seq < mark && !open[p.seq] {
			_ = p.msg.Ack()
			continue
		}
		kept = append(kept, p)
	}
	clear(l.packs[len(kept):])
	l.packs = kept
	l.saved = cursor
}

// extend tells the server that packs which wait are not forgotten.
func (l *lane) extend(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.packs {
		if now.Sub(p.touched) > ackWait/4 {
			p.touched = now
			_ = p.msg.InProgress()
		}
	}
}

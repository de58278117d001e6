package jetstream

import (
	"context"
	"time"

	"eventpusher/pusher/outbox"
)

// feed reads the log for one backend and admits the events of its lanes until the reader is
// closed. All lanes share one pass over the log. A lane without room is left behind, and
// when it has room again feed goes back for it.
func (r *reader) feed() {
	defer close(r.fed)
	ctx := r.ctx
	for ctx.Err() == nil {
		if r.tellDue.Swap(false) {
			for _, l := range *r.lanes.Load() {
				l.tell()
			}
		}
		more, err := r.feedOnce(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			if r.failure.Set(err) {
				r.engine.log.Warn("the events that wait for a backend cannot be read; it will be tried again", "backend", r.backend, "err", err)
			}
			pause(ctx, time.Second/4)
		case err == nil:
			r.failure.Set(nil)
		}
		if more || ctx.Err() != nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-r.wake:
		}
	}
}

// feedOnce reads a part of the log and reports whether there is more to read, and room.
func (r *reader) feedOnce(ctx context.Context) (more bool, err error) {
	e := r.engine
	lanes, from := r.hungry()
	if len(lanes) == 0 {
		return false, nil
	}
	if from > e.tip.Load() && !r.lookDue.Swap(false) {
		return false, nil // whoever appends tells how far the log goes; look now and then all the same
	}
	list, err := e.read(ctx, from)
	if err != nil || len(list) == 0 {
		return false, err
	}
	admitted := 0
	for i := range list {
		for _, l := range lanes {
			if !l.blocked && l.next.Load() <= list[i].seq {
				n, err := l.admit(&list[i])
				if err != nil {
					return false, err
				}
				admitted += n
			}
		}
	}
	if admitted > 0 {
		r.notify()
	}
	return true, nil
}

// hungry returns the lanes that have room, and the least sequence that one of them wants.
func (r *reader) hungry() (lanes []*lane, from uint64) {
	for _, l := range *r.lanes.Load() {
		if l.blocked && l.w.HalfEmpty() {
			l.blocked = false
		}
		if l.blocked || l.p.ctx.Err() != nil {
			continue
		}
		lanes = append(lanes, l)
		if next := l.next.Load(); from == 0 || next < from {
			from = next
		}
	}
	return lanes, max(from, 1)
}

// admit takes what a message has for the lane and returns how many events that are.
func (l *lane) admit(m *cached) (int, error) {
	if missing := m.seq - l.next.Load(); missing > 0 && l.next.Load() > 0 {
		l.r.lost.Add(missing)
		l.r.engine.log.Error("messages are missing from the log: somebody has deleted them, or the servers have lost them",
			"backend", l.r.backend, "partition", l.p.n, "first", l.next.Load(), "messages", missing)
	}
	var list []outbox.Admission
	for place := range m.entries {
		en := &m.entries[place]
		if en.partition != l.p.n || !en.readers.Has(int(l.backend.number)) {
			continue
		}
		ev, key, size, err := l.r.engine.cache.decode(l.r.engine.seed, en)
		if err != nil {
			return 0, err
		}
		list = append(list, outbox.Admission{Number: numberOf(m.seq, place), Event: ev, Key: key, Bytes: size})
	}
	l.packed.Store((15*l.packed.Load() + uint64(len(list))*1000) / 16)
	l.next.Store(m.seq + 1)
	if len(list) > 0 {
		l.w.Admit(list, m.accepted, numberOf(m.seq+1, 0))
		l.told.Store(m.seq + 1)
		l.blocked = l.w.Full()
	}
	return len(list), nil
}

// tell lets the window know how far the lane has looked, so that its ack floor moves over
// messages that have nothing for it. Each time is a change to be saved, so that is done
// now and then. Only feed calls it.
func (l *lane) tell() {
	if next := l.next.Load(); l.told.Load() < next {
		l.w.Admit(nil, time.Time{}, numberOf(next, 0))
		l.told.Store(next)
		l.p.touch(false)
	}
}

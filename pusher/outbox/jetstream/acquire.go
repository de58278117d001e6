package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"eventpusher/event"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/cluster"
	"eventpusher/pusher/outbox"
)

// acquire makes this instance the owner of a partition whose register is r. From its
// acknowledgement on no predecessor can save anything.
func (e *Engine) acquire(n int, r natsrpc.Record, gen uint64) {
	s := e.set.Load()
	p := &part{
		e: e, n: n, gen: gen, dirty: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
		list: make(parkedList),
	}
	failed := func() {
		e.parts.mu.Lock()
		defer e.parts.mu.Unlock()
		delete(e.parts.held, n)
	}
	if r.Seq != 0 {
		var err error
		if p.reg, err = decodeRegister(r.Data); err != nil {
			failed()
			return
		}
	}
	p.reg.owner, p.reg.epoch, p.reg.commits = e.cluster.ID(), 0, 0
	ctx, cancel := e.request()
	defer cancel()
	seq, err := s.state.Write(ctx, natsrpc.NewMsg(s.names.part(n), p.reg.append(nil), natsrpc.AfterSubject(r.Seq)))
	if err != nil {
		failed() // if it is stored all the same, the next snapshot shows that it is ours
		return
	}
	p.seq, p.epoch, p.reg.epoch = seq, seq, seq
	p.ctx, p.cancel = context.WithCancel(e.ctx)
	e.parts.mu.Lock()
	closing := e.parts.closing
	e.parts.held[n] = p
	e.parts.mu.Unlock()
	if closing {
		_ = e.release(p)
		return
	}
	for said := false; e.cluster.Valid(cluster.Deliver, gen) && p.ctx.Err() == nil; pause(p.ctx, time.Second/4) {
		err := p.start(s)
		if err == nil {
			p.saveLoop()
			return
		}
		if !said && p.ctx.Err() == nil {
			said = true
			e.log.Warn("a partition cannot be taken over yet", "partition", n, "err", err)
		}
	}
}

// start reads what is parked and opens the lanes.
func (p *part) start(s *layout) error {
	ctx, cancel := context.WithTimeout(p.ctx, 6*requestTimeout)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.readList(ctx, s); err != nil {
		return err
	}
	if p.reg.progress == nil {
		p.reg.progress = make(map[registration]outbox.Progress)
	}
	if err := p.fit(ctx, s); err != nil {
		return err
	}
	return p.ctx.Err()
}

// fenced reads the last records of subjects of the partition. A replica may lag. One that has
// our register has everything that was written before. It ends when the partition is lost.
// p.mu is held.
func (p *part) fenced(ctx context.Context, s *layout, subjects ...string) ([]natsrpc.Record, error) {
	ours := s.names.part(p.n)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	for {
		list, err := s.state.Last(ctx, append(subjects, ours)...)
		if err != nil {
			return nil, fmt.Errorf("outbox: %w", err)
		}
		if i := slices.IndexFunc(list, func(r natsrpc.Record) bool { return r.Subject == ours }); i >= 0 && list[i].Seq >= p.seq {
			return slices.Delete(list, i, i+1), nil
		}
		if pause(ctx, saveInterval); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// readList reads which events are parked.
func (p *part) readList(ctx context.Context, s *layout) error {
	records, err := p.fenced(ctx, s, s.names.parkedList(p.n))
	if err == nil && len(records) > 0 && len(records[0].Data) > 0 {
		p.list, err = decodeParkedList(records[0].Data)
	}
	return err
}

// parkedStep is how many parked events are read at once. The server answers for 1024
// subjects at most.
const parkedStep = 256

// readParked reads the parked events of some backends that are listed, by their numbers.
func (p *part) readParked(ctx context.Context, s *layout, of func(registration) bool) (map[uint8][]outbox.Restored, error) {
	attempts := make(map[string]int)
	for b, list := range p.list {
		if !of(b) {
			continue
		}
		for number, n := range list {
			attempts[s.names.parked(p.n, outbox.EventID(b.number, number))] = n
		}
	}
	found, lost := make(map[uint8][]outbox.Restored), len(attempts)
	for subjects := range slices.Chunk(slices.Sorted(maps.Keys(attempts)), parkedStep) {
		records, err := p.fenced(ctx, s, subjects...)
		if err != nil {
			return nil, err
		}
		for i := range records {
			if one, err := readParked(s.names, &records[i]); err == nil {
				one.Attempts = attempts[records[i].Subject]
				found[one.ID.Reader()] = append(found[one.ID.Reader()], one)
				lost--
			}
		}
	}
	if lost > 0 {
		p.e.log.Error("parked events are lost: they were deleted in NATS, or the servers have lost them", "partition", p.n, "events", lost)
	}
	for _, list := range found {
		sortRestored(list)
	}
	return found, nil
}

// load implements WindowOptions.Load.
func (p *part) load(s *layout, id outbox.ParkedID) (*event.Event, error) {
	ctx, cancel := context.WithTimeout(p.ctx, requestTimeout)
	defer cancel()
	subject := s.names.parked(p.n, id)
	r, _, err := s.state.Newest(ctx, subject)
	if err == nil && len(r.Data) == 0 { // a paused leader that wakes up may not have it yet
		p.mu.Lock()
		var list []natsrpc.Record
		if list, err = p.fenced(ctx, s, subject); len(list) > 0 {
			r = list[0]
		}
		p.mu.Unlock()
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: parked event %d: %w", id.Number(), natsrpc.Explain(err))
	}
	if len(r.Data) == 0 {
		return nil, fmt.Errorf("%w: number %d", outbox.ErrLost, id.Number())
	}
	e, err := outbox.DecodeEvent(r.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: number %d: %w", outbox.ErrLost, id.Number(), err)
	}
	return e, nil
}

// replayLoop hands dead letters that any instance, or a command, gives back to the lanes of
// their partitions.
func (e *Engine) replayLoop() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.parts.replays:
		case <-tick.C:
		}
		s := e.set.Load()
		err := scan(e.ctx, s.state, s.names.replays()+">", 1, func(r *natsrpc.Record) (bool, error) {
			if one, err := readParked(s.names, r); err == nil {
				e.adopt(r.Subject, one)
			}
			return true, nil
		})
		if err != nil && e.ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
			e.log.Debug("replayed dead letters cannot be read", "err", err)
		}
	}
}

// adopt gives a replayed letter to its lane, once.
func (e *Engine) adopt(subject string, one outbox.Restored) {
	rest := strings.TrimPrefix(subject, e.set.Load().names.replays())
	number, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(number)
	if err != nil {
		return
	}
	for _, p := range e.parts.all() {
		if p.n != n || !p.open.Load() {
			continue
		}
		p.mu.Lock()
		var to *lane
		for _, l := range p.lanes {
			if l.backend.number == one.ID.Reader() && !l.replayed[one.ID.Number()] {
				l.replayed[one.ID.Number()] = true
				to = l
			}
		}
		p.mu.Unlock()
		if to != nil {
			to.w.AddReplayed(&outbox.ParkedEvent{ID: one.ID, Accepted: one.Accepted, Attempts: one.Attempts}, one.Bytes)
			to.r.notify()
		}
	}
}

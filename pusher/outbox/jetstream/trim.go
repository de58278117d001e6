package jetstream

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// How often the log is measured and trimmed: usually, and while it is too large.
const (
	sizePause  = time.Second
	spacePause = 100 * time.Millisecond
	// shedStep is how many events are given up between two looks at the size.
	shedStep = 1024
	// spareParts: one of so many parts of the whole size is made free when there is no
	// room, so that sources that wait get some.
	spareParts = 16
	// copied is when the servers have copied a letter for certain.
	copied = time.Minute
)

// size is how much the log takes, as far as is known.
type size struct {
	measured atomic.Int64 // by sizeLoop
	grown    atomic.Int64 // appended here since
}

func (s *size) grow(n int64) { s.grown.Add(n) }

// room decides whether the log may grow by n bytes. A source that can wait has to at the
// limit; for others the slowest backend gives something up, in the background and thus with
// some delay, which is bounded here.
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

// sizeLoop measures the log, removes what every backend has had, and makes space.
func (e *Engine) sizeLoop() {
	for wait := sizePause; e.ctx.Err() == nil; {
		pause(e.ctx, wait)
		wait = sizePause
		if e.ctx.Err() != nil || !e.nc.IsConnected() {
			continue
		}
		over, err := e.trim()
		if e.ctx.Err() == nil && e.sizing.Set(err) && err != nil {
			e.log.Warn("the log cannot be trimmed", "err", err)
		}
		if over {
			wait = spacePause
		}
	}
}

// trim does one round and reports whether the log is still too large.
func (e *Engine) trim() (over bool, err error) {
	ctx, cancel := context.WithTimeout(e.ctx, requestTimeout)
	defer cancel()
	s := e.set.Load()
	for _, r := range *e.readers.Load() {
		r.tellDue.Store(true)
		signal(r.wake)
	}
	grown, known := e.size.grown.Load(), e.known()
	stream, err := s.js.Stream(ctx, s.names.log())
	if err != nil {
		return false, fmt.Errorf("outbox: stream %s: %w", s.names.log(), natsrpc.Explain(err))
	}
	state := stream.CachedInfo().State
	e.size.measured.Store(int64(state.Bytes))
	e.size.grown.Add(-grown)
	e.checkEnd(known, state.LastSeq)
	over = int64(state.Bytes) > e.o.MaxSize
	if last := e.undecodable.Load(); last != 0 && time.Since(time.Unix(0, last)) < copied {
		if err := s.boundUndecodable(ctx); err != nil {
			return over, err
		}
	}
	least, err := e.leastFloor(ctx, s)
	if err != nil {
		return over, err
	}
	// The last message stays: it has the positions.
	if least = min(least, state.LastSeq); least > state.FirstSeq && state.Msgs > 1 {
		if err := stream.Purge(ctx, js.WithPurgeSequence(least)); err != nil {
			return over, fmt.Errorf("outbox: trim %s: %w", s.names.log(), natsrpc.Explain(err))
		}
		if over {
			return true, nil // it has to be measured again first
		}
	}
	if over {
		tooMuch := int64(state.Bytes) - e.o.MaxSize + e.o.MaxSize/spareParts
		e.makeSpace(surplus(state, tooMuch))
	} else {
		for _, r := range *e.readers.Load() {
			r.shedding.Store(false)
		}
	}
	return over, nil
}

// boundUndecodable drops the oldest letters without an event if there are too many.
func (l *layout) boundUndecodable(ctx context.Context) error {
	s, err := l.js.Stream(ctx, l.names.letters())
	if err == nil {
		err = s.Purge(ctx, js.WithPurgeSubject(l.names.lettersOf(undecodable)+">"), js.WithPurgeKeep(outbox.MaxUndecodable))
	}
	if err != nil {
		return fmt.Errorf("outbox: trim %s: %w", l.names.letters(), natsrpc.Explain(err))
	}
	return nil
}

// leastFloor returns the sequence below which every backend has settled everything, and
// saved that. It also takes over what other instances have changed in the registry, and takes
// out what was merged and has nothing left.
func (e *Engine) leastFloor(ctx context.Context, s *layout) (least uint64, err error) {
	m, err := e.follow(ctx)
	if err != nil {
		return 0, err
	}
	var moved []merged
	for _, b := range m.Backends {
		moved = append(moved, b.Merged...)
	}
	k, err := s.readKept(ctx, len(moved) > 0)
	if err != nil {
		return 0, err
	}
	least = ^uint64(0)
	for _, b := range m.Backends {
		for _, one := range b.all() {
			least = min(least, k.floor(m.Partitions, &one))
		}
	}
	var through []registration
	for i := range moved {
		one := &moved[i]
		if k.floor(m.Partitions, &one.registered) < one.To || k.parked[one.registration()] {
			continue
		}
		replays, err := s.state.From(ctx, 1, fmt.Sprintf("%s*.%d.*", s.names.replays(), one.Number), 1, 1)
		if err != nil {
			return 0, fmt.Errorf("outbox: %w", err)
		}
		if len(replays) == 0 {
			through = append(through, one.registration())
		}
	}
	if len(through) == 0 {
		return least, nil
	}
	return least, s.unmerge(ctx, through)
}

// kept is what the partitions have saved, as one replica has it at one moment.
type kept struct {
	progress []map[registration]outbox.Progress
	parked   map[registration]bool // there are parked events of it
}

// readKept reads what the partitions have saved, parked only if it is asked for.
func (l *layout) readKept(ctx context.Context, parked bool) (k kept, err error) {
	filters := []string{l.names.parts() + "*"}
	if parked {
		filters = append(filters, l.names.lists()+"*")
	}
	records, err := l.state.Last(ctx, filters...)
	if err != nil {
		return k, fmt.Errorf("outbox: %w", err)
	}
	k.parked = make(map[registration]bool)
	for _, r := range records {
		if strings.HasPrefix(r.Subject, l.names.parts()) {
			reg, err := decodeRegister(r.Data)
			if err != nil {
				return k, err
			}
			k.progress = append(k.progress, reg.progress)
			continue
		}
		list, err := decodeParkedList(r.Data)
		if err != nil {
			return k, err
		}
		for b, events := range list {
			k.parked[b] = k.parked[b] || len(events) > 0
		}
	}
	return k, nil
}

// floor returns the sequence below which a backend has settled everything in all partitions.
func (k *kept) floor(partitions int, r *registered) uint64 {
	least := ^uint64(0)
	if len(k.progress) < partitions { // some have saved nothing yet
		least = r.start().Floor
	}
	for _, of := range k.progress {
		progress, ok := of[r.registration()]
		if !ok {
			progress = r.start()
		}
		least = min(least, progress.Floor)
	}
	return least >> placeBits
}

// surplus is the sequence before which messages have to go for the log to lose so many bytes.
func surplus(s js.StreamState, tooMuch int64) uint64 {
	return s.FirstSeq + uint64(float64(s.Msgs)*float64(tooMuch)/float64(max(s.Bytes, 1))) + 1
}

// makeSpace makes the backends that are behind the goal give up their oldest events up to
// it: a delivery that hangs keeps all that comes after it.
func (e *Engine) makeSpace(goal uint64) {
	for _, p := range e.parts.all() {
		p.mu.Lock()
		lanes := p.lanes
		p.mu.Unlock()
		for _, l := range lanes {
			if l.w.Floor()>>placeBits >= goal {
				continue
			}
			given := l.w.GiveUp(numberOf(goal, 0), shedStep)
			if given == 0 {
				signal(l.r.wake)
				continue // in flight, or not read yet
			}
			l.r.shed.Add(uint64(given))
			episode := !l.r.shedding.Swap(true)
			p.touch(true) // saved, it can be trimmed
			signal(l.r.wake)
			if f := e.shed.Load(); f != nil {
				(*f)(l.r.backend, given, episode)
			}
		}
	}
}

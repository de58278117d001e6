package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	js "github.com/nats-io/nats.go/jetstream"
)

// How often the streams are measured and trimmed: usually, and while they are
// too large.
const (
	sizePause  = time.Second
	spacePause = 100 * time.Millisecond
	// shedStep is how many events are given up between two looks at the size.
	shedStep = 1024
	// spareParts is of how many parts of the whole size one is made free when there is no
	// room, so that sources that wait get some.
	spareParts = 16
)

// sizeLoop measures the log, removes what every backend has had, and makes space.
func (e *Engine) sizeLoop() {
	extended := time.Now()
	for wait := sizePause; ; {
		pause(e.ctx, wait)
		if e.ctx.Err() != nil {
			return
		}
		wait = sizePause
		if !e.nc.IsConnected() {
			continue
		}
		over, err := e.trim()
		if e.ctx.Err() != nil {
			return
		}
		if e.sizing.set(err) && err != nil {
			e.log.Warn("the streams cannot be trimmed", "err", err)
		}
		if over {
			wait = spacePause
		}
		if now := time.Now(); now.Sub(extended) > ackWait/8 {
			extended = now
			for _, r := range *e.readers.Load() {
				for _, l := range *r.lanes.Load() {
					l.extend(now)
				}
			}
		}
	}
}

// trim does one round and reports whether the log is still too large, or about to be
// made smaller.
func (e *Engine) trim() (over bool, err error) {
	ctx, cancel := context.WithTimeout(e.ctx, 2*requestTimeout)
	defer cancel()
	s := e.set.Load()
	// How far everybody has come is taken before the registry is read: a backend
	// that is registered later begins behind that.
	mine := e.partitions()
	least := make(map[int]uint64, len(mine))
	for n, o := range mine {
		least[n] = o.least()
	}
	grown := e.size.grown.Load()
	total := int64(0)
	states := make([]js.StreamState, len(s.logs))
	for p, stream := range s.logs {
		info, err := stream.Info(ctx)
		if err != nil {
			return false, fmt.Errorf("outbox: stream %s: %w", s.names.log(p), explain(err))
		}
		states[p] = info.State
		total += int64(info.State.Bytes)
	}
	for n, o := range mine {
		o.wake(states[n].LastSeq)
	}
	e.size.measured.Store(total)
	e.size.grown.Add(-grown)
	var m *meta
	purged := false
	for n, o := range mine {
		if least[n] <= states[n].FirstSeq || states[n].Msgs == 0 {
			continue
		}
		if m == nil {
			read, _, err := s.readMeta(ctx)
			if err != nil {
				return false, err
			}
			m = &read
		}
		upTo, err := e.othersIn(ctx, s, m, n, least[n])
		if err != nil {
			return false, err
		}
		if upTo > states[n].FirstSeq && upTo > o.trimmed {
			if err := s.logs[n].Purge(ctx, js.WithPurgeSequence(upTo)); err != nil {
				return false, fmt.Errorf("outbox: trim %s: %w", s.names.log(n), explain(err))
			}
			o.trimmed, purged = upTo, true
		}
	}
	if over = total > e.o.MaxSize; over && !purged { // else it has to be measured again first
		e.setGoals(mine, states, total)
	}
	if e.makeSpace(mine) {
		over = true
	} else if !over {
		for _, r := range *e.readers.Load() {
			r.shedding.Store(false)
		}
	}
	return over, nil
}

// partitions returns what this instance has.
func (e *Engine) partitions() map[int]*owned {
	c := e.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	mine := make(map[int]*owned)
	for _, h := range c.mine {
		if h.own != nil {
			mine[h.own.n] = h.own
		}
	}
	return mine
}

// least returns the sequence below which every backend of this instance has had
// everything; 0 while not all have begun.
func (o *owned) least() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lanes) < len(*o.e.readers.Load()) || len(o.lanes) == 0 {
		return 0
	}
	least := ^uint64(0)
	for _, l := range o.lanes {
		l.mu.Lock()
		least = min(least, l.saved)
		l.mu.Unlock()
	}
	return least
}

// wake tells all lanes where the stream ends, and makes consumers begin anew that
// should have sent something and have not.
func (o *owned) wake(last uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.lanes {
		if l.stalled(last) {
			o.e.log.Debug("a consumer has stalled and is made anew", "backend", l.r.backend, "partition", o.n)
			l.reopen()
		}
		l.reach(last)
	}
}

// slowest returns the lane that is furthest behind and where it is, nil without one.
func (o *owned) slowest() (slowest *lane, least uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	least = ^uint64(0)
	for _, l := range o.lanes {
		l.mu.Lock()
		if l.saved < least {
			slowest, least = l, l.saved
		}
		l.mu.Unlock()
	}
	return slowest, least
}

// othersIn lowers upTo to what backends have had that only other instances know.
func (e *Engine) othersIn(ctx context.Context, s *setup, m *meta, partition int, upTo uint64) (uint64, error) {
	for name, r := range m.Backends {
		if _, ours := s.meta.Backends[name]; ours {
			continue
		}
		entry, err := s.state.Get(ctx, keyProgress(partition, r.Number))
		switch {
		case errors.Is(err, js.ErrKeyNotFound):
			upTo = min(upTo, r.From[partition])
		case err != nil:
			return 0, fmt.Errorf("outbox: %s: %w", s.names.state(), explain(err))
		default:
			_, cut, err := decodeProgress(entry.Value())
			if err != nil {
				return 0, err
			}
			upTo = min(upTo, cut.Floor>>placeBits)
		}
	}
	return upTo, nil
}

// surplus is the sequence before which messages have to go for a partition to lose its
// part of what is too much, which is so many bytes of those that are to lose something.
func surplus(s js.StreamState, tooMuch, of int64) uint64 {
	return s.FirstSeq + uint64(float64(s.Msgs)*float64(tooMuch)/float64(of)) + 1
}

// heavy reports whether a partition takes more than its share.
func heavy(s js.StreamState, partitions int, total int64) bool {
	return int64(s.Bytes)*int64(partitions) >= total
}

// setGoals says how much has to go of the partitions that take more than their share,
// when all take too much.
func (e *Engine) setGoals(mine map[int]*owned, states []js.StreamState, total int64) {
	var of int64
	for _, s := range states {
		if heavy(s, len(states), total) {
			of += int64(s.Bytes)
		}
	}
	tooMuch := total - e.o.MaxSize + e.o.MaxSize/spareParts
	for n, o := range mine {
		if s := states[n]; heavy(s, len(states), total) && of > 0 {
			o.goal = max(o.goal, surplus(s, tooMuch, of))
		}
	}
}

// makeSpace makes the backend that is furthest behind give up its oldest events, up to
// the goal of each partition and no further: a delivery that hangs keeps all that comes
// after it. It reports whether something is still to go.
func (e *Engine) makeSpace(mine map[int]*owned) (more bool) {
	for _, o := range mine {
		slowest, saved := o.slowest()
		if slowest == nil || saved >= o.goal {
			o.goal = 0
			continue
		}
		more = true
		given := slowest.w.GiveUp(numberOf(o.goal, 0), shedStep)
		if given == 0 {
			slowest.refill()
			continue // in flight, or not read yet
		}
		r := slowest.r
		r.shed.Add(uint64(given))
		episode := !r.shedding.Swap(true)
		e.saver.hurry() // saved, it can be trimmed
		slowest.refill()
		if f := e.shed.Load(); f != nil {
			(*f)(r.backend, given, episode)
		}
	}
	return more
}

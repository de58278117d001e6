package jetstream

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"eventpusher/event"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// newest returns the last message of the log as its leader has it, and its sequence, which
// is 0 if there never was any.
func (l *layout) newest(ctx context.Context) (c *commit, seq uint64, err error) {
	r, ok, err := l.log.Newest(ctx, l.names.logSubject())
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("outbox: %w", natsrpc.Explain(err))
	case !ok:
		seq, err = l.lastSeq(ctx)
		return &commit{}, seq, err
	}
	c, err = decodeCommit(r.Data)
	return c, r.Seq, err
}

// load reads the positions.
func (w *writer) load(ctx context.Context, l *layout) error {
	c, _, err := l.newest(ctx)
	if err == nil {
		w.known.Store(&c.positions)
	}
	return err
}

// seize begins a term: it appends an empty message after whatever is there. From then on
// nothing that a predecessor sends fits after the last message.
//
// The log may have ended before what was read from it, because the servers have lost
// messages in a power cut. Their numbers must not come again, since instances and ack
// floors have passed them. So empty messages take their place.
func (e *Engine) seize(ctx context.Context, term uint64) error {
	s, w := e.set.Load(), &e.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	for said := false; ; {
		last, seq, err := s.newest(ctx)
		if err != nil {
			return err
		}
		least, err := s.highest(ctx)
		if err != nil {
			return err
		}
		least = max(least, e.known())
		begin := commit{term: term, id: rand.Uint64(), accepted: time.Now(), positions: last.positions}
		n := uint64(1)
		if last.term == term && seq < least {
			n = min(least-seq, padStep)
			if !said {
				said = true
				e.log.Error("NATS has lost messages of the log: events in them that were not delivered are lost", "first", seq, "last", least)
			}
		}
		seq, err = s.pad(ctx, &begin, seq, n)
		switch {
		case err == nil && seq >= least:
			e.begun(ctx, s, seq, last.positions)
			return nil
		case err != nil && (!natsrpc.Refused(err) || ctx.Err() != nil):
			return fmt.Errorf("outbox: %w", err)
		}
	}
}

// begun notes that a term has begun with the message of that sequence. w.mu is held.
func (e *Engine) begun(ctx context.Context, s *layout, seq uint64, positions []outbox.Position) {
	w := &e.writer
	if w.tried != nil { // it was stored before, or never will be
		_, _ = e.lookAtLog(ctx, s, w.tried)
	}
	w.last, w.kept, w.tried = seq, positions, nil
	w.known.Store(&positions)
	// What comes from the feed was withdrawn.
	maps.DeleteFunc(w.stored, func(ev *event.Event, _ struct{}) bool { return !ownEvent(ev) })
	e.reach(seq)
}

// padStep is how many empty messages seize has under way.
const padStep = 1000

// pad appends n messages after a sequence and returns the sequence of the last. Several can
// be under way: since the first message of the term, nothing but what has the same positions
// can come between.
func (l *layout) pad(ctx context.Context, m *commit, after, n uint64) (uint64, error) {
	data := m.append(nil, 0)
	for ; n > 1; n, after = n-1, after+1 {
		if err := l.log.NC.PublishMsg(natsrpc.NewMsg(l.names.logSubject(), data, natsrpc.AfterStream(after))); err != nil {
			return 0, err
		}
	}
	return l.log.Write(ctx, natsrpc.NewMsg(l.names.logSubject(), data, natsrpc.AfterStream(after)))
}

// highest returns the sequence up to which some backend has settled something.
func (l *layout) highest(ctx context.Context) (seq uint64, err error) {
	records, err := l.state.Last(ctx, l.names.parts()+"*")
	if err != nil {
		return 0, fmt.Errorf("outbox: %w", err)
	}
	for _, r := range records {
		reg, err := decodeRegister(r.Data)
		if err != nil {
			return 0, err
		}
		for _, p := range reg.progress {
			if p.Top > 0 {
				seq = max(seq, (p.Top-1)>>placeBits)
			}
		}
	}
	return seq, nil
}

// known returns the last sequence that this instance, or one that it has heard of, has read
// from the log or appended to it.
func (e *Engine) known() uint64 { return max(e.cache.last(), e.cluster.Mark()) }

// cutPause is how long the log must have been too short: a paused leader that wakes up may
// still answer.
const cutPause = time.Second

// checkEnd ends the term of this instance if the log ends before a sequence that it is known
// to have reached. The next term begins after that.
func (e *Engine) checkEnd(known, end uint64) {
	now := time.Now().UnixNano()
	switch since := e.short.Load(); {
	case end >= known:
		e.short.Store(0)
	case since == 0:
		e.short.Store(now)
	case now-since >= int64(cutPause):
		e.short.Store(0)
		if stop := e.writer.end.Swap(nil); stop != nil {
			(*stop)()
		}
	}
}

// Positions implements outbox.Outbox. It does not wait for a write that is under way.
func (e *Engine) Positions() []outbox.Position {
	if known := e.writer.known.Load(); known != nil {
		return outbox.SortPositions(*known)
	}
	return nil
}

// maxSeizePause is the longest time between two attempts to begin a term.
const maxSeizePause = 8 * time.Second

// Lead implements outbox.Elector.
func (e *Engine) Lead(ctx context.Context, lead func(ctx context.Context) error) error {
	select {
	case <-ctx.Done():
		return nil
	case <-e.isSet:
	}
	if err := e.never.Load(); err != nil {
		return *err
	}
	wait := time.Duration(0)
	return e.cluster.Lead(ctx, func(holding context.Context, term uint64) error {
		holding, stop := context.WithCancel(holding)
		defer stop()
		// The log first: from then on no predecessor can append.
		err := e.seize(holding, term)
		if e.seizing.Set(err) && err != nil {
			e.log.Warn("the link cannot be acquired yet", "err", err)
		}
		if err != nil { // another instance may be able to
			wait = min(max(2*wait, time.Second), maxSeizePause)
			pause(holding, wait)
			return nil
		}
		wait = 0
		e.writer.end.Store(&stop)
		e.log.Info("this instance holds the link to the XMPP server now")
		err = lead(holding)
		if holding.Err() != nil && ctx.Err() == nil {
			e.log.Warn("this instance has given up the link to the XMPP server")
		}
		return err
	})
}

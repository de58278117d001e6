package jetstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

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
func (e *Engine) seize(ctx context.Context, term uint64) error {
	s, w := e.set.Load(), &e.writer
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		last, seq, err := s.newest(ctx)
		if err != nil {
			return err
		}
		// After a power cut the log may end before the ack floors, and its numbers would
		// come again.
		least, err := e.highest(ctx, s)
		if err != nil {
			return err
		}
		begin := commit{term: term, id: rand.Uint64(), accepted: time.Now(), positions: last.positions}
		seq, err = s.log.Write(ctx, natsrpc.NewMsg(s.names.logSubject(), begin.append(nil, 0), natsrpc.AfterStream(seq)))
		switch {
		case err == nil && seq >= least:
			w.last, w.kept = seq, last.positions
			w.known.Store(&w.kept)
			w.tried, w.stored = nil, nil
			e.tip.Store(seq)
			return nil
		case err != nil && (!natsrpc.Refused(err) || ctx.Err() != nil):
			return fmt.Errorf("outbox: %w", err)
		}
	}
}

// highest returns the sequence up to which some backend has settled something.
func (e *Engine) highest(ctx context.Context, s *setup) (seq uint64, err error) {
	records, err := s.state.Last(ctx, s.names.parts()+"*")
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

// Positions implements outbox.Outbox. It does not wait for a write that is under way.
func (e *Engine) Positions() []outbox.Position {
	if known := e.writer.known.Load(); known != nil {
		return outbox.SortPositions(*known)
	}
	return nil
}

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
	return e.cluster.Lead(ctx, func(holding context.Context, term uint64) error {
		// The log first: from then on no predecessor can append.
		if err := e.seize(holding, term); err != nil {
			e.log.Warn("the link cannot be acquired yet", "err", err)
			pause(holding, time.Second)
			return nil
		}
		e.log.Info("this instance holds the link to the XMPP server now")
		err := lead(holding)
		if holding.Err() != nil && ctx.Err() == nil {
			e.log.Warn("this instance has given up the link to the XMPP server")
		}
		return err
	})
}

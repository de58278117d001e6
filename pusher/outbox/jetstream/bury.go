package jetstream

import (
	"fmt"
	"time"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// unreached are the dead letters while NATS has not been reached.
type unreached struct{ why error }

func (u unreached) List(outbox.LetterFilter) ([]outbox.DeadLetter, error) { return nil, u.why }
func (u unreached) Get(uint64) (outbox.DeadLetter, error)                 { return outbox.DeadLetter{}, u.why }
func (u unreached) Drop(outbox.LetterFilter) (int, error)                 { return 0, u.why }

// DeadLetters implements outbox.Outbox.
func (e *Engine) DeadLetters() outbox.DeadLetters {
	if s := e.set.Load(); s != nil {
		return &Letters{ctx: e.ctx, layout: s}
	}
	return unreached{e.connection.Get()}
}

// Replay implements outbox.Outbox.
func (e *Engine) Replay(f outbox.LetterFilter) (int, error) {
	s := e.set.Load()
	if s == nil {
		return 0, e.connection.Get()
	}
	return (&Letters{ctx: e.ctx, layout: s}).Replay(f)
}

// Bury implements outbox.Outbox. Only the instance that holds the link buries, but for
// replayed events, and letters that are kept already and get another backend.
func (e *Engine) Bury(letters ...outbox.DeadLetter) error {
	s := e.set.Load()
	if len(letters) > 0 && s == nil {
		return e.connection.Get()
	}
	term := e.cluster.Holding()
	for i := range letters {
		d := &letters[i]
		owner := nobody
		if d.Reason == outbox.ReasonUndecodable {
			owner = undecodable
			e.undecodable.Store(time.Now().UnixNano())
		}
		m := letterMessage(s.names, owner, d)
		if term != 0 {
			natsrpc.Fenced(e.cluster.LinkSubject(), term)(m.Header)
		} else if d.ID == 0 && (d.Event == nil || !ownEvent(d.Event)) {
			return errNotHolder
		}
		ctx, cancel := e.request()
		_, err := s.state.Write(ctx, m)
		cancel()
		if err != nil {
			return fmt.Errorf("outbox: dead letter: %w", natsrpc.Explain(err))
		}
	}
	return nil
}

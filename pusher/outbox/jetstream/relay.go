package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// answersAtOnce bounds the questions that are being answered; more are turned away.
const answersAtOnce = 1024

// ErrNobody says that no instance holds the link to the XMPP server at the moment, or
// that the one that does is busy: trying again later makes sense.
var ErrNobody = errors.New("outbox: no instance that holds the link to the XMPP server takes the question")

func (n names) askSubject() string { return n.prefix + ".ask" }

// Ask puts a question to the instance that holds the link and waits for its answer, for
// as long as ctx allows. It may be this one. The error is ErrNobody, the context's, or says why NATS
// cannot be used. It is safe for concurrent use.
func (e *Engine) Ask(ctx context.Context, question []byte) ([]byte, error) {
	m, err := e.nc.RequestWithContext(ctx, names{prefix: e.o.Prefix}.askSubject(), question)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, ErrNobody
	case err != nil:
		return nil, fmt.Errorf("outbox: ask the instance that holds the link: %w", err)
	case len(m.Data) == 0:
		return nil, ErrNobody
	}
	return m.Data, nil
}

// Answer answers what the other instances ask the one that holds the link, until stop is
// called, which waits for the answers that are under way after it has cancelled their
// context. answer is called by many goroutines; what it returns must not be empty.
func (e *Engine) Answer(answer func(ctx context.Context, question []byte) []byte) (stop func(), err error) {
	ctx, cancel := context.WithCancel(e.ctx)
	slots := make(chan struct{}, answersAtOnce)
	var mu sync.Mutex // a question that comes at the end must not begin after the wait
	var under sync.WaitGroup
	sub, err := e.nc.Subscribe(names{prefix: e.o.Prefix}.askSubject(), func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return // whoever asks next finds the next one
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = m.Respond(nil) // or the asker's time runs out
			return
		}
		under.Go(func() {
			defer func() { <-slots }()
			_ = m.Respond(answer(ctx, m.Data)) // the same
		})
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("outbox: answer other instances: %w", err)
	}
	return func() {
		_ = sub.Unsubscribe() // it fails when the connection is closed, and then is over as well
		mu.Lock()
		cancel()
		mu.Unlock()
		under.Wait()
	}, nil
}

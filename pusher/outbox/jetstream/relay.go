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

// ErrMoved says that the link went to another instance before there was an answer, so
// that there may never be one. The question may have been taken.
var ErrMoved = errors.New("outbox: the instance that held the link to the XMPP server gave no answer before another one had it")

func (n names) askSubject() string { return n.prefix + ".ask" }

// askAllSubject is below ask, so that one permission covers both.
func (n names) askAllSubject() string { return n.askSubject() + ".all" }

// Ask puts a question to the instance that holds the link and waits for its answer, for
// as long as ctx allows. It may be this one. The error is ErrNobody, ErrMoved, the
// context's, or says why NATS cannot be used. It is safe for concurrent use.
func (e *Engine) Ask(ctx context.Context, question []byte) ([]byte, error) {
	// One that was killed leaves its questions unanswered.
	term := e.cluster.linkTerm()
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(term, cancel)()
	m, err := e.nc.RequestWithContext(asking, names{prefix: e.o.Prefix}.askSubject(), question)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, ErrNobody
	case err != nil && ctx.Err() == nil && term.Err() != nil:
		return nil, ErrMoved
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
	return e.answer(names{prefix: e.o.Prefix}.askSubject(), answer)
}

// AskAll puts a question to every instance, this one among them, and returns the answers
// once all that live have given one, or else when ctx ends. The error says why NATS
// cannot be used. It is safe for concurrent use.
func (e *Engine) AskAll(ctx context.Context, question []byte) (answers [][]byte, err error) {
	fail := func(err error) ([][]byte, error) {
		return nil, fmt.Errorf("outbox: ask the other instances: %w", err)
	}
	inbox := e.nc.NewInbox()
	sub, err := e.nc.SubscribeSync(inbox)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails when the connection is closed, and then is over as well
	if err := e.nc.PublishRequest(names{prefix: e.o.Prefix}.askAllSubject(), inbox, question); err != nil {
		return fail(err)
	}
	for len(answers) < e.Standing().Instances {
		m, err := sub.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, nats.ErrNoResponders), ctx.Err() != nil:
			return answers, nil
		case err != nil:
			return fail(err)
		}
		answers = append(answers, m.Data)
	}
	return answers, nil
}

// AnswerAll answers what AskAll asks, as Answer does what Ask asks.
func (e *Engine) AnswerAll(answer func(ctx context.Context, question []byte) []byte) (stop func(), err error) {
	return e.answer(names{prefix: e.o.Prefix}.askAllSubject(), answer)
}

func (e *Engine) answer(subject string, answer func(ctx context.Context, question []byte) []byte) (stop func(), err error) {
	ctx, cancel := context.WithCancel(e.ctx)
	slots := make(chan struct{}, answersAtOnce)
	var mu sync.Mutex // a question that comes at the end must not begin after the wait
	var under sync.WaitGroup
	sub, err := e.nc.Subscribe(subject, func(m *nats.Msg) {
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

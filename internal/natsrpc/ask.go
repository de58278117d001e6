package natsrpc

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// answersAtOnce bounds the questions that are being answered; more are turned away.
const answersAtOnce = 1024

// ErrNobody says that no instance holds the link to the XMPP server at the moment, or that
// the one that does is busy: trying again later makes sense.
var ErrNobody = errors.New("nats: no instance that holds the link to the XMPP server takes the question")

// ErrMoved says that the link went to another instance before there was an answer, so that
// there may never be one. The question may have been taken.
var ErrMoved = errors.New("nats: the instance that held the link to the XMPP server gave no answer before another one had it")

// Cluster is what Questions must know of the instances. Its methods are safe for concurrent
// use and do not block.
type Cluster interface {
	// Term returns a context that ends when the link changes hands.
	Term() context.Context
	// Size returns how many instances are alive.
	Size() int
}

// Questions are put by one instance to others. Its methods are safe for concurrent use.
type Questions struct {
	NC      *nats.Conn
	Prefix  string // of the subjects
	Cluster Cluster
}

func (q *Questions) subject() string { return q.Prefix + ".ask" }

// allSubject is below subject, so that one permission covers both.
func (q *Questions) allSubject() string { return q.subject() + ".all" }

// Ask puts a question to the instance that holds the link, which may be this one, and waits
// for its answer for as long as ctx allows. The error is ErrNobody, ErrMoved, the context's,
// or says why NATS cannot be used.
func (q *Questions) Ask(ctx context.Context, question []byte) ([]byte, error) {
	// An instance that is killed leaves its questions unanswered.
	term := q.Cluster.Term()
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(term, cancel)()
	m, err := q.NC.RequestWithContext(asking, q.subject(), question)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, ErrNobody
	case err != nil && ctx.Err() == nil && term.Err() != nil:
		return nil, ErrMoved
	case err != nil:
		return nil, fmt.Errorf("nats: ask the instance that holds the link: %w", err)
	case len(m.Data) == 0:
		return nil, ErrNobody
	}
	return m.Data, nil
}

// Answer answers what Ask asks, until stop is called. stop cancels the context of the
// answers under way and waits for them. answer is called by many goroutines; it must not
// return nothing.
func (q *Questions) Answer(answer func(ctx context.Context, question []byte) []byte) (stop func(), err error) {
	return q.answer(q.subject(), answer)
}

// AskAll puts a question to every instance, this one among them. It returns the answers
// once each living instance has given one, or when ctx ends. The error says why NATS cannot
// be used.
func (q *Questions) AskAll(ctx context.Context, question []byte) (answers [][]byte, err error) {
	fail := func(err error) ([][]byte, error) {
		return nil, fmt.Errorf("nats: ask the other instances: %w", err)
	}
	inbox := q.NC.NewInbox()
	sub, err := q.NC.SubscribeSync(inbox)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only if the connection is closed
	if err := q.NC.PublishRequest(q.allSubject(), inbox, question); err != nil {
		return fail(err)
	}
	for len(answers) < q.Cluster.Size() {
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
func (q *Questions) AnswerAll(answer func(ctx context.Context, question []byte) []byte) (stop func(), err error) {
	return q.answer(q.allSubject(), answer)
}

func (q *Questions) answer(subject string, answer func(ctx context.Context, question []byte) []byte) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	slots := make(chan struct{}, answersAtOnce)
	var mu sync.Mutex // a question that comes at the end must not begin after the wait
	var under sync.WaitGroup
	sub, err := q.NC.Subscribe(subject, func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return // the asker finds the next instance
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
		return nil, fmt.Errorf("nats: answer other instances: %w", err)
	}
	return func() {
		_ = sub.Unsubscribe() // fails only if the connection is closed
		mu.Lock()
		cancel()
		mu.Unlock()
		under.Wait()
	}, nil
}

package component

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"eventpusher/internal/jid"
)

// RequestType is the type of an IQ that asks for something (RFC 6120 section 8.2.3).
type RequestType string

// The types.
const (
	Get RequestType = "get"
	Set RequestType = "set"
)

// DefaultRequestTimeout is how long Request waits unless the Request says otherwise.
const DefaultRequestTimeout = 30 * time.Second

// Request is an IQ that the component sends.
type Request struct {
	// To is whom it asks: a server, an account or a session. Only an answer from
	// exactly this address counts.
	To   string
	Type RequestType
	// From is one of the component's own addresses, any localpart and resource on its
	// domain; empty is the domain itself.
	From string
	// Payload is the one child of the IQ, as XML that names its namespaces itself.
	// It is not kept.
	Payload []byte
	// Timeout covers everything, the wait for a place among the requests under way
	// too; zero is DefaultRequestTimeout. An earlier end of the context comes first.
	Timeout time.Duration
}

// Reply is the result that a request was answered with.
type Reply struct {
	// From is who answered, prepared.
	From jid.JID
	// Raw is the whole iq element as it came, the caller's own. Its default namespace
	// is jabber:component:accept, which it does not declare.
	Raw []byte
}

// ErrNoReply says that nobody answered in time. It is a context.DeadlineExceeded, so
// that whoever counts timeouts counts it.
var ErrNoReply = fmt.Errorf("component: nobody answered the request in time: %w", context.DeadlineExceeded)

// ErrQueueFull says that the server takes our stanzas more slowly than we send them:
// this one was not sent, a later one may be.
var ErrQueueFull = errors.New("component: the queue of stanzas for the server is full")

// NoLinkError says that there is no stream to the server. Trying again makes sense
// once there is one.
type NoLinkError struct {
	// Sent says that the stream ended under way: the server may have acted on the
	// request.
	Sent bool
}

// Error implements error.
func (e *NoLinkError) Error() string {
	if e.Sent {
		return "component: the link to the XMPP server broke before the reply"
	}
	return "component: not attached to the XMPP server"
}

// Request sends an IQ and waits for its answer. It is safe for concurrent use; at
// most maxRequests are under way, further ones wait for their turn.
//
// The error is a *StanzaError if the answer is one, ErrNoReply, a *NoLinkError, the
// context's, or says what is wrong with the request itself, which is then not
// sent. Requests are not repeated over a reconnection.
//
// It must not be called from the goroutine that reads the stream (a method
// of the Sink, an IQHandler), which would wait for itself.
func (l *Link) Request(ctx context.Context, r Request) (Reply, error) {
	p := newPending(r.To, l.judge.Hosts())
	p.answer = make(chan answer, 1)
	iq, err := l.compose(r, p.id)
	if err != nil {
		return Reply{}, err
	}
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = DefaultRequestTimeout
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()

	select {
	case l.requests.slots <- struct{}{}:
	case <-ctx.Done():
		return Reply{}, fmt.Errorf("component: request: %w", ctx.Err())
	case <-timer.C:
		return Reply{}, ErrNoReply
	}
	defer func() { <-l.requests.slots }()
	stream := l.requests.open(p)
	if stream == nil {
		return Reply{}, &NoLinkError{}
	}
	defer l.requests.forget(p)
	queue := stream.out.own // nil once it is in
	for {
		select {
		case queue <- iq:
			queue = nil
		case a := <-p.answer:
			if queue != nil { // not even sent: the stream has ended
				return Reply{}, &NoLinkError{}
			}
			return a.reply, a.err
		case <-ctx.Done():
			return Reply{}, fmt.Errorf("component: request: %w", ctx.Err())
		case <-timer.C:
			return Reply{}, ErrNoReply
		}
	}
}

// compose writes and checks the IQ.
func (l *Link) compose(r Request, id string) ([]byte, error) {
	from := r.From
	if from == "" {
		from = l.cfg.Name
	}
	switch {
	case r.Type != Get && r.Type != Set:
		return nil, fmt.Errorf("component: a request is of type get or set, not %q", r.Type)
	case r.To == "":
		return nil, errors.New("component: a request needs an address that it goes to")
	}
	b := make([]byte, 0, 64+len(id)+len(from)+len(r.To)+len(r.Payload))
	b = append(b, "<iq type='"...)
	b = append(b, r.Type...)
	b = append(b, "' id='"...)
	b = append(b, id...)
	b = append(b, "' from='"...)
	b = appendEscaped(b, from)
	b = append(b, "' to='"...)
	b = appendEscaped(b, r.To)
	b = append(b, "'>"...)
	b = append(b, r.Payload...)
	b = append(b, "</iq>"...)
	if err := l.checker.check(b); err != nil {
		return nil, fmt.Errorf("component: request: %w", err)
	}
	return b, nil
}

// newID returns an id that nobody can guess, so that nobody can answer a request
// that he has not seen.
func newID() string { return rand.Text() }

// Send hands one message, presence or iq to the server and does not wait for
// anything. Stanzas and requests of one goroutine go out in the order of its calls.
// The stanza is not copied: it must not be changed afterwards. Its from must be on the
// component's domain, and it must have a to.
//
// The error is ErrQueueFull, a *NoLinkError, or says what is wrong with the
// stanza: the server would end the whole stream for it. Nothing says whether a stanza
// that was taken has arrived; Request does.
func (l *Link) Send(stanza []byte) error {
	if err := l.checker.check(stanza); err != nil {
		return fmt.Errorf("component: send: %w", err)
	}
	return l.requests.enqueue(stanza)
}

package component

import (
	"strings"
	"sync"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// maxRequests is how many requests of Link.Request are under way at once.
const maxRequests = 1024

// answer is what becomes of a request.
type answer struct {
	reply Reply
	err   error
}

// pending is a request under way. What becomes of it is told in one of two ways.
type pending struct {
	id string
	// to is who was asked. A host of the server's own may leave its address out:
	// a stanza without one can only be the server's, which stamps all others
	// (RFC 6120 section 8.1.2.1).
	to     jid.JID
	served bool

	answer chan answer // holds one; nil where then is set
	// then is called by the goroutine that reads the stream, between the stanzas
	// before the reply and those behind it, and not at all if the stream ends first.
	then func(answer)
}

func newPending(to string, hosts jid.Domains) *pending {
	asked := jid.Prepare(to)
	return &pending{id: newID(), to: asked, served: hosts.Has(asked)}
}

// outstream is a stream that can be written to.
type outstream struct {
	out  *outbound
	gone chan struct{} // closed when the stream has ended
}

// requests are the requests under way on the present stream. All methods are safe
// for concurrent use and none blocks.
type requests struct {
	slots chan struct{}

	mu      sync.Mutex
	stream  *outstream // nil while there is none
	waiting map[string]*pending
}

func newRequests() *requests {
	return &requests{slots: make(chan struct{}, maxRequests), waiting: make(map[string]*pending)}
}

// attach begins a stream.
func (r *requests) attach(out *outbound) *outstream {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stream = &outstream{out: out, gone: make(chan struct{})}
	return r.stream
}

// detach ends the stream: what is open will not be answered any more.
func (r *requests) detach() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.stream.gone)
	r.stream = nil
	for _, p := range r.waiting {
		if p.answer != nil {
			p.answer <- answer{err: &NoLinkError{Sent: true}}
		}
	}
	clear(r.waiting)
}

// open makes p wait for its reply, on the stream that it returns; nil if there is none.
func (r *requests) open(p *pending) *outstream {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream != nil {
		r.waiting[p.id] = p
	}
	return r.stream
}

// forget gives p up; its reply will be one that nobody waits for.
func (r *requests) forget(p *pending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, p.id)
}

// enqueue hands a stanza to the writer.
func (r *requests) enqueue(stanza []byte) error {
	r.mu.Lock()
	stream := r.stream
	r.mu.Unlock()
	if stream == nil {
		return &NoLinkError{}
	}
	select {
	case stream.out.own <- stanza:
		return nil
	default:
		return ErrQueueFull
	}
}

// take finds whom a reply is for, nil if nobody has asked for it. A reply from another
// than the one who was asked leaves the request waiting: who cannot see our stanzas
// must not be able to spoil it either.
func (r *requests) take(id string, from jid.JID) *pending {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.waiting[id]
	if p == nil || from != p.to && (from != "" || !p.served) {
		return nil
	}
	delete(r.waiting, id)
	return p
}

// replied takes an IQ of type result or error, and reports whether somebody had
// asked for it. The frame may be reused afterwards.
func (a *attachment) replied(frame []byte, head *stanza.IQ) bool {
	from := jid.Prepare(head.From)
	p := a.link.requests.take(head.ID, from)
	if p == nil {
		// The watchdog does not wait for replies; any byte is life to it.
		return strings.HasPrefix(head.ID, watchdogID) && from == jid.Prepare(a.link.pingTo)
	}
	got := answer{reply: Reply{From: p.to}}
	if head.Type == "error" {
		got.err = parseError(frame)
	} else {
		got.reply.Raw = append([]byte(nil), frame...)
	}
	if p.then != nil {
		p.then(got)
	} else {
		p.answer <- got
	}
	return true
}

package component

import (
	"encoding/xml"
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/internal/jid"
)

// IQ is a request to the component (RFC 6120 section 8.2.3). It has to be answered,
// once, by Result or Fail: at once or later, by any goroutine. An IQ that is never
// answered leaves its sender waiting.
type IQ struct {
	// From is who asks, To which address of ours; both prepared. Anybody may ask
	// anything: what From may be granted is the handler's to judge.
	From, To jid.JID
	Type     RequestType
	// Element is the name of the one child, Node its node attribute.
	Element xml.Name
	Node    string
	// Raw is the whole iq element as it came, the handler's own. Its default
	// namespace is jabber:component:accept, which it does not declare.
	Raw []byte

	from, to, id string // as they came
	out          *outbound
	checker      *checker
	dropped      prometheus.Counter
	answered     atomic.Bool
}

// ErrAnswered says that an IQ was answered before.
var ErrAnswered = errors.New("component: this IQ was answered before")

// Result answers with a result. The payload, one element as XML that names its
// namespaces itself, may be empty. It never blocks. The error is
// ErrAnswered, ErrQueueFull, or says what is wrong with the payload, in which case an
// internal-server-error was sent instead; no error is no proof that the answer arrived.
func (q *IQ) Result(payload []byte) error {
	if q.answered.Swap(true) {
		return ErrAnswered
	}
	b := append(q.head("result", len(payload)), payload...)
	b = append(b, "</iq>"...)
	if err := q.checker.check(b); err != nil {
		return errors.Join(err, q.send(q.failure(&StanzaError{Type: "wait", Condition: "internal-server-error"})))
	}
	return q.send(b)
}

// Fail answers with an error; its errors are those of Result.
func (q *IQ) Fail(e StanzaError) error {
	if q.answered.Swap(true) {
		return ErrAnswered
	}
	return q.send(q.failure(&e))
}

func (q *IQ) failure(e *StanzaError) []byte {
	return append(e.appendTo(q.head("error", 0)), "</iq>"...)
}

// head writes the start tag of the answer, with room for a payload of that size.
func (q *IQ) head(kind string, room int) []byte {
	b := make([]byte, 0, 64+len(q.to)+len(q.from)+len(q.id)+room)
	b = append(b, "<iq type='"...)
	b = append(b, kind...)
	b = append(b, "' from='"...)
	b = appendEscaped(b, q.to)
	b = append(b, "' to='"...)
	b = appendEscaped(b, q.from)
	if q.id != "" {
		b = append(b, "' id='"...)
		b = appendEscaped(b, q.id)
	}
	return append(b, "'>"...)
}

// errAnswerTooLarge says that an answer would have cost the stream: that of a request
// with an id of a hundred kilobytes, which whoever sent it does without.
var errAnswerTooLarge = errors.New("component: the answer to this IQ is too large to be sent")

func (q *IQ) send(b []byte) error {
	if len(b) > maxOutgoing {
		q.dropped.Inc()
		return errAnswerTooLarge
	}
	if !q.out.enqueue(b) {
		q.dropped.Inc()
		return ErrQueueFull
	}
	return nil
}

package component

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"mellium.im/xmpp/component"

	"eventpusher/internal/jid"
	"eventpusher/internal/plainxml"
)

// iq is what has to be known of a top-level element in order to answer it.
type iq struct {
	name               xml.Name
	from, to, id, kind string // kind is the type attribute
	children           []child
}

// child is an element in an IQ.
type child struct {
	name xml.Name
	node string // its node attribute
}

// readElement is parseElement for what comes from the stream.
func readElement(frame []byte) (*iq, error) {
	if q := readPlain(string(frame)); q != nil {
		return q, nil
	}
	return parseElement(frame)
}

// readPlain reads what is plain XML, as nearly all IQs are; nil says that it is not.
func readPlain(frame string) *iq {
	r := plainxml.NewReader(frame, component.NSAccept)
	if r.Next() != plainxml.Start {
		return nil
	}
	q := &iq{
		name: xml.Name{Space: r.Space(), Local: r.Name()},
		from: r.Attr("from"), to: r.Attr("to"), id: r.Attr("id"), kind: r.Attr("type"),
	}
	for {
		switch r.Next() {
		case plainxml.Start:
			q.children = append(q.children, child{xml.Name{Space: r.Space(), Local: r.Name()}, r.Attr("node")})
			if !r.Skip() {
				return nil
			}
		case plainxml.Done:
			return q
		case plainxml.Odd:
			return nil
		}
	}
}

// parseElement reads one top-level element of the stream by itself. It keeps what
// a user wrote away from the session's parser, for which any fault in it is the
// end of the stream.
func parseElement(frame []byte) (*iq, error) {
	d := xml.NewDecoder(bytes.NewReader(frame))
	d.DefaultSpace = component.NSAccept
	q := &iq{}
	for depth := 0; ; {
		token, err := d.Token()
		switch {
		case err == io.EOF:
			return q, nil
		case err != nil:
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch depth {
			case 0:
				q.name = t.Name
				q.from, q.to = unprefixed(t, "from"), unprefixed(t, "to")
				q.id, q.kind = unprefixed(t, "id"), unprefixed(t, "type")
			case 1:
				q.children = append(q.children, child{t.Name, unprefixed(t, "node")})
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

// unprefixed returns the attribute of that name. An attribute x:from says nothing
// about the sender.
func unprefixed(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (q *iq) isIQ() bool { return q.name.Local == "iq" && q.name.Space == component.NSAccept }

// isReply reports whether the IQ answers one of ours; such are never answered.
// What has no type or a wrong one is taken for a request, so that its sender
// learns of it.
func (q *iq) isReply() bool { return q.kind == "result" || q.kind == "error" }

// isRequest reports whether an IQ is a valid request: a get or set has an id and
// exactly one child (RFC 6120 section 8.2.3).
func (q *iq) isRequest() bool {
	return (q.kind == "get" || q.kind == "set") && len(q.children) == 1 && q.id != ""
}

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

package component

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"

	"mellium.im/xmpp/stream"

	"eventpusher/component/eventfeed"
	"eventpusher/component/stanza"
)

// read takes one element after the other until the stream ends. It returns nil if the
// server has ended the stream, the stream.Error that the server gave, errPanicked, or why
// nothing more can be read.
func (a *attachment) read() (err error) {
	defer func() {
		if r := recover(); r != nil {
			a.reportPanic(r)
			err = errPanicked
		}
	}()
	a.link.sink.Attached()
	for {
		frame, err := a.reader.Next(&a.env)
		if err != nil {
			var refused *stanza.StanzaError
			if !errors.As(err, &refused) {
				return err
			}
			a.damaged(frame, refused.Defect.String(), fmt.Sprintf("%v at byte %d of %d", refused.Defect, refused.Offset, len(frame.Bytes)))
			continue
		}
		switch {
		case frame.Fault != stanza.NoFault:
			a.damaged(frame, frame.Fault.String(), faults[frame.Fault])
		case frame.Kind == stanza.EndFrame:
			return nil
		case frame.Kind != stanza.OtherFrame:
			a.stanza()
		case bytes.HasPrefix(frame.Bytes, []byte(errorElement)): // only the server itself can write one
			return streamError(frame.Bytes)
		default:
			a.other(frame.Bytes)
		}
	}
}

// streamError reads a stream error (RFC 6120 section 4.9). It is one, whatever is in it.
func streamError(frame []byte) error {
	said := stream.Error{}
	if xml.Unmarshal(frame, &said) != nil || said.Err == "" {
		said = stream.UndefinedCondition
	}
	return said
}

// stanza takes the message or presence that was read.
func (a *attachment) stanza() {
	if a.env.Feed != nil {
		a.link.sources.Take(&a.env, a.link.now())
		return
	}
	fact := a.link.judge.Stanza(&a.env, a.link.now())
	if fact != nil {
		a.link.sink.Take(fact, eventfeed.Position{})
	}
	a.observe(fact)
}

// other takes an element that is no message or presence: requests are answered,
// replies go to who waits for them.
func (a *attachment) other(frame []byte) {
	q, err := a.iqs.DecodeIQ(frame)
	switch {
	case isDefect(err, stanza.NotStanza):
		a.bad("unknown element", stanza.OtherFrame)
	case err != nil:
		a.bad("malformed iq", stanza.OtherFrame)
	case q.IsReply():
		kind := "reply_unasked"
		if a.replied(frame, &q) {
			kind = "reply"
		}
		a.link.metrics.iqs.WithLabelValues(kind).Inc()
	default:
		a.link.responder.handle(&q, frame, a.out)
	}
}

// faults say what is wrong with a frame that is not whole, and which key bounds it.
var faults = map[stanza.Fault]string{
	stanza.TooLarge: "too large: [component] max_stanza_size is the bound",
	stanza.TooDeep:  "too deep: [component] max_depth is the bound",
}

// damaged takes a frame that is refused; of a message or presence, what could be read
// is in the envelope. reason is a label, why goes to the dead letter.
func (a *attachment) damaged(frame stanza.Frame, reason, why string) {
	a.bad(reason, frame.Kind)
	if frame.Kind == stanza.MessageFrame || frame.Kind == stanza.PresenceFrame {
		a.link.sources.Damaged(&a.env, frame.Bytes, why, a.link.now())
	}
}

// bad counts what cannot be read. Its content is never logged.
func (a *attachment) bad(reason string, kind stanza.FrameKind) {
	a.link.metrics.bad.WithLabelValues(reason).Inc()
	remedy := "it is among the dead letters, reason undecodable: its sender has to be mended"
	if kind == stanza.OtherFrame {
		remedy = "its sender has to be mended"
	}
	switch reason {
	case stanza.TooLarge.String():
		remedy = "raise [component] max_stanza_size if such stanzas are to make events"
	case stanza.TooDeep.String():
		remedy = "raise [component] max_depth if such stanzas are to make events"
	}
	a.link.judge.Warn(a.link.now(), reason, "component: skipped a stanza that cannot be read", "reason", reason, "element", kind, "remedy", remedy)
}

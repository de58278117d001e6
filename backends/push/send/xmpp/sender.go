// Package xmpp publishes notifications at push services of the XMPP network (XEP-0357
// section 6).
package xmpp

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/dataform"
	"eventpusher/backends/push/notify"
	"eventpusher/internal/jid"
)

// Timeout is how long a push service may take for its answer. Services keep to it.
const Timeout = 20 * time.Second

// Services sends IQs to the push services of the network. All methods are safe for concurrent
// use.
type Services interface {
	// Generic asks a service what it is (XEP-0030), and reports whether it has nodes of anybody
	// (XEP-0060) and does not say that it is a push service (pubsub/push, XEP-0357 section 11).
	// The error says why that is not known: the service cannot be reached, or says nothing.
	Generic(ctx context.Context, service jid.JID) (bool, error)
	// Set sends an IQ of type set with that payload and waits for the answer: nil
	// for a result, a *Refusal for an error, a context.DeadlineExceeded if nobody
	// answers within Timeout, anything else if the IQ was not sent.
	Set(ctx context.Context, to jid.JID, payload []byte) error
}

// Refusal is the error of an IQ (RFC 6120 section 8.3). Text says more to people, and may be
// empty.
type Refusal struct {
	Type, Condition, Text string
}

// Error implements error.
func (r *Refusal) Error() string { return "answered " + r.Condition + " (" + r.Type + ")" }

// LinkError says that a notification could not be sent to any push service.
type LinkError struct{ Err error }

// Error implements error.
func (e *LinkError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *LinkError) Unwrap() error { return e.Err }

// Sender implements notify.Sender.
type Sender struct{ services Services }

var _ notify.Sender = (*Sender)(nil)

// New returns a sender.
func New(services Services) *Sender { return &Sender{services} }

// Send implements notify.Sender.
//
// The answers mean:
//
//	result                            nil
//	item-not-found, gone (cancel)     dead: the node is no more (XEP-0060 section 7.1.3.3, RFC 6120 section 8.3.3.5)
//	type wait                         transient
//	other errors                      permanent, with a *Refusal in it. The server of a user gives
//	                                  some of them for a service that it cannot reach
//	none                              timeout
//	not sent                          a *LinkError, which is elsewhere
func (s *Sender) Send(ctx context.Context, t notify.Target, n notify.Notification) error {
	if t.Kind != notify.XMPP {
		return backends.Permanent(errors.New("not a push service of the XMPP network"))
	}
	if _, _, err := n.Expiry(time.Now()); err != nil {
		return backends.Permanent(err)
	}
	service := jid.JID(t.Address.Reveal())
	err := s.services.Set(ctx, service, payload(&t, &n))
	if err == nil {
		return nil
	}
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		refusal = refusal.plain()
		err = fmt.Errorf("%s %w", service, refusal)
		return refusal.verdict(err)
	case errors.Is(err, context.DeadlineExceeded), ctx.Err() != nil:
		return fmt.Errorf("%s: %w", service, err)
	}
	return backends.Elsewhere(&LinkError{err})
}

// maxCondition is longer than any condition of RFC 6120 section 8.3.3.
const maxCondition = 64

// plain returns the refusal with a condition such as standards define them: services name
// what they like, and it goes to logs and dead letters.
func (r *Refusal) plain() *Refusal {
	odd := func(c rune) bool { return (c < 'a' || c > 'z') && c != '-' }
	if len(r.Condition) <= maxCondition && !strings.ContainsFunc(r.Condition, odd) && len(r.Type) <= maxCondition && !strings.ContainsFunc(r.Type, odd) {
		return r
	}
	return &Refusal{Type: "cancel", Condition: "undefined-condition"}
}

// verdict is the table of Send.
func (r *Refusal) verdict(err error) error {
	switch {
	case r.Type == "cancel" && (r.Condition == "item-not-found" || r.Condition == "gone"):
		return &notify.DeadError{Err: err}
	case r.Type == "wait":
		return err
	}
	return backends.Permanent(err)
}

// payload is the pubsub element that publishes a notification at a service's node, as
// MongooseIM writes it: the item has no id, and publish-options are there only if the
// client has given any.
func payload(t *notify.Target, n *notify.Notification) []byte {
	var b bytes.Buffer
	b.WriteString("<pubsub xmlns='" + notify.NSPubSub + "'><publish node='")
	_ = xml.EscapeText(&b, []byte(t.Node)) // a buffer takes everything
	b.WriteString("'><item>" + n.Element + "</item></publish>")
	if len(t.Options) > 0 {
		b.WriteString("<publish-options>")
		dataform.Write(&b, dataform.Submit, notify.FormOptions, len(t.Options), func(i int) (string, string) { return t.Options[i].Name, t.Options[i].Value })
		b.WriteString("</publish-options>")
	}
	b.WriteString("</pubsub>")
	return b.Bytes()
}

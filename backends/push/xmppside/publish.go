// Package xmppside is the XMPP and HTTP side of push: it answers users who register for
// push at services of their choice, is an app server for devices (XEP-0357), and reaches the
// other instances where one alone has the link to the server.
package xmppside

import (
	"context"
	"errors"
	"log/slog"

	"eventpusher/backends/push"
	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/store"
	"eventpusher/component"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// busy is the answer to what may be repeated in a while. Servers keep a registration
// that was answered so, while an error of another type ends it: at ejabberd at once,
// at Prosody after some of them (push_max_errors).
func busy() *component.StanzaError {
	return &component.StanzaError{Type: "wait", Condition: "resource-constraint"}
}

// publication is a notification as a server has published it, before anybody has looked
// whether there is such a device.
type publication struct {
	// node is the device's, as the server says.
	node    string
	from    jid.JID
	secret  string
	summary devices.Summary
}

// readPublish reads an IQ of type set with a pubsub element. It asks no store. The
// error is an *component.StanzaError.
func readPublish(from jid.JID, iq []byte) (*publication, error) {
	if !from.IsBare() {
		// Servers and, where there is no other way, accounts publish; no session does.
		return nil, &component.StanzaError{Type: "auth", Condition: "forbidden", Text: "only servers publish notifications"}
	}
	q, err := readPublished(iq)
	if err != nil {
		return nil, &component.StanzaError{Type: "modify", Condition: "bad-request"}
	}
	p := q.PubSub.Publish
	switch {
	case p == nil:
		return nil, &component.StanzaError{Type: "cancel", Condition: "feature-not-implemented"}
	case len(p.Items) != 1 || p.Items[0].Notification == nil:
		return nil, &component.StanzaError{Type: "modify", Condition: "bad-request", Text: "one item with a notification is published here"}
	}
	return &publication{
		node: p.Node, from: from, secret: q.PubSub.Options.Form.Value("secret"), summary: devices.NewSummary(p.Items[0].Notification),
	}, nil
}

// accept looks the device up and returns the event that the notification is. Its result
// may be answered once the event is kept.
//
// The error is an *component.StanzaError. Those of type cancel and auth make the user's server end
// the registration, as it should: the device is not registered (any more), or the
// secret is another's (XEP-0357 section 6), of which Options.Refused is told. While the
// store cannot be read nobody is told so.
func (d *Devices) accept(ctx context.Context, p *publication) (event.Event, error) {
	device, err := d.registry.Verify(ctx, p.node, p.secret)
	switch {
	case errors.Is(err, store.ErrUnknown):
		d.o.Refused(ctx, p.from, p.node, err)
		return event.Event{}, &component.StanzaError{Type: "cancel", Condition: "item-not-found"}
	case errors.Is(err, store.ErrSecret):
		d.o.Refused(ctx, p.from, p.node, err)
		return event.Event{}, &component.StanzaError{Type: "auth", Condition: "forbidden"}
	case errors.Is(err, context.Canceled):
		return event.Event{}, busy()
	case err != nil:
		d.complaints.Add(slog.LevelError, "push: a device could not be read; the server was told to try again", err)
		return event.Event{}, busy()
	}
	e := push.NewNotification(p.from, d.o.Own, device.Node, device.Owner, p.summary.WithoutSession(func(domain string) bool { return d.o.Rooms.Has(jid.JID(domain)) }), d.o.Now())
	if sender := p.summary.Sender(); sender != "" {
		e.From = sender // filters see the session, as of messages
	}
	return e, nil
}

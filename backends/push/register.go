package push

import (
	"context"
	"errors"
	"fmt"
	"time"

	"eventpusher/backends/push/registration"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/internal/jid"
)

// Register carries out an enable or disable that a session has sent, and returns
// once it is stored. The error is a *xmpp.Refusal for the client, or says why the store
// has failed: then too the client gets an answer, that of Unavailable.
//
// Whoever calls has made sure that the session is the account's own, and says when the
// request was received: the end of an account ends what was asked for before. It is safe
// for concurrent use; requests of one session belong in their order.
func (b *Backend) Register(ctx context.Context, session jid.JID, payload []byte, received time.Time) error {
	r, err := registration.Parse(payload)
	if err != nil {
		return badRequest()
	}
	return b.carryOut(ctx, session, r, received)
}

// register is Register for an element that was read already.
func (b *Backend) register(ctx context.Context, session jid.JID, e *registration.Element, received time.Time) error {
	r, err := e.Request()
	if err != nil {
		return badRequest()
	}
	return b.carryOut(ctx, session, r, received)
}

func badRequest() *xmpp.Refusal { return &xmpp.Refusal{Type: "modify", Condition: "bad-request"} }

// ofNobody is the answer to a session whose account has ended; it is about to end, too.
func ofNobody() *xmpp.Refusal { return &xmpp.Refusal{Type: "cancel", Condition: "item-not-found"} }

func (b *Backend) carryOut(ctx context.Context, session jid.JID, r registration.Request, received time.Time) (err error) {
	owner, pubsub, node := session.Bare(), r.Service.PubSub, r.Service.Node
	switch {
	case r.Enable:
		if _, ended := b.removals.covers(owner, received); ended {
			return ofNobody()
		}
		r.Service.Created, r.Service.Sessions = received, []string{session.Resource()}
		err = b.store.Enable(ctx, owner, r.Service)
		if errors.Is(err, registration.ErrTooMany) {
			b.tally.add(tooMany)
			return &xmpp.Refusal{Type: "wait", Condition: "resource-constraint"}
		}
		if err == nil {
			b.tally.add(enabled)
			if end, ended := b.removals.covers(owner, received); ended { // while the store was at it
				if _, err = b.store.Forget(ctx, owner, end); err == nil {
					return ofNobody()
				}
			}
		}
	case r.AllNodes:
		_, err = b.store.DisableAll(ctx, owner, pubsub)
	default:
		_, err = b.store.Disable(ctx, owner, pubsub, node)
	}
	if err != nil {
		return fmt.Errorf("push registrations: %w", err)
	}
	if !r.Enable {
		b.tally.add(byUser)
	}
	return nil
}

// Unavailable is the answer to a client whose request the store could not carry out.
func Unavailable() *xmpp.Refusal {
	return &xmpp.Refusal{Type: "wait", Condition: "internal-server-error"}
}

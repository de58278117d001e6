package push

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/registration"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// ofNobody is the answer to a session whose account has ended; it is about to end, too.
func ofNobody() *xmpp.Refusal { return &xmpp.Refusal{Type: "cancel", Condition: "item-not-found"} }

// Register carries out an enable or disable that a session has sent, and returns
// once it is stored. The error is a *xmpp.Refusal for the client, or says why the store
// has failed: then too the client gets an answer.
//
// The caller has made sure that the session is the account's own. received is when the
// request was: the end of an account ends what was asked for before. It is safe for
// concurrent use; requests of one session belong in their order.
func (b *Backend) Register(ctx context.Context, session jid.JID, r registration.Request, received time.Time) (err error) {
	owner, pubsub, node := session.Bare(), r.Service.PubSub, r.Service.Node
	switch {
	case r.Enable:
		if err := b.bounds(ctx, owner, &r.Service); err != nil {
			return err
		}
		if _, ended := b.removals.covers(owner, received); ended {
			return ofNobody()
		}
		r.Service.Created, r.Service.Sessions = received, []string{session.Resource()}
		err = b.store.Enable(ctx, owner, r.Service)
		if errors.Is(err, store.ErrTooMany) {
			b.journal.Count(journal.TooMany)
			return &xmpp.Refusal{Type: "wait", Condition: "resource-constraint"}
		}
		if err == nil {
			b.journal.Count(journal.Enabled)
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
		return err
	}
	if !r.Enable {
		b.journal.Count(journal.ByUser)
	}
	return nil
}

// Bounds of what one user can have sent to services of the network, whose owners need not
// want it.
const (
	maxAtDomain = 16      // registrations at services of one domain
	maxOptions  = 2 << 10 // bytes of publish-options, which go along with each notification
)

// ownNode returns a *xmpp.Refusal for a node of a served host that may be somebody else's: what
// is published there comes from the component, whom others trust. A pubsub service does not
// tell whose a node is, so the node's name has to say it.
func (b *Backend) ownNode(ctx context.Context, owner jid.JID, s *store.Service) error {
	switch {
	case s.PubSub == owner || !b.o.Served.Over(s.PubSub):
		return nil
	case s.PubSub.Local() != "" && b.o.Served.Of(s.PubSub):
		return &xmpp.Refusal{Type: "auth", Condition: "forbidden"} // another account's (XEP-0163)
	case strings.HasPrefix(s.Node, string(owner)+"/"):
		return nil
	}
	switch generic, err := b.services.Generic(ctx, jid.JID(s.PubSub.Domain())); {
	case err != nil:
		b.complaints.Add(slog.LevelWarn, "push: a service of a served host does not say what it is (XEP-0030), so nobody can register for push there", err)
		return &xmpp.Refusal{Type: "wait", Condition: "remote-server-timeout"}
	case generic:
		return &xmpp.Refusal{Type: "auth", Condition: "forbidden", Text: "at this service the name of a node has to begin with " + string(owner) + "/"}
	}
	return nil
}

// bounds returns a *xmpp.Refusal for a registration that goes too far.
func (b *Backend) bounds(ctx context.Context, owner jid.JID, s *store.Service) error {
	switch b.way(s.PubSub, owner.Domain()) {
	case ByIQ:
	case ByGateway:
		if s.Rules.Encrypted() {
			return &xmpp.Refusal{Type: "modify", Condition: "feature-not-implemented", Text: "notifications by MongoosePush cannot be encrypted"}
		}
		return nil
	default:
		return nil
	}
	if err := b.ownNode(ctx, owner, s); err != nil {
		return err
	}
	size := 0
	for _, o := range s.Options {
		size += len(o.Name) + len(o.Value)
	}
	if size > maxOptions {
		return &xmpp.Refusal{Type: "modify", Condition: "not-acceptable"}
	}
	all, err := b.store.Services(ctx, owner)
	if err != nil {
		return err
	}
	others, key := 0, b.route(ByIQ, s.PubSub)
	for i := range all {
		one := &all[i]
		if (one.PubSub != s.PubSub || one.Node != s.Node) && b.way(one.PubSub, owner.Domain()) == ByIQ && b.route(ByIQ, one.PubSub) == key {
			others++
		}
	}
	if others >= maxAtDomain {
		b.journal.Count(journal.TooMany)
		return &xmpp.Refusal{Type: "wait", Condition: "resource-constraint"}
	}
	return nil
}

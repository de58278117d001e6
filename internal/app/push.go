package app

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"mellium.im/xmpp/disco"

	"eventpusher/backends"
	"eventpusher/backends/push"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/registration"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
)

// Bounds of the requests of users that are stored at once, and wait behind each of
// them. Whoever asks when too many wait is told to try again.
const (
	pushLanes = 64
	pushQueue = 64
)

// registrar answers the IQs by which users register for push: those that a server
// delegates (XEP-0355), and those that are addressed to the component itself. They
// come from the goroutine that reads the stream, which must not wait for the store.
type registrar struct {
	push      *push.Backend
	store     registration.Store
	hosts     jid.Domains // that may delegate
	served    jid.Domains
	requests  *turns
	component requester
	relay     relay       // nil: there is no other instance
	instance  string      // tells this one from the others
	leading   atomic.Bool // this instance has the link, where there are others
	log       *slog.Logger
}

// requester is the link. Request is safe for concurrent use, and blocks until there is
// an answer, or an error as component.Link's.
type requester interface {
	Request(ctx context.Context, r component.Request) (component.Reply, error)
	Status() component.Status
}

// newRegistrar returns the registrar of the push backend among these, nil if there
// is none. It opens the store.
func newRegistrar(cfg *config.Config, list []backends.Backend, events *pusher.Pusher, log *slog.Logger) (*registrar, error) {
	for _, b := range list {
		p, ok := b.(*push.Backend)
		if !ok {
			continue
		}
		store, err := OpenRegistrations(cfg, log)
		if err != nil {
			return nil, err
		}
		r := &registrar{
			push: p, store: store, hosts: push.Delegators(cfg.General.Hosts, cfg.Component.Forwarders), served: jid.NewDomains(cfg.General.Hosts...),
			requests: newTurns(pushLanes, pushQueue), log: log, instance: rand.Text(),
		}
		p.Attach(store, r, func(ctx context.Context, list []event.Event) error { return events.Forward(ctx, p.Name(), list) })
		return r, nil
	}
	return nil, nil
}

// Set implements xmpp.Services by the link, or that of the instance that holds it.
func (r *registrar) Set(ctx context.Context, to jid.JID, payload []byte) error {
	err := r.send(ctx, to, payload)
	var none *component.NoLinkError
	if r.relay != nil && errors.As(err, &none) && !none.Sent {
		return r.ask(ctx, to, payload)
	}
	return err
}

// send sends the IQ by our own link.
func (r *registrar) send(ctx context.Context, to jid.JID, payload []byte) error {
	_, err := r.component.Request(ctx, component.Request{To: string(to), Type: component.Set, Payload: payload, Timeout: xmpp.Timeout})
	var refused *component.StanzaError
	if errors.As(err, &refused) {
		return &xmpp.Refusal{Type: refused.Type, Condition: refused.Condition}
	}
	return err
}

// handlers are for component.Options.
func (r *registrar) handlers() []component.IQHandler {
	var list []component.IQHandler
	for _, ns := range [...]string{push.Delegation1, push.Delegation2} {
		list = append(list, component.IQHandler{
			Name: "delegated", Element: xml.Name{Space: ns, Local: "delegation"}, Type: component.Set, Handle: r.delegated,
		})
	}
	for _, node := range push.DelegationNodes() {
		list = append(list, component.IQHandler{
			Name: "delegation_disco", Element: xml.Name{Space: disco.NSInfo, Local: "query"}, Type: component.Get, Node: node, Handle: r.nested,
		})
	}
	for _, element := range [...]string{"enable", "disable"} {
		name := xml.Name{Space: notify.NS, Local: element}
		list = append(list,
			component.IQHandler{Name: "push", Element: name, Type: component.Set, Features: []string{notify.NS}, Handle: r.direct},
			component.IQHandler{Name: "push", Element: name, Type: component.Get, Handle: func(q *component.IQ) {
				fail(q, &xmpp.Refusal{Type: "cancel", Condition: "not-allowed"})
			}})
	}
	return list
}

// Answers that cannot be sent are counted by the link.

func fail(q *component.IQ, refusal *xmpp.Refusal) {
	_ = q.Fail(component.StanzaError{Type: refusal.Type, Condition: refusal.Condition})
}

// nested says what the component does for the namespace that a server delegates.
func (r *registrar) nested(q *component.IQ) {
	if !r.hosts.Has(q.From) {
		fail(q, &xmpp.Refusal{Type: "cancel", Condition: "item-not-found"})
		return
	}
	_ = q.Result(push.DelegationInfo(q.Node))
}

// delegated takes a request that a server delegates for a user of its own. It is always
// answered by a result: to an error ejabberd answers its user nothing.
func (r *registrar) delegated(q *component.IQ) {
	ask, err := push.ReadAsk(q.Raw)
	if err != nil || !r.hosts.Has(q.From) || !ask.Of(q.From) {
		fail(q, &xmpp.Refusal{Type: "auth", Condition: "forbidden"})
		return
	}
	received := time.Now()
	job := func(ctx context.Context) { _ = q.Result(r.push.Delegated(ctx, q.From, ask, received)) }
	if !r.requests.enter(string(ask.Session.Bare()), job) {
		_ = q.Result(ask.Refused(busy()))
	}
}

// direct takes a request of a session, for its own account.
func (r *registrar) direct(q *component.IQ) {
	if !r.served.Of(q.From) || q.From.Local() == "" || q.From.IsBare() {
		fail(q, &xmpp.Refusal{Type: "auth", Condition: "forbidden"})
		return
	}
	received := time.Now()
	job := func(ctx context.Context) {
		if refusal := r.push.Direct(ctx, q.From, q.Raw, received); refusal != nil {
			fail(q, refusal)
			return
		}
		_ = q.Result(nil)
	}
	if !r.requests.enter(string(q.From.Bare()), job) {
		fail(q, busy())
	}
}

// busy is the answer when too many requests wait.
func busy() *xmpp.Refusal { return &xmpp.Refusal{Type: "wait", Condition: "resource-constraint"} }

// run answers until ctx ends: each user in the order of his requests, as soon as the
// store has them.
func (r *registrar) run(ctx context.Context) error {
	if r.relay != nil {
		stop, err := r.relay.AnswerAll(r.answerAll)
		if err != nil {
			r.log.Warn("push explain on other instances cannot tell what this one decides", "err", err)
		} else {
			defer stop()
		}
	}
	return r.requests.run(ctx)
}

// Remove implements control.Push.
func (r *registrar) Remove(ctx context.Context, user, service jid.JID, node string) (int, error) {
	return r.push.Remove(ctx, user, service, node)
}

// Close closes the store.
func (r *registrar) Close() error { return r.store.Close() }

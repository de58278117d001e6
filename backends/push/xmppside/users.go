package xmppside

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"eventpusher/backends/push"
	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/internal/complain"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/registration"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/component"
	"eventpusher/internal/jid"
)

// userLimits bound the requests of users that wait. A request that comes on top is answered
// that it may be repeated.
var userLimits = turnLimits{each: 64, all: 4096, bytes: 16 << 20}

// maxRequest is how large a user's request may be, in bytes of XML. A registration has at
// most 8 KiB of names and values and 16 KiB of rules, a device's endpoint and token 6 KiB.
// Larger requests are refused before anything of them is kept.
const maxRequest = 64 << 10

// Link is the link to the server, a component.Link. Request blocks until there is an answer.
// It is safe for concurrent use.
type Link interface {
	Request(ctx context.Context, r component.Request) (component.Reply, error)
	Status() component.Status
}

// UsersOptions are what Users need.
type UsersOptions struct {
	Push   *push.Backend
	Hosts  jid.Domains // that may delegate (see Delegators)
	Served jid.Domains // whose users register
	Relay  Relay       // nil: there is no other instance
	// Instances says how many instances there are, this one among them, if there is a Relay.
	Instances func() int
	Log       *slog.Logger
}

// Users answers the IQs by which users register for push: those that a server delegates
// (XEP-0355), and those that are addressed to the component itself. It sends what the
// backend publishes, and tells other instances what this one alone can. It is safe for
// concurrent use.
//
// IQs come from the goroutine that reads the stream, which must not wait for the store.
type Users struct {
	o          UsersOptions
	link       Link
	requests   *turns
	complaints *complain.Log
	instance   string      // tells this one from the others
	leading    atomic.Bool // this instance has the link, where there are others
}

// NewUsers returns Users without a link.
func NewUsers(o UsersOptions) *Users {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Users{o: o, requests: newTurns(userLimits), complaints: complain.New(o.Log, time.Now), instance: rand.Text()}
}

// Attach says which link there is. It is called once, before Run.
func (u *Users) Attach(l Link) { u.link = l }

// Handlers are for component.Options.
func (u *Users) Handlers() []component.IQHandler {
	list := (&Delegation{Hosts: u.o.Hosts, request: u.delegated}).Handlers()
	for _, element := range [...]string{"enable", "disable"} {
		name := xml.Name{Space: notify.NS, Local: element}
		list = append(list,
			component.IQHandler{Name: "push", Element: name, Type: component.Set, Features: append([]string{notify.NS}, decide.Features...), Handle: u.direct},
			component.IQHandler{Name: "push", Element: name, Type: component.Get, Handle: func(q *component.IQ) { fail(q, notAllowed) }})
	}
	return list
}

// Refusals of users' requests.
var (
	notAllowed    = &xmpp.Refusal{Type: "cancel", Condition: "not-allowed"}
	notFound      = &xmpp.Refusal{Type: "cancel", Condition: "item-not-found"}
	forbidden     = &xmpp.Refusal{Type: "auth", Condition: "forbidden"}
	notAcceptable = &xmpp.Refusal{Type: "modify", Condition: "not-acceptable"}
	badRequest    = &xmpp.Refusal{Type: "modify", Condition: "bad-request"}
	tooManyWait   = &xmpp.Refusal{Type: "wait", Condition: "resource-constraint"}
	storeTrouble  = &xmpp.Refusal{Type: "wait", Condition: "internal-server-error"}
)

// fail answers with an error. What cannot be sent is counted by the link.
func fail(q *component.IQ, r *xmpp.Refusal) {
	_ = q.Fail(component.StanzaError{Type: r.Type, Condition: r.Condition, Text: r.Text})
}

// delegated takes a request that a server delegates, of which the head is read. The rest is
// read in its turn, since what it becomes takes many times its bytes.
func (u *Users) delegated(q *component.IQ, head *ask) {
	received := time.Now()
	job := func(ctx context.Context) {
		a, err := readAsk(q.Raw)
		if err != nil {
			fail(q, forbidden)
			return
		}
		_ = q.Result(a.answer(u.ask(ctx, q.From, a, received)))
	}
	if !u.requests.enter(string(head.session.Bare()), len(q.Raw), job) {
		_ = q.Result(head.answer(tooManyWait))
	}
}

// ask carries out a request that the server host has delegated. It returns nil if the
// request is stored, else the answer.
func (u *Users) ask(ctx context.Context, host jid.JID, a *ask, received time.Time) *xmpp.Refusal {
	switch {
	case !a.set:
		return notAllowed
	case a.recipient != "" && a.recipient != a.session.Bare() && a.recipient != host:
		// Both servers also delegate what a user sends to somebody else's account.
		return forbidden
	}
	return u.register(ctx, a.session, &a.element, received)
}

// direct takes a request of a session, for its own account.
func (u *Users) direct(q *component.IQ) {
	if !u.o.Served.Of(q.From) || q.From.Local() == "" || q.From.IsBare() {
		fail(q, forbidden)
		return
	}
	if len(q.Raw) > maxRequest {
		fail(q, notAcceptable)
		return
	}
	received := time.Now()
	job := func(ctx context.Context) {
		if refusal := u.enable(ctx, q.From, q.Raw, received); refusal != nil {
			fail(q, refusal)
			return
		}
		_ = q.Result(nil)
	}
	if !u.requests.enter(string(q.From.Bare()), len(q.Raw), job) {
		fail(q, tooManyWait)
	}
}

// enable carries out the request in an IQ of a session. It returns nil if the request is
// stored, else the answer.
func (u *Users) enable(ctx context.Context, session jid.JID, iq []byte, received time.Time) *xmpp.Refusal {
	var outer struct {
		Child []registration.Element `xml:",any"`
	}
	if err := xml.Unmarshal(iq, &outer); err != nil || len(outer.Child) != 1 {
		return badRequest
	}
	return u.register(ctx, session, &outer.Child[0], received)
}

// register carries out what an element asks for. It returns nil if that is stored, else what
// the client is told.
func (u *Users) register(ctx context.Context, session jid.JID, e *registration.Element, received time.Time) *xmpp.Refusal {
	r, err := e.Request()
	if wrong := (*decide.RulesError)(nil); errors.As(err, &wrong) {
		return &xmpp.Refusal{Type: "modify", Condition: wrong.Condition, Text: wrong.Text}
	}
	if err != nil {
		return badRequest
	}
	var refusal *xmpp.Refusal
	err = u.o.Push.Register(ctx, session, r, received)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return refusal
	}
	u.complaints.Add(slog.LevelError, "push: a registration could not be stored, the client was told to try again", err)
	return storeTrouble
}

// Run answers until ctx ends: each user in the order of his requests, as soon as the
// store has them.
func (u *Users) Run(ctx context.Context) error {
	if u.o.Relay != nil {
		stop, err := u.o.Relay.AnswerAll(u.answerAll)
		if err != nil {
			u.o.Log.Warn("push explain on other instances cannot tell what this one decides", "err", err)
		} else {
			defer stop()
		}
	}
	return u.requests.run(ctx)
}

// Remove removes registrations, as push.Backend.Remove.
func (u *Users) Remove(ctx context.Context, user, service jid.JID, node string) (int, error) {
	return u.o.Push.Remove(ctx, user, service, node)
}

package xmppside

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"time"

	"mellium.im/xmpp/disco"

	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/unread"
	"eventpusher/component"
	"eventpusher/internal/jid"
)

// Relay reaches the instance that holds the link, where several share the outbox: each
// delivers its part of the events, and one alone can send stanzas.
type Relay interface {
	// Ask puts a question to that instance. It is safe for concurrent use.
	Ask(ctx context.Context, question []byte) ([]byte, error)
	// Answer answers such questions until stop is called.
	Answer(answer func(ctx context.Context, question []byte) []byte) (stop func(), err error)
	// AskAll puts a question to all instances, this one among them, and returns the
	// answers when all have come or ctx ends. It is safe for concurrent use.
	AskAll(ctx context.Context, question []byte) ([][]byte, error)
	// AnswerAll answers such questions until stop is called.
	AnswerAll(answer func(ctx context.Context, question []byte) []byte) (stop func(), err error)
}

// Set implements xmpp.Services by the link, or that of the instance that holds it.
func (u *Users) Set(ctx context.Context, to jid.JID, payload []byte) error {
	err := u.send(ctx, to, payload)
	var none *component.NoLinkError
	if u.o.Relay != nil && errors.As(err, &none) && !none.Sent {
		return u.relay(ctx, to, payload)
	}
	return err
}

// send sends the IQ by our own link.
func (u *Users) send(ctx context.Context, to jid.JID, payload []byte) error {
	_, err := u.link.Request(ctx, component.Request{To: string(to), Type: component.Set, Payload: payload, Timeout: xmpp.Timeout})
	var refused *component.StanzaError
	if errors.As(err, &refused) {
		return &xmpp.Refusal{Type: refused.Type, Condition: refused.Condition}
	}
	return err
}

// Generic implements xmpp.Services by the link, of which users' requests come.
func (u *Users) Generic(ctx context.Context, service jid.JID) (bool, error) {
	reply, err := u.link.Request(ctx, component.Request{To: string(service), Type: component.Get, Payload: []byte("<query xmlns='" + disco.NSInfo + "'/>"), Timeout: xmpp.Timeout})
	var info struct {
		Identities []struct {
			Category string `xml:"category,attr"`
			Type     string `xml:"type,attr"`
		} `xml:"http://jabber.org/protocol/disco#info query>identity"`
	}
	var refused *component.StanzaError
	switch {
	case errors.As(err, &refused) && (refused.Condition == "feature-not-implemented" || refused.Condition == "service-unavailable"):
		return false, nil // it is there, and does without XEP-0030, which pubsub services need
	case err != nil:
		return false, err
	}
	if err := xml.Unmarshal(reply.Raw, &info); err != nil {
		return false, err
	}
	generic := false
	for _, one := range info.Identities {
		if one.Category == "pubsub" && one.Type == "push" {
			return false, nil
		}
		generic = generic || one.Category == "pubsub"
	}
	return generic, nil
}

// relayed is a question: Unread is to be counted, or else an IQ of type set is to be
// sent.
type relayed struct {
	Unread  *unread.Message `json:"unread,omitempty"`
	To      jid.JID         `json:"to,omitempty"`
	Payload []byte          `json:"payload,omitempty"`
}

// relayedReply says what became of an IQ, a result if all is empty, or how many messages
// are unread, at least one.
type relayedReply struct {
	Refusal *xmpp.Refusal `json:"refusal,omitempty"`
	Silent  bool          `json:"silent,omitempty"` // nobody answered in time
	Failed  string        `json:"failed,omitempty"` // anything else

	Count int `json:"count,omitempty"`
	Total int `json:"total,omitempty"`
}

// consult puts a question to the instance that holds the link.
func (u *Users) consult(ctx context.Context, question *relayed) (reply relayedReply, err error) {
	b, err := json.Marshal(question)
	if err != nil {
		return reply, err
	}
	if b, err = u.o.Relay.Ask(ctx, b); err != nil {
		return reply, err
	}
	if err := json.Unmarshal(b, &reply); err != nil {
		return reply, errors.New("push: the answer of the instance that holds the link cannot be read")
	}
	return reply, nil
}

// askTimeout is how long the instance that holds the link has for an IQ: what its link may
// take, and the way. An answer can be lost on that, and nobody else ends the wait.
const askTimeout = xmpp.Timeout + 5*time.Second

// errLeaderSilent says nothing of the push service.
var errLeaderSilent = errors.New("push: the instance that holds the link did not say what became of the notification")

// relay has the instance that holds the link send the IQ.
func (u *Users) relay(ctx context.Context, to jid.JID, payload []byte) error {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := u.consult(asking, &relayed{To: to, Payload: payload})
	switch {
	case err != nil && ctx.Err() == nil && asking.Err() != nil:
		return errLeaderSilent
	case err != nil:
		return err
	case reply.Refusal != nil:
		return reply.Refusal
	case reply.Silent:
		return component.ErrNoReply
	case reply.Failed != "":
		return errors.New(reply.Failed)
	}
	return nil
}

// countTimeout is how long a notification waits for its number. Usually somebody answers,
// or nobody is there, within a millisecond; a machine that has vanished does neither.
const countTimeout = time.Second

// Add implements push.Unread. What was read is known where the link is.
func (u *Users) Add(ctx context.Context, m *unread.Message) (count, total int, ok bool) {
	if u.leading.Load() {
		count, total = u.o.Push.Unread().Add(m)
		return count, total, true
	}
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	reply, err := u.consult(ctx, &relayed{Unread: m})
	if err == nil && reply.Count < 1 {
		err = errors.New("push: the instance that holds the link does not count")
	}
	if err != nil {
		u.o.Log.Debug("push: nobody can say how many messages are unread", "user", string(m.User), "err", err)
		return 0, 0, false
	}
	return reply.Count, reply.Total, true
}

// answer does what another instance asks for.
func (u *Users) answer(ctx context.Context, question []byte) []byte {
	var asked relayed
	var reply relayedReply
	err := json.Unmarshal(question, &asked)
	switch {
	case err != nil:
	case asked.Unread != nil:
		reply.Count, reply.Total = u.o.Push.Unread().Add(asked.Unread)
	case asked.To == "":
		err = errors.New("push: the instance that holds the link does not understand the question: run the same version everywhere")
	default:
		err = u.send(ctx, asked.To, asked.Payload)
	}
	switch {
	case err == nil:
	case errors.As(err, &reply.Refusal):
	case errors.Is(err, component.ErrNoReply):
		reply.Silent = true
	default:
		reply.Failed = err.Error()
	}
	b, _ := json.Marshal(reply) // texts and numbers: it cannot fail
	return b
}

// Lead does what the other instances need this one for while it holds the link, until stop
// is called.
func (u *Users) Lead() (stop func()) {
	if u.o.Relay == nil {
		return func() {}
	}
	u.o.Push.Unread().Clear()
	u.leading.Store(true)
	end, err := u.o.Relay.Answer(u.answer)
	if err != nil {
		u.o.Log.Warn("the other instances cannot send push notifications by the link of this one, nor count unread messages", "err", err)
		end = func() {}
	}
	return func() {
		end()
		u.leading.Store(false)
	}
}

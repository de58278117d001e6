package app

import (
	"context"
	"encoding/json"
	"errors"

	"eventpusher/backends/push"
	"eventpusher/component"
	"eventpusher/internal/jid"
)

// relay reaches the instance that holds the link, where several share the outbox: each
// delivers its part of the events, and one alone can send stanzas.
type relay interface {
	// Ask puts a question to that instance. It is safe for concurrent use.
	Ask(ctx context.Context, question []byte) ([]byte, error)
	// Answer answers such questions until stop is called.
	Answer(answer func(ctx context.Context, question []byte) []byte) (stop func(), err error)
}

// relayedSet asks for an IQ of type set.
type relayedSet struct {
	To      jid.JID `json:"to"`
	Payload []byte  `json:"payload"`
}

// relayedReply says what became of it: a result if all is empty.
type relayedReply struct {
	Refusal *push.Refusal `json:"refusal,omitempty"`
	Silent  bool          `json:"silent,omitempty"` // nobody answered in time
	Failed  string        `json:"failed,omitempty"` // anything else
}

// ask has the instance that holds the link send the IQ.
func (r *registrar) ask(ctx context.Context, to jid.JID, payload []byte) error {
	question, err := json.Marshal(relayedSet{To: to, Payload: payload})
	if err != nil {
		return err
	}
	b, err := r.relay.Ask(ctx, question)
	if err != nil {
		return err
	}
	var reply relayedReply
	if err := json.Unmarshal(b, &reply); err != nil {
		return errors.New("push: the answer of the instance that holds the link cannot be read")
	}
	switch {
	case reply.Refusal != nil:
		return reply.Refusal
	case reply.Silent:
		return component.ErrNoReply
	case reply.Failed != "":
		return errors.New(reply.Failed)
	}
	return nil
}

// answer sends an IQ that another instance asks for.
func (r *registrar) answer(ctx context.Context, question []byte) []byte {
	var asked relayedSet
	var reply relayedReply
	err := json.Unmarshal(question, &asked)
	if err == nil {
		err = r.send(ctx, asked.To, asked.Payload)
	}
	switch {
	case err == nil:
	case errors.As(err, &reply.Refusal):
	case errors.Is(err, component.ErrNoReply):
		reply.Silent = true
	default:
		reply.Failed = err.Error()
	}
	b, _ := json.Marshal(reply) // texts and a truth value: it cannot fail
	return b
}

// lead runs the link for one turn, and lends it to the other instances meanwhile.
func (a *App) lead(turn context.Context) error {
	if a.registrar != nil && a.registrar.relay != nil {
		stop, err := a.registrar.relay.Answer(a.registrar.answer)
		if err != nil {
			a.log.Warn("the other instances cannot send push notifications by the link of this one", "err", err)
		} else {
			defer stop()
		}
	}
	return a.link.Run(turn)
}

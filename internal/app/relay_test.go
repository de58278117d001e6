package app

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"eventpusher/backends/push"
	"eventpusher/component"
)

// oneLink plays a link: it notes what is sent.
type oneLink struct {
	err  error
	sent []string
}

func (l *oneLink) Request(_ context.Context, r component.Request) (component.Reply, error) {
	l.sent = append(l.sent, fmt.Sprint(r.Type, " ", r.To, " ", string(r.Payload)))
	return component.Reply{}, l.err
}

func (l *oneLink) Status() component.Status { return component.Status{} }

// toLeader plays what is between two instances.
type toLeader struct{ leader *registrar }

func (t toLeader) Ask(ctx context.Context, question []byte) ([]byte, error) {
	if t.leader == nil {
		return nil, errors.New("nobody")
	}
	return t.leader.answer(ctx, question), nil
}

func (t toLeader) Answer(func(context.Context, []byte) []byte) (func(), error) {
	return func() {}, nil
}

// TestRelay publishes a notification by an instance that does not hold the link.
func TestRelay(t *testing.T) {
	payload := "<pubsub xmlns='http://jabber.org/protocol/pubsub'/>"
	for name, c := range map[string]struct {
		own, leaders error
		asks         bool
		check        func(error) bool
	}{
		"standby":                  {&component.NoLinkError{}, nil, true, func(err error) bool { return err == nil }},
		"holds the link":           {nil, nil, false, func(err error) bool { return err == nil }},
		"sent, and the link broke": {&component.NoLinkError{Sent: true}, nil, false, func(err error) bool { return errors.As(err, new(*component.NoLinkError)) }},
		"refused": {&component.NoLinkError{}, &component.StanzaError{Type: "cancel", Condition: "item-not-found"}, true, func(err error) bool {
			var refused *push.Refusal
			return errors.As(err, &refused) && *refused == push.Refusal{Type: "cancel", Condition: "item-not-found"}
		}},
		"silent":     {&component.NoLinkError{}, component.ErrNoReply, true, func(err error) bool { return errors.Is(err, component.ErrNoReply) }},
		"both alone": {&component.NoLinkError{}, &component.NoLinkError{}, true, func(err error) bool { return err != nil && !errors.Is(err, context.DeadlineExceeded) }},
	} {
		t.Run(name, func(t *testing.T) {
			own, leaders := &oneLink{err: c.own}, &oneLink{err: c.leaders}
			r := &registrar{component: own, relay: toLeader{&registrar{component: leaders}}}
			if err := r.Set(t.Context(), "push.example.net", []byte(payload)); !c.check(err) {
				t.Error(err)
			}
			if want := "set push.example.net " + payload; c.asks != (len(leaders.sent) == 1) || c.asks && leaders.sent[0] != want {
				t.Errorf("the leader sent %q", leaders.sent)
			}
		})
	}
	alone := &registrar{component: &oneLink{err: &component.NoLinkError{}}, relay: toLeader{}}
	if alone.Set(t.Context(), "push.example.net", []byte(payload)) == nil {
		t.Error("no instance has the link, and the notification counts as sent")
	}
	for _, question := range []string{"", "{", `{"to":1}`} {
		if b := alone.answer(t.Context(), []byte(question)); len(b) == 0 {
			t.Errorf("no answer to %q", question)
		}
	}
}

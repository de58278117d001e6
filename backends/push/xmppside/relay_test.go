package xmppside

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/backends/push"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/unread"
	"eventpusher/component"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// oneLink plays a link: it notes what is sent.
type oneLink struct {
	err   error
	reply string
	sent  []string
}

func (l *oneLink) Request(_ context.Context, r component.Request) (component.Reply, error) {
	l.sent = append(l.sent, fmt.Sprint(r.Type, " ", r.To, " ", string(r.Payload)))
	return component.Reply{Raw: []byte(l.reply)}, l.err
}

func (l *oneLink) Status() component.Status { return component.Status{} }

// toLeader plays what is between two instances.
type toLeader struct{ leader *Users }

func (t toLeader) Ask(ctx context.Context, question []byte) ([]byte, error) {
	if t.leader == nil {
		return nil, errors.New("nobody")
	}
	return t.leader.answer(ctx, question), nil
}

func (t toLeader) Answer(func(context.Context, []byte) []byte) (func(), error) {
	return func() {}, nil
}

func (t toLeader) AnswerAll(func(context.Context, []byte) []byte) (func(), error) {
	return func() {}, nil
}

func (t toLeader) AskAll(context.Context, []byte) ([][]byte, error) { return nil, nil }

// instance returns one of several with its own link.
func instance(l Link, r Relay) *Users {
	u := NewUsers(UsersOptions{Push: push.New(push.Options{}), Relay: r})
	u.Attach(l)
	return u
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
			var refused *xmpp.Refusal
			return errors.As(err, &refused) && *refused == xmpp.Refusal{Type: "cancel", Condition: "item-not-found"}
		}},
		"silent":     {&component.NoLinkError{}, component.ErrNoReply, true, func(err error) bool { return errors.Is(err, component.ErrNoReply) }},
		"both alone": {&component.NoLinkError{}, &component.NoLinkError{}, true, func(err error) bool { return err != nil && !errors.Is(err, context.DeadlineExceeded) }},
	} {
		t.Run(name, func(t *testing.T) {
			own, leaders := &oneLink{err: c.own}, &oneLink{err: c.leaders}
			r := instance(own, toLeader{instance(leaders, nil)})
			if err := r.Set(t.Context(), "push.example.net", []byte(payload)); !c.check(err) {
				t.Error(err)
			}
			if want := "set push.example.net " + payload; c.asks != (len(leaders.sent) == 1) || c.asks && leaders.sent[0] != want {
				t.Errorf("the leader sent %q", leaders.sent)
			}
		})
	}
	link := &oneLink{err: &component.NoLinkError{}}
	alone := instance(link, toLeader{})
	if alone.Set(t.Context(), "push.example.net", []byte(payload)) == nil {
		t.Error("no instance has the link, and the notification counts as sent")
	}
	for _, question := range []string{"", "{", "{}", `{"to":1}`, `{"later":{}}`} {
		if b := alone.answer(t.Context(), []byte(question)); !strings.Contains(string(b), "failed") {
			t.Errorf("the answer to %q is %s", question, b)
		}
	}
	if n := len(link.sent); n != 1 {
		t.Errorf("%d IQs were sent for questions that nobody understands", n-1)
	}
}

// TestGeneric tells pubsub services, at which anybody may have nodes, from push services.
func TestGeneric(t *testing.T) {
	info := func(identities string) string {
		return "<iq xmlns='jabber:component:accept' type='result'><query xmlns='http://jabber.org/protocol/disco#info'>" + identities + "</query></iq>"
	}
	refused := func(condition string) error { return &component.StanzaError{Type: "cancel", Condition: condition} }
	for name, c := range map[string]struct {
		reply string
		err   error
		want  string
	}{
		"pubsub":              {info("<identity category='pubsub' type='service'/>"), nil, "true"},
		"pubsub and push":     {info("<identity category='pubsub' type='service'/><identity category='pubsub' type='push'/>"), nil, "false"},
		"push":                {info("<identity category='pubsub' type='push'/>"), nil, "false"},
		"something else":      {info("<identity category='component' type='generic'/>"), nil, "false"},
		"knows no disco":      {"", refused("feature-not-implemented"), "false"},
		"knows nothing":       {"", refused("service-unavailable"), "false"},
		"is not there":        {"", refused("remote-server-not-found"), "unknown"},
		"says nothing":        {"", component.ErrNoReply, "unknown"},
		"cannot be asked now": {"", &component.NoLinkError{}, "unknown"},
	} {
		l := &oneLink{err: c.err, reply: c.reply}
		got, err := instance(l, nil).Generic(t.Context(), "pubsub.example.org")
		if said := fmt.Sprint(got); err != nil && c.want != "unknown" || err == nil && said != c.want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, c.want)
		}
		if want := "get pubsub.example.org <query xmlns='http://jabber.org/protocol/disco#info'/>"; len(l.sent) != 1 || l.sent[0] != want {
			t.Errorf("%s: asked %q", name, l.sent)
		}
	}
}

// noAnswer plays an instance whose answers are lost on the way.
type noAnswer struct{ toLeader }

func (noAnswer) Ask(ctx context.Context, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("asked: %w", ctx.Err())
}

// TestRelayedAnswerIsLost: the wait for it ends, with an error that does not make the push
// service one that is silent.
func TestRelayedAnswerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := instance(&oneLink{err: &component.NoLinkError{}}, noAnswer{})
		ended := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { ended <- r.Set(ctx, "push.example.net", nil) }()
		time.Sleep(xmpp.Timeout)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Errorf("the other instance gets less time than its link needs: %v", err)
		default:
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-ended:
			if err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		default:
			t.Error("it waits for ever")
		}
		stop()
	})
}

// TestRelayedCounts counts at the instance that learns what was read.
func TestRelayedCounts(t *testing.T) {
	leader, standby := instance(&oneLink{}, nil), instance(&oneLink{}, nil)
	leader.o.Relay, standby.o.Relay = toLeader{leader}, toLeader{leader}
	leader.leading.Store(true)
	start := time.UnixMilli(1_700_000_000_000)
	n := 0
	message := func(with jid.JID) *unread.Message {
		n++
		return &unread.Message{User: "bob@x", With: with, Key: fmt.Sprint(n), Time: start.Add(time.Duration(n) * time.Second)}
	}
	expect := func(what string, r *Users, m *unread.Message, count, total int, ok bool) {
		t.Helper()
		if c, all, can := r.Add(t.Context(), m); c != count || all != total || can != ok {
			t.Errorf("%s: %d of %d, %v; want %d of %d, %v", what, c, all, can, count, total, ok)
		}
	}
	first := message("alice@x")
	expect("the first one", standby, first, 1, 1, true)
	expect("an attempt after a move of its partition", leader, first, 1, 1, true)
	expect("the same conversation", leader, message("alice@x"), 2, 2, true)
	expect("another one", standby, message("carol@x"), 1, 3, true)
	delayed := message("alice@x")
	leader.o.Push.Wants(&event.Event{Kind: event.UserStatus, User: "bob@x", Online: true, Time: message("").Time})
	expect("read before it was delivered", standby, delayed, 1, 1, true)
	expect("since he was there", standby, message("alice@x"), 1, 1, true)
	leader.o.Push.Wants(&event.Event{Kind: event.Chat, Direction: event.In, User: "bob@x", To: "alice@x/desk", Time: message("").Time})
	expect("since he has answered", standby, message("alice@x"), 1, 1, true)
	expect("another one", leader, message("carol@x"), 1, 2, true)

	standby.o.Relay = toLeader{}
	expect("while nobody leads", standby, message("carol@x"), 0, 0, false)
	leader.leading.Store(false)
	leader.o.Relay = toLeader{}
	expect("after its turn", leader, message("carol@x"), 0, 0, false)
}

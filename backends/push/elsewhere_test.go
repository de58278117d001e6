package push

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"eventpusher/backends"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// TestDeadService is one that a user has registered: what it does not answer says
// nothing about the services of others, and what the way to all of them says, does.
func TestDeadService(t *testing.T) {
	silent := fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	for name, c := range map[string]struct {
		answer    error
		elsewhere bool
	}{
		"silent":  {silent, true},
		"busy":    {&xmpp.Refusal{Type: "wait", Condition: "resource-constraint"}, true},
		"no link": {errors.New("not attached"), false},
	} {
		f := newFixture(t, asMongooseIM)
		f.enable(t, "dead.example.com", "1", "")
		f.network.answer = func(jid.JID, string) error { return c.answer }
		_ = f.publish(t, f.message("1"))
		err := f.Publish(t.Context(), f.queued)[0]
		if err == nil || errors.As(err, new(*backends.ElsewhereError)) != c.elsewhere {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := newFixture(t, asMongooseIM)
	f.enable(t, "dead.example.com", "1", "")
	f.network.answer = func(jid.JID, string) error { return silent }
	_ = f.publish(t, f.message("1"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Publish(ended, f.queued)[0]; !errors.Is(err, context.Canceled) || errors.As(err, new(*backends.ElsewhereError)) {
		t.Errorf("our own end counts as the service's: %v", err)
	}
}

// TestPausedGateway: that MongoosePush refuses our access holds up nobody else.
func TestPausedGateway(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.enable(t, "pubsub.example.org", "n", "")
	f.gateway.err = fmt.Errorf("403: %w", backends.Paused(errors.New("no access")))
	if err := f.publish(t, f.message("1")); err == nil {
		t.Fatal("lost")
	}
	if err := f.Publish(t.Context(), []event.Event{f.queued[0]})[0]; !errors.As(err, new(*backends.ElsewhereError)) {
		t.Errorf("got %v", err)
	}
}

package push

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"eventpusher/backends"
	"eventpusher/internal/jid"
)

// TestDeadService is one that a user has registered: what it does not answer says
// nothing about the services of others, and what the way to all of them says, does.
func TestDeadService(t *testing.T) {
	silent := fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	for name, c := range map[string]struct {
		dead, other error
		elsewhere   bool
	}{
		"silent":              {silent, nil, true},
		"busy":                {&Refusal{Type: "wait", Condition: "resource-constraint"}, nil, true},
		"no link":             {errors.New("not attached"), nil, false},
		"silent, and no link": {silent, errors.New("not attached"), false},
	} {
		f := newFixture(t, asMongooseIM)
		f.enable(t, "dead.example.com", "1", "")
		f.enable(t, "push.example.net", "2", "")
		f.network.answer = func(to jid.JID, _ string) error {
			if to == "dead.example.com" {
				return c.dead
			}
			return c.other
		}
		err := f.publish(t, f.message("1"))
		if err == nil || errors.As(err, new(*backends.ElsewhereError)) != c.elsewhere {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := newFixture(t, asMongooseIM)
	f.enable(t, "dead.example.com", "1", "")
	f.network.answer = func(jid.JID, string) error { return silent }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.notify(ended, new(f.message("1"))); errors.As(err, new(*backends.ElsewhereError)) {
		t.Errorf("our own end counts as the service's: %v", err)
	}
}

// TestDeadServicesDelayNoOther: those that a user has registered and that say nothing
// any more hold up neither each other nor the one that still is his device, whichever
// comes first.
func TestDeadServicesDelayNoOther(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	told := make(chan struct{})
	f.network.answer = func(to jid.JID, _ string) error {
		if to == "push.example.org" {
			close(told)
			return nil
		}
		select {
		case <-told:
		case <-time.After(10 * time.Second):
			t.Error("the device waits for the answer of a service that is dead")
		}
		return fmt.Errorf("no answer: %w", context.DeadlineExceeded)
	}
	for _, dead := range []string{"a", "b", "c"} {
		f.enable(t, dead+".example.com", "1", "")
	}
	f.enable(t, "push.example.org", "2", "")
	if err := f.publish(t, f.message("1")); !errors.As(err, new(*backends.ElsewhereError)) {
		t.Error(err)
	}
	if n := f.Counts(); n["pushed"] != 1 || n["timeout"] != 3 {
		t.Errorf("%v", n)
	}
}

package push

import (
	"context"
	"errors"
	"fmt"
	"testing"

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

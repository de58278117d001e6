package control_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push"
	"eventpusher/backends/push/journal"
	"eventpusher/internal/control"
	"eventpusher/internal/jid"
	"eventpusher/pusher/outbox/outboxtest"
)

// registrations are of one user; each call for another one fails.
type registrations struct {
	explained push.Explanation
	removed   []string
}

var errBroken = errors.New("push registrations: the database is down")

func (r *registrations) Explain(_ context.Context, user jid.JID) (push.Explanation, error) {
	if user != r.explained.User {
		return push.Explanation{}, errBroken
	}
	return r.explained, nil
}

func (r *registrations) Remove(_ context.Context, user, service jid.JID, node string) (int, error) {
	if user != r.explained.User {
		return 0, errBroken
	}
	r.removed = append(r.removed, string(service)+" "+node)
	return 7, nil
}

func TestPush(t *testing.T) {
	_, without, _ := start(t)
	if _, err := without.Explain(t.Context(), "alice@h"); err == nil {
		t.Error("an instance without push explains it")
	}

	r := &registrations{explained: push.Explanation{
		User:          "alice&é@h",
		Registrations: []push.Registered{{Service: "push.h", Node: "a b&c", Options: []string{"secret"}, By: push.ByIQ}},
		Decisions:     []journal.Decision{{Time: noon, EventID: "e1", Outcome: "online", Service: "push.h", Node: "a b&c", Count: 2}},
		Feeds:         map[string]string{"message": "event-feed"},
	}}
	dir := t.TempDir()
	s, err := control.Listen(dir, &box{Embedded: outboxtest.Open(t)}, examine, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.HandlePush(r)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	c, err := control.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Explain(t.Context(), r.explained.User)
	if diff := cmp.Diff(r.explained, got); diff != "" || err != nil {
		t.Errorf("%v (-server +client):\n%s", err, diff)
	}
	if n, err := c.Remove(t.Context(), r.explained.User, "push.h", "a b&c"); n != 7 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if diff := cmp.Diff([]string{"push.h a b&c"}, r.removed); diff != "" {
		t.Error(diff)
	}
	const says = "control: the running instance says: push registrations: the database is down"
	if _, err := c.Explain(t.Context(), "bob@h"); err == nil || err.Error() != says {
		t.Errorf("%v", err)
	}
	if _, err := c.Remove(t.Context(), "bob@h", "", ""); err == nil || err.Error() != says {
		t.Errorf("%v", err)
	}
	gone, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	if _, err := c.Explain(gone, r.explained.User); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

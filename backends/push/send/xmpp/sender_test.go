package xmpp

import (
	"context"
	"sync"
	"testing"

	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/send/sendtest"
	"eventpusher/internal/jid"
)

// service plays a push service of the network.
type service struct {
	mu     sync.Mutex
	taken  int
	answer func(context.Context) error // to the next one
}

func (s *service) Generic(context.Context, jid.JID) (bool, error) { return false, nil }

func (s *service) Set(ctx context.Context, _ jid.JID, _ []byte) error {
	s.mu.Lock()
	answer := s.answer
	s.answer = nil
	s.mu.Unlock()
	if answer != nil {
		return answer(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	return nil
}

func (s *service) answers(answer func(context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// TestContract is what every sender does.
func TestContract(t *testing.T) {
	sendtest.Run(t, func(*testing.T) sendtest.Destination {
		s := &service{}
		refuses := func(kind, condition string) func() {
			return func() { s.answers(func(context.Context) error { return &Refusal{Type: kind, Condition: condition} }) }
		}
		return sendtest.Destination{
			Sender: New(s), Target: notify.Target{Kind: notify.XMPP, Address: "push.example.org", Node: "n0de", Options: []notify.Field{{Name: "secret", Value: "s3cret"}}},
			Notification: notify.Notification{Element: notify.Element([]notify.Field{{Name: notify.KeySender, Value: "alice@localhost"}})},
			Taken: func() int {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.taken
			},
			Hold: func(release <-chan struct{}) {
				s.answers(func(ctx context.Context) error {
					select {
					case <-release:
						return nil
					case <-ctx.Done():
						return ctx.Err()
					}
				})
			},
			Secrets: []string{"n0de", "s3cret", "alice"},
			Answers: map[string]func(){
				"gone": refuses("cancel", "item-not-found"), "permanent": refuses("auth", "forbidden"), "transient": refuses("wait", "resource-constraint"),
			},
		}
	})
}

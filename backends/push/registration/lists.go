package registration

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// Lists keeps registrations in one list for each user. What Enable and the others have
// returned without an error is as safe as the model makes it. In NATS all services of a user
// have to fit into one message.
type Lists struct {
	model store.Model[Service]
	limit int
}

var _ Store = (*Lists)(nil)

// New returns a store in that model, which it closes at the end. limit is how many services a
// user can have; below one means MaxPerUser.
func New(m store.Model[Service], limit int) *Lists {
	if limit < 1 {
		limit = MaxPerUser
	}
	return &Lists{m, limit}
}

// Open returns a store in those values, as New.
func Open(v store.Values, limit int, log *slog.Logger) *Lists {
	return New(store.New[Service](v, valueKey, "push registrations", log), limit)
}

// valueKey is the key of a user's value: keys of NATS have few characters.
func valueKey(owner string) string { return base64.RawURLEncoding.EncodeToString([]byte(owner)) }

// Enable implements Store.
func (s *Lists) Enable(ctx context.Context, owner jid.JID, service Service) error {
	service.Created = created(micros(service.Created))
	err := s.model.Change(ctx, string(owner), func(list []Service) ([]Service, bool, error) {
		at, there := slices.BinarySearchFunc(list, service, order)
		session := service.asking()
		for i := range list {
			if !there || i != at {
				list[i].Sessions, _ = left(list[i].Sessions, session)
			}
		}
		service := service // another turn begins with what was asked for
		service.Sessions = entered(nil, session)
		switch {
		case there:
			service.Sessions = entered(list[at].Sessions, session)
			list[at] = service
		case len(list) >= s.limit:
			return nil, false, ErrTooMany
		default:
			list = slices.Insert(list, at, service)
		}
		return list, true, nil
	})
	if errors.Is(err, nats.ErrMaxPayload) {
		return ErrTooMany
	}
	return err
}

// order is that of Services.
func order(a, b Service) int {
	return cmp.Or(cmp.Compare(a.PubSub, b.PubSub), cmp.Compare(a.Node, b.Node))
}

// Disable implements Store.
func (s *Lists) Disable(ctx context.Context, owner, pubsub jid.JID, node string) (bool, error) {
	n, err := store.Remove(ctx, s.model, string(owner), func(one Service) bool { return one.PubSub == pubsub && one.Node == node })
	return n > 0, err
}

// Remove implements Store.
func (s *Lists) Remove(ctx context.Context, owner jid.JID, gone *Service) (bool, error) {
	n, err := store.Remove(ctx, s.model, string(owner), func(one Service) bool {
		return one.PubSub == gone.PubSub && one.Node == gone.Node && one.Created.Equal(gone.Created)
	})
	return n > 0, err
}

// DisableAll implements Store.
func (s *Lists) DisableAll(ctx context.Context, owner, pubsub jid.JID) (int, error) {
	return store.Remove(ctx, s.model, string(owner), func(one Service) bool { return one.PubSub == pubsub })
}

// Forget implements Store.
func (s *Lists) Forget(ctx context.Context, owner jid.JID, until time.Time) (int, error) {
	return store.Remove(ctx, s.model, string(owner), func(one Service) bool { return createdUntil(one.Created, until) })
}

// Services implements Store.
func (s *Lists) Services(ctx context.Context, owner jid.JID) ([]Service, error) {
	return s.model.Get(ctx, string(owner))
}

// Count implements Store.
func (s *Lists) Count(ctx context.Context) (int, error) { return s.model.Count(ctx) }

// Close implements Store.
func (s *Lists) Close() error { return s.model.Close() }

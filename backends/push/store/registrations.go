package store

import (
	"cmp"
	"context"
	"encoding/base64"
	"log/slog"
	"slices"
	"time"

	"eventpusher/internal/jid"
)

// RegistrationLists implements Registrations by one list for each user. What Enable and the
// others have returned without an error is as safe as the model makes it. In NATS all services
// of a user have to fit into one message.
type RegistrationLists struct {
	model Model[Service]
	limit int
}

var _ Registrations = (*RegistrationLists)(nil)

// NewRegistrations returns a store in that model, which it closes at the end. limit is how many
// services a user can have; below one means MaxPerUser.
func NewRegistrations(m Model[Service], limit int) *RegistrationLists {
	if limit < 1 {
		limit = MaxPerUser
	}
	return &RegistrationLists{m, limit}
}

// RegistrationsIn returns a store in those values, as NewRegistrations.
func RegistrationsIn(v Values, limit int, log *slog.Logger) *RegistrationLists {
	return NewRegistrations(New[Service](v, userValue, "push registrations", log), limit)
}

// userValue is the key of a user's value: keys of NATS have few characters.
func userValue(owner string) string { return base64.RawURLEncoding.EncodeToString([]byte(owner)) }

// Enable implements Registrations.
func (s *RegistrationLists) Enable(ctx context.Context, owner jid.JID, service Service) error {
	service.Created = created(micros(service.Created))
	return s.model.Change(ctx, string(owner), func(list []Service) ([]Service, bool, error) {
		at, there := slices.BinarySearchFunc(list, service, byNode)
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
}

// byNode is the order of Services.
func byNode(a, b Service) int {
	return cmp.Or(cmp.Compare(a.PubSub, b.PubSub), cmp.Compare(a.Node, b.Node))
}

// Disable implements Registrations.
func (s *RegistrationLists) Disable(ctx context.Context, owner, pubsub jid.JID, node string) (bool, error) {
	n, err := Remove(ctx, s.model, string(owner), func(one Service) bool { return one.PubSub == pubsub && one.Node == node })
	return n > 0, err
}

// Remove implements Registrations.
func (s *RegistrationLists) Remove(ctx context.Context, owner jid.JID, gone *Service) (bool, error) {
	n, err := Remove(ctx, s.model, string(owner), func(one Service) bool {
		return one.PubSub == gone.PubSub && one.Node == gone.Node && one.Created.Equal(gone.Created)
	})
	return n > 0, err
}

// DisableAll implements Registrations.
func (s *RegistrationLists) DisableAll(ctx context.Context, owner, pubsub jid.JID) (int, error) {
	return Remove(ctx, s.model, string(owner), func(one Service) bool { return one.PubSub == pubsub })
}

// Forget implements Registrations.
func (s *RegistrationLists) Forget(ctx context.Context, owner jid.JID, until time.Time) (int, error) {
	return Remove(ctx, s.model, string(owner), func(one Service) bool { return createdUntil(one.Created, until) })
}

// Services implements Registrations.
func (s *RegistrationLists) Services(ctx context.Context, owner jid.JID) ([]Service, error) {
	return s.model.Get(ctx, string(owner))
}

// Count implements Registrations.
func (s *RegistrationLists) Count(ctx context.Context) (int, error) { return s.model.Count(ctx) }

// Close implements Registrations.
func (s *RegistrationLists) Close() error { return s.model.Close() }

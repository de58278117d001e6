package store

import (
	"context"
	"time"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/notify"
	"eventpusher/internal/jid"
)

// Service is one place where a user wants to be notified: a node of a push service.
type Service struct {
	// PubSub is the push service, without a resource.
	PubSub jid.JID
	// Node is the service's name for the device.
	Node string
	// Options are the fields of the form that the client gave with enable, in the order in
	// which they came, without FORM_TYPE; nil if there were none. What they mean is between
	// the client and its push service. They go there as publish-options.
	Options []notify.Field
	// Rules say what the user does not want to be told here; nil: there are none.
	Rules *decide.UserRules `json:",omitempty"`
	// Created is when the user asked for it last; zero where nobody knows. Stores keep it
	// to the microsecond, in UTC.
	Created time.Time `json:",omitzero"`
	// Sessions are the resources of the sessions that have enabled this service last of
	// all they have enabled, newest first, as many as the store remembers; nil if it
	// knows none. They tell at which device a session is (see Registrations.Enable).
	Sessions []string `json:",omitempty"`
}

// Option returns the value of an option, empty if it is not there.
func (s *Service) Option(name string) string { return notify.Value(s.Options, name) }

// Registrations keeps the services of each user. All methods are safe for concurrent use;
// owners are bare JIDs. Errors are the store's own troubles, except ErrTooMany.
type Registrations interface {
	// Enable adds a service, or replaces the one of the same node. It returns when
	// the service is as safe as the store makes it, or ErrTooMany, which leaves
	// everything as it was. s.Sessions has the session that asks, or nobody: it joins
	// those that are there, and leaves the other services of the user, as in MongooseIM,
	// where a session has the one device that it has enabled last.
	Enable(ctx context.Context, owner jid.JID, s Service) error
	// Disable removes the service of that node and reports whether there was one.
	Disable(ctx context.Context, owner, pubsub jid.JID, node string) (bool, error)
	// Remove removes a service that Services has returned, unless it was enabled again
	// since, and reports whether it did.
	Remove(ctx context.Context, owner jid.JID, s *Service) (bool, error)
	// DisableAll removes all nodes of a push service and says how many.
	DisableAll(ctx context.Context, owner, pubsub jid.JID) (int, error)
	// Forget removes the services of a user that were created until then, or nobody
	// knows when, and says how many: what was created since is that of a new account of
	// the name. The zero time removes all.
	Forget(ctx context.Context, owner jid.JID, until time.Time) (int, error)
	// Services lists the services of a user in the order of their push services
	// and nodes; none is no error.
	Services(ctx context.Context, owner jid.JID) ([]Service, error)
	// Count says how many services there are; it may be an estimate.
	Count(ctx context.Context) (int, error)
	// Close ends the store.
	Close() error
}

// MaxPerUser is how many services a user can have unless the store is told
// otherwise: more than anybody's devices, and little enough that nobody makes us
// publish a flood.
const MaxPerUser = 64

// micros returns the time of a service as stores keep it, 0 where nobody knows.
func micros(created time.Time) int64 {
	if created.IsZero() {
		return 0
	}
	return created.UnixMicro()
}

// created is the reverse of micros.
func created(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// createdUntil reports whether a service that was created then is removed by Forget.
func createdUntil(created, until time.Time) bool {
	return until.IsZero() || !created.After(until)
}

// MaxName is how many bytes the name of a service, a node or a session may have: MongooseIM's
// table has 250 characters for each.
const MaxName = 250

package registration

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/internal/jid"
)

// Bucket is where KV keeps registrations.
type Bucket interface {
	// KeyValue returns the bucket, or why it cannot be used for now.
	KeyValue(ctx context.Context) (js.KeyValue, error)
	io.Closer
}

// KV keeps registrations in a bucket of NATS JetStream, one value for each user, for
// instances that share an outbox there. What Enable and the others have returned
// without an error is as safe as JetStream makes it. While NATS is away every method
// fails.
type KV struct {
	bucket Bucket
	limit  int
}

// OpenKV returns a store in that bucket, which it closes at the end. limit is how many
// services a user can have; below one means MaxPerUser.
func OpenKV(b Bucket, limit int) *KV {
	if limit < 1 {
		limit = MaxPerUser
	}
	return &KV{b, limit}
}

// mostTurns is how often a change gives way to that of another instance.
const mostTurns = 16

// errBusy says that others kept changing the same user.
var errBusy = errors.New("push registrations: other instances keep changing this user's")

// userKey is the name of a user's value: keys of NATS have few characters.
func userKey(owner jid.JID) string { return base64.RawURLEncoding.EncodeToString([]byte(owner)) }

// get returns a user's services and the revision of the value, zero if there is none.
func (s *KV) get(ctx context.Context, kv js.KeyValue, owner jid.JID) (list []Service, revision uint64, err error) {
	entry, err := kv.Get(ctx, userKey(owner))
	switch {
	case errors.Is(err, js.ErrKeyNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, fmt.Errorf("push registrations: %w", err)
	}
	if err := json.Unmarshal(entry.Value(), &list); err != nil {
		return nil, 0, fmt.Errorf("push registrations: the value of a user cannot be read: %w", err)
	}
	return list, entry.Revision(), nil
}

// change replaces a user's services by what edit makes of them, unless it says that
// they stay as they are.
func (s *KV) change(ctx context.Context, owner jid.JID, edit func([]Service) (list []Service, changed bool, err error)) error {
	kv, err := s.bucket.KeyValue(ctx)
	if err != nil {
		return err
	}
	for range mostTurns {
		list, revision, err := s.get(ctx, kv, owner)
		if err != nil {
			return err
		}
		list, changed, err := edit(list)
		if err != nil || !changed {
			return err
		}
		err = s.put(ctx, kv, owner, list, revision)
		if !overtaken(err) {
			return err
		}
	}
	return errBusy
}

func (s *KV) put(ctx context.Context, kv js.KeyValue, owner jid.JID, list []Service, revision uint64) error {
	if len(list) == 0 {
		return kv.Delete(ctx, userKey(owner), js.LastRevision(revision))
	}
	value, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if revision == 0 {
		_, err = kv.Create(ctx, userKey(owner), value)
	} else {
		_, err = kv.Update(ctx, userKey(owner), value, revision)
	}
	return err
}

// overtaken reports whether a write failed because another one came first.
func overtaken(err error) bool {
	var api *js.APIError
	return errors.Is(err, js.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == js.JSErrCodeStreamWrongLastSequence
}

// Enable implements Store.
func (s *KV) Enable(ctx context.Context, owner jid.JID, service Service) error {
	service.Created = created(micros(service.Created))
	return s.change(ctx, owner, func(list []Service) ([]Service, bool, error) {
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
}

// order is that of Services.
func order(a, b Service) int {
	return cmp.Or(cmp.Compare(a.PubSub, b.PubSub), cmp.Compare(a.Node, b.Node))
}

// remove deletes the services that match and says how many.
func (s *KV) remove(ctx context.Context, owner jid.JID, match func(Service) bool) (n int, err error) {
	err = s.change(ctx, owner, func(list []Service) ([]Service, bool, error) {
		before := len(list)
		list = slices.DeleteFunc(list, match)
		n = before - len(list)
		return list, n > 0, nil
	})
	return n, err
}

// Disable implements Store.
func (s *KV) Disable(ctx context.Context, owner, pubsub jid.JID, node string) (bool, error) {
	n, err := s.remove(ctx, owner, func(one Service) bool { return one.PubSub == pubsub && one.Node == node })
	return n > 0, err
}

// DisableAll implements Store.
func (s *KV) DisableAll(ctx context.Context, owner, pubsub jid.JID) (int, error) {
	return s.remove(ctx, owner, func(one Service) bool { return one.PubSub == pubsub })
}

// Forget implements Store.
func (s *KV) Forget(ctx context.Context, owner jid.JID, until time.Time) (int, error) {
	return s.remove(ctx, owner, func(one Service) bool { return createdUntil(one.Created, until) })
}

// Services implements Store.
func (s *KV) Services(ctx context.Context, owner jid.JID) ([]Service, error) {
	kv, err := s.bucket.KeyValue(ctx)
	if err != nil {
		return nil, err
	}
	list, _, err := s.get(ctx, kv, owner)
	return list, err
}

// Count implements Store: it reads every user.
func (s *KV) Count(ctx context.Context) (n int, err error) {
	kv, err := s.bucket.KeyValue(ctx)
	if err != nil {
		return 0, err
	}
	keys, err := kv.ListKeys(ctx)
	if err != nil {
		return 0, fmt.Errorf("push registrations: %w", err)
	}
	defer keys.Stop()
	for key := range keys.Keys() {
		owner, err := base64.RawURLEncoding.DecodeString(key)
		if err != nil {
			continue // not one of ours
		}
		list, _, err := s.get(ctx, kv, jid.JID(owner))
		if err != nil {
			return 0, err
		}
		n += len(list)
	}
	return n, nil
}

// Close implements Store.
func (s *KV) Close() error { return s.bucket.Close() }

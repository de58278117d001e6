// Package store keeps what users have registered for push, and the devices that are
// registered here, as one list for each user: in a file (bbolt), in a bucket of NATS JetStream
// for instances that share an outbox there, and registrations also in PostgreSQL. NATS has no
// transactions: what has to change together belongs into one list.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Values is where lists are kept. All methods are safe for concurrent use. Behind a network
// they end within seconds, or with ctx.
type Values interface {
	// Get returns the value of a key; nil if there is none, which is no error.
	Get(ctx context.Context, key string) ([]byte, error)
	// Change replaces the value of a key by what edit makes of it, and returns when that is
	// kept. nil removes the value. If edit fails nothing changes. edit may be called again.
	Change(ctx context.Context, key string, edit func(value []byte) ([]byte, error)) error
	// Each calls f with every value until it fails.
	Each(ctx context.Context, f func(value []byte) error) error
	io.Closer
}

// Model is one list for each key: Lists, or rows of a database. All methods are safe for
// concurrent use.
type Model[T any] interface {
	// Get returns the list of a key, which the caller must not change; nil if there is none,
	// which is no error.
	Get(ctx context.Context, key string) ([]T, error)
	// Change replaces the list of a key by what edit makes of it, unless edit fails or says
	// that nothing has changed. edit may change the elements, and is called again if the list
	// was changed meanwhile. An empty list is removed. What Change has done without an error
	// is as safe as the place is where the list is kept.
	Change(ctx context.Context, key string, edit func([]T) (list []T, changed bool, err error)) error
	// Count says how many elements all lists have. It may read every list.
	Count(ctx context.Context) (int, error)
	io.Closer
}

// Remove removes the elements that match from the list of a key, and says how many.
func Remove[T any](ctx context.Context, m Model[T], key string, match func(T) bool) (n int, err error) {
	err = m.Change(ctx, key, func(list []T) ([]T, bool, error) {
		before := len(list)
		list = slices.DeleteFunc(list, match)
		n = before - len(list)
		return list, n > 0, nil
	})
	return n, err
}

// ErrTooMany says that the account has as many services or devices as it may have.
var ErrTooMany = errors.New("the account has as many as are allowed")

// cached is how many lists of a file are kept in memory.
const cached = 1 << 13

// Lists implements Model in Values, each list as JSON.
type Lists[T any] struct {
	values Values
	key    func(string) string
	about  string
	log    *slog.Logger

	mu      sync.Mutex
	changes int                         // grows with each
	cache   *simplelru.LRU[string, []T] // nil: other processes change the values
}

// New returns the lists in the values, which Close closes. key makes the key of a value of
// that of a list. about says in errors what the lists are of. Lists of a File are cached,
// since only this process changes them.
func New[T any](v Values, key func(string) string, about string, log *slog.Logger) *Lists[T] {
	l := &Lists[T]{values: v, key: key, about: about, log: log}
	if _, own := v.(*File); own {
		l.cache, _ = simplelru.NewLRU[string, []T](cached, nil) // it fails for no size but one below 1
	}
	return l
}

// Get implements Model. A list that cannot be read is removed, as by Change.
func (l *Lists[T]) Get(ctx context.Context, key string) ([]T, error) {
	list, before, ok := l.look(key)
	if ok {
		return list, nil
	}
	value, err := l.values.Get(ctx, l.key(key))
	if err != nil {
		return nil, l.failed(err)
	}
	if list, err = decode[T](value); err != nil {
		if failed := l.Change(ctx, key, func(list []T) ([]T, bool, error) { return list, false, nil }); failed != nil {
			return nil, fmt.Errorf("a list cannot be read (%w), nor removed now: %w", err, failed)
		}
		return nil, nil
	}
	l.keep(key, list, before)
	return list, nil
}

// look returns what is cached, and how many changes there were.
func (l *Lists[T]) look(key string) (list []T, changes int, ok bool) {
	if l.cache == nil {
		return nil, 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok = l.cache.Get(key)
	return list, l.changes, ok
}

// keep caches a list, unless something has changed since before.
func (l *Lists[T]) keep(key string, list []T, before int) {
	if l.cache == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes == before {
		l.cache.Add(key, list)
	}
}

// changed forgets what is cached for a key, once its value has changed.
func (l *Lists[T]) changed(key string) {
	if l.cache == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes++
	l.cache.Remove(key)
}

func decode[T any](value []byte) (list []T, err error) {
	if value != nil {
		err = json.Unmarshal(value, &list)
	}
	return list, err
}

// Change implements Model. If the list cannot be read, edit begins with an empty one, and
// Change logs that: otherwise its user could not register any more.
func (l *Lists[T]) Change(ctx context.Context, key string, edit func([]T) (list []T, changed bool, err error)) error {
	defer l.changed(key)
	unchanged := errors.New("unchanged")
	var own, unreadable error // own is of edit
	err := l.values.Change(ctx, l.key(key), func(value []byte) ([]byte, error) {
		list, err := decode[T](value)
		if unreadable = err; err != nil {
			list = nil
		}
		list, changed, err := edit(list)
		switch own = err; {
		case err != nil:
			return nil, err
		case !changed && unreadable == nil:
			return nil, unchanged
		case len(list) == 0:
			return nil, nil
		}
		return json.Marshal(list)
	})
	switch {
	case own != nil:
		return own
	case errors.Is(err, unchanged):
		return nil
	case err != nil:
		return l.failed(err)
	case unreadable != nil:
		l.log.Warn("push: a list that cannot be read was removed; its user has to register again", "list", l.about, "err", unreadable)
	}
	return nil
}

// Count implements Model. It reads every list, and leaves out those that cannot be read.
func (l *Lists[T]) Count(ctx context.Context) (n int, err error) {
	unreadable := 0
	err = l.values.Each(ctx, func(value []byte) error {
		list, err := decode[T](value)
		if err != nil {
			unreadable++
			return nil
		}
		n += len(list)
		return nil
	})
	if err != nil {
		return 0, l.failed(err)
	}
	if unreadable > 0 {
		l.log.Warn("push: lists that cannot be read were not counted; each is removed when it is used next", "list", l.about, "lists", unreadable)
	}
	return n, nil
}

// Close implements Model: it closes the values.
func (l *Lists[T]) Close() error { return l.values.Close() }

func (l *Lists[T]) failed(err error) error { return fmt.Errorf("%s: %w", l.about, err) }

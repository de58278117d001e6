// Package kvlist keeps lists in a bucket of NATS JetStream, for what instances that
// share an outbox there have to know together. There are no transactions in NATS: what
// has to change together belongs into one list.
package kvlist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// Bucket is where lists are kept.
type Bucket interface {
	// KeyValue returns the bucket, or why it cannot be used for now.
	KeyValue(ctx context.Context) (js.KeyValue, error)
	io.Closer
}

const (
	// mostTurns is how often a change gives way to that of another instance.
	mostTurns = 16
	// countTimeout bounds a count, for which every list is read.
	countTimeout = 30 * time.Second
)

// Lists is one list for each key, as JSON. What Change has done without an error is as
// safe as JetStream makes it. While NATS is away every method fails, within seconds. It
// is safe for concurrent use.
type Lists[T any] struct {
	bucket Bucket
	about  string
}

// New returns the lists of a bucket, which Close closes. about says in errors what the
// lists are of.
func New[T any](b Bucket, about string) *Lists[T] { return &Lists[T]{b, about} }

// Get returns the list of a key; nil if there is none, which is no error.
func (l *Lists[T]) Get(ctx context.Context, key string) ([]T, error) {
	kv, err := l.bucket.KeyValue(ctx)
	if err != nil {
		return nil, l.failed(err)
	}
	list, _, err := l.get(ctx, kv, key)
	return list, err
}

// get also returns the revision of the list, zero if there is none.
func (l *Lists[T]) get(ctx context.Context, kv js.KeyValue, key string) (list []T, revision uint64, err error) {
	entry, err := kv.Get(ctx, key)
	switch {
	case errors.Is(err, js.ErrKeyNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, l.failed(err)
	}
	if list, err = l.decode(entry.Value()); err != nil {
		return nil, 0, err
	}
	return list, entry.Revision(), nil
}

func (l *Lists[T]) decode(value []byte) (list []T, err error) {
	if err := json.Unmarshal(value, &list); err != nil {
		return nil, fmt.Errorf("%s: a value cannot be read: %w", l.about, err)
	}
	return list, nil
}

// Change replaces the list of a key by what edit makes of it, unless edit fails or says
// that nothing has changed. edit is called again when another instance has changed the
// list meanwhile. An empty list is removed.
func (l *Lists[T]) Change(ctx context.Context, key string, edit func([]T) (list []T, changed bool, err error)) error {
	kv, err := l.bucket.KeyValue(ctx)
	if err != nil {
		return l.failed(err)
	}
	for range mostTurns {
		list, revision, err := l.get(ctx, kv, key)
		if err != nil {
			return err
		}
		list, changed, err := edit(list)
		if err != nil || !changed {
			return err
		}
		err = put(ctx, kv, key, list, revision)
		switch {
		case err == nil:
			return nil
		case !overtaken(err):
			return l.failed(err)
		}
	}
	return fmt.Errorf("%s: other instances keep changing the same value", l.about)
}

func put[T any](ctx context.Context, kv js.KeyValue, key string, list []T, revision uint64) error {
	if len(list) == 0 {
		if revision == 0 {
			return nil // there was none; to the library zero would mean whatever is there
		}
		return kv.Delete(ctx, key, js.LastRevision(revision))
	}
	value, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if revision == 0 {
		_, err = kv.Create(ctx, key, value)
	} else {
		_, err = kv.Update(ctx, key, value, revision)
	}
	return err
}

// overtaken reports whether a write failed because another one came first.
func overtaken(err error) bool {
	var api *js.APIError
	return errors.Is(err, js.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == js.JSErrCodeStreamWrongLastSequence
}

// Count says how many elements all lists have. It reads every list, for up to half a
// minute.
func (l *Lists[T]) Count(ctx context.Context) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	kv, err := l.bucket.KeyValue(ctx)
	if err != nil {
		return 0, l.failed(err)
	}
	all, err := kv.WatchAll(ctx, js.IgnoreDeletes())
	if err != nil {
		return 0, l.failed(err)
	}
	defer func() { _ = all.Stop() }() // it fails where NATS is away, and has forgotten it then
	for {
		select {
		case entry, ok := <-all.Updates():
			switch {
			case !ok:
				return 0, l.failed(js.ErrConsumerDeleted)
			case entry == nil: // that was all
				return n, nil
			}
			list, err := l.decode(entry.Value())
			if err != nil {
				return 0, err
			}
			n += len(list)
		case <-ctx.Done():
			return 0, l.failed(ctx.Err())
		}
	}
}

// Close closes the bucket.
func (l *Lists[T]) Close() error { return l.bucket.Close() }

func (l *Lists[T]) failed(err error) error {
	if errors.Is(err, nats.ErrReconnectBufExceeded) { // which is how the library says it
		return fmt.Errorf("%s: there is no connection to NATS: %w", l.about, err)
	}
	return fmt.Errorf("%s: %w", l.about, err)
}

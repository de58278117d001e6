package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// Bucket is a bucket of NATS JetStream.
type Bucket interface {
	// KeyValue returns the bucket, or why it cannot be used for now.
	KeyValue(ctx context.Context) (js.KeyValue, error)
	io.Closer
}

const (
	// mostTurns is how often a change gives way to that of another instance.
	mostTurns = 16
	// countTimeout bounds Each.
	countTimeout = 30 * time.Second
)

// NATS implements Values. While NATS is away every method fails.
type NATS struct{ Bucket }

var _ Values = NATS{}

// Get implements Values.
func (n NATS) Get(ctx context.Context, key string) ([]byte, error) {
	kv, err := n.KeyValue(ctx)
	if err != nil {
		return nil, explained(err)
	}
	value, _, err := get(ctx, kv, key)
	return value, err
}

// get also returns the revision of the value, zero if there is none.
func get(ctx context.Context, kv js.KeyValue, key string) (value []byte, revision uint64, err error) {
	entry, err := kv.Get(ctx, key)
	switch {
	case errors.Is(err, js.ErrKeyNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, explained(err)
	}
	return entry.Value(), entry.Revision(), nil
}

// Change implements Values.
func (n NATS) Change(ctx context.Context, key string, edit func([]byte) ([]byte, error)) error {
	kv, err := n.KeyValue(ctx)
	if err != nil {
		return explained(err)
	}
	for range mostTurns {
		value, revision, err := get(ctx, kv, key)
		if err != nil {
			return err
		}
		if value, err = edit(value); err != nil {
			return err
		}
		if err = put(ctx, kv, key, value, revision); !overtaken(err) {
			return explained(err)
		}
	}
	return errors.New("other instances keep changing the same value")
}

func put(ctx context.Context, kv js.KeyValue, key string, value []byte, revision uint64) (err error) {
	switch {
	case value == nil && revision == 0:
		return nil // there was none; to the library zero would mean whatever is there
	case value == nil:
		return kv.Delete(ctx, key, js.LastRevision(revision))
	case revision == 0:
		_, err = kv.Create(ctx, key, value)
	default:
		_, err = kv.Update(ctx, key, value, revision)
	}
	return err
}

// overtaken reports whether a write failed because another one came first.
func overtaken(err error) bool {
	var api *js.APIError
	return errors.Is(err, js.ErrKeyExists) || errors.As(err, &api) && api.ErrorCode == js.JSErrCodeStreamWrongLastSequence
}

// Each implements Values. It may take up to half a minute.
func (n NATS) Each(ctx context.Context, f func([]byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	kv, err := n.KeyValue(ctx)
	if err != nil {
		return explained(err)
	}
	all, err := kv.WatchAll(ctx, js.IgnoreDeletes())
	if err != nil {
		return explained(err)
	}
	defer func() { _ = all.Stop() }() // it fails where NATS is away, and has forgotten it then
	for {
		select {
		case entry, ok := <-all.Updates():
			switch {
			case !ok:
				return explained(js.ErrConsumerDeleted)
			case entry == nil: // that was all
				return nil
			}
			if err := f(entry.Value()); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func explained(err error) error {
	if errors.Is(err, nats.ErrMaxPayload) {
		return fmt.Errorf("%w, in the size of a message of NATS: %w", ErrTooMany, err)
	}
	if errors.Is(err, nats.ErrReconnectBufExceeded) { // which is how the library says it
		return fmt.Errorf("there is no connection to NATS: %w", err)
	}
	return err
}

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// Bucket is a bucket of keys and values beside the outbox, for what all instances
// have to know. It has a connection of its own. Safe for concurrent use.
type Bucket struct {
	o    Options
	name string
	nc   *nats.Conn
	js   js.JetStream

	mu sync.Mutex
	kv js.KeyValue // nil until it was there
}

// OpenBucket connects; while NATS cannot be reached it goes on trying, and every use
// of the bucket fails. name is the last part of the bucket's.
func OpenBucket(o Options, name string) (*Bucket, error) {
	o.complete()
	nc, _, err := dial(&o, func() {}, func() {})
	if err != nil {
		return nil, err
	}
	j, err := js.New(nc, js.WithDefaultTimeout(requestTimeout))
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &Bucket{o: o, name: o.Prefix + "-" + name, nc: nc, js: j}, nil
}

// KeyValue returns the bucket, which is made if it is not there: one that is read
// through its leader, so that what one instance has written the others know. One that is
// there is taken as it is.
func (b *Bucket) KeyValue(ctx context.Context) (js.KeyValue, error) {
	b.mu.Lock()
	kv := b.kv
	b.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := b.js.KeyValue(ctx, b.name)
	if errors.Is(err, js.ErrBucketNotFound) {
		_, err = b.js.CreateStream(ctx, bucket(b.name, b.o.Replicas))
		if err == nil || errors.Is(err, js.ErrStreamNameAlreadyInUse) { // somebody else was faster
			kv, err = b.js.KeyValue(ctx, b.name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", b.name, explain(err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kv = kv
	return kv, nil
}

// Close ends the connection.
func (b *Bucket) Close() error {
	b.nc.Close()
	return nil
}

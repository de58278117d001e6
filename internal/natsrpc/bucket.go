package natsrpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// Bucket is a bucket of keys and values that all instances share. It has a connection of its
// own. Safe for concurrent use.
type Bucket struct {
	o    Options
	name string
	nc   *nats.Conn
	js   js.JetStream

	mu sync.Mutex
	kv js.KeyValue // nil until it was there
}

// OpenBucket connects. While NATS cannot be reached it goes on trying, and every use of the
// bucket fails. name is the last part of the bucket's.
func OpenBucket(o Options, name string) (*Bucket, error) {
	nc, _, err := Dial(&o, func() {}, func() {})
	if err != nil {
		return nil, err
	}
	j, err := js.New(nc, js.WithDefaultTimeout(RequestTimeout))
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &Bucket{o: o, name: o.Prefix + "-" + name, nc: nc, js: j}, nil
}

// KeyValue returns the bucket, and makes it if it is not there. It is read through the
// stream's leader only, so that each instance sees what another one has written. A bucket
// that is there is taken as it is.
func (b *Bucket) KeyValue(ctx context.Context) (js.KeyValue, error) {
	b.mu.Lock()
	kv := b.kv
	b.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	kv, err := b.js.KeyValue(ctx, b.name)
	if errors.Is(err, js.ErrBucketNotFound) {
		_, err = b.js.CreateStream(ctx, js.StreamConfig{
			Name: "KV_" + b.name, Subjects: []string{"$KV." + b.name + ".>"}, Storage: js.FileStorage, Replicas: b.o.Replicas,
			MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
			Discard: js.DiscardNew, AllowRollup: true, DenyDelete: true, Duplicates: 2 * time.Minute,
		})
		if err == nil || errors.Is(err, js.ErrStreamNameAlreadyInUse) { // another instance was faster
			kv, err = b.js.KeyValue(ctx, b.name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", b.name, Explain(err))
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

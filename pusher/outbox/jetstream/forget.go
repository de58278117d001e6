package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/internal/natsrpc"
)

// Forget removes what the outbox keeps for a backend that is not configured any more: its
// place in the log and what is parked for it. Its dead letters stay. It returns how many
// messages of the log the backend had still to get, in whole or in part. It refuses while an
// instance delivers to that backend.
func Forget(ctx context.Context, o Options, backend string) (messages int, err error) {
	nc, l, err := visit(ctx, &o)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	return l.forget(ctx, backend)
}

// forget is Forget.
func (l *layout) forget(ctx context.Context, backend string) (messages int, err error) {
	var r registered
	// Once the registry does not know it, nothing waits for it any more; the rest is
	// clearing up.
	_, _, err = l.change(ctx, func(m *meta) (changed bool, err error) {
		if r, err = l.idle(ctx, m, backend); err != nil {
			return false, err
		}
		messages, err = l.waiting(ctx, m, &r)
		delete(m.Backends, backend)
		return true, err
	})
	if err != nil {
		return 0, err
	}
	s, err := l.js.Stream(ctx, l.names.state())
	for _, one := range r.all() {
		for _, class := range []string{"parked", "replay"} {
			if err == nil {
				err = s.Purge(ctx, js.WithPurgeSubject(fmt.Sprintf("%s.state.%s.*.%d.*", l.names.prefix, class, one.Number)))
			}
		}
	}
	if err != nil {
		return messages, fmt.Errorf("outbox: %s is forgotten, but something of it is left: %w", backend, natsrpc.Explain(err))
	}
	return messages, nil
}

// idle returns what is kept for a backend that no instance uses.
func (l *layout) idle(ctx context.Context, m *meta, backend string) (registered, error) {
	r, ok := m.Backends[backend]
	if !ok {
		return r, fmt.Errorf("outbox: nothing is kept for a backend %q: %w", backend, fs.ErrNotExist)
	}
	return r, l.unused(ctx, backend)
}

// waiting counts the messages that the backend has not settled in the partition where it is
// furthest behind.
func (l *layout) waiting(ctx context.Context, m *meta, r *registered) (int, error) {
	last, err := l.lastSeq(ctx)
	if err != nil {
		return 0, err
	}
	k, err := l.readKept(ctx, false)
	if err != nil {
		return 0, err
	}
	least := last + 1
	for _, one := range r.all() {
		least = min(least, k.floor(m.Partitions, &one))
	}
	return int(last + 1 - least), nil
}

// unused returns an error if an instance that has the backend sends heartbeats.
func (l *layout) unused(ctx context.Context, backend string) error {
	before, err := l.heartbeats(ctx, backend)
	if err != nil || len(before) == 0 {
		return err
	}
	pause(ctx, 3*time.Second)
	after, err := l.heartbeats(ctx, backend)
	if err != nil {
		return err
	}
	for subject, r := range after {
		if b, ok := before[subject]; !ok || b.Seq != r.Seq {
			return fmt.Errorf("outbox: an instance is running and delivers to %s: %w", backend, errInUse)
		}
	}
	return nil
}

// heartbeats returns the last heartbeats of the instances that have a backend, by subject.
func (l *layout) heartbeats(ctx context.Context, backend string) (map[string]natsrpc.Record, error) {
	records, err := l.state.Last(ctx, l.names.cluster()+".member.*")
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", natsrpc.Explain(err))
	}
	found := make(map[string]natsrpc.Record)
	for _, r := range records {
		var h struct{ Uses []string }
		if json.Unmarshal(r.Data, &h) == nil && slices.Contains(h.Uses, backend) && strings.HasPrefix(r.Subject, l.names.prefix) {
			found[r.Subject] = r
		}
	}
	return found, nil
}

// errInUse says that an instance delivers to a backend.
var errInUse = errors.New("take it out of the configuration of every instance, and restart them, first")

package jetstream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	js "github.com/nats-io/nats.go/jetstream"
)

// Forget removes what the outbox keeps for a backend that is not configured any
// more: its place in the streams and what is parked for it. Its dead letters
// stay. It returns how many packs of events the backend had still to get in whole
// or in part. It refuses while an instance delivers to that backend.
func Forget(ctx context.Context, o Options, backend string) (packs int, err error) {
	nc, _, l, err := visit(ctx, &o)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	m, revision, err := l.readMeta(ctx)
	if err != nil {
		return 0, err
	}
	r, ok := m.Backends[backend]
	if !ok {
		return 0, fmt.Errorf("outbox: nothing is kept for a backend %q: %w", backend, fs.ErrNotExist)
	}
	if err := l.unused(ctx, backend, o.beat()); err != nil {
		return 0, err
	}
	for p, s := range l.logs {
		packs += l.waiting(ctx, s, p, r)
	}
	// Once the registry does not know it, nothing waits for it any more; the rest
	// is clearing up.
	delete(m.Backends, backend)
	if err := l.writeMeta(ctx, m, revision); err != nil {
		return 0, err
	}
	var errs []error
	for p, s := range l.logs {
		if err := s.DeleteConsumer(ctx, consumerName(backend, r.Number)); err != nil && !errors.Is(err, js.ErrConsumerNotFound) {
			errs = append(errs, err)
		}
		errs = append(errs,
			l.state.Purge(ctx, keyProgress(p, r.Number)),
			l.parked.Purge(ctx, js.WithPurgeSubject(l.names.parkedOf(p, r.Number)+".>")))
	}
	if err := errors.Join(errs...); err != nil {
		return packs, fmt.Errorf("outbox: %s is forgotten, but something of it is left: %w", backend, explain(err))
	}
	return packs, nil
}

// waiting counts packs that the backend has not settled.
func (l *layout) waiting(ctx context.Context, s js.Stream, partition int, r registered) int {
	info, err := s.Info(ctx)
	if err != nil {
		return 0 // only to be helpful
	}
	next := r.From[partition]
	if entry, err := l.state.Get(ctx, keyProgress(partition, r.Number)); err == nil {
		if _, cut, err := decodeProgress(entry.Value()); err == nil {
			next = cut.Floor >> placeBits
		}
	}
	next = max(next, info.State.FirstSeq)
	if last := info.State.LastSeq; last >= next {
		return int(last - next + 1)
	}
	return 0
}

// unused returns an error when an instance that has the backend gives a sign of
// life.
func (l *layout) unused(ctx context.Context, backend string, beat time.Duration) error {
	before, err := l.signs(ctx)
	if err != nil {
		return err
	}
	before = slices.DeleteFunc(before, func(m member) bool { return !slices.Contains(m.Backends, backend) })
	if len(before) == 0 {
		return nil
	}
	pause(ctx, 3*beat)
	after, err := l.signs(ctx)
	if err != nil {
		return err
	}
	for _, a := range after {
		for _, b := range before {
			if a.id == b.id && a.revision != b.revision {
				return fmt.Errorf("outbox: the instance %s is running and delivers to %s: stop every instance that has it configured first", a.Name, backend)
			}
		}
	}
	return nil
}

// signs returns the last sign of life of every instance.
func (l *layout) signs(ctx context.Context) (list []member, err error) {
	keys, err := l.cluster.Keys(ctx)
	if errors.Is(err, js.ErrNoKeysFound) {
		return nil, nil
	}
	for _, key := range keys {
		id, ok := strings.CutPrefix(key, instancePrefix)
		if !ok || err != nil {
			continue
		}
		var entry js.KeyValueEntry
		entry, err = l.cluster.Get(ctx, key)
		switch {
		case errors.Is(err, js.ErrKeyNotFound):
			err = nil // gone meanwhile
		case err == nil:
			if s, ok := readSign(entry.Value()); ok {
				list = append(list, member{sign: s, id: id, revision: entry.Revision()})
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("outbox: %s: %w", l.names.cluster(), explain(err))
	}
	return list, nil
}

package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/pusher/outbox"
)

// formatVersion is the format of everything in the streams and buckets.
const formatVersion = 1

// meta is what all instances have to agree about.
type meta struct {
	Format     int                   `json:"format"`
	Partitions int                   `json:"partitions"`
	Backends   map[string]registered `json:"backends"`
}

// registered is what is kept of a backend.
type registered struct {
	Number uint8    `json:"number"` // its bit in the packs
	From   []uint64 `json:"from"`   // the first sequence of each partition that it gets
}

// FormatError says that the streams were written by a newer eventpusher.
type FormatError struct {
	Prefix  string
	Version int
}

// Error implements error; it says what can be done.
func (e *FormatError) Error() string {
	return fmt.Sprintf("outbox: the streams of %s have format %d and this eventpusher knows formats up to %d: run the version that wrote them", e.Prefix, e.Version, formatVersion)
}

// PartitionsError says that the number of partitions was changed.
type PartitionsError struct {
	Prefix     string
	Have, Want int
}

// Error implements error; it says what can be done.
func (e *PartitionsError) Error() string {
	return fmt.Sprintf("outbox: %s was made with %d partitions and [outbox.nats] partitions is %d: a conversation would change its partition and lose its order. Set it back, or choose another prefix in [outbox.nats] stream once this one is empty",
		e.Prefix, e.Have, e.Want)
}

// OrphanError says that the outbox keeps events for backends that are not
// configured any more.
type OrphanError struct {
	Prefix   string
	Backends []string
}

// Error implements error; it says what can be done.
func (e *OrphanError) Error() string {
	return fmt.Sprintf("outbox: %s keeps events for %q, and no such backend is configured: configure it under its old name, or stop all instances that have it and give its events up with: eventpusher outbox forget %s",
		e.Prefix, e.Backends[0], e.Backends[0])
}

// readMeta returns the meta record and its revision, which is 0 when there is none.
func (l *layout) readMeta(ctx context.Context) (m meta, revision uint64, err error) {
	entry, err := l.state.Get(ctx, keyMeta)
	switch {
	case errors.Is(err, js.ErrKeyNotFound):
		return meta{Format: formatVersion, Backends: map[string]registered{}}, 0, nil
	case err != nil:
		return m, 0, fmt.Errorf("outbox: %s: %w", l.names.state(), explain(err))
	}
	if err := json.Unmarshal(entry.Value(), &m); err != nil {
		return m, 0, fmt.Errorf("outbox: %s: key %s: %w", l.names.state(), keyMeta, err)
	}
	if m.Format > formatVersion {
		return m, 0, &FormatError{Prefix: l.names.prefix, Version: m.Format}
	}
	return m, entry.Revision(), nil
}

// writeMeta replaces the record of the given revision.
func (l *layout) writeMeta(ctx context.Context, m meta, revision uint64) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err = l.state.Update(ctx, keyMeta, b, revision); err != nil {
		return fmt.Errorf("outbox: %s: %w", l.names.state(), err)
	}
	return nil
}

// register makes the backends known and returns the record. A backend that is
// new begins behind what the log holds now.
func (l *layout) register(ctx context.Context, backends []string) (meta, error) {
	for {
		m, revision, err := l.readMeta(ctx)
		if err != nil {
			return m, err
		}
		if revision == 0 {
			m.Partitions = len(l.logs)
		}
		if m.Partitions != len(l.logs) {
			return m, &PartitionsError{Prefix: l.names.prefix, Have: m.Partitions, Want: len(l.logs)}
		}
		orphans := slices.DeleteFunc(slices.Sorted(maps.Keys(m.Backends)), func(name string) bool { return slices.Contains(backends, name) })
		if len(orphans) > 0 {
			return m, &OrphanError{Prefix: l.names.prefix, Backends: orphans}
		}
		var news []string
		for _, name := range backends {
			if _, known := m.Backends[name]; !known {
				news = append(news, name)
			}
		}
		if len(news) == 0 && revision != 0 {
			return m, nil
		}
		from := make([]uint64, len(l.logs))
		for p, s := range l.logs {
			info, err := s.Info(ctx)
			if err != nil {
				return m, fmt.Errorf("outbox: stream %s: %w", l.names.log(p), explain(err))
			}
			from[p] = info.State.LastSeq + 1
		}
		for _, name := range news {
			n, err := m.freeNumber(name)
			if err != nil {
				return m, err
			}
			m.Backends[name] = registered{Number: n, From: from}
		}
		err = l.writeMeta(ctx, m, revision)
		if !errors.Is(err, js.ErrKeyRevisionMismatch) {
			return m, err
		} // else another instance has changed it
	}
}

// freeNumber returns the smallest number that no backend has.
func (m *meta) freeNumber(name string) (uint8, error) {
	var used [outbox.MaxReaders]bool
	for _, r := range m.Backends {
		used[r.Number] = true
	}
	if n := slices.Index(used[:], false); n >= 0 {
		return uint8(n), nil
	}
	return 0, fmt.Errorf("outbox: %s would be backend %d, and %d is the most", name, outbox.MaxReaders+1, outbox.MaxReaders)
}

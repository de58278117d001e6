package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"eventpusher/internal/natsrpc"
	"eventpusher/pusher/outbox"
)

// meta is what all instances have to agree about.
type meta struct {
	Format     int                   `json:"format"`
	Partitions int                   `json:"partitions"`
	Backends   map[string]registered `json:"backends"`
}

// registered is what is kept of a backend.
type registered struct {
	Number uint8  `json:"number"` // its bit in the log
	ID     uint64 `json:"id"`     // tells it from another backend that has had the number
	From   uint64 `json:"from"`   // the first sequence of the log that it gets
}

func (r registered) registration() registration { return registration{r.Number, r.ID} }

// start is where the backend begins in a partition of which nothing is saved.
func (r registered) start() outbox.Progress {
	return outbox.Progress{Floor: numberOf(r.From, 0), Top: numberOf(r.From, 0)}
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

// readMeta returns the meta record and its sequence, which is 0 if there is none.
func (l *layout) readMeta(ctx context.Context) (m meta, seq uint64, err error) {
	r, ok, err := l.state.Newest(ctx, l.names.meta())
	if err != nil {
		return m, 0, fmt.Errorf("outbox: %w", natsrpc.Explain(err))
	}
	if !ok {
		return meta{Format: formatVersion, Backends: map[string]registered{}}, 0, nil
	}
	if err := json.Unmarshal(r.Data, &m); err != nil {
		return m, 0, fmt.Errorf("outbox: %s: %w", l.names.meta(), err)
	}
	if m.Format > formatVersion {
		return m, 0, &FormatError{Prefix: l.names.prefix, Version: m.Format}
	}
	return m, r.Seq, nil
}

// writeMeta replaces the record of the given sequence.
func (l *layout) writeMeta(ctx context.Context, m meta, seq uint64) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err = l.state.Write(ctx, natsrpc.NewMsg(l.names.meta(), b, natsrpc.AfterSubject(seq))); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// register makes the backends known and returns the record. A new backend begins after what
// the log holds now. orphans are backends that are known and not among them.
func (l *layout) register(ctx context.Context, partitions int, backends []string) (m meta, orphans []string, err error) {
	for ctx.Err() == nil {
		m, seq, err := l.readMeta(ctx)
		if err != nil {
			return m, nil, err
		}
		if seq == 0 {
			m.Partitions = partitions
		}
		if m.Partitions != partitions {
			return m, nil, &PartitionsError{Prefix: l.names.prefix, Have: m.Partitions, Want: partitions}
		}
		orphans := slices.DeleteFunc(slices.Sorted(maps.Keys(m.Backends)), func(name string) bool { return slices.Contains(backends, name) })
		var news []string
		for _, name := range backends {
			if _, known := m.Backends[name]; !known {
				news = append(news, name)
			}
		}
		if len(news) == 0 && seq != 0 {
			return m, orphans, nil
		}
		last, err := l.lastSeq(ctx)
		if err != nil {
			return m, nil, err
		}
		for _, name := range news {
			n, err := m.freeNumber(name)
			if err != nil {
				return m, nil, err
			}
			m.Backends[name] = registered{Number: n, ID: rand.Uint64(), From: last + 1}
		}
		switch err := l.writeMeta(ctx, m, seq); {
		case err == nil:
			return m, orphans, nil
		case !natsrpc.Refused(err):
			return m, nil, err
		} // else another instance has changed it
	}
	return m, nil, ctx.Err()
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

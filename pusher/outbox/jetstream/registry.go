package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
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
	// Next is the number that the next new backend gets, if it is free. So a number comes again
	// as late as possible: an instance that was paused may still append for its former owner.
	Next uint8 `json:"next"`
}

// registered is what is kept of a backend.
type registered struct {
	Number uint8  `json:"number"` // its bit in the log
	ID     uint64 `json:"id"`     // tells it from another backend that has had the number
	From   uint64 `json:"from"`   // the first sequence of the log that it gets
	// Merged are backends whose events this one takes over.
	Merged []merged `json:"merged,omitempty"`
}

// merged is a backend whose events another one takes over.
type merged struct {
	registered
	To uint64 `json:"to"` // nothing is appended for it from this sequence on
}

func (r *registered) registration() registration { return registration{r.Number, r.ID} }

// start is where the backend begins in a partition of which nothing is saved.
func (r *registered) start() outbox.Progress {
	return outbox.Progress{Floor: numberOf(r.From, 0), Top: numberOf(r.From, 0)}
}

// all returns the backend, and those that were merged into it.
func (r registered) all() []registered {
	list := []registered{r}
	for _, m := range r.Merged {
		list = append(list, m.registered)
	}
	return list
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
	m, err = l.decodeMeta(&r)
	return m, r.Seq, err
}

func (l *layout) decodeMeta(r *natsrpc.Record) (m meta, err error) {
	if err := json.Unmarshal(r.Data, &m); err != nil {
		return m, fmt.Errorf("outbox: %s: %w", l.names.meta(), err)
	}
	if m.Format > formatVersion {
		return m, &FormatError{Prefix: l.names.prefix, Version: m.Format}
	}
	return m, nil
}

// change replaces the meta record by what edit makes of it, and returns it. If another
// instance changes it meanwhile, edit is called again with that. edit reports whether it has
// changed anything.
func (l *layout) change(ctx context.Context, edit func(m *meta) (bool, error)) (m meta, seq uint64, err error) {
	for {
		if m, seq, err = l.readMeta(ctx); err != nil {
			return m, seq, err
		}
		changed, err := edit(&m)
		if err != nil || !changed {
			return m, seq, err
		}
		b, err := json.Marshal(m)
		if err != nil {
			return m, seq, err
		}
		after, err := l.state.Write(ctx, natsrpc.NewMsg(l.names.meta(), b, natsrpc.AfterSubject(seq)))
		if err == nil {
			return m, after, nil
		}
		if !natsrpc.Refused(err) || ctx.Err() != nil {
			return m, seq, fmt.Errorf("outbox: %w", natsrpc.Explain(err))
		}
	}
}

// register makes the backends known, and returns the record with its sequence. A new backend
// begins after what the log holds now.
func (l *layout) register(ctx context.Context, partitions int, backends []string) (meta, uint64, error) {
	return l.change(ctx, func(m *meta) (changed bool, err error) {
		if m.Partitions == 0 {
			m.Partitions, changed = partitions, true
		}
		if m.Partitions != partitions {
			return false, &PartitionsError{Prefix: l.names.prefix, Have: m.Partitions, Want: partitions}
		}
		for _, name := range backends {
			if _, known := m.Backends[name]; known {
				continue
			}
			last, err := l.lastSeq(ctx)
			if err != nil {
				return false, err
			}
			n, err := m.freeNumber(name)
			if err != nil {
				return false, err
			}
			m.Backends[name] = registered{Number: n, ID: rand.Uint64(), From: last + 1}
			changed = true
		}
		return changed, nil
	})
}

// freeNumber returns a number that no backend has, and moves Next behind it.
func (m *meta) freeNumber(name string) (uint8, error) {
	var used [outbox.MaxReaders]bool
	for _, b := range m.Backends {
		for _, r := range b.all() {
			used[r.Number] = true
		}
	}
	for range used {
		n := m.Next % outbox.MaxReaders
		m.Next = n + 1
		if !used[n] {
			return n, nil
		}
	}
	return 0, fmt.Errorf("outbox: %s would be backend %d, and %d is the most: give up those that are not configured any more with: eventpusher outbox forget NAME",
		name, outbox.MaxReaders+1, outbox.MaxReaders)
}

// rename gives what is kept for a backend that no instance uses to one that is not known.
func (l *layout) rename(ctx context.Context, from, to string) error {
	_, _, err := l.change(ctx, func(m *meta) (bool, error) {
		r, err := l.idle(ctx, m, from)
		if err != nil {
			return false, err
		}
		if _, known := m.Backends[to]; known {
			return false, fmt.Errorf("outbox: there is a backend %q already", to)
		}
		delete(m.Backends, from)
		m.Backends[to] = r
		return true, nil
	})
	return err
}

// merge gives what is kept for a backend that no instance uses to one that is known, and
// returns how many messages of the log it had still to get. From then on the other one has
// its lanes, too, until they are through with what the log holds now.
func (l *layout) merge(ctx context.Context, from, to string) (messages int, err error) {
	_, _, err = l.change(ctx, func(m *meta) (bool, error) {
		r, err := l.idle(ctx, m, from)
		if err != nil {
			return false, err
		}
		t, known := m.Backends[to]
		if !known {
			return false, fmt.Errorf("outbox: there is no backend %q", to)
		}
		if messages, err = l.waiting(ctx, m, &r); err != nil {
			return false, err
		}
		last, err := l.lastSeq(ctx)
		if err != nil {
			return false, err
		}
		t.Merged = append(t.Merged, r.Merged...)
		r.Merged = nil
		t.Merged = append(t.Merged, merged{r, last + 1})
		delete(m.Backends, from)
		m.Backends[to] = t
		return true, nil
	})
	return messages, err
}

// unmerge takes out backends that were merged into others, and for which nothing is left.
func (l *layout) unmerge(ctx context.Context, through []registration) error {
	_, _, err := l.change(ctx, func(m *meta) (changed bool, err error) {
		for name, b := range m.Backends {
			n := len(b.Merged)
			b.Merged = slices.DeleteFunc(b.Merged, func(m merged) bool { return slices.Contains(through, m.registration()) })
			m.Backends[name] = b
			changed = changed || len(b.Merged) < n
		}
		return changed, nil
	})
	return err
}

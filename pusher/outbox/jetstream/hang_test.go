package jetstream_test

import (
	"context"
	"sync"
	"testing"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/internal/harness"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox/jetstream"
)

// hanging is a backend whose calls take until their context ends, if it hangs.
type hanging struct {
	name  string
	hangs bool

	mu     sync.Mutex
	epochs map[string]uint64 // by event, of calls that were made
	done   int
}

func (b *hanging) Name() string            { return b.name }
func (b *hanging) Wants(*event.Event) bool { return true }
func (b *hanging) Limits() backends.Limits { return backends.Limits{Lanes: 64, Batch: 1} }
func (b *hanging) Close() error            { return nil }

func (b *hanging) Publish(ctx context.Context, batch []event.Event) []error {
	b.mu.Lock()
	b.epochs[batch[0].ID] = max(b.epochs[batch[0].ID], backends.Epoch(ctx))
	b.mu.Unlock()
	if b.hangs {
		<-ctx.Done()
		return []error{ctx.Err()}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done++
	return []error{nil}
}

func (b *hanging) count() (calls, done int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.epochs), b.done
}

// TestHangingCallsDoNotDelayAHandOver: the calls of one backend hang. Half of the partitions
// go to another instance all the same, which delivers what they hold, with a later epoch; and
// the other backend does not notice.
func TestHangingCallsDoNotDelayAHandOver(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	o := options(t, server, "stuck", "fine")
	run := func(hangs bool) (e *jetstream.Engine, stuck, fine *hanging) {
		e, err := jetstream.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		stuck = &hanging{name: "stuck", hangs: hangs, epochs: make(map[string]uint64)}
		fine = &hanging{name: "fine", epochs: make(map[string]uint64)}
		p, err := pusher.New(pusher.Options{Backends: []backends.Backend{stuck, fine}, Outbox: e, Log: logger(t)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		return e, stuck, fine
	}
	first, stuck, fine := run(true)
	i := &instance{Engine: first, t: t}
	i.owns(4)
	i.hold()
	t.Cleanup(func() {
		if i.letGo != nil {
			i.letGo()
		}
	})
	const events = 40
	i.append(pack(2, numbered(0, events, events)...))
	await(t, "calls that hang", func() bool { calls, _ := stuck.count(); return calls == events })
	await(t, "the other backend", func() bool { _, done := fine.count(); return done == events })
	second, freed, _ := run(false)
	await(t, "two partitions each", func() bool { return first.Standing().Partitions == 2 && second.Standing().Partitions == 2 })
	await(t, "deliveries of the second instance", func() bool { _, done := freed.count(); return done > 0 })
	freed.mu.Lock()
	defer freed.mu.Unlock()
	stuck.mu.Lock()
	defer stuck.mu.Unlock()
	for id, epoch := range freed.epochs {
		if epoch <= stuck.epochs[id] {
			t.Errorf("event %s has epoch %d at the second instance and %d at the first", id, epoch, stuck.epochs[id])
		}
	}
}

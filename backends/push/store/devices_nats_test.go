//go:build linux

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	js "github.com/nats-io/nats.go/jetstream"

	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
	"eventpusher/internal/natsrpc"
)

// kvs opens stores in buckets of one NATS server.
type kvs struct {
	nats *harness.NATSServer
	n    int
}

// bucket returns the bucket of that number.
func (k *kvs) bucket(t testing.TB, n int) *natsrpc.Bucket {
	t.Helper()
	b, err := natsrpc.OpenBucket(natsrpc.Options{URL: k.nats.URL(), Prefix: fmt.Sprint("T", n), Replicas: 1, Log: slog.New(slog.DiscardHandler)}, "devices")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// open returns a store in a bucket of its own.
func (k *kvs) open(t *testing.T, limit int) Devices {
	k.n++
	return DevicesIn(NATS{Bucket: k.bucket(t, k.n)}, limit, slog.New(slog.DiscardHandler))
}

// two returns two stores in one bucket, as two instances have them.
func (k *kvs) two(t *testing.T, limit int) [2]*DeviceLists {
	k.n++
	return [2]*DeviceLists{DevicesIn(NATS{Bucket: k.bucket(t, k.n)}, limit, slog.New(slog.DiscardHandler)), DevicesIn(NATS{Bucket: k.bucket(t, k.n)}, limit, slog.New(slog.DiscardHandler))}
}

func TestDevicesInNATS(t *testing.T) {
	k := &kvs{nats: harness.NATS(t, harness.NATSOptions{})}
	deviceSuite(t, k.open)
	t.Run("what is kept", func(t *testing.T) { keepsNoSecret(t, k) })
	t.Run("instances that register the same", func(t *testing.T) { sameTarget(t, k) })
	t.Run("instances that register for one owner", func(t *testing.T) { sameOwner(t, k) })
	t.Run("removed, renewed and told at once", func(t *testing.T) { changedTogether(t, k) })
	t.Run("too large for a message", func(t *testing.T) { tooLarge(t, k) })
	t.Run("NATS is away", func(t *testing.T) { natsAway(t, k) })
}

// keepsNoSecret looks into the bucket: it has no secret, keys that say no name, and
// nothing of what is gone.
func keepsNoSecret(t *testing.T, k *kvs) {
	s := k.open(t, 0)
	var all []Credentials
	for _, owner := range []jid.JID{bob, bob, ""} {
		c, err := s.Put(t.Context(), Device{Owner: owner, App: "chat", Target: target(fmt.Sprint(owner, len(all)))}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	kv, err := k.bucket(t, k.n).KeyValue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d values, %v, want one of bob and one of nobody", len(keys), err)
	}
	for _, key := range keys {
		entry, err := kv.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			if strings.Contains(string(entry.Value()), c.Secret) || strings.Contains(key, "bob") {
				t.Errorf("%s: %s", key, entry.Value())
			}
		}
	}
	for _, c := range all {
		if err := s.Remove(t.Context(), c.Node, func(*Device) bool { return true }); err != nil {
			t.Error(err)
		}
	}
	if keys, err := kv.Keys(t.Context()); !errors.Is(err, js.ErrNoKeysFound) {
		t.Errorf("%v are left, %v", keys, err)
	}
}

// sameTarget has two instances register one device many times at once: it is one node, and
// the secret that was made last is its.
func sameTarget(t *testing.T, k *kvs) {
	stores := k.two(t, 0)
	for _, owner := range []jid.JID{bob, ""} {
		var all sync.WaitGroup
		var mu sync.Mutex
		nodes, valid := make(map[string]bool), 0
		var made []Credentials
		for i := range 6 {
			all.Go(func() {
				c, err := stores[i%2].Put(t.Context(), Device{Owner: owner, App: "chat", Target: target("one")}, time.Now())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				nodes[c.Node], made = true, append(made, c)
			})
		}
		all.Wait()
		for _, c := range made {
			if _, err := stores[0].Verify(t.Context(), c.Node, c.Secret); err == nil {
				valid++
			}
		}
		if len(nodes) != 1 || valid != 1 {
			t.Errorf("owner %q: %d nodes, %d secrets, want one", owner, len(nodes), valid)
		}
	}
}

// sameOwner has two instances register more devices at once than an owner may have.
func sameOwner(t *testing.T, k *kvs) {
	const limit = 3
	stores := k.two(t, limit)
	var all sync.WaitGroup
	var mu sync.Mutex
	registered := make(map[string]bool)
	for i := range 8 {
		all.Go(func() {
			c, err := stores[i%2].Put(t.Context(), Device{Owner: bob, App: "chat", Target: target(strconv.Itoa(i))}, time.Now())
			switch {
			case err == nil:
				mu.Lock()
				defer mu.Unlock()
				registered[c.Node] = true
			case !errors.Is(err, ErrTooMany):
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, s := range stores {
		list, err := s.List(t.Context(), bob)
		if err != nil || len(list) != limit {
			t.Errorf("instance %d: %d devices, %v, want %d", i, len(list), err, limit)
		}
		for _, d := range list {
			if !registered[d.Node] {
				t.Errorf("instance %d has %s, which nobody was told", i, d.Node)
			}
		}
	}
}

// changedTogether: of two instances one renews a device and one removes what it had
// before, while both note that it was told something. Neither undoes what the other did.
func changedTogether(t *testing.T, k *kvs) {
	stores := k.two(t, 0)
	at := time.UnixMilli(1_700_000_000_000).UTC()
	d := Device{Owner: bob, App: "chat", Target: target("one")}
	put := func(s *DeviceLists, d Device, at time.Time) Credentials {
		t.Helper()
		c, err := s.Put(t.Context(), d, at)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for range 5 {
		before := put(stores[0], d, at)
		other := put(stores[0], Device{Owner: bob, App: "chat", Target: target("two")}, at)
		var renewed Credentials
		var all sync.WaitGroup
		all.Go(func() {
			c, err := stores[1].Put(t.Context(), d, at.Add(time.Hour))
			if err != nil {
				t.Error(err)
			}
			renewed = c
		})
		all.Go(func() {
			err := stores[0].Remove(t.Context(), before.Node, func(d *Device) bool { return d.Registered.Equal(at) })
			if err != nil && !errors.Is(err, ErrUnknown) {
				t.Error(err)
			}
		})
		for _, s := range stores {
			all.Go(func() {
				if err := s.Touch(t.Context(), []string{before.Node, other.Node, "gone"}, at.Add(time.Minute)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		// Removed before it was renewed, or not at all: what was renewed is there.
		if _, err := stores[0].Verify(t.Context(), renewed.Node, renewed.Secret); err != nil {
			t.Errorf("the renewed device: %v", err)
		}
		if got, err := stores[1].Verify(t.Context(), other.Node, other.Secret); err != nil || !got.Used.Equal(at.Add(time.Minute)) {
			t.Errorf("the other device: %+v, %v", got, err)
		}
		if n, err := stores[1].Forget(t.Context(), bob, time.Time{}); n != 2 || err != nil {
			t.Errorf("forgot %d, %v, want 2", n, err)
		}
	}
}

// tooLarge: an owner whose devices do not fit into a message has as many as he can.
func tooLarge(t *testing.T, k *kvs) {
	s := k.open(t, 10_000)
	long := strings.Repeat("x", 256<<10)
	n := 0
	for ; n < 5; n++ {
		_, err := s.Put(t.Context(), Device{Owner: bob, App: "chat", Target: target(long + strconv.Itoa(n))}, time.Now())
		if errors.Is(err, ErrTooMany) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.List(t.Context(), bob); n != 3 || len(list) != 3 || err != nil {
		t.Errorf("%d were registered, %d are there, %v, want 3", n, len(list), err)
	}
}

// natsAway: nobody is told that a device is gone while NATS is, and it is there when
// NATS is back.
func natsAway(t *testing.T, k *kvs) {
	stores := k.two(t, 0)
	c, err := stores[0].Put(t.Context(), Device{Owner: bob, App: "chat", Target: target("one")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stores[1].Get(t.Context(), c.Node); err != nil {
		t.Fatal(err)
	}
	k.nats.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), harness.WaitLimit) // each ends by itself within seconds
	defer cancel()
	for what, ask := range map[string]func() error{
		"put": func() error {
			_, err := stores[0].Put(ctx, Device{Owner: bob, Target: target("two")}, time.Now())
			return err
		},
		"verify": func() error { _, err := stores[0].Verify(ctx, c.Node, c.Secret); return err },
		"get":    func() error { _, err := stores[1].Get(ctx, c.Node); return err },
		"remove": func() error { return stores[1].Remove(ctx, c.Node, func(*Device) bool { return true }) },
		"forget": func() error { _, err := stores[1].Forget(ctx, bob, time.Time{}); return err },
		"touch":  func() error { return stores[1].Touch(ctx, []string{c.Node}, time.Now()) },
		"list":   func() error { _, err := stores[1].List(ctx, bob); return err },
		"count":  func() error { _, err := stores[1].Count(ctx); return err },
	} {
		err := ask()
		if err == nil || errors.Is(err, ErrUnknown) || errors.Is(err, ErrSecret) || errors.Is(err, ErrTooMany) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if ctx.Err() != nil {
		t.Error("the store takes too long to say so")
	}
	k.nats.Start()
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		switch _, err := stores[1].Verify(t.Context(), c.Node, c.Secret); {
		case err == nil:
			return
		case errors.Is(err, ErrUnknown):
			t.Fatal("a device is gone that nobody has removed")
		}
	}
}

// BenchmarkVerifyInNATS looks devices up through the network, one at a time and as many at a
// time as the program does.
func BenchmarkVerifyInNATS(b *testing.B) {
	k := &kvs{nats: harness.NATS(b, harness.NATSOptions{})}
	s := DevicesIn(NATS{Bucket: k.bucket(b, 0)}, 0, slog.New(slog.DiscardHandler))
	var all []Credentials
	for i := range 200 {
		c, err := s.Put(b.Context(), Device{Owner: jid.JID(fmt.Sprintf("user%d@example.org", i/2)), App: "chat", Target: target(strings.Repeat("x", 160) + strconv.Itoa(i))}, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, c)
	}
	verify := func(i int) {
		if _, err := s.Verify(b.Context(), all[i%len(all)].Node, all[i%len(all)].Secret); err != nil {
			b.Error(err)
		}
	}
	b.Run("one", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			verify(i)
		}
	})
	b.Run("64", func(b *testing.B) {
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				verify(i)
			}
		})
	})
}

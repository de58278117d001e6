package xmppside

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// TestTurns: a caller that is slow holds up itself, in order, and no other.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(turnLimits{each: 4, all: 200, bytes: 1 << 20})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- turns.run(ctx) }()
		var slow []int
		release := make(chan struct{})
		entered := 0
		for i := range 10 {
			ok := turns.enter("alice@example.org", 1, func(context.Context) {
				<-release
				slow = append(slow, i)
			})
			if ok {
				entered++
			}
			synctest.Wait()
		}
		if entered != 5 { // one is under way
			t.Errorf("%d wait for one user", entered)
		}
		done := make(chan struct{}, 100)
		for i := range 100 {
			if turns.enter(fmt.Sprint("user", i, "@example.org"), 1, func(context.Context) { done <- struct{}{} }) {
				synctest.Wait()
			}
		}
		if n := len(done); n != 100 {
			t.Errorf("%d of 100 others had their turn", n)
		}
		close(release)
		synctest.Wait()
		if diff := cmp.Diff([]int{0, 1, 2, 3, 4}, slow); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if turns.bytes != 0 || turns.waiting != 0 || len(turns.callers) != 0 {
			t.Errorf("%d bytes, %d jobs, %d callers are left", turns.bytes, turns.waiting, len(turns.callers))
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestTurnsAreBounded: by all that wait, and by their bytes. What waits at the end is done.
func TestTurnsAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		limits turnLimits
		size   int
	}{
		"jobs":  {turnLimits{each: 4, all: 10, bytes: 1000}, 1},
		"bytes": {turnLimits{each: 4, all: 100, bytes: 1000}, 100},
	} {
		turns := newTurns(c.limits)
		var did atomic.Int32
		entered := int32(0)
		for i := range 100 {
			if turns.enter(fmt.Sprint(i/2), c.size, func(context.Context) { did.Add(1) }) {
				entered++
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := turns.run(ctx); err != nil || entered != 10 || did.Load() != 10 {
			t.Errorf("%s: %d entered, %d were done, %v", name, entered, did.Load(), err)
		}
	}
}

// busy reports whether something waits.
func (t *turns) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting > 0
}

// held returns the bytes of what waits or is under way.
func (t *turns) held() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes
}

// BenchmarkRegistrations stores what many users ask for at once, as after a restart of
// their server, in the embedded store.
func BenchmarkRegistrations(b *testing.B) {
	kept, err := store.OpenRegistrations(filepath.Join(b.TempDir(), store.RegistrationsFile), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer kept.Close()
	turns := newTurns(userLimits)
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- turns.run(ctx) }()
	var stored sync.WaitGroup
	for i := 0; b.Loop(); i++ {
		user := jid.JID(fmt.Sprint("user", i, "@example.org"))
		stored.Add(1)
		job := func(ctx context.Context) {
			defer stored.Done()
			if err := kept.Enable(ctx, user, store.Service{PubSub: "push.example.org", Node: "1"}); err != nil {
				b.Error(err)
			}
		}
		for !turns.enter(string(user), 1, job) {
			time.Sleep(time.Millisecond) // as users do who are told to
		}
	}
	stored.Wait()
	stop()
	<-ended
}

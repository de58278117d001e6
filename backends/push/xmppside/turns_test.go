package xmppside

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/registration"
	"eventpusher/internal/jid"
)

// TestTurns: who is slow holds up himself, in order, and few others.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := newTurns(64, 4)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- turns.run(ctx) }()
		var slow []int
		release := make(chan struct{})
		entered := 0
		for i := range 10 {
			ok := turns.enter("alice@example.org", func(context.Context) {
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
			if turns.enter(fmt.Sprint("user", i, "@example.org"), func(context.Context) { done <- struct{}{} }) {
				synctest.Wait()
			}
		}
		if n := len(done); n < 80 { // those of one lane in 64 wait
			t.Errorf("%d of 100 others had their turn", n)
		}
		close(release)
		synctest.Wait()
		if diff := cmp.Diff([]int{0, 1, 2, 3, 4}, slow); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkRegistrations stores what many users ask for at once, as after a restart of
// their server, in the embedded store.
func BenchmarkRegistrations(b *testing.B) {
	store, err := registration.OpenEmbedded(filepath.Join(b.TempDir(), registration.FileName), 0, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	turns := newTurns(userLanes, userQueue)
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- turns.run(ctx) }()
	var stored sync.WaitGroup
	for i := 0; b.Loop(); i++ {
		user := jid.JID(fmt.Sprint("user", i, "@example.org"))
		stored.Add(1)
		job := func(ctx context.Context) {
			defer stored.Done()
			if err := store.Enable(ctx, user, registration.Service{PubSub: "push.example.org", Node: "1"}); err != nil {
				b.Error(err)
			}
		}
		for !turns.enter(string(user), job) {
			time.Sleep(time.Millisecond) // as users do who are told to
		}
	}
	stored.Wait()
	stop()
	<-ended
}

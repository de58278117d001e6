package pusher_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

// copyOutbox copies what a kill -9 at this moment would leave on disk. Nothing may
// be writing: in a bubble, that is after synctest.Wait.
func copyOutbox(t *testing.T, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	if err := os.Mkdir(filepath.Join(to, "segments"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(segmentFiles(t, from), "state.db") {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// segmentFiles returns the files of the log, relative to dir, the oldest first.
func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "segments", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], dir+"/")
	}
	slices.Sort(names)
	return names
}

// ofPeer returns the ids of one conversation's events, without repetitions.
func ofPeer(ids []string, peer string) []string {
	var out []string
	seen := make(map[string]bool)
	for _, id := range ids {
		if strings.HasPrefix(id, peer) && !seen[id] {
			seen[id] = true
			out = append(out, id)
		}
	}
	return out
}

// TestOneConversationFailsForAnHour is what a single dead webhook must not do: to
// the other conversations, to the room on disk, and to what a crash in that hour
// delivers again.
func TestOneConversationFailsForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const seconds = 3600
		dir := t.TempDir()
		// The smallest log there is, in files of 128 KiB: what happens in this hour
		// fills it more than twice.
		box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: dir, MaxSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := box.Close(); err != nil {
				t.Error(err)
			}
		})
		var repaired atomic.Bool
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 2}, publish: func(ctx context.Context, batch []event.Event) []error {
			if repaired.Load() {
				return make([]error, len(batch))
			}
			return failing(errDown, "dead")(ctx, batch)
		}}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		began := time.Now()
		var (
			slowest   time.Duration
			files     = make(map[string]bool)
			mostFiles int
		)
		for n := range seconds {
			batch := []event.Event{of("dead", fmt.Sprintf("dead%05d", n)), of("a", fmt.Sprintf("a%05d", n)), of("b", fmt.Sprintf("b%05d", n))}
			for i := range batch {
				batch[i].Packet = strings.Repeat("x", 100)
			}
			p.Push(batch)
			before := time.Now()
			for b.count() < 2*(n+1) {
				time.Sleep(time.Millisecond)
			}
			slowest = max(slowest, time.Since(before))
			if n == seconds/2 {
				crashInTheHour(t, dir, b.ids(), n+1)
			}
			pass(time.Until(began.Add(time.Duration(n+1) * time.Second)))
			now := segmentFiles(t, dir)
			mostFiles = max(mostFiles, len(now))
			for _, name := range now {
				files[name] = true
			}
		}
		if slowest > 100*time.Millisecond {
			t.Errorf("another conversation waited %v", slowest)
		}
		if mostFiles > 2 || len(files) < 16 {
			t.Errorf("at most %d of %d files at a time: what is parked must not keep the log", mostFiles, len(files))
		}
		s := p.Status().Backends[0]
		if s.State != pusher.Closed || s.Parked != seconds || s.Waiting+s.InFlight != seconds || s.DeadLetters+s.Shed+s.Lost != 0 {
			t.Errorf("after an hour: %+v", s)
		}
		for _, peer := range []string{"a", "b"} {
			if got := ofPeer(b.ids(), peer); len(got) != seconds || !slices.IsSorted(got) {
				t.Errorf("%d events of conversation %s, in order: %v", len(got), peer, slices.IsSorted(got))
			}
		}
		repaired.Store(true)
		pass(time.Minute + time.Hour/10)
		if dead := ofPeer(b.ids(), "dead"); len(dead) != seconds || !slices.IsSorted(dead) {
			t.Errorf("%d events of the repaired conversation, in order: %v", len(dead), slices.IsSorted(dead))
		}
		if n := b.count(); n != 3*seconds {
			t.Errorf("%d deliveries of %d events", n, 3*seconds)
		}
	})
}

// crashInTheHour opens what a kill at this moment would leave, in the middle of
// the hour and just after deliveries that are not saved yet, and lets everything
// be delivered from there.
func crashInTheHour(t *testing.T, dir string, before []string, pushed int) {
	t.Helper()
	synctest.Wait()
	box, found, stop := openOutbox(t, copyOutbox(t, dir))
	if found.Clean || found.Backends[0].Parked < pushed-outbox.DefaultRedelivery || found.Unreadable() > 0 {
		t.Errorf("after the crash: %+v", found)
	}
	second := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 2}}
	p := start(t, pusher.Options{Backends: one(second), Outbox: box})
	for deadline := time.Now().Add(time.Hour); p.Status().Backends[0].Waiting+p.Status().Backends[0].InFlight > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after the crash not everything goes out: %+v", p.Status().Backends[0])
		}
	}
	again := 0
	after := second.ids()
	for _, id := range after {
		if slices.Contains(before, id) {
			again++
		}
	}
	if again == 0 || again > outbox.DefaultRedelivery {
		t.Errorf("the crash delivers %d events again, want 1 to %d", again, outbox.DefaultRedelivery)
	}
	for _, peer := range []string{"dead", "a", "b"} {
		all := ofPeer(append(slices.Clone(before), after...), peer)
		if len(all) != pushed || !slices.IsSorted(all) {
			t.Errorf("with the crash %d of %d events of conversation %s, in order: %v", len(all), pushed, peer, slices.IsSorted(all))
		}
	}
	p.Drain(t.Context())
	stop()
}

// TestOutageOfTwentySeconds takes a service with MongooseIM's quick retries and
// batches away for 20 s of load: everything goes out afterwards, in order, and
// nothing is given up.
func TestOutageOfTwentySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond, peers, seconds = 50, 11, 40
		box, _, _ := openOutbox(t, t.TempDir())
		var down atomic.Bool
		sns := &fakeBackend{
			name: "sns",
			limits: backends.Limits{
				Lanes: 4, Batch: 10, QuickRetries: 2, QuickDelay: func(int) time.Duration { return 50 * time.Millisecond },
			},
			publish: func(_ context.Context, batch []event.Event) []error {
				if down.Load() {
					return every(len(batch), errDown)
				}
				time.Sleep(3 * time.Millisecond)
				return make([]error, len(batch))
			},
		}
		rabbit := &fakeBackend{name: "rabbit", limits: backends.Limits{Lanes: 4, Batch: 10}}
		p := start(t, pusher.Options{Backends: []backends.Backend{sns, rabbit}, Outbox: box})
		for n := range perSecond * seconds {
			switch n {
			case 10 * perSecond:
				down.Store(true)
			case 30 * perSecond:
				if s := p.Status().Backends[0]; s.State == pusher.Closed || s.Waiting+s.InFlight < 19*perSecond {
					t.Errorf("in the outage: %+v", s)
				}
				down.Store(false)
			}
			p.Push([]event.Event{of(fmt.Sprint("peer", n%peers), fmt.Sprintf("peer%02d-%05d", n%peers, n))})
			pass(time.Second / perSecond)
			if got := rabbit.count(); got != n+1 {
				t.Fatalf("the other backend has %d of %d events", got, n+1)
			}
		}
		pass(5 * time.Second)
		if s := p.Status().Backends[0]; s.Waiting+s.InFlight != 0 || s.DeadLetters+s.Shed+s.Lost != 0 || s.State != pusher.Closed {
			t.Errorf("after the outage: %+v", s)
		}
		if dead := letters(t, box.DeadLetters()); len(dead) != 0 {
			t.Errorf("dead letters: %+v", dead)
		}
		all := sns.ids()
		if len(all) != perSecond*seconds {
			t.Errorf("%d deliveries of %d events", len(all), perSecond*seconds)
		}
		for n := range peers {
			peer := fmt.Sprintf("peer%02d-", n)
			if got := ofPeer(all, peer); !slices.IsSorted(got) || len(got) < perSecond*seconds/peers {
				t.Errorf("%d events of %s, in order: %v", len(got), peer, slices.IsSorted(got))
			}
		}
	})
}

// TestDrainLeavesAHopelessCall does not wait for the whole shutdown_timeout when
// all that is under way is the trial of a service that is down: what waits is on
// disk. When the trial succeeds meanwhile, the rest still goes out.
func TestDrainLeavesAHopelessCall(t *testing.T) {
	const events = 10
	for _, tc := range []struct {
		name      string
		err       error
		state     pusher.State
		answers   time.Duration // of the trial, after Drain has begun; 0: it hangs
		longest   time.Duration
		delivered int
	}{
		{"down", errDown, pusher.HalfOpen, 0, 1100 * time.Millisecond, 0},
		{"refusing", backends.Paused(errDown), pusher.Paused, 0, 1100 * time.Millisecond, 0},
		{"recovers", errDown, pusher.HalfOpen, 700 * time.Millisecond, 800 * time.Millisecond, events},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				box, _, stop := openOutbox(t, dir)
				var (
					hang    atomic.Bool
					answer  = make(chan struct{})
					healthy atomic.Bool
				)
				b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 4}, publish: func(ctx context.Context, batch []event.Event) []error {
					if healthy.Load() {
						return make([]error, len(batch))
					}
					if !hang.Load() {
						return every(len(batch), tc.err)
					}
					select {
					case <-answer:
						return make([]error, len(batch))
					case <-ctx.Done():
						return every(len(batch), ctx.Err())
					}
				}}
				p := start(t, pusher.Options{Backends: one(b), Outbox: box})
				for n := range events {
					p.Push([]event.Event{by(fmt.Sprint("user", n), fmt.Sprint(n))})
				}
				pass(time.Second / 2)
				hang.Store(true)
				pass(10 * time.Second)
				if s := p.Status().Backends[0]; s.State != tc.state || s.InFlight != 1 {
					t.Fatalf("before the end: %+v", s)
				}
				if tc.answers > 0 {
					time.AfterFunc(tc.answers, func() {
						healthy.Store(true)
						close(answer)
					})
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				p.Drain(ctx)
				if took := time.Since(began); took > tc.longest {
					t.Errorf("the end took %v", took)
				}
				if n := b.count(); n != tc.delivered {
					t.Errorf("%d delivered, want %d", n, tc.delivered)
				}
				if s := p.Status().Backends[0]; s.InFlight != 0 {
					t.Errorf("after the end: %+v", s)
				}
				stop()
				if _, found, _ := openOutbox(t, dir); found.Backends[0].Waiting+found.Backends[0].Parked != events-tc.delivered {
					t.Errorf("found %+v", found)
				}
			})
		})
	}
}

// TestDrainLeavesCallsOnceTheServiceIsDown begins to stop while the service still
// looks sound; the first calls fail, the others hang. There are events for all lanes.
func TestDrainLeavesCallsOnceTheServiceIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		const events = 100
		var calls atomic.Int32
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 8}, publish: func(ctx context.Context, batch []event.Event) []error {
			if calls.Add(1) <= 5 {
				time.Sleep(2 * time.Second)
				return every(len(batch), errDown)
			}
			<-ctx.Done()
			return every(len(batch), ctx.Err())
		}}
		p := start(t, pusher.Options{Backends: one(b), Outbox: box})
		for n := range events {
			p.Push([]event.Event{of(fmt.Sprint("peer", n), fmt.Sprint(n))})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		p.Drain(ctx)
		if took := time.Since(began); took < 2900*time.Millisecond || took > 3200*time.Millisecond {
			t.Errorf("the end took %v, want a second after it was seen that the service is down", took)
		}
		if s := p.Status().Backends[0]; s.Waiting != events || s.InFlight != 0 {
			t.Errorf("after the end: %+v", s)
		}
	})
}

// TestDrainLeavesAFrozenService: nothing says that the service is down, for it does not
// answer at all.
func TestDrainLeavesAFrozenService(t *testing.T) {
	for _, tc := range []struct {
		name      string
		usual     time.Duration // what calls take before the end
		last      time.Duration // what they take then; 0: they hang
		longest   time.Duration
		delivered int
	}{
		{"frozen", time.Millisecond, 0, 3100 * time.Millisecond, 8},
		{"frozen from the start", 0, 0, 3100 * time.Millisecond, 0},
		{"slow as always", 4 * time.Second, 4 * time.Second, 4100 * time.Millisecond, 16},
		{"goes on", time.Millisecond, 1500 * time.Millisecond, 3100 * time.Millisecond, 16},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				box, _, _ := openOutbox(t, t.TempDir())
				var ending atomic.Bool
				b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 4}, publish: func(ctx context.Context, batch []event.Event) []error {
					takes := tc.usual
					if ending.Load() {
						takes = tc.last
					}
					if takes > 0 {
						time.Sleep(takes)
						return make([]error, len(batch))
					}
					<-ctx.Done()
					return every(len(batch), ctx.Err())
				}}
				p := start(t, pusher.Options{Backends: one(b), Outbox: box})
				push := func(from int) {
					for n := from; n < from+8; n++ {
						p.Push([]event.Event{of(fmt.Sprint("peer", n), fmt.Sprint(n))})
					}
				}
				push(0)
				time.Sleep(20 * time.Second)
				ending.Store(true)
				push(8)
				synctest.Wait()
				if tc.usual == tc.last {
					time.Sleep(4 * time.Second) // the second half of them
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				p.Drain(ctx)
				if took := time.Since(began); took > tc.longest {
					t.Errorf("the end took %v", took)
				}
				if n := b.count(); n != tc.delivered {
					t.Errorf("%d delivered, want %d", n, tc.delivered)
				}
				if s := p.Status().Backends[0]; s.InFlight != 0 || s.Waiting != 16-tc.delivered {
					t.Errorf("after the end: %+v", s)
				}
			})
		})
	}
}

// TestRetriesDoNotWaitForAHangingLane: a lane that has something to do must not take the
// next look at the clock with it.
func TestRetriesDoNotWaitForAHangingLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls sync.Map
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 2}, publish: func(ctx context.Context, batch []event.Event) []error {
			id := batch[0].ID
			if _, again := calls.LoadOrStore(id, true); !again {
				return every(1, backends.Wait(map[string]time.Duration{"hangs": time.Second, "waits": 5 * time.Second}[id], errDown))
			}
			if id == "hangs" {
				<-ctx.Done()
				return every(1, ctx.Err())
			}
			return make([]error, 1)
		}}
		p := start(t, pusher.Options{Backends: one(b)})
		p.Push([]event.Event{of("alice", "hangs"), of("bob", "waits")})
		time.Sleep(6 * time.Second)
		if n := b.count(); n != 1 {
			t.Errorf("%d delivered after 6 s, want the one that waited 5 s", n)
		}
	})
}

// slowLoads is an outbox that reads parked events slowly.
type slowLoads struct {
	*outbox.Embedded
	loading atomic.Int32
	release chan struct{}
}

func (s *slowLoads) Reader(backend string, notify func()) (outbox.Reader, error) {
	r, err := s.Embedded.Reader(backend, notify)
	return slowReader{r, s}, err
}

type slowReader struct {
	outbox.Reader
	s *slowLoads
}

func (r slowReader) Load(items []*outbox.Item) []*outbox.Item {
	for _, it := range items {
		if it.Event == nil {
			r.s.loading.Add(1)
			<-r.s.release
			break
		}
	}
	return r.Reader.Load(items)
}

// A slow disk holds up the lane that reads a parked event, and nothing else: neither the
// other lanes nor the status.
func TestSlowDiskHoldsUpOneLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box, _, _ := openOutbox(t, t.TempDir())
		slow := &slowLoads{Embedded: box, release: make(chan struct{})}
		b := &fakeBackend{name: "b", limits: backends.Limits{Lanes: 3, Batch: 1}, publish: failing(errDown, "bob")}
		p := start(t, pusher.Options{Backends: one(b), Outbox: slow})
		p.Push([]event.Event{of("bob", "bad")})
		for slow.loading.Load() == 0 {
			pass(time.Second)
		}
		for i := range 50 {
			p.Push([]event.Event{of(fmt.Sprint("peer", i), fmt.Sprint(i))})
		}
		pass(time.Second)
		if s := p.Status().Backends[0]; b.count() != 50 || s.InFlight != 1 || s.Parked != 1 {
			t.Errorf("%d of 50 delivered, status %+v", b.count(), s)
		}
		close(slow.release)
	})
}

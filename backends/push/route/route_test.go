package route

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"eventpusher/backends"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	chosen = Key{Kind: "xmpp", Name: "push.example", Chosen: true}
	other  = Key{Kind: "apns", Name: "chat"}
)

// after returns a send that takes so long and then returns err.
func after(d time.Duration, err error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// warm makes the destination a quick one.
func warm(t *testing.T, r *Routes, key Key) {
	t.Helper()
	if err := r.Do(t.Context(), key, "warm", 0, after(0, nil)); err != nil {
		t.Fatal(err)
	}
}

// crowd sends n notifications at the same time and returns the errors as they come.
func crowd(t *testing.T, r *Routes, key Key, n int, owner func(int) string, send func(context.Context) error) []error {
	t.Helper()
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = r.Do(t.Context(), key, owner(i), 0, send) })
	}
	all.Wait()
	return errs
}

func count(errs []error, target error) (n int) {
	for _, err := range errs {
		if errors.Is(err, target) {
			n++
		}
	}
	return n
}

func everyone(i int) string { return fmt.Sprint("user", i) }

// TestSlow: what is under way at slow destinations is bounded: for one that users choose, for
// one user, and in all.
func TestSlow(t *testing.T) {
	for name, c := range map[string]struct {
		keys  []Key
		owner func(int) string
		want  int // of 100 at each destination
	}{
		"one":              {[]Key{chosen}, everyone, 20},
		"one of one user":  {[]Key{chosen}, func(int) string { return "mallory" }, perOwner},
		"the operator's":   {[]Key{other}, func(int) string { return "alice" }, 40},
		"two, not further": {[]Key{other, {Kind: "fcm", Name: "chat"}}, everyone, 40},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := New(Options{Lanes: 160})
				sent := 0
				for _, key := range c.keys {
					errs := make(chan []error, 1)
					go func() { errs <- crowd(t, r, key, 100, c.owner, after(5*time.Second, nil)) }()
					synctest.Wait()
					defer func() { <-errs }()
				}
				r.mu.Lock()
				sent = r.chosen.taken + r.other.taken
				r.mu.Unlock()
				if sent != c.want {
					t.Errorf("%d are under way, want %d", sent, c.want)
				}
			})
		})
	}
}

// TestManySlow: several slow destinations leave room for a quick one, and for one that is
// new.
func TestManySlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Lanes: 160})
		quick := Key{Kind: "xmpp", Name: "quick.example", Chosen: true}
		warm(t, r, quick)
		var all sync.WaitGroup
		for i := range 5 {
			key := Key{Kind: "xmpp", Name: fmt.Sprint("slow", i, ".example"), Chosen: true}
			all.Go(func() {
				crowd(t, r, key, 10, func(n int) string { return fmt.Sprint(i, " ", n) }, after(5*time.Second, nil))
			})
			synctest.Wait()
		}
		if errs := crowd(t, r, quick, 100, everyone, after(100*time.Millisecond, nil)); count(errs, nil) != 100 {
			t.Errorf("the quick one got %d of 100", count(errs, nil))
		}
		if err := r.Do(t.Context(), Key{Kind: "xmpp", Name: "new.example", Chosen: true}, "alice", 0, after(0, nil)); err != nil {
			t.Errorf("a new one: %v", err)
		}
		all.Wait()
		if r.chosen.taken != 0 || len(r.owners) != 0 {
			t.Errorf("%d places are still taken, of %v", r.chosen.taken, r.owners)
		}
	})
}

// TestBecomesSlow: when a quick destination hangs, what is under way there beyond its places
// is given up after a second, and counts as not sent.
func TestBecomesSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Lanes: 160})
		warm(t, r, chosen)
		began := time.Now()
		results := make(chan error, 100)
		for i := range 100 {
			go func() { results <- r.Do(t.Context(), chosen, everyone(i), 0, after(10*time.Second, nil)) }()
		}
		time.Sleep(slowAfter)
		synctest.Wait()
		if n := len(results); n != 80 {
			t.Errorf("%d were given up after %v, want 80", n, time.Since(began))
		}
		for range 80 {
			if err := <-results; !errors.Is(err, ErrCrowded) || !errors.As(err, new(*backends.WaitError)) {
				t.Errorf("got %v", err)
			}
		}
		for range 20 {
			if err := <-results; err != nil {
				t.Errorf("got %v", err)
			}
		}
		// It is slow until it answers quickly.
		if errs := crowd(t, r, chosen, 30, everyone, after(time.Millisecond, nil)); count(errs, ErrCrowded) != 10 {
			t.Errorf("%d were turned away, want 10", count(errs, ErrCrowded))
		}
		if errs := crowd(t, r, chosen, 30, everyone, after(time.Millisecond, nil)); count(errs, nil) != 30 {
			t.Errorf("%d were sent once it was quick again, want 30", count(errs, nil))
		}
	})
}

// TestRest: a destination that fails rests, then one notification at a time tries. What users
// choose rests longer each time.
func TestRest(t *testing.T) {
	broken := errors.New("reset by peer")
	for name, c := range map[string]struct {
		key   Key
		rests []time.Duration
	}{
		"chosen":     {chosen, []time.Duration{firstRest, 2 * firstRest, 4 * firstRest}},
		"operator's": {other, []time.Duration{firstRest, firstRest, firstRest}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				r := New(Options{Lanes: 160, Log: slog.New(slog.NewTextHandler(&log, nil))})
				for i := range tripFailures {
					if err := r.Do(t.Context(), c.key, everyone(i), 0, after(0, broken)); !errors.Is(err, broken) {
						t.Fatalf("got %v", err)
					}
				}
				for _, rest := range c.rests {
					err := r.Resting(c.key)
					var wait *backends.WaitError
					if !errors.As(err, &wait) || !errors.Is(err, ErrResting) || wait.After < rest || wait.After > rest+max(rest, 2*firstRest)/4 {
						t.Fatalf("%v, want to wait for %v", err, rest)
					}
					time.Sleep(rest)
					results := make(chan error, 1)
					go func() { results <- r.Do(t.Context(), c.key, "probe", 0, after(time.Second, broken)) }()
					synctest.Wait()
					if err := r.Do(t.Context(), c.key, "beside", 0, after(0, nil)); !errors.Is(err, ErrResting) {
						t.Errorf("beside the one that tries: %v", err)
					}
					if err := <-results; !errors.Is(err, broken) {
						t.Errorf("the one that tries: %v", err)
					}
				}
				time.Sleep(c.rests[2] * 2)
				if err := r.Do(t.Context(), c.key, "probe", 0, after(0, nil)); err != nil {
					t.Error(err)
				}
				if err := r.Resting(c.key); err != nil {
					t.Error(err)
				}
				if n := strings.Count(log.String(), "\n"); n != map[bool]int{true: 0, false: 2}[c.key.Chosen] {
					t.Errorf("the log has %d lines: %s", n, &log)
				}
			})
		})
	}
}

// TestOfOneUser: what one user has registered makes no provider of the operator's rest, and
// a success says that it works.
func TestOfOneUser(t *testing.T) {
	refused := backends.Paused(errors.New("403"))
	r := New(Options{Lanes: 160})
	fail := func(owner string) {
		t.Helper()
		if err := r.Do(t.Context(), other, owner, 0, after(0, refused)); !errors.Is(err, refused) {
			t.Fatalf("%s: %v", owner, err)
		}
	}
	for range 10 * tripFailures {
		fail("mallory")
	}
	fail("alice")
	warm(t, r, other)
	for range tripFailures {
		fail("mallory")
		fail("eve")
	}
	if err := r.Do(t.Context(), other, "bob", 0, after(0, backends.Permanent(errors.New("odd")))); err == nil {
		t.Error("no error")
	}
	fail("mallory")
	fail("eve")
	if err := r.Resting(other); err != nil {
		t.Fatalf("it rests because of two users: %v", err)
	}
	for i := range tripFailures {
		_ = r.Do(t.Context(), other, everyone(i), 0, after(0, refused))
	}
	if err := r.Resting(other); !errors.Is(err, ErrResting) {
		t.Errorf("it does not rest though it refuses everybody: %v", err)
	}
}

// TestAskedPause: a destination rests for as long as it has asked several users'
// notifications to wait, and an answer about one device is none of its failures.
func TestAskedPause(t *testing.T) {
	busy := backends.RetryAfter(time.Minute, errors.New("429"))
	r := New(Options{Lanes: 160})
	for i := range 2 * tripFailures {
		_ = r.Do(t.Context(), other, everyone(i), 0, after(0, backends.Elsewhere(busy)))
	}
	if err := r.Resting(other); err != nil {
		t.Errorf("it rests because of single devices: %v", err)
	}
	for i := range tripFailures {
		_ = r.Do(t.Context(), other, everyone(i), 0, after(0, busy))
	}
	var wait *backends.WaitError
	if err := r.Resting(other); !errors.As(err, &wait) || wait.After < 59*time.Second {
		t.Errorf("got %v", err)
	}
}

// TestSilent: a chosen destination that says nothing, in the time that it has, rests after two
// notifications.
func TestSilent(t *testing.T) {
	r := New(Options{Lanes: 160})
	for n := range 2 {
		if err := r.Resting(chosen); err != nil {
			t.Errorf("after %d: %v", n, err)
		}
		if err := r.Do(t.Context(), chosen, "alice", time.Millisecond, after(time.Hour, nil)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
	if err := r.Resting(chosen); !errors.Is(err, ErrResting) {
		t.Errorf("got %v", err)
	}
}

// TestEnd: our own end says nothing of a destination.
func TestEnd(t *testing.T) {
	r := New(Options{Lanes: 160})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 2 * tripFailures {
		if err := r.Do(ctx, chosen, everyone(i), 0, after(time.Hour, nil)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if err := r.Resting(chosen); err != nil {
		t.Error(err)
	}
}

func TestDomain(t *testing.T) {
	for host, want := range map[string]string{
		"push.example.org": "example.org", "a.b.example.co.uk": "example.co.uk", "Example.ORG.": "example.org", "localhost": "localhost",
		"127.0.0.1": "127.0.0.1", "[::1]": "[::1]", "co.uk": "co.uk", "": "",
		"alice.github.io": "alice.github.io", // a public suffix of its own
	} {
		if got := Domain(host); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
}

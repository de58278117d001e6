package gather_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/gather"
	"eventpusher/pusher/filter"
)

// recorder is a service that remembers its calls.
type recorder struct {
	mu    sync.Mutex
	calls [][]string
	hang  bool // until the call's context ends
	now   int  // calls at once
	most  int
}

func (r *recorder) send(ctx context.Context, entries []string, decided func(int, error)) {
	r.mu.Lock()
	r.calls = append(r.calls, slices.Sorted(slices.Values(entries)))
	r.now++
	r.most = max(r.most, r.now)
	r.mu.Unlock()
	if r.hang {
		<-ctx.Done()
	}
	time.Sleep(time.Second) // of the test's own time
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now--
	for i, en := range entries {
		if en == "bad" {
			decided(i, errors.New("refused "+en))
		} else {
			decided(i, nil)
		}
	}
}

// lane publishes entries with those texts, which count as many bytes, under a key.
func lane(ctx context.Context, g *gather.Gatherer[string], key string, texts ...string) []error {
	entries := make([]gather.Entry[string], len(texts))
	for i, text := range texts {
		entries[i] = gather.Entry[string]{Index: i, Key: key, Size: len(text), Value: text}
	}
	errs := make([]error, len(texts))
	g.Publish(ctx, entries, errs)
	return errs
}

// TestSharedCalls: what lanes bring within the time shares a call, up to its bounds.
func TestSharedCalls(t *testing.T) {
	for name, tc := range map[string]struct {
		linger time.Duration
		lanes  [][]string // the first of each is the key
		want   [][]string
	}{
		"alone":               {time.Second, [][]string{{"k", "a"}}, [][]string{{"a"}}},
		"shared":              {time.Second, [][]string{{"k", "a"}, {"k", "b"}}, [][]string{{"a", "b"}}},
		"at once":             {0, [][]string{{"k", "a", "b"}, {"k", "c"}}, [][]string{{"a", "b"}, {"c"}}},
		"by key":              {time.Second, [][]string{{"k", "a"}, {"l", "b"}, {"k", "c"}}, [][]string{{"a", "c"}, {"b"}}},
		"full":                {time.Hour, [][]string{{"k", "a", "b"}, {"k", "c"}}, [][]string{{"a", "b", "c"}}},
		"more than full":      {time.Second, [][]string{{"k", "a", "b", "c", "d", "e"}}, [][]string{{"a", "b", "c"}, {"d", "e"}}},
		"too many bytes":      {time.Second, [][]string{{"k", "aaaaaa", "bbbbbb"}}, [][]string{{"aaaaaa"}, {"bbbbbb"}}},
		"larger than a call":  {time.Second, [][]string{{"k", "aaaaaaaaaaaaaaa"}}, [][]string{{"aaaaaaaaaaaaaaa"}}},
		"a verdict for each":  {time.Second, [][]string{{"k", "a", "bad"}, {"k", "c"}}, [][]string{{"a", "bad", "c"}}},
		"nothing to be done ": {time.Second, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{}
				g := gather.New(gather.Options[string]{Linger: tc.linger, Most: 3, Bytes: 10, Calls: 2, Send: r.send})
				defer g.Close()
				var lanes sync.WaitGroup
				for _, l := range tc.lanes {
					lanes.Go(func() {
						for i, err := range lane(t.Context(), g, l[0], l[1:]...) {
							if (err != nil) != (l[i+1] == "bad") {
								t.Errorf("%s: %v", l[i+1], err)
							}
						}
					})
					synctest.Wait()
				}
				lanes.Wait()
				slices.SortFunc(r.calls, func(a, b []string) int { return slices.Compare(a, b) })
				if diff := cmp.Diff(tc.want, r.calls); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// TestCallsAtOnce: no more calls than allowed are under way.
func TestCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		g := gather.New(gather.Options[string]{Most: 1, Bytes: 10, Calls: 2, Send: r.send})
		defer g.Close()
		if err := errors.Join(lane(t.Context(), g, "k", "a", "b", "c", "d", "e")...); err != nil || r.most != 2 || len(r.calls) != 5 {
			t.Errorf("%v, %d at once, calls %v", err, r.most, r.calls)
		}
	})
}

// TestGivenUp: an entry that nobody waits for is not sent, and a call ends with the last
// that waits for it, no sooner.
func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		g := gather.New(gather.Options[string]{Linger: time.Minute, Most: 9, Bytes: 100, Calls: 1, Send: r.send})
		defer g.Close()
		publish := func(limit time.Duration, text string) (ended chan error) {
			ended = make(chan error, 1)
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			go func() {
				defer cancel()
				ended <- lane(ctx, g, "k", text)[0]
			}()
			synctest.Wait()
			return ended
		}
		gone, stays := publish(time.Second, "gone"), publish(time.Hour, "stays")
		if err := <-gone; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := <-stays; err != nil {
			t.Error(err)
		}
		r.hang = true
		first, second := publish(2*time.Minute, "first"), publish(3*time.Minute, "second")
		for _, ended := range []chan error{first, second} {
			if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
		r.hang = false
		if err := <-publish(time.Hour, "last"); err != nil { // there is a free slot, since the other call has ended
			t.Error(err)
		}
		if got, want := fmt.Sprint(r.calls), "[[stays] [first second] [last]]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestEarlyVerdicts: what is decided counts although the rest of the call takes longer than
// Publish waits.
func TestEarlyVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gather.New(gather.Options[string]{Most: 3, Bytes: 100, Calls: 1, Send: func(ctx context.Context, _ []string, decided func(int, error)) {
			decided(0, nil)
			decided(1, errors.New("refused"))
			<-ctx.Done()
		}})
		defer g.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := lane(ctx, g, "k", "a", "b", "c")
		if errs[0] != nil || errs[1] == nil || errs[1].Error() != "refused" || !errors.Is(errs[2], context.DeadlineExceeded) {
			t.Errorf("%v", errs)
		}
	})
}

func explode(entries []string) string { return entries[len(entries)] }

// TestPanicInSend: it reaches each Publish that waits, whose caller knows what to do, with the
// stack of Send, and ends nothing else. What Send forgets does not keep Publish waiting.
func TestPanicInSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gather.New(gather.Options[string]{Most: 2, Bytes: 100, Calls: 1, Send: func(_ context.Context, entries []string, decided func(int, error)) {
			if entries[0] == "bad" {
				explode(entries)
			}
			decided(0, nil)
		}})
		defer g.Close()
		func() {
			defer func() {
				p := filter.NewPanic(recover()) // as the dispatcher does
				if !strings.Contains(p.Error(), "index out of range") || !strings.Contains(p.Stack, "gather_test.explode") {
					t.Errorf("%v\n%s", p, p.Stack)
				}
			}()
			lane(t.Context(), g, "k", "bad")
			t.Error("Publish has returned")
		}()
		if errs := lane(t.Context(), g, "k", "good", "forgotten"); errs[0] != nil || errs[1] == nil {
			t.Errorf("%v", errs)
		}
	})
}

// TestCallEndsWithLastUndecided: a call ends if no Publish waits for an undecided entry, although
// other entries were decided. Otherwise Send would deliver events that are being tried again.
func TestCallEndsWithLastUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		g := gather.New(gather.Options[string]{Most: 2, Bytes: 100, Calls: 1, Send: func(ctx context.Context, _ []string, decided func(int, error)) {
			decided(0, nil)
			decided(0, nil) // the first verdict counts
			select {
			case <-ctx.Done():
				close(ended)
			case <-time.After(time.Hour): // of the test's own time
			}
		}})
		defer g.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if errs := lane(ctx, g, "k", "a", "b"); errs[0] != nil || !errors.Is(errs[1], context.DeadlineExceeded) {
			t.Errorf("%v", errs)
		}
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Error("the call goes on although no Publish waits")
		}
	})
}

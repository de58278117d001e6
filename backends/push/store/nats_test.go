//go:build linux

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"eventpusher/internal/harness"
	"eventpusher/internal/natsrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// same is the key of a value.
func same(key string) string { return key }

// TestDamaged: a list that cannot be read does not keep its user from starting anew, and
// leaves the others alone.
func TestDamaged(t *testing.T) {
	nats := harness.NATS(t, harness.NATSOptions{})
	bucket, err := natsrpc.OpenBucket(natsrpc.Options{URL: nats.URL(), Prefix: "DAMAGED", Replicas: 1, Log: slog.New(slog.DiscardHandler)}, "lists")
	if err != nil {
		t.Fatal(err)
	}
	file, err := openFile(filepath.Join(t.TempDir(), "lists.db"), func(*bolt.Tx) (map[string][]string, int, error) { return nil, 0, nil }, strings.Compare, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for engine, values := range map[string]Values{"file": file, "NATS": NATS{bucket}} {
		t.Run(engine, func(t *testing.T) {
			var log bytes.Buffer
			open := func() *Lists[string] {
				return New[string](values, same, "lists", slog.New(slog.NewTextHandler(&log, nil)))
			}
			l := open()
			defer l.Close()
			if err := l.Change(t.Context(), "fine", set("a", "b")); err != nil {
				t.Fatal(err)
			}
			for name, use := range map[string]func() (any, error){
				"get":    func() (any, error) { return l.Get(t.Context(), "damaged") },
				"change": func() (any, error) { return []string(nil), l.Change(t.Context(), "damaged", set()) },
				"remove": func() (any, error) {
					n, err := Remove(t.Context(), l, "damaged", func(string) bool { return true })
					return make([]string, n), err
				},
			} {
				damage := func([]byte) ([]byte, error) { return []byte(`["a`), nil }
				if err := values.Change(t.Context(), "damaged", damage); err != nil {
					t.Fatal(err)
				}
				log.Reset()
				l = open() // nothing is cached
				if n, err := l.Count(t.Context()); n != 2 || err != nil || !strings.Contains(log.String(), "not counted") {
					t.Errorf("count %d, %v, logged %s", n, err, &log)
				}
				log.Reset()
				for range 2 {
					if got, err := use(); len(got.([]string)) != 0 || err != nil {
						t.Errorf("%s: %q, %v", name, got, err)
					}
				}
				if strings.Count(log.String(), "a list that cannot be read was removed") != 1 {
					t.Errorf("%s: logged %s", name, &log)
				}
				if err := l.Change(t.Context(), "damaged", set("anew")); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if got, err := l.Get(t.Context(), "damaged"); !cmp.Equal(got, []string{"anew"}) || err != nil {
					t.Errorf("%s: %q, %v", name, got, err)
				}
			}
			refused := errors.New("refused")
			if err := l.Change(t.Context(), "fine", func([]string) ([]string, bool, error) { return nil, true, refused }); !errors.Is(err, refused) {
				t.Error(err)
			}
			if got, err := l.Get(t.Context(), "fine"); !cmp.Equal(got, []string{"a", "b"}) || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// openTwo returns the lists of two instances.
func openTwo(t *testing.T, nats *harness.NATSServer, prefix string) (one, two *Lists[string]) {
	t.Helper()
	var lists [2]*Lists[string]
	for i := range lists {
		b, err := natsrpc.OpenBucket(natsrpc.Options{URL: nats.URL(), Prefix: prefix, Replicas: 1, Log: slog.New(slog.DiscardHandler)}, "lists")
		if err != nil {
			t.Fatal(err)
		}
		lists[i] = New[string](NATS{b}, same, "lists", slog.New(slog.DiscardHandler))
		t.Cleanup(func() { lists[i].Close() })
	}
	return lists[0], lists[1]
}

// set returns an edit that leaves nothing but these.
func set(list ...string) func([]string) ([]string, bool, error) {
	return func([]string) ([]string, bool, error) { return list, true, nil }
}

// TestChange has one instance change a list between the other's look at it and its write:
// the other looks again.
func TestChange(t *testing.T) {
	nats := harness.NATS(t, harness.NATSOptions{})
	one, two := openTwo(t, nats, "CHANGE")
	for name, tc := range map[string]struct {
		before, meanwhile, change []string
	}{
		"made":                   {nil, []string{"b"}, []string{"c"}},
		"changed":                {[]string{"a"}, []string{"a", "b"}, []string{"c"}},
		"changed, was removed":   {[]string{"a"}, nil, []string{"c"}},
		"removed, was changed":   {[]string{"a"}, []string{"a", "b"}, nil},
		"removed, was removed":   {[]string{"a"}, nil, nil},
		"nothing, and is then":   {nil, []string{"b"}, nil},
		"made, is nothing again": {nil, nil, []string{"c"}},
	} {
		t.Run(name, func(t *testing.T) {
			key := strings.ReplaceAll(strings.ReplaceAll(name, ",", ""), " ", "_")
			if err := one.Change(t.Context(), key, set(tc.before...)); err != nil {
				t.Fatal(err)
			}
			var seen [][]string
			err := one.Change(t.Context(), key, func(list []string) ([]string, bool, error) {
				if seen = append(seen, list); len(seen) == 1 {
					if err := two.Change(t.Context(), key, set(tc.meanwhile...)); err != nil {
						t.Fatal(err)
					}
				}
				return tc.change, true, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			want := [][]string{tc.before, tc.meanwhile}
			if len(tc.before)+len(tc.meanwhile) == 0 || len(tc.before)+len(tc.change) == 0 {
				want = want[:1] // it was as it seemed, or nothing was to be written
			}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("what it has seen (-want +got):\n%s", diff)
			}
			left := tc.change
			if len(tc.before)+len(tc.change) == 0 {
				left = tc.meanwhile
			}
			for i, l := range []*Lists[string]{one, two} {
				if got, err := l.Get(t.Context(), key); err != nil || !cmp.Equal(got, left) {
					t.Errorf("instance %d has %q, %v, want %q", i, got, err, left)
				}
			}
		})
	}
}

func TestLists(t *testing.T) {
	nats := harness.NATS(t, harness.NATSOptions{})
	one, two := openTwo(t, nats, "LISTS")
	for i := range 3 {
		if err := one.Change(t.Context(), fmt.Sprint(i), set("a", "b")); err != nil {
			t.Fatal(err)
		}
	}
	if err := two.Change(t.Context(), "1", set()); err != nil {
		t.Fatal(err)
	}
	if n, err := two.Count(t.Context()); n != 4 || err != nil {
		t.Errorf("count %d, %v", n, err)
	}
	refused := errors.New("refused")
	for name, edit := range map[string]func([]string) ([]string, bool, error){
		"fails": func([]string) ([]string, bool, error) { return nil, true, refused },
		"stays": func([]string) ([]string, bool, error) { return []string{"x"}, false, nil },
	} {
		err := one.Change(t.Context(), "0", edit)
		if got, _ := two.Get(t.Context(), "0"); !cmp.Equal(got, []string{"a", "b"}) || (err != nil) != errors.Is(err, refused) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// Somebody who is always faster.
	n := 0
	err := one.Change(t.Context(), "0", func([]string) ([]string, bool, error) {
		n++
		return []string{"slow"}, true, two.Change(t.Context(), "0", set(fmt.Sprint(n)))
	})
	if err == nil || n != mostTurns || !strings.Contains(err.Error(), "keep changing") {
		t.Errorf("after %d turns: %v", n, err)
	}
	nats.Kill()
	// A call that is under way may end otherwise.
	for deadline := time.Now().Add(harness.WaitLimit); ; {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		_, err := one.Count(ctx)
		cancel()
		if err != nil && strings.Contains(err.Error(), "there is no connection to NATS") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("a count while NATS is away ends with %v", err)
		}
	}
}

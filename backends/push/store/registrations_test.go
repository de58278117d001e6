package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/notify"
	"eventpusher/internal/jid"
)

const testLimit = 3

func newRegistrations(t testing.TB) *RegistrationLists {
	t.Helper()
	e, err := OpenRegistrations(filepath.Join(t.TempDir(), RegistrationsFile), testLimit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestRegistrations(t *testing.T) {
	registrationSuite(t, func(t *testing.T) Registrations { return newRegistrations(t) })
}

// registrationSuite is what every store must do; fresh returns an empty one that allows
// testLimit services for each user.
func registrationSuite(t *testing.T, fresh func(*testing.T) Registrations) {
	ctx := context.Background()
	a := Service{PubSub: "a.example", Node: "1", Options: []notify.Field{{Name: "service", Value: "apns"}, {Name: "device_id", Value: "ü\"'<"}}}
	a2 := Service{PubSub: "a.example", Node: "2"}
	b := Service{PubSub: "b.example", Node: "1"}
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(t *testing.T, s Registrations, owner jid.JID, want ...Service) {
		t.Helper()
		got, err := s.Services(ctx, owner)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	add := func(t *testing.T, s Registrations, owner jid.JID, list ...Service) {
		t.Helper()
		for _, one := range list {
			must(t, s.Enable(ctx, owner, one))
		}
	}
	t.Run("enable and list", func(t *testing.T) {
		s := fresh(t)
		want(t, s, "alice@x")
		add(t, s, "alice@x", b, a2, a)
		add(t, s, "alice@xy", b)
		want(t, s, "alice@x", a, a2, b)
		want(t, s, "alice@xy", b)
		want(t, s, "alice@")
		n, err := s.Count(ctx)
		must(t, err)
		if n != 4 {
			t.Errorf("count %d", n)
		}
	})
	t.Run("enable again replaces the form", func(t *testing.T) {
		s := fresh(t)
		add(t, s, "alice@x", a)
		changed := Service{PubSub: a.PubSub, Node: a.Node, Options: []notify.Field{{Name: "service", Value: "fcm"}}}
		add(t, s, "alice@x", changed)
		want(t, s, "alice@x", changed)
	})
	t.Run("rules", func(t *testing.T) {
		s := fresh(t)
		ruled := a
		ruled.Rules = &decide.UserRules{Muted: map[jid.JID]int64{"romeo@x": 0, "loud@muc": 1 << 33}, Rooms: map[jid.JID]string{"ü@muc": "\"Ü", "all@muc": ""}, Priority: true,
			Encryption: &notify.Encryption{Key: notify.Key("0123456789abcdef"), MaxSize: 1000}}
		silent := a2
		silent.Rules = &decide.UserRules{Rooms: map[jid.JID]string{}} // no room at all
		add(t, s, "alice@x", ruled, silent, b)
		want(t, s, "alice@x", ruled, silent, b)
		add(t, s, "alice@x", a) // without
		want(t, s, "alice@x", a, silent, b)
	})
	t.Run("sessions", func(t *testing.T) {
		s := fresh(t)
		by := func(one Service, sessions ...string) Service { one.Sessions = sessions; return one }
		add(t, s, "alice@x", by(a, "desk"), by(a2, "phone"))
		add(t, s, "bob@x", by(a, "desk"))
		want(t, s, "alice@x", by(a, "desk"), by(a2, "phone"))
		add(t, s, "alice@x", a2) // by nobody
		want(t, s, "alice@x", by(a, "desk"), by(a2, "phone"))
		add(t, s, "alice@x", by(a2, "desk")) // which leaves the other
		want(t, s, "alice@x", a, by(a2, "desk", "phone"))
		want(t, s, "bob@x", by(a, "desk"))
		add(t, s, "alice@x", by(a2, "phone"), by(b, "tab")) // again, and a third
		want(t, s, "alice@x", a, by(a2, "phone", "desk"), by(b, "tab"))
		if err := s.Enable(ctx, "alice@x", Service{PubSub: "c.example", Node: "1", Sessions: []string{"tab"}}); !errors.Is(err, ErrTooMany) {
			t.Errorf("got %v", err)
		}
		add(t, s, "alice@x", by(b, strings.Repeat("r", MaxName+1))) // which is not kept
		want(t, s, "alice@x", a, by(a2, "phone", "desk"), by(b, "tab"))
		_, err := s.Disable(ctx, "alice@x", a2.PubSub, a2.Node)
		must(t, err)
		add(t, s, "alice@x", by(a2, "phone"))
		want(t, s, "alice@x", a, by(a2, "phone"), by(b, "tab")) // the desk was of the one that is gone
		_, err = s.DisableAll(ctx, "alice@x", a.PubSub)
		must(t, err)
		add(t, s, "alice@x", a2)
		want(t, s, "alice@x", a2, by(b, "tab"))
		_, err = s.Forget(ctx, "alice@x", time.Time{})
		must(t, err)
		add(t, s, "alice@x", b)
		want(t, s, "alice@x", b)
		last := b
		for i := range keptSessions + 3 {
			name := fmt.Sprint("session ", i)
			add(t, s, "alice@x", by(b, name))
			last.Sessions = append([]string{name}, last.Sessions...)
		}
		last.Sessions = last.Sessions[:keptSessions]
		want(t, s, "alice@x", last)
		want(t, s, "bob@x", by(a, "desk"))
	})
	t.Run("limit", func(t *testing.T) {
		s := fresh(t)
		add(t, s, "alice@x", a, a2, b)
		err := s.Enable(ctx, "alice@x", Service{PubSub: "c.example", Node: "1"})
		if !errors.Is(err, ErrTooMany) {
			t.Errorf("got %v", err)
		}
		add(t, s, "alice@x", b) // one that is there
		add(t, s, "bob@x", b)   // somebody else
		want(t, s, "alice@x", a, a2, b)
	})
	t.Run("disable", func(t *testing.T) {
		s := fresh(t)
		add(t, s, "alice@x", a, a2, b)
		add(t, s, "bob@x", a)
		there, err := s.Disable(ctx, "alice@x", "a.example", "2")
		must(t, err)
		again, err := s.Disable(ctx, "alice@x", "a.example", "2")
		must(t, err)
		if !there || again {
			t.Errorf("there %v, again %v", there, again)
		}
		want(t, s, "alice@x", a, b)
		want(t, s, "bob@x", a)
	})
	t.Run("disable all nodes of one push service", func(t *testing.T) {
		s := fresh(t)
		add(t, s, "alice@x", a, a2, b)
		n, err := s.DisableAll(ctx, "alice@x", "a.example")
		must(t, err)
		none, err := s.DisableAll(ctx, "alice@x", "a.exampl")
		must(t, err)
		if n != 2 || none != 0 {
			t.Errorf("removed %d and %d", n, none)
		}
		want(t, s, "alice@x", b)
	})
	t.Run("forget a user", func(t *testing.T) {
		s := fresh(t)
		add(t, s, "alice@x", a, b)
		add(t, s, "alice@xx", a)
		n, err := s.Forget(ctx, "alice@x", time.Time{})
		must(t, err)
		if n != 2 {
			t.Errorf("removed %d", n)
		}
		want(t, s, "alice@x")
		want(t, s, "alice@xx", a)
	})
	t.Run("forget what is older", func(t *testing.T) {
		s := fresh(t)
		ended := time.Date(2026, 7, 1, 12, 0, 0, 5_000_999, time.UTC)
		at := func(one Service, created time.Time) Service { one.Created = created; return one }
		since := at(b, ended.Add(time.Microsecond).Truncate(time.Microsecond))
		add(t, s, "alice@x", at(a, ended.Truncate(time.Microsecond)), a2, since)
		add(t, s, "alice@xx", at(a, ended.Add(-time.Hour).Truncate(time.Microsecond)))
		for _, removed := range []int{2, 0} {
			n, err := s.Forget(ctx, "alice@x", ended)
			must(t, err)
			if n != removed {
				t.Errorf("removed %d, not %d", n, removed)
			}
			want(t, s, "alice@x", since)
		}
		want(t, s, "alice@xx", at(a, ended.Add(-time.Hour).Truncate(time.Microsecond)))
		// Asked for again it is of that time.
		later := at(b, ended.Add(time.Hour+time.Nanosecond))
		add(t, s, "alice@x", later)
		want(t, s, "alice@x", at(b, later.Created.Truncate(time.Microsecond)))
		n, err := s.Forget(ctx, "alice@x", ended.Add(time.Minute))
		must(t, err)
		if n != 0 {
			t.Errorf("removed %d that were renewed", n)
		}
	})
	t.Run("remove unless it was enabled again", func(t *testing.T) {
		s := fresh(t)
		at := func(one Service, seconds int64) Service { one.Created = time.Unix(seconds, 1000).UTC(); return one }
		remove := func(one Service, expected bool) {
			t.Helper()
			removed, err := s.Remove(ctx, "alice@x", &one)
			must(t, err)
			if removed != expected {
				t.Errorf("removed %v: %v", one.Created, removed)
			}
		}
		add(t, s, "alice@x", at(a, 1), at(a2, 1))
		add(t, s, "bob@x", at(a, 1))
		add(t, s, "alice@x", at(a, 2))
		remove(at(a, 1), false)
		want(t, s, "alice@x", at(a, 2), at(a2, 1))
		remove(at(a, 2), true)
		remove(at(a, 2), false)
		want(t, s, "alice@x", at(a2, 1))
		want(t, s, "bob@x", at(a, 1))
		add(t, s, "alice@x", b) // nobody knows when
		remove(b, true)
		want(t, s, "alice@x", at(a2, 1))
	})
	t.Run("long names", func(t *testing.T) {
		s := fresh(t)
		long := Service{PubSub: jid.JID(strings.Repeat("p", MaxName)), Node: strings.Repeat("ü", MaxName/2)}
		owner := jid.JID(strings.Repeat("o", MaxName))
		add(t, s, owner, long)
		want(t, s, owner, long)
	})
	t.Run("at the same time", func(t *testing.T) {
		s := fresh(t)
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				owner := jid.JID(fmt.Sprintf("user%d@x", i%20))
				if err := s.Enable(ctx, owner, Service{PubSub: "a.example", Node: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
				if _, err := s.Services(ctx, owner); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		n, err := s.Count(ctx)
		must(t, err)
		if n != 40 {
			t.Errorf("count %d", n)
		}
	})
	t.Run("limit at the same time", func(t *testing.T) {
		s := fresh(t)
		var all sync.WaitGroup
		for i := range 4 * testLimit {
			all.Go(func() {
				err := s.Enable(ctx, "alice@x", Service{PubSub: "a.example", Node: fmt.Sprint(i)})
				if err != nil && !errors.Is(err, ErrTooMany) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		got, err := s.Services(ctx, "alice@x")
		must(t, err)
		if len(got) != testLimit {
			t.Errorf("%d services", len(got))
		}
	})
}

func TestRegistrationsSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), RegistrationsFile)
	e, err := OpenRegistrations(path, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := Service{PubSub: "a.example", Node: "1", Options: []notify.Field{{Name: "x", Value: "y"}}}
	if err := e.Enable(context.Background(), "alice@x", s); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRegistrations(path, 0, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("two processes could open the store")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e, err = OpenRegistrations(path, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	got, err := e.Services(context.Background(), "alice@x")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Service{s}, got); diff != "" {
		t.Error(diff)
	}
}

// TestRegistrationsOfOld converts a file in which each service had a key, once.
func TestRegistrationsOfOld(t *testing.T) {
	ctx, path := context.Background(), filepath.Join(t.TempDir(), RegistrationsFile)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("services"))
		for key, value := range map[string]string{
			"alice@x\x00b.example\x001": `{}`,
			"alice@x\x00a.example\x001": `{"o":[{"Name":"x","Value":"y"}],"c":1700000000000001,"s":["desk"]}`,
			"alice@x\x00c.example\x001": `{`,
			"alice@x\x00d.example\x001": `[{"Name":"x","Value":"oldest"}]`,
			"bob@x\x00a.example\x001":   `{}`,
		} {
			err = errors.Join(err, b.Put([]byte(key), []byte(value)))
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := InspectRegistrations(path); err == nil || !strings.Contains(err.Error(), "converts it") {
		t.Errorf("before it is converted: %v", err)
	}
	want := []Service{
		{PubSub: "a.example", Node: "1", Options: []notify.Field{{Name: "x", Value: "y"}}, Created: created(1700000000000001), Sessions: []string{"desk"}},
		{PubSub: "b.example", Node: "1"},
		{PubSub: "d.example", Node: "1", Options: []notify.Field{{Name: "x", Value: "oldest"}}},
	}
	var log bytes.Buffer
	for range 2 {
		e, err := OpenRegistrations(path, 0, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Services(ctx, "alice@x")
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(err, diff)
		}
		if n, err := e.Count(ctx); n != 4 || err != nil {
			t.Errorf("%d services, %v", n, err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(log.String(), "entries=1\n"); n != 1 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("what was left out is logged as: %s", &log)
	}
}

// edited opens the file of a closed store for a change that the store does not make.
func edited(t *testing.T, path, bucket, key, value string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), []byte(value))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestRegistrationsAfterRollback: what an earlier version has written into a file that was
// converted before joins what is there.
func TestRegistrationsAfterRollback(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), RegistrationsFile)
	e, err := OpenRegistrations(path, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"phone", "tablet"} {
		err = errors.Join(err, e.Enable(ctx, "alice@x", Service{PubSub: "a.example", Node: node}))
	}
	if err := errors.Join(err, e.Close()); err != nil {
		t.Fatal(err)
	}
	edited(t, path, "services", "alice@x\x00a.example\x00laptop", `{}`)
	edited(t, path, "services", "alice@x\x00a.example\x00tablet", `{"o":[{"Name":"x","Value":"newer"}]}`)
	if e, err = OpenRegistrations(path, 0, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	want := []Service{
		{PubSub: "a.example", Node: "laptop"},
		{PubSub: "a.example", Node: "phone"},
		{PubSub: "a.example", Node: "tablet", Options: []notify.Field{{Name: "x", Value: "newer"}}},
	}
	got, err := e.Services(ctx, "alice@x")
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

// TestRegistrationsDamaged: a list that cannot be read does not keep its user from starting anew.
func TestRegistrationsDamaged(t *testing.T) {
	ctx := t.Context()
	a := Service{PubSub: "a.example", Node: "1"}
	for name, use := range map[string]func(*RegistrationLists) error{
		"Enable":     func(e *RegistrationLists) error { return e.Enable(ctx, "alice@x", a) },
		"Disable":    func(e *RegistrationLists) error { _, err := e.Disable(ctx, "alice@x", "a.example", "1"); return err },
		"DisableAll": func(e *RegistrationLists) error { _, err := e.DisableAll(ctx, "alice@x", "a.example"); return err },
		"Forget":     func(e *RegistrationLists) error { _, err := e.Forget(ctx, "alice@x", time.Unix(1, 0)); return err },
		"Remove":     func(e *RegistrationLists) error { _, err := e.Remove(ctx, "alice@x", &a); return err },
		"Services":   func(e *RegistrationLists) error { _, err := e.Services(ctx, "alice@x"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), RegistrationsFile)
			edited(t, path, "lists", userValue("alice@x"), `[{`)
			var log bytes.Buffer
			e, err := OpenRegistrations(path, 0, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if err := use(e); err != nil {
				t.Error(err)
			}
			if strings.Count(log.String(), "a list that cannot be read was removed") != 1 {
				t.Errorf("logged: %s", &log)
			}
			if err := e.Enable(ctx, "alice@x", a); err != nil {
				t.Error(err)
			}
			if got, err := e.Services(ctx, "alice@x"); len(got) != 1 || err != nil {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestInspectRegistrations(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), RegistrationsFile)
	if _, err := InspectRegistrations(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	e, err := OpenRegistrations(path, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := Service{PubSub: "a.example", Node: "1", Options: []notify.Field{{Name: "x", Value: "y"}}}
	if err := e.Enable(ctx, "alice@x", s); err != nil {
		t.Fatal(err)
	}
	if _, err := InspectRegistrations(path); err == nil || !strings.Contains(err.Error(), "another process has") {
		t.Errorf("beside a running instance: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	i, err := InspectRegistrations(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { i.Close() }()
	got, err := i.Services(ctx, "alice@x")
	if diff := cmp.Diff([]Service{s}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if n, err := i.Count(ctx); n != 1 || err != nil {
		t.Error(n, err)
	}
	if err := i.Enable(ctx, "bob@x", s); err == nil {
		t.Error("it can be written to")
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	edited(t, path, "lists", userValue("alice@x"), `[{`)
	if i, err = InspectRegistrations(path); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Services(ctx, "alice@x"); err == nil || !strings.Contains(err.Error(), "cannot be read") || strings.Count(err.Error(), "push registrations") != 1 {
		t.Errorf("of a list that is damaged: %v", err)
	}
	other := filepath.Join(t.TempDir(), RegistrationsFile)
	if err := os.WriteFile(other, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := InspectRegistrations(other); err == nil {
		t.Error("what is no database was opened")
	}
}

// BenchmarkServices looks up one of 100 000 registrations. RSS-MiB is what the
// process has grown by after every one was looked up in a store that was just opened.
func BenchmarkServices(b *testing.B) {
	path := filepath.Join(b.TempDir(), RegistrationsFile)
	e, err := OpenRegistrations(path, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	const users = 100_000
	b.Logf("filling in %d registrations", users)
	fillRegistrations(b, e, users)
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	debug.FreeOSMemory()
	before := residentMiB(b)
	if e, err = OpenRegistrations(path, 0, slog.New(slog.DiscardHandler)); err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	ctx := context.Background()
	look := func(i int) {
		list, err := e.Services(ctx, user(i))
		if err != nil || len(list) != 1 {
			b.Fatal(list, err)
		}
	}
	for i := range users {
		look(i)
	}
	grown := residentMiB(b) - before
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		look(i % users)
	}
	b.ReportMetric(grown, "RSS-MiB")
}

// residentMiB returns how much memory the process has, mapped files included.
func residentMiB(b *testing.B) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		b.Fatal(err)
	}
	return float64(resident) * float64(os.Getpagesize()) / (1 << 20)
}

func user(i int) jid.JID { return jid.JID(fmt.Sprintf("user%d@example.org", i*7919%100_003)) }

func fillRegistrations(tb testing.TB, e *RegistrationLists, users int) {
	tb.Helper()
	work := make(chan int)
	var all sync.WaitGroup
	for range 256 {
		all.Go(func() {
			for i := range work {
				s := Service{PubSub: "push.example.org", Node: fmt.Sprintf("node-%d", i), Options: []notify.Field{{Name: "service", Value: "apns"}, {Name: "device_id", Value: strings.Repeat("ab", 32)}}}
				if err := e.Enable(context.Background(), user(i), s); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	for i := range users {
		work <- i
	}
	close(work)
	all.Wait()
}

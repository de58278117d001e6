package store

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

const bob = jid.JID("bob@example.org")

func newDevices(t testing.TB, limit int) *DeviceLists {
	t.Helper()
	s, err := OpenDevices(filepath.Join(t.TempDir(), DevicesFile), limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func target(address string) notify.Target {
	return notify.Target{Kind: notify.WebPush, Address: config.Secret(address), P256DH: "key", Auth: "auth"}
}

// opener returns an empty store that allows an owner so many devices.
type opener func(t *testing.T, limit int) Devices

// deviceSuite is what every store must do.
func deviceSuite(t *testing.T, open opener) {
	for name, test := range map[string]func(*testing.T, opener){
		"credentials": suiteCredentials, "registering again renews": suiteRegisteringAgainRenews, "limit per owner": suiteLimitPerOwner,
		"forget until": suiteForgetUntil, "list": suiteList, "touch": suiteTouch, "together": suiteStoreTogether,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

func suiteCredentials(t *testing.T, open opener) {
	s := open(t, 0)
	began := time.UnixMilli(1_700_000_000_123).UTC()
	c, err := s.Put(t.Context(), Device{Owner: bob, App: "chat", Target: target("https://push.example.net/1")}, began)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{32,64}$`).MatchString(c.Node) || len(c.Secret) != 32 {
		t.Errorf("credentials that can be guessed: %+v", c)
	}
	want := Device{Node: c.Node, Owner: bob, App: "chat", Target: target("https://push.example.net/1"), Created: began, Registered: began}
	for name, check := range map[string]struct {
		node, secret string
		err          error
	}{
		"right":        {c.Node, c.Secret, nil},
		"wrong secret": {c.Node, c.Secret + "x", ErrSecret},
		"no secret":    {c.Node, "", ErrSecret},
		"unknown":      {"0", c.Secret, ErrUnknown},
		"no node":      {"", "", ErrUnknown},
		"another node": {c.Node[:len(c.Node)-1] + "x", c.Secret, ErrUnknown},
		"a neighbour":  {c.Node[:len(c.Node)-32] + strings.Repeat("0", 32), c.Secret, ErrUnknown},
	} {
		got, err := s.Verify(t.Context(), check.node, check.secret)
		if !errors.Is(err, check.err) || err == nil && check.err != nil {
			t.Errorf("%s: %v, want %v", name, err, check.err)
		}
		if check.err == nil {
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		} else if got.Node != "" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func suiteRegisteringAgainRenews(t *testing.T, open opener) {
	s := open(t, 1)
	began := time.UnixMilli(1_700_000_000_000).UTC()
	d := Device{Owner: bob, App: "chat", Target: target("https://push.example.net/1")}
	first, err := s.Put(t.Context(), d, began)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(t.Context(), []string{first.Node}, began.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	second, err := s.Put(t.Context(), d, began.Add(2*time.Hour))
	if err != nil || second.Node != first.Node || second.Secret == first.Secret {
		t.Errorf("%+v, %v after %+v", second, err, first)
	}
	if _, err := s.Verify(t.Context(), first.Node, first.Secret); !errors.Is(err, ErrSecret) {
		t.Errorf("the old secret: %v", err)
	}
	got, err := s.Verify(t.Context(), second.Node, second.Secret)
	if err != nil || !got.Created.Equal(began) || !got.Registered.Equal(began.Add(2*time.Hour)) || !got.Used.Equal(began.Add(time.Hour)) {
		t.Errorf("%+v, %v", got, err)
	}
	// Another account on the same device is another device.
	d.Owner = "alice@example.org"
	if other, err := s.Put(t.Context(), d, began); err != nil || other.Node == first.Node {
		t.Errorf("%+v, %v", other, err)
	}
}

func suiteLimitPerOwner(t *testing.T, open opener) {
	s := open(t, 2)
	put := func(owner jid.JID, address string) (Credentials, error) {
		return s.Put(t.Context(), Device{Owner: owner, App: "chat", Target: target(address)}, time.Now())
	}
	var last Credentials
	for i := range 2 {
		var err error
		if last, err = put(bob, strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := put(bob, "third"); !errors.Is(err, ErrTooMany) {
		t.Errorf("got %v", err)
	}
	if _, err := put(bob, "1"); err != nil {
		t.Errorf("a device that is there: %v", err)
	}
	if _, err := put("bob@example.org.uk", "third"); err != nil {
		t.Errorf("another owner: %v", err)
	}
	for i := range 3 {
		if _, err := put("", strconv.Itoa(i)); err != nil {
			t.Errorf("without owner: %v", err)
		}
	}
	mine := func(d *Device) bool { return d.Owner == bob }
	if err := s.Remove(t.Context(), last.Node, func(d *Device) bool { return d.Owner == "alice@example.org" }); !errors.Is(err, ErrUnknown) {
		t.Errorf("another's device: %v", err)
	}
	if err := s.Remove(t.Context(), last.Node, mine); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), last.Node, mine); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := put(bob, "third"); err != nil {
		t.Errorf("after one is gone: %v", err)
	}
	if n, err := s.Forget(t.Context(), bob, time.Time{}); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if list, err := s.List(t.Context(), bob); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if n, err := s.Count(t.Context()); n != 4 || err != nil {
		t.Errorf("%d devices are left, %v, want 4", n, err)
	}
}

// suiteForgetUntil keeps what was registered since, also where it was not for the first time.
func suiteForgetUntil(t *testing.T, open opener) {
	s := open(t, 0)
	ended := time.UnixMilli(1_700_000_000_000)
	nodes := make(map[string]string)
	put := func(owner jid.JID, address string, at time.Time) {
		t.Helper()
		c, err := s.Put(t.Context(), Device{Owner: owner, App: "chat", Target: target(address)}, at)
		if err != nil {
			t.Fatal(err)
		}
		nodes[c.Node] = address
	}
	put(bob, "before", ended.Add(-time.Hour))
	put(bob, "then", ended)
	put(bob, "renewed", ended.Add(-time.Hour))
	put(bob, "renewed", ended.Add(time.Millisecond))
	put(bob, "since", ended.Add(time.Hour))
	put("bob@example.org.uk", "another's", ended.Add(-time.Hour))
	put("", "nobody's", ended.Add(-time.Hour))
	for _, removed := range []int{2, 0} {
		if n, err := s.Forget(t.Context(), bob, ended); n != removed || err != nil {
			t.Errorf("removed %d, %v, want %d", n, err, removed)
		}
		list, err := s.List(t.Context(), bob)
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, d := range list {
			left = append(left, nodes[d.Node])
		}
		slices.Sort(left)
		if diff := cmp.Diff([]string{"renewed", "since"}, left); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	}
	if n, err := s.Forget(t.Context(), "", time.Time{}); n != 0 || err != nil {
		t.Errorf("of nobody: %d, %v", n, err)
	}
	if n, err := s.Count(t.Context()); n != 4 || err != nil {
		t.Errorf("%d devices, %v", n, err)
	}
	// What was removed can be registered anew.
	put(bob, "before", ended.Add(time.Hour))
}

func suiteList(t *testing.T, open opener) {
	s := open(t, 0)
	now := time.UnixMilli(1_700_000_000_000).UTC()
	var want []Device
	for _, owner := range []jid.JID{bob, "bob@example.org.uk", ""} {
		for i := range 3 {
			d := Device{Owner: owner, App: "chat", Target: target(fmt.Sprint(owner, i)), Created: now, Registered: now}
			c, err := s.Put(t.Context(), d, now)
			if err != nil {
				t.Fatal(err)
			}
			if d.Node = c.Node; owner == bob {
				want = append(want, d)
			}
		}
	}
	got, err := s.List(t.Context(), bob)
	if err != nil {
		t.Fatal(err)
	}
	byNode := cmpopts.SortSlices(func(a, b Device) bool { return a.Node < b.Node })
	if diff := cmp.Diff(want, got, byNode); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func suiteTouch(t *testing.T, open opener) {
	s := open(t, 0)
	now := time.UnixMilli(1_700_000_000_000).UTC()
	var nodes []string
	for _, address := range []string{"x", "y"} {
		c, err := s.Put(t.Context(), Device{Owner: bob, App: "chat", Target: target(address)}, now)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, c.Node)
	}
	used := now.Add(time.Hour)
	if err := s.Touch(t.Context(), []string{nodes[0], "gone", nodes[1]}, used); err != nil {
		t.Errorf("beside a device that is gone: %v", err)
	}
	for _, node := range nodes {
		if d, err := s.Get(t.Context(), node); err != nil || !d.Used.Equal(used) {
			t.Errorf("%+v, %v", d, err)
		}
	}
}

// suiteStoreTogether has many goroutines at one store.
func suiteStoreTogether(t *testing.T, open opener) {
	s := open(t, 4)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			owner := jid.JID(fmt.Sprintf("user%d@example.org", i%2))
			for j := range 6 {
				c, err := s.Put(t.Context(), Device{Owner: owner, App: "chat", Target: target(strconv.Itoa(j))}, time.Now())
				if err != nil && !errors.Is(err, ErrTooMany) {
					t.Error(err)
				}
				if err == nil {
					if _, err := s.Get(t.Context(), c.Node); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	for i := range 2 {
		if list, err := s.List(t.Context(), jid.JID(fmt.Sprintf("user%d@example.org", i))); err != nil || len(list) != 4 {
			t.Errorf("%d devices, %v, want 4", len(list), err)
		}
	}
}

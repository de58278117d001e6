package devices

import (
	"errors"
	"fmt"
	"os"
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

func target(address string) notify.Target {
	return notify.Target{Kind: notify.WebPush, Address: config.Secret(address), P256DH: "key", Auth: "auth"}
}

func TestStoreKeepsDevices(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s, err := OpenStore(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	began := time.UnixMilli(1_700_000_000_123).UTC()
	c, err := s.Put(Device{Owner: bob, App: "chat", Target: target("https://push.example.net/1")}, began)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(c.Node) || len(c.Secret) != 32 {
		t.Errorf("credentials that can be guessed: %+v", c)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(file), c.Secret) {
		t.Errorf("the secret is in the file, or: %v", err)
	}
	if s, err = OpenStore(path, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
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
	} {
		got, err := s.Verify(check.node, check.secret)
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

func TestRegisteringAgainRenews(t *testing.T) {
	s := newStore(t, 1)
	began := time.UnixMilli(1_700_000_000_000).UTC()
	d := Device{Owner: bob, App: "chat", Target: target("https://push.example.net/1")}
	first, err := s.Put(d, began)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Touch([]string{first.Node}, began.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	second, err := s.Put(d, began.Add(2*time.Hour))
	if err != nil || second.Node != first.Node || second.Secret == first.Secret {
		t.Errorf("%+v, %v after %+v", second, err, first)
	}
	if _, err := s.Verify(first.Node, first.Secret); !errors.Is(err, ErrSecret) {
		t.Errorf("the old secret: %v", err)
	}
	got, err := s.Verify(second.Node, second.Secret)
	if err != nil || !got.Created.Equal(began) || !got.Registered.Equal(began.Add(2*time.Hour)) || !got.Used.Equal(began.Add(time.Hour)) {
		t.Errorf("%+v, %v", got, err)
	}
	// Another account on the same device is another device.
	d.Owner = "alice@example.org"
	if other, err := s.Put(d, began); err != nil || other.Node == first.Node {
		t.Errorf("%+v, %v", other, err)
	}
}

func TestLimitPerOwner(t *testing.T) {
	s := newStore(t, 2)
	put := func(owner jid.JID, address string) (Credentials, error) {
		return s.Put(Device{Owner: owner, App: "chat", Target: target(address)}, time.Now())
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
	if err := s.Remove(func(d *Device) bool { return d.Owner == "alice@example.org" }, last.Node); !errors.Is(err, ErrUnknown) {
		t.Errorf("another's device: %v", err)
	}
	if err := s.Remove(mine, last.Node); err != nil {
		t.Error(err)
	}
	if err := s.Remove(mine, last.Node); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := put(bob, "third"); err != nil {
		t.Errorf("after one is gone: %v", err)
	}
	if n, err := s.Forget(bob, time.Time{}); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if list, err := s.List(bob); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	if n, err := s.Count(); n != 4 || err != nil {
		t.Errorf("%d devices are left, %v, want 4", n, err)
	}
}

// TestForgetUntil keeps what was registered since, also where it was not for the first time.
func TestForgetUntil(t *testing.T) {
	s := newStore(t, 0)
	ended := time.UnixMilli(1_700_000_000_000)
	nodes := make(map[string]string)
	put := func(owner jid.JID, address string, at time.Time) {
		t.Helper()
		c, err := s.Put(Device{Owner: owner, App: "chat", Target: target(address)}, at)
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
		if n, err := s.Forget(bob, ended); n != removed || err != nil {
			t.Errorf("removed %d, %v, want %d", n, err, removed)
		}
		list, err := s.List(bob)
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
	if n, err := s.Forget("", time.Time{}); n != 0 || err != nil {
		t.Errorf("of nobody: %d, %v", n, err)
	}
	if n, err := s.Count(); n != 4 || err != nil {
		t.Errorf("%d devices, %v", n, err)
	}
	// What was removed can be registered anew.
	put(bob, "before", ended.Add(time.Hour))
}

func TestList(t *testing.T) {
	s := newStore(t, 0)
	now := time.UnixMilli(1_700_000_000_000).UTC()
	var want []Device
	for _, owner := range []jid.JID{bob, "bob@example.org.uk", ""} {
		for i := range 3 {
			d := Device{Owner: owner, App: "chat", Target: target(fmt.Sprint(owner, i)), Created: now, Registered: now}
			c, err := s.Put(d, now)
			if err != nil {
				t.Fatal(err)
			}
			if d.Node = c.Node; owner == bob {
				want = append(want, d)
			}
		}
	}
	got, err := s.List(bob)
	if err != nil {
		t.Fatal(err)
	}
	byNode := cmpopts.SortSlices(func(a, b Device) bool { return a.Node < b.Node })
	if diff := cmp.Diff(want, got, byNode); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTouch(t *testing.T) {
	s := newStore(t, 0)
	now := time.UnixMilli(1_700_000_000_000).UTC()
	var nodes []string
	for _, address := range []string{"x", "y"} {
		c, err := s.Put(Device{Owner: bob, App: "chat", Target: target(address)}, now)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, c.Node)
	}
	used := now.Add(time.Hour)
	if err := s.Touch([]string{nodes[0], "gone", nodes[1]}, used); err != nil {
		t.Errorf("beside a device that is gone: %v", err)
	}
	for _, node := range nodes {
		if d, err := s.Get(node); err != nil || !d.Used.Equal(used) {
			t.Errorf("%+v, %v", d, err)
		}
	}
}

// TestStoreTogether has many goroutines at one store.
func TestStoreTogether(t *testing.T) {
	s := newStore(t, 4)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			owner := jid.JID(fmt.Sprintf("user%d@example.org", i%2))
			for j := range 6 {
				c, err := s.Put(Device{Owner: owner, App: "chat", Target: target(strconv.Itoa(j))}, time.Now())
				if err != nil && !errors.Is(err, ErrTooMany) {
					t.Error(err)
				}
				if err == nil {
					if _, err := s.Get(c.Node); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	for i := range 2 {
		if list, err := s.List(jid.JID(fmt.Sprintf("user%d@example.org", i))); err != nil || len(list) != 4 {
			t.Errorf("%d devices, %v, want 4", len(list), err)
		}
	}
}

func TestOpenStoreRefuses(t *testing.T) {
	if _, err := OpenStore(filepath.Join(t.TempDir(), "missing", FileName), 0); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v", err)
	}
}

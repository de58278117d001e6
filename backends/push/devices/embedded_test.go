package devices

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"eventpusher/internal/jid"
)

func TestEmbedded(t *testing.T) {
	storeSuite(t, func(t *testing.T, limit int) Store { return newStore(t, limit) })
}

// TestEmbeddedKeeps: what was registered is in the file, but for the secret.
func TestEmbeddedKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	s, err := OpenEmbedded(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	began := time.UnixMilli(1_700_000_000_123).UTC()
	c, err := s.Put(t.Context(), Device{Owner: bob, App: "chat", Target: target("https://push.example.net/1")}, began)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(file), c.Secret) {
		t.Errorf("the secret is in the file, or: %v", err)
	}
	if s, err = OpenEmbedded(path, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	want := Device{Node: c.Node, Owner: bob, App: "chat", Target: target("https://push.example.net/1"), Created: began, Registered: began}
	got, err := s.Verify(t.Context(), c.Node, c.Secret)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestOpenEmbeddedRefuses(t *testing.T) {
	if _, err := OpenEmbedded(filepath.Join(t.TempDir(), "missing", FileName), 0); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v", err)
	}
}

// TestEmbeddedOfOld converts a file in which each device had a key: its servers know it by
// its node.
func TestEmbeddedOfOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.UnixMilli(1_700_000_000_123).UTC()
	records := make(map[string]Device)
	secrets := make(map[string]string)
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{"devices", "owners", "targets"} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		for i, owner := range []jid.JID{bob, bob, ""} {
			node := newNode()
			d := Device{Node: node, Owner: owner, App: "chat", Target: target("https://push.example.net/" + strconv.Itoa(i)), Created: at, Registered: at}
			r, secret := newRecord(&d, at)
			value, err := json.Marshal(r)
			if err != nil {
				return err
			}
			if err := tx.Bucket([]byte("devices")).Put([]byte(node), value); err != nil {
				return err
			}
			records[node], secrets[node] = d, secret
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := OpenEmbedded(path, 0)
		if err != nil {
			t.Fatal(err)
		}
		for node, want := range records {
			got, err := s.Verify(t.Context(), node, secrets[node])
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		}
		if list, err := s.List(t.Context(), bob); len(list) != 2 || err != nil {
			t.Errorf("%v, %v", list, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s, err := OpenEmbedded(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if n, err := s.Forget(t.Context(), bob, time.Time{}); n != 2 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	for node, d := range records {
		if _, err := s.Get(t.Context(), node); (d.Owner == bob) != errors.Is(err, ErrUnknown) {
			t.Errorf("%s of %q: %v", node, d.Owner, err)
		}
	}
}

package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
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

func TestDevices(t *testing.T) {
	deviceSuite(t, func(t *testing.T, limit int) Devices { return newDevices(t, limit) })
}

// TestDevicesKeep: what was registered is in the file, but for the secret.
func TestDevicesKeep(t *testing.T) {
	path := filepath.Join(t.TempDir(), DevicesFile)
	s, err := OpenDevices(path, 0, slog.New(slog.DiscardHandler))
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
	if s, err = OpenDevices(path, 0, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	want := Device{Node: c.Node, Owner: bob, App: "chat", Target: target("https://push.example.net/1"), Created: began, Registered: began}
	got, err := s.Verify(t.Context(), c.Node, c.Secret)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestOpenDevicesRefuses(t *testing.T) {
	if _, err := OpenDevices(filepath.Join(t.TempDir(), "missing", DevicesFile), 0, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v", err)
	}
}

// TestDevicesOfOld converts a file in which each device had a key: its servers know it by
// its node.
func TestDevicesOfOld(t *testing.T) {
	path := filepath.Join(t.TempDir(), DevicesFile)
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
		return tx.Bucket([]byte("devices")).Put([]byte(newNode()), []byte("{"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	for range 2 {
		s, err := OpenDevices(path, 0, slog.New(slog.NewTextHandler(&log, nil)))
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
	if n := strings.Count(log.String(), "entries=1\n"); n != 1 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("what was left out is logged as: %s", &log)
	}
	s, err := OpenDevices(path, 0, slog.New(slog.DiscardHandler))
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

// TestDevicesAfterRollback: what an earlier version has written into a file that was
// converted before joins what is there. A device that has registered again there is known by
// its new node.
func TestDevicesAfterRollback(t *testing.T) {
	path, at := filepath.Join(t.TempDir(), DevicesFile), time.UnixMilli(1_700_000_000_123).UTC()
	device := func(i int) Device {
		return Device{Owner: bob, App: "chat", Target: target("https://push.example.net/" + strconv.Itoa(i))}
	}
	s, err := OpenDevices(path, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	phone, err := s.Put(t.Context(), device(1), at)
	tablet, err2 := s.Put(t.Context(), device(2), at)
	if err := errors.Join(err, err2, s.Close()); err != nil {
		t.Fatal(err)
	}
	laptop, tabletAgain := newNode(), newNode()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) (err error) {
		for _, name := range []string{"devices", "owners", "targets"} {
			_, e := tx.CreateBucket([]byte(name))
			err = errors.Join(err, e)
		}
		for node, d := range map[string]Device{laptop: device(3), tabletAgain: device(2)} {
			r, _ := newRecord(&d, at)
			value, e := json.Marshal(r)
			err = errors.Join(err, e, tx.Bucket([]byte("devices")).Put([]byte(node), value))
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenDevices(path, 0, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for node, known := range map[string]bool{phone.Node: true, laptop: true, tabletAgain: true, tablet.Node: false} {
		if _, err := s.Get(t.Context(), node); known && err != nil || !known && !errors.Is(err, ErrUnknown) {
			t.Errorf("known should be %v: %v", known, err)
		}
	}
	if n, err := s.Count(t.Context()); n != 3 || err != nil {
		t.Errorf("%d devices, %v", n, err)
	}
}

// TestDevicesDamaged: the removal of an account removes a list that cannot be read.
func TestDevicesDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), DevicesFile)
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("lists"))
		if err != nil {
			return err
		}
		return b.Put([]byte(ownerKey(bob)), []byte("[{"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := OpenDevices(path, 0, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if n, err := s.Forget(t.Context(), bob, time.Unix(1, 0)); n != 0 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	if strings.Count(log.String(), "a list that cannot be read was removed") != 1 {
		t.Errorf("logged: %s", &log)
	}
	if list, err := s.List(t.Context(), bob); len(list) != 0 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
}

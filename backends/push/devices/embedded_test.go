package devices

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

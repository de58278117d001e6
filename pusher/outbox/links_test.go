package outbox_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"eventpusher/pusher/outbox"
)

// TestSymbolicLinks: none of the outbox's files is followed if it is a link, so a user who can
// enter the directory cannot have another file read, truncated or written.
func TestSymbolicLinks(t *testing.T) {
	const precious = "precious, and longer than what is written into a lock: 0123456789 0123456789 0123456789"
	for _, name := range []string{"lock", "state.db", "segments/00000000000000000001-00000000.seg"} {
		t.Run(name, func(t *testing.T) {
			dir, target := t.TempDir(), filepath.Join(t.TempDir(), "target")
			if err := os.WriteFile(target, []byte(precious), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			e, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: dir, Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				_ = e.Close()
			}
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("opened: %v", err)
			}
			if now, err := os.ReadFile(target); err != nil || string(now) != precious {
				t.Errorf("the target has %q, %v", now, err)
			}
		})
	}
}

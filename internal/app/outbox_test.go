package app

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"eventpusher/config"
	"eventpusher/pusher/outbox"
)

// TestOutboxThatCannotBeOpened is an error that names the directory, whatever the
// reason, and leaves nothing behind that would keep a second start from working.
func TestOutboxThatCannotBeOpened(t *testing.T) {
	build := func(path string) error {
		t.Helper()
		cfg, problems := config.Parse([]byte(`
[component]
name = "events.localhost"
secret = "secret"
[general]
hosts = ["localhost"]
[modules.mod_event_pusher.rabbit]
presence_exchange.name = "presence"
[outgoing_pools.rabbit.event_pusher.connection]
host = "127.0.0.1"
[outbox]
path = "`+path+`"
`), nil, t.TempDir())
		if cfg == nil {
			t.Fatal(problems)
		}
		a, err := New(cfg, Options{Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			if err := a.close(); err != nil {
				t.Error(err)
			}
		}
		return err
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := build(filepath.Join(file, "outbox")); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("below a file: %v", err)
	}

	dir := t.TempDir()
	box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	var locked *outbox.LockedError
	if err := build(dir); !errors.As(err, &locked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("in use: %v", err)
	}
	if err := box.Close(); err != nil {
		t.Fatal(err)
	}
	if err := build(dir); err != nil {
		t.Errorf("free again: %v", err)
	}
}

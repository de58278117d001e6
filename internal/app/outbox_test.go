package app

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/catalog"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/outboxtest"
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

// What is kept under the names that earlier versions gave is carried over, and under no
// others.
func TestFormerNamesAreCarriedOver(t *testing.T) {
	former := []catalog.FormerName{
		{Name: "http:p", Former: "http:p/0badcafe", Hashed: true}, {Name: "http:p/2", Former: "http:p"}, {Name: "http:q", Former: "http:q"},
	}
	for _, tc := range []struct {
		name       string
		kept, want []string
	}{
		{"an earlier version's", []string{"http:p", "http:p/0badcafe", "http:q"}, []string{"http:p", "http:p/2", "http:q"}},
		{"this version's", []string{"http:p", "http:p/2"}, []string{"http:p", "http:p/2"}},
		{"one handler was added", []string{"http:p"}, []string{"http:p"}},
		{"nothing", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			box := outboxtest.Open(t)
			numbers := make(map[int]bool)
			for _, name := range tc.kept {
				r, err := box.Reader(name, func() {})
				if err != nil {
					t.Fatal(err)
				}
				numbers[r.Number()] = true
				if err := errors.Join(r.Close(), box.Bury(outbox.DeadLetter{Backend: name, Reason: "permanent"})); err != nil {
					t.Fatal(err)
				}
			}
			if err := carryOver(box, former, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			known, err := box.Backends()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, b := range known {
				got = append(got, b.Name)
				if list, err := box.DeadLetters().List(outbox.LetterFilter{Backend: b.Name}); len(list) != 1 || err != nil {
					t.Errorf("%d dead letters of %s, %v", len(list), b.Name, err)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestMoveWhileStopped: to a backend that the outbox knows, and to one that it does not.
func TestMoveWhileStopped(t *testing.T) {
	for _, known := range []bool{false, true} {
		cfg := config.Outbox{Path: t.TempDir()}
		box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: cfg.Path})
		if err != nil {
			t.Fatal(err)
		}
		r, err := box.Reader("old", func() {})
		if err == nil && known {
			_, err = box.Reader("new", func() {})
		}
		if err != nil {
			t.Fatal(err)
		}
		var to outbox.Subscribers
		to.Add(r.Number())
		for _, id := range []string{"1", "2"} {
			if err := box.Append(outbox.Pack{Entries: []outbox.Entry{{Event: &event.Event{ID: id, Kind: event.Chat, Time: time.Now()}, Subscribers: to}}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := box.Close(); err != nil {
			t.Fatal(err)
		}
		if n, err := Move(t.Context(), cfg, "old", "new", 0); n != 2 || err != nil {
			t.Errorf("moved %d, %v", n, err)
		}
		if _, err := Move(t.Context(), cfg, "old", "new", 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("moved twice: %v", err)
		}
		i, err := outbox.Inspect(cfg.Path, 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]outbox.BackendRecovery{{Name: "new", Waiting: 2}}, i.Backends); diff != "" {
			t.Error(diff)
		}
		if err := i.Close(); err != nil {
			t.Error(err)
		}
		if n, err := Forget(t.Context(), cfg, "new", 0); n != 2 || err != nil {
			t.Errorf("forgot %d, %v", n, err)
		}
	}
}

package outbox_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/pusher/outbox"
)

func TestInspect(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "outbox")
	if _, err := outbox.Inspect(dir, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("looking has made a directory")
	}
	o := outbox.EmbeddedOptions{Dir: dir}
	d := openDurable(t, o, "b", "a")
	d.append(t, pack(3, chat("x", "x1"), chat("y", "y1")))
	d.append(t, pack(1, chat("x", "x2")))
	var locked *outbox.LockedError
	if _, err := outbox.Inspect(dir, -1); !errors.As(err, &locked) {
		t.Errorf("an outbox that runs: %v", err)
	}
	if diff := cmp.Diff([]string{"x1", "y1"}, d.drain(t, "a")); diff != "" {
		t.Fatal(diff)
	}
	if err := d.Bury(outbox.DeadLetter{Backend: "a", Reason: "permanent", Event: chat("x", "x0")}); err != nil {
		t.Fatal(err)
	}
	d.close(t)

	i, err := outbox.Inspect(dir, -1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]outbox.BackendRecovery{{Name: "a", Settled: true}, {Name: "b", Waiting: 3}}, i.Backends); diff != "" || !i.Clean {
		t.Errorf("clean %t (-want +got):\n%s", i.Clean, diff)
	}
	if list, err := i.List(outbox.LetterFilter{}); len(list) != 1 || err != nil {
		t.Errorf("%d dead letters, %v", len(list), err)
	}
	if _, err := outbox.Inspect(dir, -1); !errors.As(err, &locked) {
		t.Errorf("inspected twice: %v", err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	// Nothing has changed: what waited still does, and the stop still counts as orderly.
	d = openDurable(t, o, "b", "a")
	if diff := cmp.Diff([]string{"x1", "y1", "x2"}, d.drain(t, "b")); diff != "" || !d.found.Clean {
		t.Errorf("clean %t (-want +got):\n%s", d.found.Clean, diff)
	}
	d.close(t)
}

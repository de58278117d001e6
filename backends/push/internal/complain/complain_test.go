package complain

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/notify"
)

// TestComplaintsAreBounded: a push service that says something else each time fills
// neither memory nor log.
func TestComplaintsAreBounded(t *testing.T) {
	var log bytes.Buffer
	now := time.Now()
	c := New(slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return now })
	lines := func() []string {
		defer log.Reset()
		return strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	}
	for i := range 10 * kept {
		c.Add(slog.LevelWarn, "m", fmt.Errorf("answered 400 %d", i))
	}
	if lines := lines(); len(lines) != kept+1 || len(c.all) != kept+1 {
		t.Errorf("%d lines, %d kept", len(lines), len(c.all))
	}
	now = now.Add(Every)
	c.Add(slog.LevelWarn, "m", errors.New("fresh"))
	if lines := lines(); len(lines) != 1 || len(c.all) != 1 || !strings.Contains(lines[0], "fresh") {
		t.Errorf("%q, %d kept", lines, len(c.all))
	}
}

func TestBottom(t *testing.T) {
	root := errors.New("root")
	for name, err := range map[string]error{
		"itself": root, "wrapped": fmt.Errorf("a: %w", root), "of several": errors.Join(fmt.Errorf("b: %w", root), errors.New("c")),
		"permanent": backends.Permanent(fmt.Errorf("a: %w: b", root)), "dead": &notify.DeadError{Err: root},
	} {
		if got := bottom(err); got != "root" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestCrowd(t *testing.T) {
	var log bytes.Buffer
	c := crowd{log: slog.New(slog.NewTextHandler(&log, nil))}
	start := time.Now()
	for _, step := range []struct {
		total int
		after time.Duration
		want  string // of the line, empty for none
	}{
		{0, 0, ""}, {3, 0, "presences_left_out=3"}, {5, time.Second, ""}, {5, crowdEvery, "presences_left_out=2"}, {5, 3 * crowdEvery, ""},
	} {
		log.Reset()
		c.note(step.total, start.Add(step.after))
		if got := log.String(); (got == "") != (step.want == "") || !strings.Contains(got, step.want) {
			t.Errorf("%d after %s: %q, want %q", step.total, step.after, got, step.want)
		}
	}
}

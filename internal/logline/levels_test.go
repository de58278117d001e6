package logline

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestLevels(t *testing.T) {
	var out bytes.Buffer
	var l Levels
	log := slog.New(New(l.Filter(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: &l})), nil)).With("a", 1).WithGroup("g")
	says := func(want string) {
		t.Helper()
		out.Reset()
		log.Debug("debug")
		log.Info("info")
		log.Warn("warn")
		var got []string
		for _, word := range []string{"debug", "info", "warn"} {
			if strings.Contains(out.String(), "msg="+word) {
				got = append(got, word)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("written: %q, want %q", got, want)
		}
	}
	says("info warn")
	l.Set(slog.LevelWarn, nil)
	says("warn")
	l.Set(slog.LevelWarn, map[string]slog.Level{"pusher": slog.LevelDebug}) // this is another one
	says("warn")
	l.Set(slog.LevelWarn, map[string]slog.Level{"internal/logline": slog.LevelDebug})
	says("debug info warn")
	l.Set(slog.LevelDebug, map[string]slog.Level{"internal": slog.LevelWarn}) // what is below it
	says("warn")
	l.Set(slog.LevelInfo, nil)
	says("info warn")
}

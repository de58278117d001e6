package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
)

// late is a backend that is ready after some attempts.
type late struct {
	backends.Backend
	failures int
	began    time.Time
	tried    []time.Duration
}

func (l *late) Name() string { return "late" }

func (l *late) Prepare(context.Context) error {
	l.tried = append(l.tried, time.Since(l.began))
	if len(l.tried) <= l.failures {
		return errors.New("connection refused")
	}
	return nil
}

func TestPrepareTriesUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := &late{failures: 7, began: time.Now()}
		prepare(t.Context(), b, slog.New(slog.NewTextHandler(&log, nil)))
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91}
		for i := range want {
			want[i] *= time.Second
		}
		if diff := cmp.Diff(want, b.tried); diff != "" {
			t.Error(diff)
		}
		if n := strings.Count(log.String(), "connection refused"); n != 1 {
			t.Errorf("the same error is logged %d times:\n%s", n, &log)
		}
	})
}

func TestPrepareEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b := &late{failures: 1000, began: time.Now()}
		prepare(ctx, b, slog.New(slog.DiscardHandler))
		if took := time.Since(b.began); took != time.Minute {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestNothingToPrepare(t *testing.T) {
	prepare(t.Context(), struct{ backends.Backend }{}, slog.New(slog.DiscardHandler))
}

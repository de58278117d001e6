package pusher_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/pusher"
)

// TestWhatBackendsSay: neither a secret that a service repeats nor more than a bound of what
// it says is logged, shown or kept with an event. Why it fails is still known.
func TestWhatBackendsSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := "login eventpusher:hunter2 refused " + strings.Repeat("x", 1<<20)
		b := &fakeBackend{name: "b", publish: func(_ context.Context, batch []event.Event) []error {
			errs := make([]error, len(batch))
			for i := range errs {
				errs[i] = fmt.Errorf("rabbit: %w", backends.Permanent(errors.New(said)))
			}
			return errs
		}}
		var log bytes.Buffer
		box, _, _ := openOutbox(t, t.TempDir())
		p := start(t, pusher.Options{Backends: one(b), Outbox: box, Log: slog.New(slog.NewTextHandler(&log, nil)), Redact: strings.NewReplacer("hunter2", "***").Replace})
		p.Push([]event.Event{of("bob", "1")})
		pass(time.Minute)
		dead := letters(t, box.DeadLetters())
		if len(dead) != 1 || dead[0].Reason != "permanent" {
			t.Fatalf("%+v", dead)
		}
		for what, text := range map[string]string{"dead letter": dead[0].Err, "status": p.Status().Backends[0].LastError, "log": log.String()} {
			if strings.Contains(text, "hunter2") || !strings.Contains(text, "eventpusher:***") || len(text) > 3<<10 {
				t.Errorf("%s: %d bytes: %.200s", what, len(text), text)
			}
		}
	})
}

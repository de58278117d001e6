package backends_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"eventpusher/backends"
)

func TestReason(t *testing.T) {
	cause := errors.New("cause")
	for _, tc := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{cause, "transient"},
		{context.Canceled, "transient"},
		{context.DeadlineExceeded, "timeout"},
		{backends.Permanent(cause), "permanent"},
		{backends.RetryAfter(time.Second, cause), "retry_after"},
		{backends.Paused(cause), "paused"},
		{backends.ErrGone, "gone"},
		{backends.Permanent(backends.ErrTooLarge), "too_large"},
	} {
		if got := backends.Reason(tc.err); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.err, got, tc.want)
		}
		if tc.err == nil {
			continue
		}
		wrapped := fmt.Errorf("sns: %w", tc.err)
		if got := backends.Reason(wrapped); got != tc.want {
			t.Errorf("%v: %q, want %q", wrapped, got, tc.want)
		}
	}
	for _, err := range []error{backends.Permanent(cause), backends.RetryAfter(time.Second, cause), backends.Paused(cause)} {
		if !errors.Is(err, cause) {
			t.Errorf("%v hides its cause", err)
		}
	}
}

package backends_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
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
		{backends.Wait(time.Second, cause), "waiting"},
		{backends.Wait(time.Second, backends.RetryAfter(time.Second, cause)), "waiting"},
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

func TestWithoutURL(t *testing.T) {
	cause := errors.New("cause")
	hidden := &url.Error{Op: "Post", URL: "http://localhost/?token=hunter2", Err: cause}
	for _, err := range []error{cause, hidden, fmt.Errorf("wrapped: %w", hidden)} {
		if got := backends.WithoutURL(err); got != cause {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	if got := backends.WithoutURL(nil); got != nil {
		t.Errorf("nil becomes %v", got)
	}
}

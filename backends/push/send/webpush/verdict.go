package webpush

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/push/internal/provider"
	"eventpusher/backends/push/notify"
)

// busyPause is for a push service that is asked too much and does not say for how long
// to stop. Some lock out who goes on.
const busyPause = 30 * time.Second

// verdict is the table of Send.
func verdict(a *provider.Answer) error {
	var says struct {
		Reason string `json:"reason"` // Apple
		Error  string `json:"error"`  // Mozilla
	}
	if a.Status >= 400 && json.Unmarshal(a.Body, &says) == nil && says.Reason == "" {
		says.Reason = says.Error
	}
	err := a.Err(says.Reason)
	switch {
	case a.Status == http.StatusNotFound, a.Status == http.StatusGone:
		return &notify.DeadError{Err: err}
	case a.Status == http.StatusTooManyRequests:
		pause := backends.AskedPause(a.Header, a.At)
		if pause == 0 {
			pause = busyPause
		}
		return backends.RetryAfter(pause, err)
	case a.Status == http.StatusUnauthorized, a.Status == http.StatusForbidden:
		return backends.Permanent(fmt.Errorf("%w: subscriptions are bound to the VAPID key that they were made with; check key and subject", err))
	case a.Status >= 300 && a.Status <= 399:
		return backends.Permanent(fmt.Errorf("%w: redirects are not followed", err))
	}
	return a.Verdict(err)
}

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

// verdict says what an answer means:
//
//	2xx            nil; RFC 8030 has 201, some services answer 200, 202 or 204
//	404, 410       dead (RFC 8030 section 7.3)
//	413            too large
//	429            after Retry-After, else 30 seconds
//	408, 425, 5xx  transient, after Retry-After where it is given
//	401, 403       permanent: the subscription was made for another VAPID key, or the service
//	               does not like the subject (Apple: BadJwtToken)
//	3xx            permanent: redirects are not followed, they could lead inside
//	other 4xx      permanent
//
// Nothing pauses the sender as a whole: any user's own push service could do that.
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

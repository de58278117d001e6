package backends

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter bounds the pause that a service can ask for: a misplaced header
// must not stop deliveries for years.
const maxRetryAfter = 24 * time.Hour

// OfStatus classifies err, which says that a service answered with the status code
// and the headers h at the time now. It returns nil for success, whatever err is.
// Services whose answers mean more than their status look at those first.
//
//	2xx                 nil
//	3xx                 paused: the operator has to enter the new address
//	401, 403            paused: the operator has to fix access
//	408, 425, 429, 5xx  transient, after Retry-After where it is given
//	413                 too large, permanent
//	410 and other 4xx   permanent
func OfStatus(code int, h http.Header, now time.Time, err error) error {
	switch {
	case code >= 200 && code <= 299:
		return nil
	case code >= 300 && code <= 399, code == http.StatusUnauthorized, code == http.StatusForbidden:
		return Paused(err)
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		if pause := AskedPause(h, now); pause > 0 {
			return RetryAfter(pause, err)
		}
		return err
	case code == http.StatusRequestEntityTooLarge:
		return Permanent(fmt.Errorf("%w: %w", err, ErrTooLarge))
	}
	return Permanent(err)
}

// AskedPause reads the Retry-After of RFC 9110 section 10.2.3: seconds or a date.
// A date is taken relative to the answer's own Date, so that our clocks need not
// agree. The result is between 0 and 24 hours; 0 means that none was asked.
func AskedPause(h http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		seconds = min(max(seconds, 0), int64(maxRetryAfter/time.Second))
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

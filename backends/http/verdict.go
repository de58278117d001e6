package http

import (
	"errors"
	"fmt"
	nethttp "net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"eventpusher/backends"
)

// maxRetryAfter bounds the pause that a receiver can ask for: a misplaced header
// must not stop deliveries for years.
const maxRetryAfter = 24 * time.Hour

// verdict says what an answer means for its event. MongooseIM takes every answer
// for success; here only 2xx is.
//
//	3xx                 paused: the operator has to enter the new address
//	401, 403            paused: the operator has to fix access
//	408, 425, 429, 5xx  transient, after Retry-After where it is given
//	413                 too large, permanent
//	410 and other 4xx   permanent
func verdict(resp *nethttp.Response, now time.Time) error {
	code := resp.StatusCode
	answered := fmt.Errorf("answered %d %s", code, nethttp.StatusText(code))
	switch {
	case code >= 200 && code <= 299:
		return nil
	case code >= 300 && code <= 399:
		return backends.Paused(fmt.Errorf("%w%s; redirects are not followed: set the pool's host and the handler's path to the final address",
			answered, location(resp)))
	case code == nethttp.StatusUnauthorized || code == nethttp.StatusForbidden:
		return backends.Paused(fmt.Errorf("%w: the receiver refuses our access; check its rules, and path and path_prefix where they hold its secret", answered))
	case code == nethttp.StatusRequestTimeout, code == nethttp.StatusTooEarly, code == nethttp.StatusTooManyRequests, code >= 500:
		if pause := retryAfter(resp.Header, now); pause > 0 {
			return backends.RetryAfter(pause, answered)
		}
		return answered
	case code == nethttp.StatusRequestEntityTooLarge:
		return backends.Permanent(fmt.Errorf("%w: %w", answered, backends.ErrTooLarge))
	}
	return backends.Permanent(answered)
}

// wrapVerdict puts the address before an error and keeps its classification.
func wrapVerdict(shown string, err error) error {
	return fmt.Errorf("http: POST %s: %w", shown, err)
}

// retryAfter reads the header of RFC 9110 section 10.2.3: seconds or a date.
// A date is taken relative to the answer's own Date, so that our clocks need not
// agree. The result is between 0 and maxRetryAfter; 0 means that none was asked.
func retryAfter(h nethttp.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		seconds = min(max(seconds, 0), int64(maxRetryAfter/time.Second))
		return time.Duration(seconds) * time.Second
	}
	at, err := nethttp.ParseTime(value)
	if err != nil {
		return 0
	}
	if date, err := nethttp.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// location returns where a redirect points, fit for an error: at most scheme and
// host, since the path may repeat a secret of ours.
func location(resp *nethttp.Response) string {
	target := resp.Header.Get("Location")
	u, err := url.Parse(target)
	if target == "" || err != nil {
		return ""
	}
	if u.Host == "" {
		return " to another path"
	}
	return " to " + redact(u)
}

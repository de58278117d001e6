package http

import (
	"fmt"
	nethttp "net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"eventpusher/backends"
)

// verdict says what an answer means. MongooseIM takes every answer for success; here only
// 2xx is.
//
//	400, 413, 414, 415, 422                   about the event: a dead letter
//	3xx, 401, 403, 404, 405, 410, 421         about the address: paused, everything is kept
//	all others                                tried again, after Retry-After where it is given
//
// So a receiver that is being replaced, and answers 404 meanwhile, loses nothing.
func verdict(resp *nethttp.Response, now time.Time) error {
	code := resp.StatusCode
	err := fmt.Errorf("answered %d %s", code, nethttp.StatusText(code))
	switch code {
	case nethttp.StatusBadRequest, nethttp.StatusRequestURITooLong, nethttp.StatusUnsupportedMediaType, nethttp.StatusUnprocessableEntity:
		return backends.Permanent(err)
	case nethttp.StatusUnauthorized, nethttp.StatusForbidden:
		return backends.Refused(fmt.Errorf("%w: the receiver refuses our access; check its rules, what authenticates us, and the address where it holds a secret", err))
	case nethttp.StatusNotFound, nethttp.StatusMethodNotAllowed, nethttp.StatusGone, nethttp.StatusMisdirectedRequest:
		return backends.Refused(fmt.Errorf("%w: nothing takes events at this address; check it, and whether the receiver runs", err))
	}
	if code >= 300 && code <= 399 {
		return backends.Refused(fmt.Errorf("%w%s; redirects are not followed: write the final address into the configuration", err, location(resp)))
	}
	err = backends.OfStatus(code, resp.Header, now, err)
	if code == nethttp.StatusInternalServerError {
		return &brokenError{err}
	}
	if code >= 400 && code <= 499 && backends.Reason(err) == "permanent" { // none of those above
		return fmt.Errorf("answered %d %s", code, nethttp.StatusText(code))
	}
	return err
}

// brokenError says that the receiver has failed, perhaps over what is in the request.
type brokenError struct{ error }

// Unwrap returns the cause.
func (e *brokenError) Unwrap() error { return e.error }

// shownHeaders are those of an answer that say something about deliveries, and hold no
// secrets.
var shownHeaders = []string{"Content-Type", "Content-Length", "Date", "Retry-After", "Server", "Via", "X-Request-Id", "Www-Authenticate", "Allow"}

// described is the status line and headers of an answer.
func described(resp *nethttp.Response) string {
	lines := []string{resp.Proto + " " + resp.Status}
	for _, name := range shownHeaders {
		for _, value := range resp.Header.Values(name) {
			lines = append(lines, name+": "+strings.Map(func(r rune) rune {
				if unicode.IsPrint(r) {
					return r
				}
				return -1
			}, value))
		}
	}
	if to := location(resp); to != "" {
		lines = append(lines, "redirects"+to)
	}
	return strings.Join(lines, "\n  ")
}

// wrapVerdict puts the address before an error and keeps its classification.
func wrapVerdict(shown string, err error) error {
	return fmt.Errorf("http: POST %s: %w", shown, err)
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

package http

import (
	"fmt"
	nethttp "net/http"
	"net/url"
	"time"

	"eventpusher/backends"
)

// verdict says what an answer means for its event: backends.OfStatus, with what the
// operator can do about it. MongooseIM takes every answer for success; here only
// 2xx is.
func verdict(resp *nethttp.Response, now time.Time) error {
	code := resp.StatusCode
	err := fmt.Errorf("answered %d %s", code, nethttp.StatusText(code))
	switch {
	case code >= 300 && code <= 399:
		err = fmt.Errorf("%w%s; redirects are not followed: write the final address into the configuration",
			err, location(resp))
	case code == nethttp.StatusUnauthorized || code == nethttp.StatusForbidden:
		err = fmt.Errorf("%w: the receiver refuses our access; check its rules, and the address where it holds its secret", err)
	}
	return backends.OfStatus(code, resp.Header, now, err)
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

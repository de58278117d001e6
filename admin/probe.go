package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
	"unicode"

	"eventpusher/config"
)

// probeTimeout is the longest that a probe waits, whatever its context says.
const probeTimeout = 5 * time.Second

// Probe asks the admin listener of another process on this machine for path and
// returns nil if it answers 200. listen is that process's [admin] listen; an
// address that stands for all interfaces is asked on loopback. The token, if there
// is one, lets /readyz give its reasons off loopback too.
func Probe(ctx context.Context, listen, path string, token config.Secret) error {
	host, port, err := splitListen(listen)
	if err != nil {
		return err
	}
	if port == "0" {
		return fmt.Errorf("admin: listen = %q lets the system choose the port, so that nothing can ask it; set a port", listen)
	}
	hosts := []string{host}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host, hosts = "localhost", []string{"127.0.0.1", "::1"}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return fmt.Errorf("admin: ask %s for %s: %w", listen, path, err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
	}
	client := http.Client{
		// No proxy: the token must not go anywhere else.
		Transport:     &http.Transport{DialContext: dialFirst(hosts, port), DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return explainProbe(listen, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return explainProbe(listen, err)
	}
	return judge(listen, path, resp.StatusCode, oneLine(body))
}

// dialFirst connects to the first of hosts that takes the connection.
func dialFirst(hosts []string, port string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		var errs []error
		for _, host := range hosts {
			conn, err := d.DialContext(ctx, network, net.JoinHostPort(host, port))
			if err == nil {
				return conn, nil
			}
			errs = append(errs, err)
		}
		return nil, errors.Join(errs...)
	}
}

func explainProbe(listen string, err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens on %s: eventpusher is not running, or runs with another [admin] listen", listen)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s within the time allowed", listen)
	}
	return fmt.Errorf("ask %s: %w", listen, err)
}

func judge(listen, path string, code int, body string) error {
	switch code {
	case http.StatusOK:
		return nil
	case http.StatusServiceUnavailable:
		return fmt.Errorf("not ready: %s", body)
	case http.StatusUnauthorized:
		return fmt.Errorf("%s wants another token than that of [admin] for %s", listen, path)
	}
	return fmt.Errorf("%s answered %d to %s; is it eventpusher's [admin] listener?", listen, code, path)
}

// oneLine makes an answer fit for a terminal: lines joined, controls removed.
func oneLine(body []byte) string {
	lines := strings.FieldsFunc(string(body), func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.Join(lines, "; "))
}

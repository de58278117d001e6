package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"eventpusher/internal/finding"
	"eventpusher/pusher/outbox"
)

// Client asks the instance that has the outbox of a directory open.
type Client struct{ http *http.Client }

// requestTimeout is generous: a change of very many letters takes its time.
const requestTimeout = 5 * time.Minute

// Dial returns a client for the socket in dir, or an error if nobody answers there.
func Dial(ctx context.Context, dir string) (*Client, error) {
	path := filepath.Join(dir, SocketName)
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	conn.Close()
	return &Client{&http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		},
	}}, nil
}

// List implements Letters.
func (c *Client) List(f outbox.LetterFilter) (list []outbox.DeadLetter, err error) {
	err = c.ask(http.MethodGet, "/dead-letters", encode(f), &list)
	return list, err
}

// Get implements Letters.
func (c *Client) Get(id uint64) (d outbox.DeadLetter, err error) {
	err = c.ask(http.MethodGet, "/dead-letters/"+strconv.FormatUint(id, 10), nil, &d)
	return d, err
}

// Drop implements Letters.
func (c *Client) Drop(f outbox.LetterFilter) (int, error) {
	var n count
	err := c.ask(http.MethodPost, "/dead-letters/drop", encode(f), &n)
	return n.Count, err
}

// Replay implements Letters.
func (c *Client) Replay(f outbox.LetterFilter) (int, error) {
	var n count
	err := c.ask(http.MethodPost, "/dead-letters/replay", encode(f), &n)
	return n.Count, err
}

// Move gives what waits for a backend that is not configured to one that is, and returns
// how many events that were. The error wraps fs.ErrNotExist if nothing is kept for from.
func (c *Client) Move(ctx context.Context, from, to string) (int, error) {
	var n count
	err := c.askWithin(ctx, http.MethodPost, "/outbox/move", url.Values{"from": {from}, "to": {to}}, &n)
	return n.Count, err
}

// Forget gives up what waits for a backend that is not configured, and returns how many
// events that were. The error wraps fs.ErrNotExist if nothing is kept for it.
func (c *Client) Forget(ctx context.Context, backend string) (int, error) {
	var n count
	err := c.askWithin(ctx, http.MethodPost, "/outbox/forget", url.Values{"from": {backend}}, &n)
	return n.Count, err
}

// Waiting says what Forget would give up.
func (c *Client) Waiting(ctx context.Context, backend string) (int, error) {
	var n count
	err := c.askWithin(ctx, http.MethodGet, "/outbox/waiting", url.Values{"from": {backend}}, &n)
	return n.Count, err
}

// Doctor has the instance examine itself and its surroundings.
func (c *Client) Doctor(ctx context.Context) (list []finding.Finding, err error) {
	err = c.askWithin(ctx, http.MethodGet, "/doctor", nil, &list)
	return list, err
}

func (c *Client) ask(method, path string, query url.Values, result any) error {
	return c.askWithin(context.Background(), method, path, query, result)
}

func (c *Client) askWithin(ctx context.Context, method, path string, query url.Values, result any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := c.open(ctx, method, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(result); err != nil {
		return fmt.Errorf("control: the answer cannot be read: %w", err)
	}
	return nil
}

// open sends a request and returns the body of the answer, unless it is a failure.
func (c *Client) open(ctx context.Context, method, path string, query url.Values) (io.ReadCloser, error) {
	// The host is never looked up: the socket is dialled whatever it says.
	u := url.URL{Scheme: "http", Host: "control", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	var f failure
	if err := json.Unmarshal(data, &f); err != nil || f.Error == "" {
		return nil, fmt.Errorf("control: %s", resp.Status)
	}
	if resp.StatusCode == http.StatusNotFound {
		return nil, &notThere{f.Error}
	}
	return nil, fmt.Errorf("control: the running instance says: %s", f.Error)
}

// notThere carries outbox.ErrNoLetter and fs.ErrNotExist over the socket.
type notThere struct{ text string }

func (e *notThere) Error() string { return e.text }
func (e *notThere) Is(target error) bool {
	return target == outbox.ErrNoLetter || target == fs.ErrNotExist
}

package jetstream_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/internal/natsrpc"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
)

// loserEnv tells the test binary to be one instance of a cluster. Its value is a loser.
const loserEnv = "EVENTPUSHER_LOSER"

// loser is an instance in a process of its own, so that it can be paused and killed. It
// reads events from the feed of the test while it holds the link, and delivers what it is
// given to the test's sinks.
type loser struct {
	URL, Prefix, Instance string
	Replicas              int
	Backends              []string
	Takeover              time.Duration
	Limits                outbox.WindowLimits
	Feed                  string // address
	Sink                  string // URL
	Lanes                 int
}

// run is the life of the process.
func (l *loser) run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := jetstream.Open(jetstream.Options{
		Options:  natsrpc.Options{URL: l.URL, Prefix: l.Prefix, Instance: l.Instance, Replicas: l.Replicas, Log: log},
		Backends: l.Backends, Takeover: l.Takeover, WindowLimits: l.Limits,
	})
	if err != nil {
		return err
	}
	var list []backends.Backend
	for _, name := range l.Backends {
		list = append(list, &sinkBackend{name: name, url: l.Sink + "/" + name, lanes: l.Lanes, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}})
	}
	refusals := &refusals{}
	p, err := pusher.New(pusher.Options{Backends: list, Outbox: e, Log: log, Feeds: refusals})
	if err != nil {
		return err
	}
	delivering, end := context.WithCancel(context.Background())
	defer end()
	done := make(chan error, 1)
	go func() { done <- p.Run(delivering) }()
	err = e.Lead(ctx, func(turn context.Context) error {
		for turn.Err() == nil {
			if err := l.link(turn, e, p, refusals); err != nil && turn.Err() == nil {
				<-time.After(50 * time.Millisecond)
			}
		}
		if ctx.Err() != nil {
			flushing, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			p.Flush(flushing)
		}
		p.Withdraw()
		return nil
	})
	drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	p.Drain(drain)
	return errors.Join(err, func() error { end(); return <-done }(), e.Close())
}

// refusals is the feed's end of pusher.Feeds: what is refused ends the connection.
type refusals struct{ then atomic.Pointer[func()] }

func (*refusals) Kept([]outbox.Position) {}

func (r *refusals) Refused(string) {
	if then := r.then.Load(); then != nil {
		(*then)()
	}
}

// link is one connection to the feed. It says where this instance stands, and takes what
// follows.
func (l *loser) link(turn context.Context, e *jetstream.Engine, p *pusher.Pusher, refusals *refusals) error {
	conn, err := new(net.Dialer).DialContext(turn, "tcp", l.Feed)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(turn, func() { conn.Close() })()
	last := uint64(0)
	for _, at := range e.Positions() {
		last = at.Seq
	}
	if _, err := fmt.Fprintf(conn, "%s %d\n", l.Instance, last); err != nil {
		return err
	}
	var refused atomic.Bool
	refuse := func() {
		refused.Store(true) // it is sent again on the next connection
		conn.Close()
	}
	refusals.then.Store(&refuse)
	for lines := bufio.NewScanner(conn); lines.Scan() && !refused.Load(); {
		var seq uint64
		var key string
		if _, err := fmt.Sscan(lines.Text(), &seq, &key); err != nil {
			return err
		}
		ev := event.Event{
			ID: fmt.Sprint(seq), Kind: event.Chat, Type: "chat", Direction: event.In, From: "u@h/r", To: jid.JID(key + "@h"), User: "u@h",
			Body: key, HasBody: true, Time: time.Now(), Packet: "<message>" + strings.Repeat("x", 400) + "</message>",
		}
		if !p.PushFeed([]event.Event{ev}, outbox.Position{Source: "feed", Epoch: "e", Seq: seq}) {
			refuse()
		}
	}
	return io.ErrUnexpectedEOF
}

// sinkBackend posts events to the test.
type sinkBackend struct {
	name, url string
	lanes     int
	client    *http.Client
}

func (b *sinkBackend) Name() string            { return b.name }
func (b *sinkBackend) Wants(*event.Event) bool { return true }
func (b *sinkBackend) Limits() backends.Limits { return backends.Limits{Lanes: b.lanes, Batch: 1} }
func (b *sinkBackend) Close() error            { b.client.CloseIdleConnections(); return nil }

// Publish implements backends.Backend.
func (b *sinkBackend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	for i := range batch {
		errs[i] = b.post(ctx, &batch[i])
	}
	return errs
}

func (b *sinkBackend) post(ctx context.Context, e *event.Event) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("%s?id=%s&key=%s&epoch=%d", b.url, e.ID, e.Body, backends.Epoch(ctx)), nil)
	if err != nil {
		return err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

// beLoser runs an instance if this process is meant to be one.
func beLoser() {
	text := os.Getenv(loserEnv)
	if text == "" {
		return
	}
	var l loser
	err := json.Unmarshal([]byte(text), &l)
	if err == nil {
		err = l.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "loser:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/internal/natsrpc"
	"eventpusher/internal/tlsconfig"
)

const (
	connectTimeout = 5 * time.Second // with one server
	closeTimeout   = 2 * time.Second
)

// server is one of the servers of a destination.
type server struct {
	url     string
	shown   string // host and port
	options []natsgo.Option
}

func newServers(c config.NATSServers) (list []server, err error) {
	for one := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil {
			return nil, errors.New("url is no URL")
		}
		s := server{url: u.String(), shown: u.Host}
		if c.TLS != nil {
			secured, err := tlsconfig.Client(c.TLS, u.Hostname())
			if err != nil {
				return nil, err
			}
			s.options = append(s.options, natsgo.Secure(secured))
		} else if u.Scheme == "tls" || u.Scheme == "wss" {
			s.options = append(s.options, natsgo.Secure(&tls.Config{ServerName: u.Hostname()}))
		}
		if c.CredentialsFile != "" {
			s.options = append(s.options, natsgo.UserCredentials(c.CredentialsFile))
		}
		if c.Username != "" {
			s.options = append(s.options, natsgo.UserInfo(c.Username, c.Password.Reveal()))
		}
		list = append(list, s)
	}
	return list, nil
}

// session is one connection.
type session struct {
	backend *Backend
	server  string
	conn    *natsgo.Conn
	js      jetstream.JetStream
	raw     atomic.Pointer[net.Conn]
	gone    chan struct{} // closed when the connection is
	failed  error         // to reach the server, before there is a connection

	mu       sync.Mutex
	refusals int            // so far
	next     chan struct{}  // closed at the next one
	latest   map[string]int // number of the latest refusal by subject
	deaf     bool           // the server refuses our inbox, where acknowledgements go
	stalled  bool           // acknowledgements are missing, for which the library would wait for ever
}

// usable reports whether messages can be published.
func (s *session) usable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.deaf && !s.stalled && s.conn.IsConnected()
}

// session returns a live connection, and makes one if need be. Others wait meanwhile.
func (b *Backend) session(ctx context.Context) (*session, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("nats: %w", ctx.Err())
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("nats: connecting: %w", ctx.Err())
	}
	if b.closed {
		return nil, errClosed
	}
	if b.current != nil {
		if b.current.usable() {
			return b.current, nil
		}
		b.current.close()
		b.current = nil
	}
	s, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	b.log.Info("connected to NATS", "backend", b.name, "server", s.server, "version", s.conn.ConnectedServerVersion())
	b.current = s
	return s, nil
}

// connect tries the servers one after the other.
func (b *Backend) connect(ctx context.Context) (*session, error) {
	var failed error
	for _, server := range b.servers {
		s, err := b.dial(ctx, server)
		switch {
		case err == nil:
			return s, nil
		case failed == nil:
			failed = err
		default:
			failed = fmt.Errorf("%w; %w", failed, err)
		}
	}
	return nil, failed
}

// dial connects to one server within ctx.
func (b *Backend) dial(ctx context.Context, server server) (*session, error) {
	s := &session{backend: b, server: server.shown, gone: make(chan struct{}), next: make(chan struct{}), latest: make(map[string]int)}
	options := append([]natsgo.Option{
		natsgo.Name("eventpusher"), natsgo.Timeout(connectTimeout), natsgo.SetCustomDialer(s.dialer(ctx)),
		// Publish connects again, so that an event fails with the reason.
		natsgo.NoReconnect(),
		natsgo.PingInterval(2 * time.Second), natsgo.MaxPingsOutstanding(2),
		natsgo.ClosedHandler(func(*natsgo.Conn) { close(s.gone) }),
		natsgo.DisconnectErrHandler(s.lost),
		natsgo.ErrorHandler(s.report), // without it the library writes to the standard error
	}, server.options...)
	release := context.AfterFunc(ctx, s.cut)
	defer release()
	conn, err := natsgo.Connect(server.url, options...)
	if err == nil {
		s.conn = conn
		if s.js, err = jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(2*lanes*batch)); err != nil {
			conn.Close()
		}
	}
	switch {
	case err == nil:
		return s, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("nats: connecting to %s: %w", server.shown, ctx.Err())
	case errors.Is(err, natsgo.ErrNoServers) && s.failed != nil:
		err = s.failed // the reason, which the library leaves out
	}
	return nil, explain(server.shown, err)
}

// dialFunc is what the library calls to connect.
type dialFunc func(network, address string) (net.Conn, error)

// Dial implements the library's CustomDialer.
func (f dialFunc) Dial(network, address string) (net.Conn, error) { return f(network, address) }

// dialer makes connections end with ctx, and keeps the socket.
func (s *session) dialer(ctx context.Context) dialFunc {
	return func(network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			s.failed = err
			return nil, err
		}
		s.raw.Store(&conn)
		return conn, nil
	}
}

// cut ends the connection at once, whatever is blocked on it.
func (s *session) cut() {
	if raw := s.raw.Load(); raw != nil {
		_ = (*raw).Close()
	}
}

// close ends the connection, with what is written and not yet sent, and returns when the
// library has let go of it.
func (s *session) close() {
	timer := time.AfterFunc(closeTimeout, s.cut)
	defer timer.Stop()
	s.conn.Close()
	<-s.gone
}

func (s *session) lost(_ *natsgo.Conn, err error) {
	if err != nil {
		s.backend.log.Warn("connection to NATS lost", "backend", s.backend.name, "server", s.server, "err", err)
	}
}

// report takes what the library and the server say aside from any answer. A refusal names
// the subject, which can hold addresses of users, so it is not logged.
func (s *session) report(_ *natsgo.Conn, _ *natsgo.Subscription, err error) {
	if !errors.Is(err, natsgo.ErrPermissionViolation) {
		s.backend.log.Warn("NATS reports an error", "backend", s.backend.name, "server", s.server, "err", err)
		return
	}
	_, rest, _ := strings.Cut(err.Error(), `"`)
	name, _, _ := strings.Cut(rest, `"`)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.latest) >= 2*lanes*batch { // of calls that have returned
		clear(s.latest)
	}
	s.refusals++
	s.latest[name] = s.refusals
	s.deaf = s.deaf || strings.HasPrefix(name, natsgo.InboxPrefix)
	close(s.next)
	s.next = make(chan struct{})
}

// errDenied says that the server does not let the user publish to a subject.
var errDenied = errors.New("the user may not publish there, or not receive the acknowledgement")

// errNoAck says that an acknowledgement did not come.
var errNoAck = fmt.Errorf("no acknowledgement within %v: %w", ackTimeout, context.DeadlineExceeded)

// noRetries keeps the library from trying again by itself while a stream has no leader.
var noRetries = jetstream.WithRetryAttempts(0)

// refusalsSoFar counts what the server has refused.
func (s *session) refusalsSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusals
}

// refused reports whether a refusal after the number since is about subject or our inbox,
// and returns what is closed at the next one.
func (s *session) refused(subject string, since int) (yes bool, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deaf || s.latest[subject] > since, s.next
}

// await waits for the acknowledgement of one message that was written after the refusal
// number since. What is decided counts, even if ctx has ended meanwhile.
func (s *session) await(ctx context.Context, ack jetstream.PubAckFuture, since int) error {
	for {
		refused, next := s.refused(ack.Msg().Subject, since)
		select {
		case <-ack.Ok():
			return nil
		case err := <-ack.Err():
			return err
		default:
		}
		if refused {
			return errDenied
		}
		select {
		case <-ack.Ok():
			return nil
		case err := <-ack.Err():
			return err
		case <-next:
		case <-s.gone:
			return natsgo.ErrConnectionClosed
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			s.stalled = true
			return context.Cause(ctx)
		}
	}
}

// explain says why a connection to a server was not made, and what to do.
func explain(server string, err error) error {
	remedy := ""
	switch {
	case errors.Is(err, natsgo.ErrAuthorization), errors.Is(err, natsgo.ErrAuthExpired), errors.Is(err, natsgo.ErrAuthRevoked), errors.Is(err, natsgo.ErrAccountAuthExpired):
		remedy = ": check credentials_file, or username and password"
	case errors.Is(err, natsgo.ErrSecureConnWanted):
		remedy = ": the server does not speak TLS: remove the tls section, or configure TLS there"
	}
	lasting := natsrpc.Lasting(err)
	err = fmt.Errorf("nats: connecting to %s: %w%s", server, err, remedy)
	if lasting {
		return backends.Paused(err)
	}
	return err
}

package rabbit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/internal/tlsconfig"
)

const (
	heartbeat = 10 * time.Second
	// connectTimeout covers TCP, TLS and the AMQP handshake. It is longer than the
	// 3 seconds that RabbitMQ waits before it hangs up on wrong credentials.
	connectTimeout = 10 * time.Second
	// writeTimeout ends writes to a broker that has stopped reading.
	writeTimeout = 20 * time.Second
)

// dialer opens connections to one broker.
type dialer struct {
	address string
	pool    config.RabbitPool
	tls     *tls.Config
}

func newDialer(pool config.RabbitPool, address string) (dialer, error) {
	d := dialer{address: address, pool: pool}
	if pool.TLS == nil {
		return d, nil
	}
	var err error
	if d.tls, err = tlsconfig.Client(pool.TLS, pool.Host); err != nil {
		return d, fmt.Errorf("rabbit: %w", err)
	}
	return d, nil
}

// wire bounds each write: a broker that stops reading, hung or under an alarm,
// would otherwise hold the writer for ever.
type wire struct{ net.Conn }

func (w wire) Write(p []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

// dial connects and logs in within ctx; the net.Conn is what cuts the connection off.
func (d dialer) dial(ctx context.Context) (*amqp.Connection, net.Conn, error) {
	var nd net.Dialer
	raw, err := nd.DialContext(ctx, "tcp", d.address)
	if err != nil {
		return nil, nil, fmt.Errorf("rabbit: %w", err)
	}
	conn := raw
	if d.tls != nil {
		secured := tls.Client(raw, d.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, nil, fmt.Errorf("rabbit: TLS with %s: %w (does this port speak TLS? RabbitMQ's usually is 5671)", d.address, err)
		}
		conn = secured
	}
	// The library's handshake knows no context: closing the socket ends it.
	release := context.AfterFunc(ctx, func() { raw.Close() })
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName("eventpusher")
	c, err := amqp.Open(wire{conn}, amqp.Config{
		SASL:       []amqp.Authentication{&amqp.PlainAuth{Username: d.pool.Username, Password: d.pool.Password.Reveal()}},
		Vhost:      d.pool.VirtualHost,
		Heartbeat:  heartbeat,
		Locale:     "en_US",
		Properties: properties,
	})
	if !release() && ctx.Err() != nil {
		// What the library makes of the closed socket (often "wrong credentials")
		// would mislead.
		raw.Close()
		return nil, nil, fmt.Errorf("rabbit: no answer to the login at %s: %w", d.address, ctx.Err())
	}
	if err != nil {
		raw.Close()
		return nil, nil, d.explain(err)
	}
	return c, raw, nil
}

// explain says in one sentence why a login was refused, and what to do.
func (d dialer) explain(err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("rabbit: login at %s: %w", d.address, err)
	}
	switch {
	case errors.Is(err, amqp.ErrCredentials), e.Code == amqp.AccessRefused && !errors.Is(err, amqp.ErrVhost) && !errors.Is(err, amqp.ErrSASL):
		return backends.Paused(fmt.Errorf("rabbit: %s refuses the login of user %q: check username and password of the pool (%w)",
			d.address, d.pool.Username, err))
	case errors.Is(err, amqp.ErrVhost), e.Code == amqp.NotAllowed && !strings.Contains(e.Reason, "limit"):
		return backends.Paused(fmt.Errorf("rabbit: user %q gets no access to virtual host %q at %s: create it, or grant the user access (%w)",
			d.pool.Username, d.pool.VirtualHost, d.address, err))
	case d.tls == nil && !e.Server:
		return fmt.Errorf("rabbit: login at %s: %w (if this port speaks TLS, configure the pool's tls)", d.address, err)
	}
	return fmt.Errorf("rabbit: login at %s: %w", d.address, err)
}

// attempt is one try to connect.
type attempt struct {
	done    chan struct{} // closed when session and err are set
	cancel  context.CancelFunc
	session *session
	err     error
}

// session returns a live connection. It joins the attempt to connect that is
// under way or starts one; within reconnect.delay of a failed one it returns the
// same error without trying.
func (b *Backend) session(ctx context.Context) (*session, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, errClosed
	}
	if b.current != nil && b.current.alive() {
		defer b.mu.Unlock()
		return b.current, nil
	}
	if b.attempt == nil {
		if time.Now().Before(b.pause) {
			defer b.mu.Unlock()
			return nil, b.failed
		}
		// Not ctx: a lane that gives up must not spoil it for the others.
		trying, cancel := context.WithTimeout(context.Background(), connectTimeout)
		b.attempt = &attempt{done: make(chan struct{}), cancel: cancel}
		b.tasks.Add(1)
		go b.connect(trying, b.attempt)
	}
	a := b.attempt
	b.mu.Unlock()
	select {
	case <-a.done:
		return a.session, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("rabbit: connecting to %s: %w", b.address, ctx.Err())
	}
}

// connect runs one attempt.
func (b *Backend) connect(ctx context.Context, a *attempt) {
	defer b.tasks.Done()
	defer a.cancel()
	conn, raw, err := b.dialer.dial(ctx)
	if err == nil {
		a.session = newSession(b, conn, raw)
	}
	a.err = err

	b.mu.Lock()
	b.attempt = nil
	switch {
	case err != nil:
		b.failures.Add(1)
		b.down = true
		b.failed, b.pause = err, time.Now().Add(b.pool.ReconnectDelay)
	case b.closed:
		defer a.session.close()
		a.session, a.err = nil, errClosed
	default:
		b.connections.Add(1)
		a.session.reborn, b.down = b.down, false
		b.current = a.session
		b.log.Info("connected to RabbitMQ", "backend", b.Name(), "address", b.address)
	}
	b.mu.Unlock()
	close(a.done)
}

package rabbit

import (
	"cmp"
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
	// connectTimeout covers TCP, TLS and the AMQP handshake. It is longer than the
	// 3 seconds that RabbitMQ waits before it hangs up on wrong credentials.
	connectTimeout   = 10 * time.Second
	defaultHeartbeat = 10 * time.Second
)

// dialer opens connections to one broker, which may have several nodes.
type dialer struct {
	pool  config.RabbitPool
	nodes []node
}

type node struct {
	address string
	tls     *tls.Config
}

// link is an open connection; raw is what cuts it off.
type link struct {
	address string
	conn    *amqp.Connection
	wire    *wire
	raw     net.Conn
}

func newDialer(pool config.RabbitPool) (dialer, error) {
	d := dialer{pool: pool}
	for _, address := range pool.Addresses {
		n := node{address: address}
		if pool.TLS != nil {
			host, _, err := net.SplitHostPort(address)
			if err == nil {
				n.tls, err = tlsconfig.Client(pool.TLS, host)
			}
			if err != nil {
				return d, fmt.Errorf("rabbit: %w", err)
			}
		}
		d.nodes = append(d.nodes, n)
	}
	return d, nil
}

// timeout is how long dial may take: connectTimeout for each node.
func (d dialer) timeout() time.Duration { return connectTimeout * time.Duration(len(d.nodes)) }

// user names in a sentence who logs in.
func (d dialer) user() string {
	if d.pool.SASL == saslExternal {
		return "the user of the client certificate"
	}
	return fmt.Sprintf("user %q", d.pool.Username)
}

// dial connects and logs in within ctx, at the first node that takes it. Each has an equal
// share of the time that is left. The error is the first that only an operator can mend, else
// it has those of all nodes.
func (d dialer) dial(ctx context.Context) (link, error) {
	deadline, limited := ctx.Deadline()
	var failed error
	for i, n := range d.nodes {
		trying, cancel := ctx, context.CancelFunc(func() {})
		if limited {
			trying, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(d.nodes)-i))
		}
		l, err := d.login(trying, n)
		cancel()
		switch {
		case err == nil:
			return l, nil
		case failed == nil || backends.Reason(err) == "paused" && backends.Reason(failed) != "paused":
			failed = err
		case backends.Reason(failed) != "paused":
			failed = fmt.Errorf("%w; %w", failed, err)
		}
	}
	return link{}, failed
}

func (d dialer) login(ctx context.Context, n node) (link, error) {
	var nd net.Dialer
	raw, err := nd.DialContext(ctx, "tcp", n.address)
	if err != nil {
		return link{}, fmt.Errorf("rabbit: %w", err)
	}
	conn := raw
	if n.tls != nil {
		secured := tls.Client(raw, n.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			raw.Close()
			return link{}, fmt.Errorf("rabbit: TLS with %s: %w%s", n.address, err, tlsHint(err))
		}
		conn = secured
	}
	// The library's handshake knows no context: closing the socket ends it.
	release := context.AfterFunc(ctx, func() { raw.Close() })
	w := &wire{Conn: conn, out: conn}
	c, err := amqp.Open(w, d.parameters())
	if !release() && ctx.Err() != nil {
		// What the library makes of the closed socket (often "wrong credentials")
		// would mislead.
		raw.Close()
		return link{}, fmt.Errorf("rabbit: no answer to the login at %s: %w", n.address, ctx.Err())
	}
	if err != nil {
		raw.Close()
		return link{}, d.explain(n, err)
	}
	return link{address: n.address, conn: c, wire: w, raw: raw}, nil
}

// tlsHint says what else may be wrong where the other side does not speak TLS.
func tlsHint(err error) string {
	var strange tls.RecordHeaderError
	if errors.As(err, &strange) {
		return " (does this port speak TLS? RabbitMQ's usually is 5671)"
	}
	return ""
}

// saslExternal is the value of config.RabbitPool.SASL with which the client certificate logs
// in (SASL EXTERNAL, RFC 4422 appendix A).
const saslExternal = "external"

// parameters are those of the AMQP handshake.
func (d dialer) parameters() amqp.Config {
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(cmp.Or(d.pool.ConnectionName, "eventpusher"))
	c := amqp.Config{
		SASL:       []amqp.Authentication{&amqp.PlainAuth{Username: d.pool.Username, Password: d.pool.Password.Reveal()}},
		Vhost:      d.pool.VirtualHost,
		Heartbeat:  cmp.Or(d.pool.Heartbeat, defaultHeartbeat),
		Locale:     "en_US",
		Properties: properties,
	}
	if d.pool.SASL == saslExternal {
		c.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	}
	return c
}

// explain says in one sentence why a login was refused, and what to do.
func (d dialer) explain(n node, err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("rabbit: login at %s: %w", n.address, err)
	}
	switch {
	case errors.Is(err, amqp.ErrSASL) && d.pool.SASL == saslExternal:
		return backends.Paused(fmt.Errorf("rabbit: %s does not offer the login by certificate: enable the plugin rabbitmq_auth_mechanism_ssl and add EXTERNAL to auth_mechanisms (%w)",
			n.address, err))
	case d.refusesLogin(err, e) && d.pool.SASL == saslExternal:
		return backends.Paused(fmt.Errorf("rabbit: %s refuses the login by certificate: add a user of the certificate's name (ssl_cert_login_from says which of its names) (%w)",
			n.address, err))
	case d.refusesLogin(err, e):
		return backends.Paused(fmt.Errorf("rabbit: %s refuses the login of user %q: check username and password of the pool (%w)",
			n.address, d.pool.Username, err))
	case errors.Is(err, amqp.ErrVhost), e.Code == amqp.NotAllowed && !strings.Contains(e.Reason, "limit"):
		return backends.Paused(fmt.Errorf("rabbit: %s gets no access to virtual host %q at %s: create it, or grant the user access (%w)",
			d.user(), d.pool.VirtualHost, n.address, err))
	case n.tls == nil && !e.Server:
		return fmt.Errorf("rabbit: login at %s: %w (if this port speaks TLS, configure the pool's tls)", n.address, err)
	}
	return fmt.Errorf("rabbit: login at %s: %w", n.address, err)
}

func (d dialer) refusesLogin(err error, e *amqp.Error) bool {
	return errors.Is(err, amqp.ErrCredentials) || e.Code == amqp.AccessRefused && !errors.Is(err, amqp.ErrVhost) && !errors.Is(err, amqp.ErrSASL)
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
		trying, cancel := context.WithTimeout(context.Background(), b.dialer.timeout())
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
	l, err := b.dialer.dial(ctx)
	if err == nil {
		a.session = newSession(b, l)
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
		b.log.Info("connected to RabbitMQ", "backend", b.Name(), "address", l.address)
	}
	b.mu.Unlock()
	close(a.done)
}

// Package natsrpc holds what the parts of eventpusher that share NATS have in common: the
// connection, registers with compare-and-set, questions between instances, and buckets of
// keys and values.
package natsrpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"eventpusher/config"
)

const (
	// RequestTimeout bounds one request.
	RequestTimeout = 5 * time.Second
	connectTimeout = 5 * time.Second
)

// Options say which servers to use, as whom.
type Options struct {
	URL             string      // one or more servers, separated by commas
	TLS             *tls.Config // nil: as the servers and URLs ask for
	CredentialsFile string      // of a NATS user (JWT and seed); empty: none
	Username        string      // empty: none
	Password        config.Secret
	// Prefix begins the names of all streams, buckets and subjects.
	Prefix string
	// Replicas is how many servers keep each stream.
	Replicas int
	Instance string       // a name for people
	Log      *slog.Logger // not nil
}

// Dial connects. lost and back are called when the connection is gone and when it is there
// again; they must not block. If no server can be reached, Dial returns a connection that
// goes on trying, and reachable is false. An error is one of the configuration: trying again
// does not mend it.
func Dial(o *Options, lost, back func()) (nc *nats.Conn, reachable bool, err error) {
	options := []nats.Option{
		nats.Name("eventpusher " + o.Instance), nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		// Without a connection a write fails at once. A buffered one could be sent after
		// another instance has written.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2),
		nats.IgnoreAuthErrorAbort(), // credentials may be mended while we run
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() {
				o.Log.Warn("the connection to NATS is lost; events wait until it is back", "err", err)
				lost()
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			o.Log.Info("connected to NATS", "server", nc.ConnectedUrlRedacted())
			back()
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { o.Log.Debug("NATS cannot be reached", "err", err) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { o.Log.Warn("NATS reports an error", "err", err) }),
	}
	if o.TLS != nil {
		options = append(options, nats.Secure(o.TLS))
	}
	if o.CredentialsFile != "" {
		options = append(options, nats.UserCredentials(o.CredentialsFile))
	}
	if o.Username != "" {
		options = append(options, nats.UserInfo(o.Username, o.Password.Reveal()))
	}
	nc, err = nats.Connect(o.URL, options...)
	switch {
	case err == nil:
		return nc, true, nil
	case Lasting(err):
		return nil, false, fmt.Errorf("connect to NATS: %w", Explain(err))
	}
	o.Log.Warn("NATS cannot be reached; it will be tried again until it can", "url", o.URL, "err", err)
	nc, err = nats.Connect(o.URL, append(options, nats.RetryOnFailedConnect(true))...)
	if err != nil {
		return nil, false, fmt.Errorf("connect to NATS: %w", Explain(err))
	}
	return nc, false, nil
}

// Lasting reports whether an error of connecting is one of the configuration.
func Lasting(err error) bool {
	for _, e := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
		nats.ErrSecureConnRequired, nats.ErrSecureConnWanted, nats.ErrNkeysNotSupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return !errors.Is(err, nats.ErrNoServers) && !isNetwork(err)
}

// isNetwork reports whether the server, or the way to it, may just be down.
func isNetwork(err error) bool {
	var network interface{ Timeout() bool } // net.Error, and what the system calls return
	return errors.As(err, &network) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, nats.ErrDisconnected) || errors.Is(err, io.EOF) || // the server went away in the handshake
		errors.Is(err, nats.ErrConnectionClosed)
}

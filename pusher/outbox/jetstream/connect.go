package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// dial connects. When no server can be reached it returns a connection that goes
// on trying, and reachable is false; errors are those that trying again does not
// mend.
func dial(o *Options, lost, back func()) (nc *nats.Conn, reachable bool, err error) {
	options := []nats.Option{
		nats.Name("eventpusher " + o.Instance), nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		// What is written while there is no connection fails at once: sent later, it
		// could come behind what another instance has written meanwhile.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
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
	case lasting(err):
		return nil, false, fmt.Errorf("outbox: connect to NATS: %w", explain(err))
	}
	o.Log.Warn("NATS cannot be reached; it will be tried again until it can", "url", o.URL, "err", err)
	nc, err = nats.Connect(o.URL, append(options, nats.RetryOnFailedConnect(true))...)
	if err != nil {
		return nil, false, fmt.Errorf("outbox: connect to NATS: %w", explain(err))
	}
	return nc, false, nil
}

// lasting reports whether an error of connecting is one of the configuration.
func lasting(err error) bool {
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
		errors.Is(err, nats.ErrDisconnected) || errors.Is(err, nats.ErrConnectionClosed)
}

// Error codes of the JetStream API that the client library has no names for.
const (
	errNotClustered js.ErrorCode = 10074 // replicas on a server that stands alone
	errNoPeers      js.ErrorCode = 10005 // no suitable servers for the replicas
)

// errsNoSpace are those for resources, memory and storage.
var errsNoSpace = []js.ErrorCode{10023, 10028, 10047}

// explained adds what can be done to an error of NATS.
type explained struct {
	err    error
	remedy string
}

func (e *explained) Error() string { return e.err.Error() + ": " + e.remedy }
func (e *explained) Unwrap() error { return e.err }

// explain says what can be done about the errors that operators meet.
func explain(err error) error {
	remedy := ""
	var api *js.APIError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		remedy = "check credentials_file, or username and password, in [outbox.nats]"
	case errors.Is(err, nats.ErrSecureConnRequired):
		remedy = "the server speaks TLS only: add [outbox.nats.tls]"
	case errors.Is(err, nats.ErrSecureConnWanted):
		remedy = "the server does not speak TLS: remove [outbox.nats.tls], or configure it there"
	case errors.Is(err, js.ErrJetStreamNotEnabled), errors.Is(err, nats.ErrNoResponders):
		remedy = "start nats-server with JetStream (jetstream { store_dir: ... }, or -js)"
	case errors.Is(err, js.ErrJetStreamNotEnabledForAccount):
		remedy = "enable JetStream for the account of this user"
	case errors.As(err, &api) && (api.ErrorCode == errNotClustered || api.ErrorCode == errNoPeers):
		remedy = "there are fewer servers with JetStream than [outbox.nats] replicas asks for"
	case errors.As(err, &api) && (slices.Contains(errsNoSpace, api.ErrorCode)):
		remedy = "give JetStream more space (max_file_store, or the limits of the account)"
	default:
		return err
	}
	return &explained{err, remedy}
}

// temporary reports whether what failed in setting up may work later by itself.
func temporary(err error) bool {
	if errors.Is(err, js.ErrJetStreamNotEnabled) || errors.Is(err, js.ErrJetStreamNotEnabledForAccount) {
		return false
	}
	var api *js.APIError
	if errors.As(err, &api) {
		// No leader yet, no quorum, overloaded; or too few servers have joined so far.
		return api.Code >= 500 && api.ErrorCode != errNotClustered || api.ErrorCode == errNoPeers
	}
	return isNetwork(err) || errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, js.ErrNoStreamResponse)
}

package natsrpc

import (
	"errors"
	"slices"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// Error codes of the JetStream API that the client library has no names for.
const (
	errNotClustered  js.ErrorCode = 10074 // replicas on a server that stands alone
	errNoPeers       js.ErrorCode = 10005 // no suitable servers for the replicas
	errUnderWay      js.ErrorCode = 10164 // another write with the same expectation is under way
	errWrongSequence js.ErrorCode = 10071 // somebody else has written
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

// Explain adds a remedy to the errors that operators meet. Other errors it returns as they
// are.
func Explain(err error) error {
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

// Temporary reports whether what failed in setting up may work later by itself.
func Temporary(err error) bool {
	if errors.Is(err, js.ErrJetStreamNotEnabled) || errors.Is(err, js.ErrJetStreamNotEnabledForAccount) {
		return false
	}
	var api *js.APIError
	if errors.As(err, &api) {
		// No leader yet, no quorum, overloaded; or too few servers have joined so far.
		return api.Code >= 500 && api.ErrorCode != errNotClustered || api.ErrorCode == errNoPeers
	}
	return isNetwork(err) || errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, js.ErrNoStreamResponse) || errors.Is(err, ErrUnavailable)
}

// Refused reports whether a server has said that an expectation does not hold, or cannot be
// judged now. That is a hint only: the write may be stored all the same. Look at what is
// there.
func Refused(err error) bool {
	var api *js.APIError
	return errors.As(err, &api) && (api.ErrorCode == errWrongSequence || api.ErrorCode == errUnderWay)
}

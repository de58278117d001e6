package nats

import (
	"errors"
	"fmt"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventpusher/backends"
)

// Error codes of the JetStream API that the library has no names for.
const (
	errHeaderTooLarge  jetstream.ErrorCode = 10097
	errStreamMismatch  jetstream.ErrorCode = 10060
	errStreamSealed    jetstream.ErrorCode = 10109
	errMessageTooLarge                     = jetstream.JSErrCodeStreamMessageExceedsMaximum
)

// verdict says what an error means for its message. A subject can hold addresses of users,
// so errors show the template of subjects in its place.
func (b *Backend) verdict(m *natsgo.Msg, err error) error {
	var api *jetstream.APIError
	errors.As(err, &api)
	code := jetstream.ErrorCode(0)
	if api != nil {
		code = api.ErrorCode
	}
	where := b.subject.line.Source()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, natsgo.ErrMaxPayload), code == errMessageTooLarge, code == errHeaderTooLarge:
		return backends.Permanent(fmt.Errorf("nats: a message of %d bytes to %s: %w (%w); see max_payload of the server and max_msg_size of the stream",
			m.Size(), where, backends.ErrTooLarge, err))
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, natsgo.ErrNoResponders):
		return b.nowhere(fmt.Errorf("nats: no stream takes %s: create one with this subject, or start JetStream (%w)", where, err))
	case errors.Is(err, errDenied):
		return b.nowhere(fmt.Errorf("nats: publishing to %s: %w: grant the user publish on it, and subscribe on %s>", where, err, natsgo.InboxPrefix))
	case code == errStreamMismatch:
		return b.nowhere(fmt.Errorf("nats: another stream than %q takes %s: correct stream or subject (%w)", b.stream, where, err))
	case code == errStreamSealed:
		return b.nowhere(fmt.Errorf("nats: the stream of %s takes no more messages: %w", where, err))
	}
	return fmt.Errorf("nats: publishing to %s: %w", where, err)
}

// nowhere marks an error that lasts until somebody acts. If subjects differ, it says nothing
// about those of other events.
func (b *Backend) nowhere(err error) error {
	if b.subject.line.Fixed() {
		return backends.Paused(err)
	}
	return backends.Elsewhere(err)
}

package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"eventpusher/backends"
)

// lookUp asks the brokers for the topic.
func (b *Backend) lookUp(ctx context.Context, c *kgo.Client) (*kmsg.MetadataResponse, error) {
	question := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr(b.topic)
	question.Topics = append(question.Topics, topic)
	question.IncludeTopicAuthorizedOperations = true
	answer, err := question.RequestWith(ctx, c)
	if err == nil && len(answer.Topics) > 0 {
		err = kerr.ErrorForCode(answer.Topics[0].ErrorCode)
	}
	if err != nil {
		return nil, b.explain(err)
	}
	return answer, nil
}

func isTooLarge(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)
}

// isRefused reports whether an answer is about one record, and another attempt does not
// change it.
func isRefused(err error) bool {
	return isTooLarge(err) || errors.Is(err, kerr.InvalidRecord) || errors.Is(err, kerr.PolicyViolation)
}

func refused(errs []error) (n int) {
	for _, err := range errs {
		if isRefused(err) {
			n++
		}
	}
	return n
}

// verdict says what an error means for its record.
func (b *Backend) verdict(r *kgo.Record, err error) error {
	switch {
	case isTooLarge(err):
		return backends.Permanent(fmt.Errorf("kafka: a record of %d bytes to topic %s: %w (%w); see max.message.bytes of the topic",
			len(r.Value), b.topic, backends.ErrTooLarge, err))
	case isRefused(err):
		return backends.Permanent(fmt.Errorf("kafka: topic %s refuses the record: %w", b.topic, err))
	}
	return b.explain(err)
}

// explain says what to do about an error. Paused are those that last until somebody acts.
func (b *Backend) explain(err error) error {
	remedy := ""
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InvalidTopicException):
		remedy = "create the topic, or correct topic"
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		remedy = "grant the user Write and Describe on the topic"
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		remedy = "grant the user IdempotentWrite on the cluster"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		remedy = "check sasl, username and password"
	case errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		remedy = "write a mechanism that the brokers offer into sasl"
	case errors.As(err, &certificate):
		remedy = "name the brokers' authority in cacertfile, or correct their certificates"
	case errors.Is(err, io.EOF):
		return fmt.Errorf("kafka: topic %s at %s: %w: a broker has hung up; if this lasts, check tls, sasl, username and password", b.topic, b.brokers, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("kafka: no answer from %s: %w", b.brokers, err)
	default:
		return fmt.Errorf("kafka: topic %s at %s: %w", b.topic, b.brokers, err)
	}
	return backends.Paused(fmt.Errorf("kafka: topic %s at %s: %w: %s", b.topic, b.brokers, err, remedy))
}

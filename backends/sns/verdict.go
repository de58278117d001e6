package sns

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"eventpusher/backends"
)

const (
	// throttlePause is how long to wait when SNS throttles and names no time.
	throttlePause = time.Second
	maxPause      = time.Hour
	// unknownCode is what the SDK makes of an answer without a code.
	unknownCode = "UnknownError"
	// maxDetail bounds what is quoted of an answer.
	maxDetail = 200
)

// kind is what a code of SNS means.
type kind uint8

const (
	transient kind = iota
	throttled
	access  // nothing passes before the operator acts
	refused // this message, or this call
)

// kindOf classifies the codes of the SNS API reference and of the common errors
// of AWS; an unknown one is transient, so that nothing is given up by mistake.
func kindOf(code, message string) kind {
	switch strings.TrimSuffix(code, "Exception") {
	case "Throttled", "Throttling", "ThrottledClient", "RequestLimitExceeded", "TooManyRequests", "KMSThrottling", "LimitExceeded":
		return throttled
	case "AuthorizationError", "AccessDenied", "InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch",
		"IncompleteSignature", "MissingAuthenticationToken", "UnrecognizedClient", "OptInRequired", "ExpiredToken",
		"RequestExpired", "RequestTimeTooSkewed", "InvalidSecurity", "NotFound", "EndpointDisabled",
		"KMSAccessDenied", "KMSDisabled", "KMSInvalidState", "KMSNotFound", "KMSOptInRequired":
		return access
	case "InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "ValidationError", "Validation",
		"BatchRequestTooLong", "InvalidBatchEntryId", "BatchEntryIdsNotDistinct", "EmptyBatchRequest", "TooManyEntriesInBatchRequest":
		// A topic that the API cannot read is nobody's message's fault.
		if strings.Contains(message, "TopicArn") || strings.Contains(message, "Topic Name") {
			return access
		}
		return refused
	}
	return transient
}

// callError explains the failure of a whole call.
func (b *Backend) callError(topic string, err error) error {
	if none := b.withoutCredentials(err); none != nil {
		return fmt.Errorf("sns: publish to %s: %w", topic, none)
	}
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() == unknownCode {
		return fmt.Errorf("sns: publish to %s: %w", topic, b.shorten(err))
	}
	code, message := api.ErrorCode(), api.ErrorMessage()
	detail := errors.New(describe(code, message))
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.HTTPStatusCode() == http.StatusTooManyRequests {
		code = "Throttled"
	}
	return b.judge(topic, kindOf(code, message), code, detail, pauseOf(answer))
}

// withoutCredentials explains why a request could not be signed; nil if that was not the
// reason. It is transient unless AWS refuses the role: machines get their roles a moment after
// they start.
func (b *Backend) withoutCredentials(err error) error {
	var none *credentialsError
	if !errors.As(err, &none) {
		return nil
	}
	var api smithy.APIError
	if errors.As(none, &api) && b.roleARN != "" {
		refused := fmt.Errorf("role %s: %s", b.roleARN, describe(api.ErrorCode(), api.ErrorMessage()))
		if kindOf(api.ErrorCode(), api.ErrorMessage()) != access {
			return refused
		}
		return backends.Paused(fmt.Errorf("%w; let the role be assumed by these credentials (sts:AssumeRole, and its trust policy)", refused))
	}
	return fmt.Errorf("no credentials: %w; write access_key_id and secret_access_key, or give this machine a role", b.shorten(none))
}

// entryError explains the failure of one entry of a batch.
func (b *Backend) entryError(topic, code, message string, senderFault bool) error {
	k := kindOf(code, message)
	if k == transient && senderFault {
		k = refused
	}
	return b.judge(topic, k, code, errors.New(describe(code, message)), throttlePause)
}

func (b *Backend) judge(topic string, k kind, code string, detail error, pause time.Duration) error {
	err := fmt.Errorf("sns: publish to %s: %w", topic, detail)
	switch k {
	case throttled:
		return backends.RetryAfter(pause, err)
	case access:
		return backends.Paused(fmt.Errorf("%w; %s", err, b.remedy(code)))
	case refused:
		return backends.Permanent(err)
	}
	return err
}

// remedy says what an operator can do about a code of the kind access.
func (b *Backend) remedy(code string) string {
	switch strings.TrimSuffix(code, "Exception") {
	case "AuthorizationError", "AccessDenied":
		return "allow sns:Publish on the topic to these credentials"
	case "NotFound":
		return "create the topic, or correct its name, region and account_id"
	case "InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "ValidationError", "Validation":
		return "correct the topic's name, region and account_id"
	case "RequestExpired", "RequestTimeTooSkewed":
		return "correct this machine's clock"
	case "EndpointDisabled", "KMSAccessDenied", "KMSDisabled", "KMSInvalidState", "KMSNotFound", "KMSOptInRequired":
		return "correct the topic's endpoint or its encryption key"
	}
	if b.found {
		return fmt.Sprintf("check the credentials that the AWS SDK has found, and region (%s)", b.region)
	}
	return fmt.Sprintf("check access_key_id, secret_access_key and region (%s)", b.region)
}

func describe(code, message string) string {
	if len(message) > maxDetail {
		message = strings.ToValidUTF8(message[:maxDetail], "") + "..."
	}
	if message == "" || message == code {
		return code
	}
	return code + ": " + message
}

// shorten reduces an error of the SDK's many layers to what happened, keeping it
// recognisable as a timeout or cancellation.
func (b *Backend) shorten(err error) error {
	for _, end := range []error{context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, end) {
			return fmt.Errorf("no answer from %s: %w", b.shownEndpoint, end)
		}
	}
	// First, since the SDK may wrap it in an answer that never came.
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		return fmt.Errorf("%s: %w", b.shownEndpoint, backends.WithoutURL(send.Err))
	}
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) {
		return fmt.Errorf("%s answered %d in a form that is not SNS's", b.shownEndpoint, answer.HTTPStatusCode())
	}
	return err
}

// pauseOf reads Retry-After in seconds, the only form that AWS sends.
func pauseOf(answer *smithyhttp.ResponseError) time.Duration {
	if answer == nil || answer.Response == nil {
		return throttlePause
	}
	seconds, err := strconv.Atoi(answer.Response.Header.Get("Retry-After"))
	if err != nil || seconds < 1 {
		return throttlePause
	}
	return min(time.Duration(seconds)*time.Second, maxPause)
}

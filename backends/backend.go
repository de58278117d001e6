// Package backends says what a publisher of events is and how it reports what
// became of each event. One package below it implements each service.
package backends

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"eventpusher/event"
	"eventpusher/internal/finding"
)

// Backend delivers events to one service.
//
// All methods are safe for concurrent use by several lanes.
type Backend interface {
	// Name identifies the backend in configuration, logs, metrics and cursors.
	// It is stable over restarts and unique in a process.
	Name() string
	// Wants reports whether the backend would publish e. It is asked once for each
	// event, before the event is kept, and must not block or change over time.
	Wants(e *event.Event) bool
	// Publish delivers the batch, in any order, and returns one error for each event, at
	// the same index: nil when the service has taken it, else an error that the
	// types of this package classify; any other error is transient.
	// It blocks until all are decided or ctx ends, and never retries by itself.
	// The events of a batch, and of all calls under way, have different keys
	// (event.Event.Key). So the order within a conversation does not depend on the backend.
	// Repeating an event is safe: receivers recognise it by its ID.
	// The batch is the caller's: nothing may be read from it after the return.
	Publish(ctx context.Context, batch []event.Event) []error
	// Limits says how Publish wants to be called. It is constant.
	Limits() Limits
	// Close releases connections. Publish must not be called afterwards.
	Close() error
}

// Preparing is implemented by backends that can do before the first event what
// would otherwise be done for it, such as to connect and to declare.
type Preparing interface {
	// Prepare does it within ctx; it returns nil when all is in place, be it from
	// before. Its errors are those of Publish. It may be called at any time before
	// Close, also while Publish is running.
	Prepare(ctx context.Context) error
}

// Counting is implemented by backends that count more than the verdicts of
// Publish tell.
type Counting interface {
	// Counts returns totals since the start by name, each in snake case; the names
	// never change. It is cheap and safe for concurrent use.
	Counts() map[string]uint64
}

// Declining is implemented by backends that account for what they do not publish.
type Declining interface {
	// Declined says that the operator's condition (when) withholds e, which the backend
	// wants, or has failed with err, so that e is a dead letter. It must not block, and e
	// is the caller's.
	Declined(e *event.Event, err error)
}

// Probing is implemented by backends that can ask their service whether it would take
// events, without sending it one.
type Probing interface {
	// Probe asks within ctx and says what it has found and what it could not find out,
	// under the backend's name. It may be called at any time before Close, also while
	// Publish is running, which it does not disturb: nothing is created or changed
	// at the service.
	Probe(ctx context.Context) []Finding
}

// Finding is one line of what doctor prints. Its Level is "OK", "WARN" or "FAIL". It never
// holds a secret or anything that users wrote.
type Finding = finding.Finding

// Probe has b asked, if it can be.
func Probe(ctx context.Context, b Backend) []finding.Finding {
	if p, ok := b.(Probing); ok {
		return p.Probe(ctx)
	}
	return []finding.Finding{finding.Okf(b.Name(), "is configured; it cannot be asked without an event")}
}

// Compile compiles an expression of the configuration. The function returns the value that it
// has for an event, a string, bool, int64 or finite float64, and is safe for concurrent use.
// Errors say what is wrong with the expression, or that it has no value for the event, and
// hold no content of it.
type Compile func(src string) (func(e *event.Event) (any, error), error)

// Limits says how many calls a backend takes at once, and how much in each.
type Limits struct {
	// Lanes is the number of Publish calls in parallel, at least 1.
	Lanes int
	// Batch is the number of events in a call, at least 1.
	Batch int
	// QuickRetries and QuickDelay shape the first retries of an event, before the
	// common schedule: 0 leaves it to that schedule.
	QuickRetries int
	// QuickDelay returns the pause before quick retry number n, counted from 1.
	QuickDelay func(n int) time.Duration
}

// PermanentError says that the service will never take this event, so that it
// belongs to the dead letters at once.
type PermanentError struct{ Err error }

// Error returns what the cause says.
func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PermanentError) Unwrap() error { return e.Err }

// Permanent marks err as final for its event.
func Permanent(err error) error { return &PermanentError{Err: err} }

// RetryAfterError says that the service asked for a pause.
type RetryAfterError struct {
	After time.Duration // at least this long
	Err   error
}

// Error returns what the cause says, and the pause.
func (e *RetryAfterError) Error() string { return fmt.Sprintf("%v (retry after %v)", e.Err, e.After) }

// Unwrap returns the cause.
func (e *RetryAfterError) Unwrap() error { return e.Err }

// RetryAfter marks err as transient, with the pause that the service asked for.
func RetryAfter(d time.Duration, err error) error { return &RetryAfterError{After: d, Err: err} }

// WaitError says that this event has to wait, for a reason of its own: it says nothing
// about the service as a whole, and delays no other event.
type WaitError struct {
	After time.Duration // at least this long
	Err   error
}

// Error returns what the cause says, and the pause.
func (e *WaitError) Error() string { return fmt.Sprintf("%v (waits for %v)", e.Err, e.After) }

// Unwrap returns the cause.
func (e *WaitError) Unwrap() error { return e.Err }

// Wait marks err as one that passes by itself for this event alone.
func Wait(d time.Duration, err error) error { return &WaitError{After: d, Err: err} }

// PausedError says that the service refuses everything until an operator acts,
// as with wrong credentials: the backend pauses loudly, attempts do not count.
type PausedError struct {
	Err error
	// OfEvent says that the service may have refused the event for what is in it, as a
	// firewall does. Then the events of several senders have to be refused before the backend
	// pauses.
	OfEvent bool
}

// Error returns what the cause says.
func (e *PausedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PausedError) Unwrap() error { return e.Err }

// Paused marks err as one that no event can get past before an operator acts.
func Paused(err error) error { return &PausedError{Err: err} }

// Refused is Paused for an error that may be about the event alone.
func Refused(err error) error { return &PausedError{Err: err, OfEvent: true} }

// ElsewhereError says that one of many destinations behind the backend does not take its
// event for now, which is no evidence about the others: the event is tried again, and
// the backend does not count as down.
type ElsewhereError struct{ Err error }

// Error returns what the cause says.
func (e *ElsewhereError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ElsewhereError) Unwrap() error { return e.Err }

// Elsewhere marks err as transient, and as the fault of the event's own destination.
func Elsewhere(err error) error { return &ElsewhereError{Err: err} }

// ErrTooLarge says that the event is larger than the service takes.
var ErrTooLarge = errors.New("event is larger than the service takes")

// TooLargeError is an ErrTooLarge of which the limit is known.
type TooLargeError struct{ Size, Limit int } // in bytes, as the service counts

// Error says both sizes.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf("message of %d bytes, %d are allowed: %v", e.Size, e.Limit, ErrTooLarge)
}

// Unwrap returns ErrTooLarge.
func (e *TooLargeError) Unwrap() error { return ErrTooLarge }

// TruncatedKey is in the metadata of an event whose body was cut because the service takes no
// more (backends/shorten).
const TruncatedKey = "event_truncated"

// ErrGone says that the registration the event was meant for is dead.
var ErrGone = errors.New("registration is gone")

// Reason classifies an error for metrics: "permanent", "retry_after", "paused",
// "too_large", "gone", "waiting", "timeout" or "transient"; "" for nil.
func Reason(err error) string {
	var (
		permanent *PermanentError
		after     *RetryAfterError
		paused    *PausedError
		wait      *WaitError
	)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrTooLarge):
		return "too_large"
	case errors.Is(err, ErrGone):
		return "gone"
	case errors.As(err, &permanent):
		return "permanent"
	case errors.As(err, &wait):
		return "waiting"
	case errors.As(err, &after):
		return "retry_after"
	case errors.As(err, &paused):
		return "paused"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "transient"
}

// WithoutURL strips the URL that net/http adds to its errors, since it may carry a
// password or a token.
func WithoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

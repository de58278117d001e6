package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
)

// channel is one AMQP channel, used by one Publish at a time.
type channel struct {
	session *session
	amqp    *amqp.Channel
	returns <-chan amqp.Return
	closed  <-chan *amqp.Error
	reason  *amqp.Error // what came by closed
}

// publish writes the batch and waits for its confirms. It fills errs and reports
// whether the channel is fit for the next batch.
func (ch *channel) publish(ctx context.Context, batch []event.Event, errs []error) (usable bool) {
	b := ch.session.backend
	confirms := make([]*amqp.DeferredConfirmation, len(batch))
	sizes := make([]int, len(batch))

	// A broker that has stopped reading blocks the write; only cutting the
	// connection frees it.
	release := context.AfterFunc(ctx, ch.session.cut)
	ch.session.wire.cork() // few system calls, and few packets, for many small messages
	broken := ch.write(ctx, batch, confirms, sizes, errs)
	if err := ch.session.wire.uncork(); broken == nil {
		broken = err
	}
	release()
	if !b.pool.ConfirmsEnabled {
		if broken == nil {
			return true
		}
		// Nobody knows how many of the earlier ones arrived.
		fill(errs, ch.failure(ctx, broken, 0))
		return false
	}
	return ch.settle(ctx, batch, confirms, sizes, broken, errs)
}

// write publishes the batch and notes confirms and sizes. It ends with the first error of the
// connection; those of single events are in errs.
func (ch *channel) write(ctx context.Context, batch []event.Event, confirms []*amqp.DeferredConfirmation, sizes []int, errs []error) error {
	b := ch.session.backend
	for i := range batch {
		x := b.exchangeFor(&batch[i])
		if x == nil {
			errs[i] = backends.Permanent(errors.New("rabbit: no exchange is configured for this event"))
			continue
		}
		key, err := b.routingKey(x, &batch[i])
		if err != nil {
			errs[i] = err
			continue
		}
		msg, err := b.message(&batch[i], backends.Epoch(ctx))
		if err != nil {
			errs[i] = err
			continue
		}
		sizes[i] = len(msg.Body)
		if confirms[i], err = ch.amqp.PublishWithDeferredConfirm(x.Name, key, b.pool.Mandatory, false, msg); err != nil {
			return err
		}
	}
	return nil
}

// settle awaits the confirms of what was written and turns them into verdicts.
func (ch *channel) settle(ctx context.Context, batch []event.Event, confirms []*amqp.DeferredConfirmation, sizes []int, broken error, errs []error) (usable bool) {
	usable = broken == nil
	for i, confirm := range confirms {
		if errs[i] != nil {
			continue
		}
		if confirm == nil {
			errs[i] = ch.failure(ctx, broken, sizes[i])
			continue
		}
		// What is decided counts, even if ctx has ended meanwhile.
		select {
		case <-confirm.Done():
		default:
			select {
			case <-confirm.Done():
			case <-ctx.Done():
				usable = false
				errs[i] = fmt.Errorf("rabbit: no confirm from %s: %w", ch.session.address, ctx.Err())
				continue
			}
		}
		switch {
		case confirm.Acked():
		case ch.amqp.IsClosed():
			// The library settles what is open as refused when a channel ends.
			usable = false
			errs[i] = ch.failure(ctx, broken, sizes[i])
		default:
			errs[i] = fmt.Errorf("rabbit: %s refused the message (basic.nack)", ch.session.address)
		}
	}
	ch.takeReturns(batch, errs)
	return usable
}

// takeReturns decides about the messages that came back as unroutable. All returns
// that belong to settled confirms are waiting by now.
func (ch *channel) takeReturns(batch []event.Event, errs []error) {
	for {
		select {
		case r, ok := <-ch.returns:
			if !ok {
				return
			}
			for i := range batch {
				if batch[i].ID == r.MessageId && errs[i] == nil {
					errs[i] = ch.session.backend.judgeReturn(r.Exchange)
					break
				}
			}
		default:
			return
		}
	}
}

// countReturns counts unroutable messages where no confirm follows them.
func (ch *channel) countReturns() {
	defer ch.session.backend.tasks.Done()
	for r := range ch.returns {
		ch.session.backend.countUnroutable(r.Exchange)
	}
}

// failure says why a channel failed an event of the given payload size: err, or
// what the broker gave as reason.
func (ch *channel) failure(ctx context.Context, err error, size int) error {
	address := ch.session.address
	if ctx.Err() != nil {
		return fmt.Errorf("rabbit: publishing to %s: %w", address, ctx.Err())
	}
	if ch.reason == nil {
		select {
		case e := <-ch.closed:
			if e != nil {
				ch.reason = e
			}
		case <-ctx.Done():
		}
	}
	if ch.reason == nil {
		if err == nil {
			err = amqp.ErrClosed
		}
		return fmt.Errorf("rabbit: publishing to %s: %w", address, err)
	}
	if refused, ok := refusedSize(ch.reason); ok && refused == size {
		return backends.Permanent(fmt.Errorf("rabbit: %s refuses a message of %d bytes: %w", address, size, backends.ErrTooLarge))
	}
	return ch.session.backend.refusal(fmt.Errorf("rabbit: publishing to %s: %w", address, ch.reason), ch.reason)
}

// refusal is err, whose reason the broker gave when it closed a channel in the middle of
// publishing.
func (b *Backend) refusal(err error, reason *amqp.Error) error {
	switch {
	case reason.Code == amqp.AccessRefused && strings.Contains(reason.Reason, "internal exchange"):
		return backends.Paused(fmt.Errorf("%w; name another exchange", err))
	case reason.Code == amqp.AccessRefused:
		return backends.Paused(fmt.Errorf("%w; grant %s the write permission", err, b.dialer.user()))
	case reason.Code == amqp.NotFound && b.assumes(reason.Reason):
		return backends.Paused(fmt.Errorf("%w; create the exchange, or write declare = %q", err, declareActive))
	}
	return err
}

// assumes reports whether a reason is about an exchange that is used without being declared.
func (b *Backend) assumes(reason string) bool {
	return slices.ContainsFunc(b.configured(), func(x *config.Exchange) bool {
		return x.Declare == declareNone && strings.Contains(reason, "'"+x.Name+"'")
	})
}

// refusedSize returns the size of the message that made RabbitMQ close a channel.
func refusedSize(e *amqp.Error) (int, bool) {
	var size int
	if e.Code != amqp.PreconditionFailed {
		return 0, false
	}
	_, err := fmt.Sscanf(e.Reason, "PRECONDITION_FAILED - message size %d is larger", &size)
	return size, err == nil
}

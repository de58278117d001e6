package rabbit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/internal/finding"
)

var _ backends.Probing = (*Backend)(nil)

// Probe implements backends.Probing. It logs in on a connection of its own, asks for
// each exchange, and where that exists, whether it is the configured one and may be
// published to. It names the exchanges of which messages were lost in the last hour.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	l, err := b.dialer.dial(ctx)
	if err != nil {
		return []finding.Finding{finding.Failf(b.Name(), "", "%s", withoutName(err))}
	}
	// The library's calls know no context; cutting the connection ends them.
	release := context.AfterFunc(ctx, func() { l.raw.Close() })
	defer release()
	defer l.conn.Close()
	list := []finding.Finding{finding.Okf(b.Name(), "%s takes the login of %s for virtual host %q", l.address, b.dialer.user(), b.pool.VirtualHost)}
	for _, x := range b.configured() {
		list = append(list, b.probeExchange(l.conn, x))
	}
	return append(list, b.lost.findings(b.Name())...)
}

func (b *Backend) probeExchange(conn *amqp.Connection, x *config.Exchange) finding.Finding {
	fail := func(err error) finding.Finding {
		var e *amqp.Error
		if errors.As(err, &e) && e.Code == amqp.AccessRefused {
			return finding.Failf(b.Name(), fmt.Sprintf("grant %s the configure permission on it", b.dialer.user()), "exchange %q may not be asked for", x.Name)
		}
		return finding.Failf(b.Name(), "", "exchange %q: %s", x.Name, withoutName(err))
	}
	err := onChannel(conn, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(x.Name, x.Type, x.Durable, false, false, false, nil)
	})
	var e *amqp.Error
	switch {
	case errors.As(err, &e) && e.Code == amqp.NotFound && !declares(x):
		return finding.Failf(b.Name(), fmt.Sprintf("create it, or write declare = %q", declareActive), "exchange %q is not there", x.Name)
	case errors.As(err, &e) && e.Code == amqp.NotFound:
		return finding.Warnf(b.Name(), "start eventpusher, then bind queues to it; or declare it yourself", "exchange %q is not there yet; a start declares it", x.Name)
	case err != nil:
		return fail(err)
	}
	// Of one that exists this only compares, and creates nothing.
	if declares(x) {
		err = onChannel(conn, func(ch *amqp.Channel) error { return declareExchange(ch, x) })
		if err != nil && !fits(x, true, err) {
			return finding.Failf(b.Name(), "", "%s", withoutName(b.explainDeclare(x, err)))
		}
	}
	switch may, err := mayPublish(conn, x.Name); {
	case err != nil:
		return fail(err)
	case may == refused:
		return finding.Failf(b.Name(), fmt.Sprintf("grant %s the write permission on it", b.dialer.user()), "exchange %q is there and may not be published to", x.Name)
	case may == unknown:
		return finding.Okf(b.Name(), "exchange %q is there as configured; this broker does not say whether it may be published to", x.Name)
	}
	return finding.Okf(b.Name(), "exchange %q is there as configured and may be published to", x.Name)
}

// permission is whether something may be done.
type permission uint8

const (
	unknown permission = iota
	granted
	refused
)

// mayPublish asks whether messages may be published to an exchange, without one that
// could get anywhere: RabbitMQ looks at the permission first, then refuses an expiration
// that is no number, and routes only what has passed both (rabbit_channel, basic.publish).
// Other brokers are not asked.
func mayPublish(conn *amqp.Connection, exchange string) (permission, error) {
	if conn.Properties["product"] != "RabbitMQ" {
		return unknown, nil
	}
	ch, err := conn.Channel()
	if err != nil {
		return unknown, err
	}
	closed := ch.NotifyClose(make(chan *amqp.Error, 1))
	if err := ch.Publish(exchange, "eventpusher.doctor", false, false, amqp.Publishing{Expiration: "none"}); err != nil {
		return unknown, err
	}
	e := <-closed // also when the connection ends, which it does in time
	switch {
	case e == nil:
		return unknown, amqp.ErrClosed
	case e.Code == amqp.AccessRefused:
		return refused, nil
	case e.Code == amqp.PreconditionFailed:
		return granted, nil
	}
	return unknown, e
}

// onChannel calls f with a channel of its own, since the broker closes that of who asks amiss.
func onChannel(conn *amqp.Connection, f func(*amqp.Channel) error) error {
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := f(ch); err != nil {
		return err // it has closed the channel
	}
	return ch.Close()
}

// withoutName cuts off the backend's name, which the subject of a finding says.
func withoutName(err error) string { return strings.TrimPrefix(err.Error(), "rabbit: ") }

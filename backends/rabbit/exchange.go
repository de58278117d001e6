package rabbit

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/config"
)

// The values of config.Exchange.Declare.
const (
	declareActive  = "active"
	declarePassive = "passive"
	declareNone    = "none"
)

func declares(x *config.Exchange) bool {
	return x.Declare != declarePassive && x.Declare != declareNone
}

// configured returns the exchanges that have a section.
func (b *Backend) configured() []*config.Exchange {
	var list []*config.Exchange
	c := &b.exchanges
	for _, x := range []*config.Exchange{c.Presence, c.Chat, c.GroupChat, c.All} {
		if x != nil {
			list = append(list, x)
		}
	}
	return list
}

// births remembers when each exchange came to be, as far as it matters: since then
// its consumers may not have had the time to bind to it again.
type births struct {
	mu sync.Mutex
	at map[string]time.Time
}

// note records a birth, unless a later one is known.
func (n *births) note(exchange string, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = make(map[string]time.Time)
	}
	if at.After(n.at[exchange]) {
		n.at[exchange] = at
	}
}

// within reports whether the exchange is younger than the limit.
func (n *births) within(exchange string, limit time.Duration) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, known := n.at[exchange]
	return known && time.Since(at) < limit
}

// declare makes sure that the exchanges are there, and finds out which of them
// have just come to be. It returns a channel that no declaration has closed.
func (s *session) declare() error {
	for _, x := range s.backend.configured() {
		if x.Declare == declareNone {
			continue
		}
		exists, err := s.exists(x.Name)
		switch {
		case err != nil:
			return err
		case x.Declare == declarePassive && !exists:
			return backends.Paused(fmt.Errorf("rabbit: exchange %q is not there at %s: create it, or write declare = %q", x.Name, s.address, declareActive))
		case declares(x):
			err = s.declareActively(x, exists)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *session) declareActively(x *config.Exchange, exists bool) error {
	b := s.backend
	known := exists || b.births.within(x.Name, b.pool.Settle)
	switch {
	case !exists:
		// Before it is declared, so that no other lane finds it without a birth.
		b.births.note(x.Name, time.Now())
	case s.reborn && !x.Durable:
		// Somebody else was faster to declare it; that need not mean that every
		// consumer is back.
		b.births.note(x.Name, s.since)
	}
	// Also when it exists: that says whether it is the one that is configured.
	if err := onChannel(s.conn, func(ch *amqp.Channel) error { return declareExchange(ch, x) }); err != nil && !fits(x, exists, err) {
		return b.explainDeclare(x, err)
	}
	if !known {
		b.log.Info("an exchange was not there and is declared; consumers have to bind to it", "backend", b.Name(), "exchange", x.Name, "settle", b.pool.Settle)
	}
	return nil
}

// declareExchange declares x. If it is refused the broker closes the channel.
func declareExchange(ch *amqp.Channel, x *config.Exchange) error {
	var arguments amqp.Table
	if x.AlternateExchange != "" {
		arguments = amqp.Table{alternateArgument: x.AlternateExchange}
	}
	return ch.ExchangeDeclare(x.Name, x.Type, x.Durable, x.AutoDelete, false, false, arguments)
}

const alternateArgument = "alternate-exchange"

// fits reports whether an exchange can be used although declaring it was refused with err: it
// is there, and differs in nothing that the configuration asks for. Who may not configure it
// may still publish to it.
func fits(x *config.Exchange, exists bool, err error) bool {
	var e *amqp.Error
	if !exists || !errors.As(err, &e) {
		return false
	}
	if e.Code == amqp.AccessRefused {
		return true
	}
	if e.Code != amqp.PreconditionFailed {
		return false
	}
	switch difference(e) {
	case "", "type", "durable", "internal":
		return false
	case "auto_delete":
		return !x.AutoDelete
	case alternateArgument:
		return x.AlternateExchange == ""
	}
	return true
}

// difference returns in what an exchange differs from the one that was declared, by what
// RabbitMQ says: inequivalent arg 'durable' for exchange 'x' in vhost '/': received ...
// It compares type, durable, auto_delete, internal and the arguments, in this order.
func difference(e *amqp.Error) string {
	_, rest, found := strings.Cut(e.Reason, "inequivalent arg '")
	name, _, whole := strings.Cut(rest, "'")
	if !found || !whole {
		return ""
	}
	return name
}

// exists asks for an exchange, on a channel of its own: the broker closes the
// channel of who asks for one that is not there (AMQP 0-9-1, exchange.declare with
// passive set).
func (s *session) exists(exchange string) (bool, error) {
	// The type is not looked at.
	err := onChannel(s.conn, func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(exchange, amqp.ExchangeTopic, false, false, false, false, nil)
	})
	var e *amqp.Error
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &e) && e.Code == amqp.NotFound:
		return false, nil
	}
	return false, fmt.Errorf("rabbit: asking %s for exchange %q: %w", s.address, exchange, err)
}

// explainDeclare says what is wrong with an exchange, in the broker's own words, and what to do.
func (b *Backend) explainDeclare(x *config.Exchange, err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("rabbit: declaring exchange %q: %w", x.Name, err)
	}
	err = fmt.Errorf("rabbit: exchange %q: %w", x.Name, e)
	switch {
	case e.Code == amqp.PreconditionFailed && difference(e) == "internal":
		return backends.Paused(fmt.Errorf("%w; nothing can be published to it: name another one", err))
	case e.Code == amqp.PreconditionFailed && difference(e) != "":
		return backends.Paused(fmt.Errorf("%w; set %s to what the broker has, or delete the exchange there", err, difference(e)))
	case e.Code == amqp.AccessRefused && strings.Contains(e.Reason, "reserved"):
		return backends.Paused(fmt.Errorf("%w; choose a name that does not begin with amq", err))
	case e.Code == amqp.AccessRefused:
		return backends.Paused(fmt.Errorf("%w; grant %s the configure permission, or create the exchange", err, b.dialer.user()))
	case e.Code == amqp.CommandInvalid:
		return backends.Paused(fmt.Errorf("%w; the broker does not know the type %q", err, x.Type))
	}
	return err
}

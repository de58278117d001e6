package rabbit

import (
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/config"
)

// configured returns the exchanges that have a section.
func configured(c *config.Rabbit) []*config.Exchange {
	var list []*config.Exchange
	for _, x := range []*config.Exchange{c.Presence, c.Chat, c.GroupChat} {
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
// have just come to be.
func (s *session) declare(ch *amqp.Channel) error {
	b := s.backend
	for _, x := range configured(&b.exchanges) {
		exists, err := s.exists(x.Name)
		if err != nil {
			return err
		}
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
		if err := ch.ExchangeDeclare(x.Name, x.Type, x.Durable, false, false, false, nil); err != nil {
			return explainDeclare(b, x, err)
		}
		if !known {
			b.log.Info("an exchange was not there and is declared; consumers have to bind to it", "backend", b.Name(), "exchange", x.Name, "settle", b.pool.Settle)
		}
	}
	return nil
}

// exists asks for an exchange, on a channel of its own: the broker closes the
// channel of who asks for one that is not there (AMQP 0-9-1, exchange.declare with
// passive set).
func (s *session) exists(exchange string) (bool, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return false, fmt.Errorf("rabbit: opening a channel at %s: %w", s.backend.address, err)
	}
	defer s.discard(ch)
	// The type is not looked at.
	err = ch.ExchangeDeclarePassive(exchange, amqp.ExchangeTopic, false, false, false, false, nil)
	var e *amqp.Error
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &e) && e.Code == amqp.NotFound:
		return false, nil
	}
	return false, fmt.Errorf("rabbit: asking %s for exchange %q: %w", s.backend.address, exchange, err)
}

// explainDeclare says what is wrong with an exchange.
func explainDeclare(b *Backend, x *config.Exchange, err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("rabbit: declaring exchange %q: %w", x.Name, err)
	}
	switch e.Code {
	case amqp.PreconditionFailed:
		return backends.Paused(fmt.Errorf("rabbit: exchange %q exists but is not of type %q with durable = %t: set its type and durable to what the broker has, or delete it there (%w)",
			x.Name, x.Type, x.Durable, err))
	case amqp.AccessRefused:
		return backends.Paused(fmt.Errorf("rabbit: user %q may not declare exchange %q: grant it the configure permission (%w)", b.pool.Username, x.Name, err))
	case amqp.CommandInvalid:
		return backends.Paused(fmt.Errorf("rabbit: the broker knows no exchange type %q, which exchange %q asks for (%w)", x.Type, x.Name, err))
	}
	return fmt.Errorf("rabbit: declaring exchange %q: %w", x.Name, err)
}

package rabbit

import (
	"fmt"
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/tracing"
)

// maxShortString is what AMQP 0-9-1 section 4.2.5.3 allows for names and keys.
const maxShortString = 255

// exchangeFor returns the exchange for e, nil where none is configured
// (mod_event_pusher_rabbit.erl): one for what is about users, one for rooms, one for all
// other messages; or one for everything.
func (b *Backend) exchangeFor(e *event.Event) *config.Exchange {
	c := &b.exchanges
	switch {
	case c.All != nil:
		return c.All
	case e.Kind == event.UserStatus, e.Kind == event.Removed:
		return c.Presence
	case e.Type == "groupchat":
		return c.GroupChat
	}
	return c.Chat
}

// routingKey returns the routing key of e: the configured one, or MongooseIM's. That of an
// exchange for everything is the sort of event and the user: chat.in.alice@example.org.
func (b *Backend) routingKey(x *config.Exchange, e *event.Event) (string, error) {
	var key string
	switch {
	case b.key != nil:
		value, err := b.key(e)
		if err != nil {
			return "", backends.Permanent(fmt.Errorf("rabbit: routing_key: %w", err))
		}
		key = fmt.Sprint(value)
	case x == b.exchanges.All:
		key = e.Sort() + "." + string(e.User)
	default:
		key = mongooseIMKey(x, e)
	}
	switch {
	case len(key) <= maxShortString:
		return key, nil
	case b.exchanges.LongRoutingKey == "cut":
		return strings.ToValidUTF8(key[:maxShortString], ""), nil
	}
	return "", backends.Permanent(fmt.Errorf("rabbit: routing key for exchange %q has %d bytes, AMQP allows %d", x.Name, len(key), maxShortString))
}

// mongooseIMKey returns MongooseIM's routing key: the bare JID of the user, with
// the topic of the direction for messages; what becomes of one later has that of those
// that arrive. The dots of a domain make words of a topic of their own.
func mongooseIMKey(x *config.Exchange, e *event.Event) string {
	switch {
	case e.Kind == event.UserStatus, e.Kind == event.Removed:
		return string(e.From.Bare())
	case e.Direction == event.In:
		return string(e.From.Bare()) + "." + x.SentTopic
	}
	return string(e.To.Bare()) + "." + x.RecvTopic
}

// message returns what is published for e. CloudEvents attributes are headers, named as
// the AMQP binding 1.0.2 names application properties (section 3.1.3.1).
func (b *Backend) message(e *event.Event, epoch uint64) (amqp.Publishing, error) {
	m, err := b.chosen.Form.Write(e)
	if err != nil {
		return amqp.Publishing{}, backends.Permanent(fmt.Errorf("rabbit: %w", err))
	}
	headers := b.headers(e, epoch, m.Attributes)
	mode := amqp.Transient
	if b.pool.Persistent {
		mode = amqp.Persistent
	}
	kind, expiration := "", ""
	if b.exchanges.EventHeaders {
		kind = e.Sort()
	}
	if b.exchanges.Expiration > 0 {
		expiration = strconv.FormatInt(b.exchanges.Expiration.Milliseconds(), 10)
	}
	return amqp.Publishing{
		Headers:      headers,
		ContentType:  m.ContentType,
		DeliveryMode: mode,
		MessageId:    e.ID,
		Timestamp:    e.Time,
		AppId:        "eventpusher",
		Type:         kind,
		Expiration:   expiration,
		Body:         m.Body,
	}, nil
}

// headers returns nil if there is nothing to say.
func (b *Backend) headers(e *event.Event, epoch uint64, attributes []form.Attribute) amqp.Table {
	headers := make(amqp.Table)
	if b.exchanges.EventHeaders {
		for key, value := range e.Metadata {
			// RabbitMQ routes by CC and BCC, and refuses a text there.
			if key != "CC" && key != "BCC" && len(key) <= maxShortString {
				headers[key] = headerValue(value)
			}
		}
		headers["event_sort"], headers["event_kind"], headers["event_type"] = e.Sort(), e.Kind.String(), e.Type
		headers["event_direction"] = e.Direction.String()
	}
	if parent := tracing.Parent(e.ID); parent != "" {
		headers[tracing.Header] = parent
	}
	if epoch != 0 {
		headers["eventpusher-epoch"] = int64(epoch)
	}
	for _, a := range attributes {
		headers["cloudEvents:"+a.Name] = a.Value
	}
	if len(headers) == 0 {
		return nil
	}
	return headers
}

// headerValue returns a value of event.Metadata in a type that AMQP has.
func headerValue(v any) any {
	if n, ok := v.(int); ok {
		return int64(n)
	}
	return v
}

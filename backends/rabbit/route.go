package rabbit

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// maxShortString is what AMQP 0-9-1 section 4.2.5.3 allows for names and keys.
const maxShortString = 255

// exchangeFor returns the exchange for e, nil when no section of the
// configuration wants it. Messages of other types than chat and groupchat, and
// those without body element, are published nowhere; an empty body is published.
func exchangeFor(c *config.Rabbit, e *event.Event) *config.Exchange {
	switch {
	case e.Kind == event.UserStatus:
		return c.Presence
	case e.Kind != event.Chat || !e.HasBody || e.Direction == event.NoDirection:
		return nil
	case e.Type == "chat":
		return c.Chat
	case e.Type == "groupchat":
		return c.GroupChat
	}
	return nil
}

// routingKey returns MongooseIM's routing key: the bare JID of the user, with
// the topic of the direction for messages. The dots of a domain make words of a
// topic of their own.
func routingKey(x *config.Exchange, e *event.Event) (string, error) {
	var user jid.JID
	var topic string
	switch {
	case e.Kind == event.UserStatus:
		user = e.From
	case e.Direction == event.In:
		user, topic = e.From, "."+x.SentTopic
	default:
		user, topic = e.To, "."+x.RecvTopic
	}
	key := string(user.Bare()) + topic
	if len(key) > maxShortString {
		return "", backends.Permanent(fmt.Errorf("rabbit: routing key for exchange %q has %d bytes, AMQP allows %d", x.Name, len(key), maxShortString))
	}
	return key, nil
}

// message returns what is published for e.
func (b *Backend) message(e *event.Event) amqp.Publishing {
	mode := amqp.Transient
	if b.pool.Persistent {
		mode = amqp.Persistent
	}
	return amqp.Publishing{
		ContentType:  "application/json",
		DeliveryMode: mode,
		MessageId:    e.ID,
		Timestamp:    e.Time,
		AppId:        "eventpusher",
		Body:         event.AppendPayload(nil, e, event.FullJID),
	}
}

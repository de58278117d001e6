package rabbit

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
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

// routingKey returns the routing key of e. That of an exchange for everything is the sort of
// event and the user: chat.in.alice@example.org.
func (b *Backend) routingKey(x *config.Exchange, e *event.Event) (string, error) {
	key := mongooseIMKey(x, e)
	if x == b.exchanges.All {
		key = e.Sort() + "." + string(e.User)
	}
	if len(key) > maxShortString {
		return "", backends.Permanent(fmt.Errorf("rabbit: routing key for exchange %q has %d bytes, AMQP allows %d", x.Name, len(key), maxShortString))
	}
	return key, nil
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
	var headers amqp.Table
	if epoch != 0 || len(m.Attributes) > 0 {
		headers = make(amqp.Table, len(m.Attributes)+1)
	}
	if epoch != 0 {
		headers["eventpusher-epoch"] = int64(epoch)
	}
	for _, a := range m.Attributes {
		headers["cloudEvents:"+a.Name] = a.Value
	}
	mode := amqp.Transient
	if b.pool.Persistent {
		mode = amqp.Persistent
	}
	return amqp.Publishing{
		Headers:      headers,
		ContentType:  m.ContentType,
		DeliveryMode: mode,
		MessageId:    e.ID,
		Timestamp:    e.Time,
		AppId:        "eventpusher",
		Body:         m.Body,
	}, nil
}

package rabbit

import (
	"fmt"
	"time"

	"eventpusher/backends"
)

// judgeReturn decides about a confirmed message that came back because no queue
// takes it. While the exchange is young it is tried again, since its consumers
// need a moment to bind; after that the configuration has the say. By default such
// a message is lost, as with MongooseIM, but counted, with a warning in the log.
func (b *Backend) judgeReturn(exchange string) error {
	switch {
	case b.births.within(exchange, b.pool.Settle):
		b.returned.Add(1)
		return fmt.Errorf("rabbit: no queue takes the message; exchange %q is new at %s and consumers get %v to bind theirs", exchange, b.address, b.pool.Settle)
	case b.exchanges.Unroutable == "retry":
		b.returned.Add(1)
		return fmt.Errorf("rabbit: no queue of exchange %q at %s takes the message", exchange, b.address)
	case b.exchanges.Unroutable == "dead_letter":
		b.unroutable.Add(1)
		return backends.Permanent(fmt.Errorf("rabbit: no queue of exchange %q at %s takes the message", exchange, b.address))
	}
	b.countUnroutable(exchange)
	return nil
}

// warnInterval is how often unroutable messages are worth a line in the log.
const warnInterval = time.Minute

// countUnroutable notes a message that is lost because no queue takes it.
func (b *Backend) countUnroutable(exchange string) {
	total := b.unroutable.Add(1)
	now := time.Now().Unix()
	last := b.warned.Load()
	if now-last < int64(warnInterval/time.Second) || !b.warned.CompareAndSwap(last, now) {
		return
	}
	b.log.Warn("no queue takes messages of an exchange, so they are lost; bind one, or say otherwise with unroutable or mandatory = false",
		"backend", b.Name(), "exchange", exchange, "unroutable", total)
}

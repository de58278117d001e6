package rabbit

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"eventpusher/backends"
	"eventpusher/internal/finding"
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

// warnInterval is how often the unroutable messages of an exchange are worth a line in the log.
const warnInterval = time.Hour

// losses counts by exchange what no queue took.
type losses struct {
	mu sync.Mutex
	of map[string]*loss
}

type loss struct {
	total        uint64
	last, warned time.Time
}

// add counts one and reports whether it is time for a line in the log.
func (l *losses) add(exchange string) (total uint64, tell bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[string]*loss)
	}
	x := l.of[exchange]
	if x == nil {
		x = new(loss)
		l.of[exchange] = x
	}
	x.total++
	x.last = time.Now()
	if tell = time.Since(x.warned) >= warnInterval; tell {
		x.warned = time.Now()
	}
	return x.total, tell
}

// countUnroutable notes a message that is lost because no queue takes it.
func (b *Backend) countUnroutable(exchange string) {
	b.unroutable.Add(1)
	if total, tell := b.lost.add(exchange); tell {
		b.log.Warn("no queue takes messages of an exchange, so they are lost; bind one, or say otherwise with unroutable, alternate_exchange or mandatory = false",
			"backend", b.Name(), "exchange", exchange, "unroutable", total)
	}
}

// findings names the exchanges of which messages were lost lately.
func (l *losses) findings(name string) (list []finding.Finding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, exchange := range slices.Sorted(maps.Keys(l.of)) {
		if x := l.of[exchange]; time.Since(x.last) < warnInterval {
			list = append(list, finding.Warnf(name, "bind a queue that takes them, or write unroutable or alternate_exchange",
				"exchange %q: no queue took %d messages since the start, the last at %s, so they are lost", exchange, x.total, x.last.UTC().Format(time.RFC3339)))
		}
	}
	return list
}

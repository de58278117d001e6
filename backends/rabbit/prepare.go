package rabbit

import (
	"context"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends"
)

// Prepare implements backends.Preparing: it connects and declares the exchanges,
// so that queues can be bound, and mistakes show, before the first event.
func (b *Backend) Prepare(ctx context.Context) error {
	s, err := b.session(ctx)
	if err != nil {
		return err
	}
	ch, err := s.acquire(ctx) // an idle one was opened on this connection, and declared then
	if err != nil {
		return err
	}
	s.release(ch, true)
	return nil
}

// shortestPause bounds how often a lost connection is restored, whatever
// reconnect.delay says.
const shortestPause = time.Second

// restoreAfter begins to restore a connection that was lost for the given reason.
// With events to publish the lanes would do that, but exchanges that have ended
// with the broker must be there again for consumers to bind to, events or not.
func (b *Backend) restoreAfter(e *amqp.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.Code == amqp.ConnectionForced { // what a broker says that shuts down
		b.down = true
	}
	if b.closed || b.restoring {
		return
	}
	b.restoring = true
	b.tasks.Add(1)
	go b.restore()
}

// restore tries until there is a connection again or the backend is closed.
func (b *Backend) restore() {
	defer b.tasks.Done()
	told := ""
	for {
		pause := time.NewTimer(max(b.pool.ReconnectDelay, shortestPause))
		select {
		case <-b.ending:
			pause.Stop()
			return
		case <-pause.C:
		}
		// Close ends what goes on here by ending the connection.
		ctx, cancel := context.WithTimeout(context.Background(), b.dialer.timeout()+connectTimeout)
		err := b.Prepare(ctx)
		cancel()
		if err == nil && b.restored() {
			return
		}
		if reason := backends.Reason(err); err != nil && reason != told && !b.isClosed() {
			told = reason
			b.log.Warn("RabbitMQ cannot be used again yet; trying on", "backend", b.Name(), "err", err)
		}
	}
}

// restored ends the restoring, unless the connection is lost once more: whoever
// noticed that has relied on it to go on.
func (b *Backend) restored() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.current == nil || !b.current.alive() {
		return false
	}
	b.restoring = false
	return true
}

func (b *Backend) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

package rabbit

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// closeTimeout is how long Close waits for the broker's goodbye.
const closeTimeout = 2 * time.Second

// session is one connection and the channels on it that nobody uses now.
type session struct {
	backend *Backend
	address string
	conn    *amqp.Connection
	wire    *wire
	raw     net.Conn
	idle    chan *channel
	gone    chan struct{} // closed when the connection is lost
	since   time.Time
	reborn  bool // the broker may have restarted since the connection before

	mu     sync.Mutex
	gate   chan struct{} // closed when the broker takes publishes again; nil unless blocked
	reason string
	cause  error // why the connection is gone
}

func newSession(b *Backend, l link) *session {
	s := &session{backend: b, address: l.address, conn: l.conn, wire: l.wire, raw: l.raw, idle: make(chan *channel, b.lanes), gone: make(chan struct{}), since: time.Now()}
	blocked := l.conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	closed := l.conn.NotifyClose(make(chan *amqp.Error, 1))
	b.tasks.Add(1)
	go s.watch(blocked, closed)
	return s
}

func (s *session) alive() bool { return !s.conn.IsClosed() }

// watch follows the connection to its end.
func (s *session) watch(blocked <-chan amqp.Blocking, closed <-chan *amqp.Error) {
	defer s.backend.tasks.Done()
	for {
		select {
		case note, ok := <-blocked:
			if !ok {
				blocked = nil // the connection is closing
				continue
			}
			s.setBlocked(note)
		case e := <-closed: // nil after an orderly close
			if e != nil {
				s.backend.log.Warn("connection to RabbitMQ lost", "backend", s.backend.Name(), "address", s.address, "err", e)
				s.mu.Lock()
				s.cause = e
				s.mu.Unlock()
			}
			close(s.gone)
			if e != nil {
				s.backend.restoreAfter(e)
			}
			return
		}
	}
}

func (s *session) setBlocked(note amqp.Blocking) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case note.Active && s.gate == nil:
		s.backend.blocks.Add(1)
		s.gate, s.reason = make(chan struct{}), note.Reason
		s.backend.log.Warn("RabbitMQ takes no messages for now", "backend", s.backend.Name(), "reason", note.Reason)
	case !note.Active && s.gate != nil:
		close(s.gate)
		s.gate = nil
		s.backend.log.Info("RabbitMQ takes messages again", "backend", s.backend.Name())
	}
}

// waitUnblocked waits while the broker holds publishers back (connection.blocked,
// sent when it is short of memory or disk).
func (s *session) waitUnblocked(ctx context.Context) error {
	s.mu.Lock()
	gate, reason := s.gate, s.reason
	s.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-s.gone:
		return s.lost()
	case <-ctx.Done():
		return fmt.Errorf("rabbit: %s takes no messages for now (%s): %w", s.address, reason, ctx.Err())
	}
}

// lost says why the connection is gone.
func (s *session) lost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		return errClosed
	}
	return fmt.Errorf("rabbit: connection to %s lost: %w", s.address, s.cause)
}

// cut ends the connection at once, whatever is blocked on it.
func (s *session) cut() { s.raw.Close() }

// close says goodbye and returns within closeTimeout.
func (s *session) close() {
	timer := time.AfterFunc(closeTimeout, s.cut)
	defer timer.Stop()
	// An error only says that the other side had gone before.
	_ = s.conn.Close()
}

// acquire returns a channel that no other lane uses, opening one if need be.
func (s *session) acquire(ctx context.Context) (*channel, error) {
	for {
		select {
		case ch := <-s.idle:
			if !ch.amqp.IsClosed() {
				return ch, nil
			}
		default:
			return s.open(ctx)
		}
	}
}

// release puts a channel back; one that is in doubt is given up.
func (s *session) release(ch *channel, usable bool) {
	if usable {
		select {
		case s.idle <- ch:
			return
		default:
		}
	}
	s.discard(ch.amqp)
}

// discard closes a channel without waiting for a broker that may not answer.
func (s *session) discard(ch *amqp.Channel) {
	s.backend.tasks.Add(1)
	go func() {
		defer s.backend.tasks.Done()
		_ = ch.Close()
	}()
}

// open opens a channel, puts it into confirm mode and declares the exchanges.
func (s *session) open(ctx context.Context) (*channel, error) {
	// The library's calls know no context; cutting the connection ends them.
	release := context.AfterFunc(ctx, s.cut)
	defer release()
	ch, err := s.setUp()
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("rabbit: opening a channel at %s: %w", s.address, ctx.Err())
	}
	return ch, err
}

func (s *session) setUp() (*channel, error) {
	b := s.backend
	raw, err := s.conn.Channel()
	if err != nil {
		return nil, fmt.Errorf("rabbit: opening a channel at %s: %w", s.address, err)
	}
	ch := &channel{session: s, amqp: raw, closed: raw.NotifyClose(make(chan *amqp.Error, 1))}
	if err := s.declare(); err != nil {
		s.discard(raw)
		return nil, err
	}
	if b.pool.ConfirmsEnabled {
		if err := raw.Confirm(false); err != nil {
			s.discard(raw)
			return nil, fmt.Errorf("rabbit: asking %s for confirms: %w", s.address, err)
		}
	}
	// The library hands over a return before it goes on to the confirm that follows
	// it on the wire, so with room for a whole batch nothing ever waits here.
	ch.returns = raw.NotifyReturn(make(chan amqp.Return, b.batch))
	if !b.pool.ConfirmsEnabled {
		b.tasks.Add(1)
		go ch.countReturns()
	}
	return ch, nil
}

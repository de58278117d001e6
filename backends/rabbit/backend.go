// Package rabbit publishes presence and message events to RabbitMQ exchanges
// (AMQP 0-9-1), as MongooseIM's mod_event_pusher_rabbit does, and waits for the
// broker's confirms.
package rabbit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
)

// Name is what the backend of MongooseIM's section is called in logs, metrics and the outbox.
const Name = "rabbit"

const (
	defaultWindow = 256
	// maxLanes is where more channels stop paying: the broker is the bottleneck,
	// and one batch on its way while another waits for its confirms keeps it busy.
	maxLanes = 2
)

// Options are what one destination needs.
type Options struct {
	Name    string
	Section config.Rabbit // what is published, and to which exchanges
	Pool    config.RabbitPool
	Compile backends.Compile // for Section.RoutingKey
	Log     *slog.Logger
}

// Backend publishes over one connection, with a channel for each lane.
//
// It connects for Prepare, when something is to be published and no connection is
// alive, and by itself after a connection is lost. The exchanges are declared on
// every new channel before it is used. What becomes of a message that no queue
// takes is in judgeReturn.
type Backend struct {
	name      string
	exchanges config.Rabbit
	chosen    form.Chosen
	key       func(*event.Event) (any, error) // the configured routing key; nil: the usual ones
	pool      config.RabbitPool
	address   string // all of them, to be shown
	lanes     int
	batch     int
	dialer    dialer
	log       *slog.Logger

	mu      sync.Mutex
	current *session
	attempt *attempt  // under way, shared by the lanes that wait for it
	failed  error     // of the latest attempt
	pause   time.Time // no new attempt before
	closed  bool
	down    bool // the broker may have restarted since the latest connection
	// restoring says that a goroutine is at it.
	restoring bool

	ending chan struct{} // closed by Close
	births births

	tasks sync.WaitGroup // every goroutine of the backend

	lost        losses
	unroutable  atomic.Uint64
	returned    atomic.Uint64
	connections atomic.Uint64
	failures    atomic.Uint64
	blocks      atomic.Uint64
}

var (
	_ backends.Backend   = (*Backend)(nil)
	_ backends.Counting  = (*Backend)(nil)
	_ backends.Preparing = (*Backend)(nil)
)

var errClosed = errors.New("rabbit: backend is closed")

// New returns the backend of a destination. It connects to nothing. The error says what is
// wrong with the options.
func New(o Options) (*Backend, error) {
	pool := o.Pool
	if len(pool.Addresses) == 0 {
		pool.Addresses = []string{net.JoinHostPort(pool.Host, strconv.Itoa(pool.Port))}
	}
	if pool.Window < 1 {
		pool.Window = defaultWindow
	}
	b := &Backend{
		name:      o.Name,
		exchanges: o.Section,
		pool:      pool,
		address:   strings.Join(pool.Addresses, ", "),
		lanes:     min(maxLanes, pool.Window),
		log:       o.Log,
		ending:    make(chan struct{}),
	}
	for _, x := range b.configured() {
		if x.Name == "" || len(x.Name) > maxShortString {
			return nil, fmt.Errorf("rabbit: the name of an exchange has %d bytes; 1 to %d are allowed", len(x.Name), maxShortString)
		}
	}
	var err error
	if b.chosen, err = form.Choose(o.Section.Choice, form.Payload(event.FullJID), "user_status", "chat", "groupchat"); err != nil {
		return nil, fmt.Errorf("rabbit: %w", err)
	}
	if o.Section.RoutingKey != "" {
		if b.key, err = o.Compile(o.Section.RoutingKey); err != nil {
			return nil, fmt.Errorf("rabbit: routing_key: %w", err)
		}
	}
	if pool.Workers > 0 {
		b.lanes = min(b.lanes, pool.Workers)
	}
	b.batch = pool.Window / b.lanes
	if b.dialer, err = newDialer(pool); err != nil {
		return nil, err
	}
	return b, nil
}

// Name implements backends.Backend.
func (b *Backend) Name() string { return b.name }

// Wants implements backends.Backend: an exchange has to be configured for e as well.
func (b *Backend) Wants(e *event.Event) bool {
	return b.chosen.Wants(e) && b.exchangeFor(e) != nil
}

// Limits implements backends.Backend: the lanes together keep at most the
// configured window of messages unconfirmed.
func (b *Backend) Limits() backends.Limits {
	return backends.Limits{Lanes: b.lanes, Batch: b.batch}
}

// Counts implements backends.Counting. "unroutable" counts messages that nobody
// will get because no queue took them; "unroutable_retried" attempts after which
// such a message is tried again.
func (b *Backend) Counts() map[string]uint64 {
	return map[string]uint64{
		"unroutable":          b.unroutable.Load(),
		"unroutable_retried":  b.returned.Load(),
		"connections_opened":  b.connections.Load(),
		"connections_failed":  b.failures.Load(),
		"connections_blocked": b.blocks.Load(),
	}
}

// Publish implements backends.Backend. The messages of a batch are written one
// after the other, then all their confirms are awaited.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	for start := 0; start < len(batch); start += b.batch {
		end := min(start+b.batch, len(batch))
		b.publish(ctx, batch[start:end], errs[start:end])
	}
	return errs
}

func (b *Backend) publish(ctx context.Context, batch []event.Event, errs []error) {
	if ctx.Err() != nil {
		fill(errs, fmt.Errorf("rabbit: %w", ctx.Err()))
		return
	}
	s, err := b.session(ctx)
	if err == nil {
		err = s.waitUnblocked(ctx)
	}
	var ch *channel
	if err == nil {
		ch, err = s.acquire(ctx)
	}
	if err != nil {
		fill(errs, err)
		return
	}
	usable := ch.publish(ctx, batch, errs)
	s.release(ch, usable)
}

// fill sets the errors that are still open.
func fill(errs []error, err error) {
	for i := range errs {
		if errs[i] == nil {
			errs[i] = err
		}
	}
}

// Close implements backends.Backend. It says goodbye to the broker for a
// moment, then cuts the connection, so that it returns even if nobody answers.
func (b *Backend) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.ending)
	}
	s := b.current
	b.current = nil
	if b.attempt != nil {
		b.attempt.cancel()
	}
	b.mu.Unlock()
	if s != nil {
		s.close()
	}
	b.tasks.Wait()
	return nil
}

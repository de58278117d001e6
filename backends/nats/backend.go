// Package nats publishes events to streams of NATS JetStream, and waits until the stream
// has acknowledged them.
package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/tracing"
)

const (
	lanes = 2   // one batch is written while another waits for its acknowledgements
	batch = 256 // unacknowledged messages of a lane
	// ackTimeout is how long a message waits for its acknowledgement.
	ackTimeout = 20 * time.Second
)

// usual are the events that a destination gets without the key events.
var usual = []string{"user_status", "chat", "groupchat"}

// Backend publishes over one connection. It connects for Prepare, and for Publish if no
// connection is alive.
type Backend struct {
	name    string
	chosen  form.Chosen
	subject subject
	stream  string // empty: any
	servers []server
	log     *slog.Logger

	turn    chan struct{} // holds one element while somebody uses what follows
	current *session
	closed  bool
}

var (
	_ backends.Backend   = (*Backend)(nil)
	_ backends.Preparing = (*Backend)(nil)
	_ backends.Probing   = (*Backend)(nil)
)

// New returns the backend of a destination. It connects to nothing.
func New(d config.Destination, log *slog.Logger) (*Backend, error) {
	chosen, err := form.Choose(d.Choice, nil, usual...)
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	b := &Backend{name: d.Name, chosen: chosen, stream: d.NATS.Stream, log: log, turn: make(chan struct{}, 1)}
	if b.subject, err = newSubject(d.NATS.Subject, chosen.Events.Samples()); err != nil {
		return nil, fmt.Errorf("nats: subject: %w", err)
	}
	if b.servers, err = newServers(d.NATS.NATSServers); err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	return b, nil
}

// Name implements backends.Backend.
func (b *Backend) Name() string { return b.name }

// Wants implements backends.Backend.
func (b *Backend) Wants(e *event.Event) bool { return b.chosen.Wants(e) }

// Limits implements backends.Backend.
func (b *Backend) Limits() backends.Limits { return backends.Limits{Lanes: lanes, Batch: batch} }

// Prepare implements backends.Preparing.
func (b *Backend) Prepare(ctx context.Context) error {
	_, err := b.session(ctx)
	return err
}

// Publish implements backends.Backend. The messages of a batch are written one after the
// other, then all their acknowledgements are awaited.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	s, err := b.session(ctx)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	messages := make([]*natsgo.Msg, len(batch))
	acks := make([]jetstream.PubAckFuture, len(batch))
	since := s.refusalsSoFar()
	release := context.AfterFunc(ctx, s.cut) // a server that does not read blocks the write
	for i := range batch {
		if messages[i], errs[i] = b.message(ctx, &batch[i]); errs[i] == nil {
			acks[i], err = s.js.PublishMsgAsync(messages[i], noRetries)
			errs[i] = b.verdict(messages[i], err)
		}
	}
	release()
	// One timer for all, since that of the library is one for each message.
	ctx, cancel := context.WithTimeoutCause(ctx, ackTimeout, errNoAck)
	defer cancel()
	for i := range batch {
		if errs[i] == nil {
			errs[i] = b.verdict(messages[i], s.await(ctx, acks[i], since))
		}
	}
	return errs
}

// message writes an event. Its headers are Nats-Msg-Id, by which the stream recognises
// repeated messages within its duplicate window, Content-Type, and those of the
// CloudEvents NATS binding (section 3.1.3), whose values are encoded as in HTTP.
func (b *Backend) message(ctx context.Context, e *event.Event) (*natsgo.Msg, error) {
	m, err := b.chosen.Form.Write(e)
	if err != nil {
		return nil, backends.Permanent(fmt.Errorf("nats: %w", err))
	}
	to, err := b.subject.of(e)
	if err != nil {
		return nil, backends.Permanent(fmt.Errorf("nats: subject: %w", err))
	}
	header := natsgo.Header{jetstream.MsgIDHeader: {e.ID}}
	if m.Attributes == nil {
		header["Content-Type"] = []string{m.ContentType}
	} else { // a Content-Type would be that of the structured mode
		header["ce-datacontenttype"] = []string{m.ContentType}
	}
	for _, a := range m.Attributes {
		header["ce-"+a.Name] = []string{form.HeaderValue(a.Value)}
	}
	if b.stream != "" {
		header[jetstream.ExpectedStreamHeader] = []string{b.stream}
	}
	if parent := tracing.Parent(e.ID); parent != "" {
		header[tracing.Header] = []string{parent}
	}
	if epoch := backends.Epoch(ctx); epoch != 0 {
		header["eventpusher-epoch"] = []string{strconv.FormatUint(epoch, 10)}
	}
	return &natsgo.Msg{Subject: to, Header: header, Data: m.Body}, nil
}

// Close implements backends.Backend.
func (b *Backend) Close() error {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	b.closed = true
	if b.current != nil {
		b.current.close()
	}
	return nil
}

var errClosed = errors.New("nats: backend is closed")

// Package kafka produces events to a topic of Apache Kafka, and waits until all in-sync
// replicas have them.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/tracing"
)

const (
	lanes = 2   // one batch is written while another waits for its acknowledgements
	batch = 256 // unacknowledged records of a lane
	// deliveryTimeout is how long a record waits for its acknowledgement. It covers what the
	// library does by itself: another leader of a partition, another connection.
	deliveryTimeout = 10 * time.Second
	// publishTimeout ends a call to brokers that do not answer.
	publishTimeout = 20 * time.Second
)

// usual are the events that a destination gets without the key events.
var usual = []string{"user_status", "chat", "groupchat"}

// Backend produces through one client of the library. It makes the client for Prepare or
// Publish, and another one after a failure, so that nothing that has failed is sent later.
type Backend struct {
	name    string
	chosen  form.Chosen
	topic   string
	brokers string // as errors show them
	options []kgo.Opt
	log     *slog.Logger

	turn    chan struct{} // holds one element while somebody uses what follows
	current *kgo.Client
	closed  bool
}

var (
	_ backends.Backend   = (*Backend)(nil)
	_ backends.Preparing = (*Backend)(nil)
	_ backends.Probing   = (*Backend)(nil)
)

var errClosed = errors.New("kafka: backend is closed")

// New returns the backend of a destination. It connects to nothing.
func New(d config.Destination, log *slog.Logger) (*Backend, error) {
	return newBackend(d, log, deliveryTimeout)
}

func newBackend(d config.Destination, log *slog.Logger, timeout time.Duration) (*Backend, error) {
	chosen, err := form.Choose(d.Choice, nil, usual...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	b := &Backend{
		name: d.Name, chosen: chosen, topic: d.Kafka.Topic, brokers: strings.Join(d.Kafka.Brokers, ", "),
		log: log, turn: make(chan struct{}, 1),
	}
	if b.options, err = options(&d, log, timeout); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
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
	_, err := b.client(ctx)
	return err
}

// client returns the client in use, or a new one if the brokers answer and the topic is
// there. Others wait meanwhile.
func (b *Backend) client(ctx context.Context) (*kgo.Client, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("kafka: %w", ctx.Err())
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("kafka: connecting to %s: %w", b.brokers, ctx.Err())
	}
	if b.closed {
		return nil, errClosed
	}
	if b.current != nil {
		return b.current, nil
	}
	c, err := kgo.NewClient(b.options...)
	if err != nil {
		return nil, backends.Paused(fmt.Errorf("kafka: %w", err))
	}
	if _, err := b.lookUp(ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	b.log.Info("connected to Kafka", "backend", b.name, "brokers", b.brokers)
	b.current = c
	return c, nil
}

// giveUp closes a client that has failed, unless another lane has. What it has not sent yet
// it never sends.
func (b *Backend) giveUp(c *kgo.Client) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.current == c {
		b.current = nil
		c.Close()
	}
}

// Publish implements backends.Backend. All records of a batch are on their way at once; the
// library keeps those of a partition in order.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	c, err := b.client(ctx)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	records := make([]*kgo.Record, len(batch))
	for i := range batch {
		records[i], errs[i] = b.record(ctx, &batch[i])
	}
	answers := produce(ctx, c, records)
	if refused(answers) > 1 {
		// The library has put several records into one request, and one of them may be the
		// reason for all.
		alone(ctx, c, records, answers)
	}
	healthy := true
	for i, err := range answers {
		if err != nil {
			errs[i] = b.verdict(records[i], err)
			healthy = healthy && isRefused(err)
		}
	}
	if !healthy {
		b.giveUp(c)
	}
	return errs
}

// produce sends the records that are not nil and returns what became of each. It returns
// when ctx ends at the latest.
func produce(ctx context.Context, c *kgo.Client, records []*kgo.Record) []error {
	type answer struct {
		i   int
		err error
	}
	answers := make(chan answer, len(records)) // with room for those that come too late
	errs := make([]error, len(records))
	open := 0
	for i, r := range records {
		if r != nil {
			open++
			errs[i] = errOpen
			c.Produce(ctx, r, func(_ *kgo.Record, err error) { answers <- answer{i, err} })
		}
	}
	for ; open > 0; open-- {
		select {
		case a := <-answers:
			errs[a.i] = a.err
			continue
		default:
		}
		select {
		case a := <-answers:
			errs[a.i] = a.err
		case <-ctx.Done():
			for i := range errs {
				if errs[i] == errOpen {
					errs[i] = ctx.Err()
				}
			}
			return errs
		}
	}
	return errs
}

// errOpen stands for an answer that is awaited.
var errOpen = errors.New("no answer yet")

// alone sends one after the other the records that were refused together.
func alone(ctx context.Context, c *kgo.Client, records []*kgo.Record, answers []error) {
	for i, err := range answers {
		if isRefused(err) {
			answers[i] = produce(ctx, c, []*kgo.Record{again(records[i])})[0]
		}
	}
}

// again returns a record as it was before the library has filled it in.
func again(r *kgo.Record) *kgo.Record {
	return &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
}

// record writes an event. Its key is that of the conversation, so that the events of one
// stand in one partition, in order. Its headers are event-id, by which consumers recognise
// repeated events, and those of the CloudEvents Kafka binding 1.0.2, section 3.2.
func (b *Backend) record(ctx context.Context, e *event.Event) (*kgo.Record, error) {
	m, err := b.chosen.Form.Write(e)
	if err != nil {
		return nil, backends.Permanent(fmt.Errorf("kafka: %w", err))
	}
	headers := make([]kgo.RecordHeader, 0, 2+len(m.Attributes))
	header := func(name, value string) {
		headers = append(headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	header("event-id", e.ID)
	header("content-type", m.ContentType)
	for _, a := range m.Attributes {
		header("ce_"+a.Name, a.Value)
	}
	if parent := tracing.Parent(e.ID); parent != "" {
		header(tracing.Header, parent)
	}
	if epoch := backends.Epoch(ctx); epoch != 0 {
		header("eventpusher-epoch", strconv.FormatUint(epoch, 10))
	}
	// The time stamp is that of producing: by the event's, the library would take a record
	// that has waited for one that has timed out, and a broker for one to be deleted.
	return &kgo.Record{Topic: b.topic, Key: e.AppendKey(make([]byte, 0, len(e.From)+len(e.To)+1)), Value: m.Body, Headers: headers}, nil
}

// Close implements backends.Backend.
func (b *Backend) Close() error {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	b.closed = true
	if b.current != nil {
		b.current.Close()
		b.current = nil
	}
	return nil
}

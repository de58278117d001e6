// Package sns publishes presence and message events to topics of Amazon SNS, as
// MongooseIM's mod_event_pusher_sns does, in batches.
package sns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/backends/gather"
	"eventpusher/config"
	"eventpusher/event"
)

// Name is what the backend of MongooseIM's section is called in logs, metrics and the outbox.
const Name = "sns"

const (
	batchSize = 10 // entries that PublishBatch takes
	// maxLanes is where more calls in flight stop paying: 16 batches of 10 carry
	// more than MongooseIM's 100 single publishes, at a fifth of the CPU each.
	maxLanes = 16
	// callTimeout is that of MongooseIM's client.
	callTimeout = 10 * time.Second
)

// Options are what one destination needs.
type Options struct {
	Name    string
	Section config.SNS
	Hosts   []string // served domains, for @HOST@ in muc_host
	Compile backends.Compile
	Log     *slog.Logger
}

// Backend publishes to up to three topics, or to one. The JSON goes out as the message
// itself unless message_structure_json asks for MongooseIM's form, which Amazon
// refuses for want of a default entry.
type Backend struct {
	name          string
	topics        topics
	chosen        form.Chosen
	structure     *string
	values        values
	region        string
	roleARN       string
	found         bool // the credentials are not those of the configuration
	shownEndpoint string
	limits        backends.Limits
	client        *sns.Client
	calls         *gather.Gatherer[entry]
	transfer      *http.Transport
	log           *slog.Logger

	cut     atomic.Uint64
	warnCap sync.Once
	warnKey sync.Once
}

var (
	_ backends.Backend  = (*Backend)(nil)
	_ backends.Counting = (*Backend)(nil)
)

// New returns the backend of a destination. It connects to nothing. The error says what is
// wrong with the options.
func New(o Options) (*Backend, error) {
	c := o.Section
	addresses := event.BareJID
	if c.UserGUID != "" {
		addresses = event.FullJID // of what the expression has put there
	}
	chosen, err := form.Choose(c.Choice, form.Payload(addresses), "user_status", "chat.in", "groupchat.in")
	if err != nil {
		return nil, fmt.Errorf("sns: %w", err)
	}
	if c.Choice.Format == config.FormatCloudEventsBinary {
		return nil, errors.New("sns: format cloudevents_binary has no place for its attributes here: write cloudevents")
	}
	lanes := maxLanes
	if c.PoolSize > 0 {
		lanes = min(c.PoolSize, maxLanes)
	}
	b := &Backend{name: o.Name, chosen: chosen, log: o.Log, roleARN: c.RoleARN}
	b.limits = backends.Limits{
		Lanes:        lanes,
		Batch:        batchSize,
		QuickRetries: c.PublishRetryCount,
		QuickDelay:   func(n int) time.Duration { return quickDelay(n, c.PublishRetryTime) },
	}
	if c.MessageStructureJSON {
		b.structure = aws.String("json")
	}
	if err := b.connect(&c); err != nil {
		return nil, fmt.Errorf("sns: %w", err)
	}
	if err := b.compile(&c, o.Compile); err != nil {
		return nil, fmt.Errorf("sns: %w", err)
	}
	b.calls = gather.New(gather.Options[entry]{Linger: c.Linger, Most: batchSize, Bytes: maxBytes, Calls: lanes, Send: b.send})
	c.Region = b.region
	b.topics = newTopics(&c, o.Hosts)
	return b, nil
}

// Name implements backends.Backend.
func (b *Backend) Name() string { return b.name }

// Wants implements backends.Backend: a topic has to be configured for e as well.
func (b *Backend) Wants(e *event.Event) bool { return b.chosen.Wants(e) && b.topics.of(e) != "" }

// Limits implements backends.Backend. The quick retries are MongooseIM's
// publish_retry_count and publish_retry_time_ms.
func (b *Backend) Limits() backends.Limits { return b.limits }

// Counts implements backends.Counting.
func (b *Backend) Counts() map[string]uint64 {
	return map[string]uint64{"attributes_cut": b.cut.Load()}
}

// Close implements backends.Backend.
func (b *Backend) Close() error {
	b.calls.Close()
	b.transfer.CloseIdleConnections()
	return nil
}

// Publish implements backends.Backend. Events of several lanes that go to one topic share a call.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	entries := make([]gather.Entry[entry], 0, len(batch))
	for i := range batch {
		en, err := b.newEntry(&batch[i], backends.Epoch(ctx))
		if err != nil {
			errs[i] = err
			continue
		}
		entries = append(entries, gather.Entry[entry]{Index: i, Key: en.topic, Size: en.size, Value: en})
	}
	b.calls.Publish(ctx, entries, errs)
	return errs
}

// send makes one call of entries that share a topic, and returns one error for each.
func (b *Backend) send(ctx context.Context, entries []entry, decided func(int, error)) {
	if len(entries) == 1 {
		decided(0, b.sendOne(ctx, &entries[0]))
		return
	}
	for i, err := range b.sendBatch(ctx, entries) {
		decided(i, err)
	}
}

func (b *Backend) sendOne(ctx context.Context, en *entry) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	in := &sns.PublishInput{
		TopicArn:          &en.topic,
		Message:           &en.message,
		Subject:           en.subject,
		MessageStructure:  b.structure,
		MessageAttributes: en.attributes,
	}
	if en.group != "" {
		in.MessageGroupId, in.MessageDeduplicationId = &en.group, &en.id
	}
	if _, err := b.client.Publish(ctx, in); err != nil {
		return b.callError(en.topic, err)
	}
	return nil
}

func (b *Backend) sendBatch(ctx context.Context, entries []entry) []error {
	topic, errs := entries[0].topic, make([]error, len(entries))
	in := &sns.PublishBatchInput{TopicArn: &topic}
	for i := range entries {
		en := &entries[i]
		request := types.PublishBatchRequestEntry{
			Id:                aws.String(entryID(i)),
			Message:           &en.message,
			Subject:           en.subject,
			MessageStructure:  b.structure,
			MessageAttributes: en.attributes,
		}
		if en.group != "" {
			request.MessageGroupId, request.MessageDeduplicationId = &en.group, &en.id
		}
		in.PublishBatchRequestEntries = append(in.PublishBatchRequestEntries, request)
	}
	out, err := b.publishBatch(ctx, in)
	if err != nil {
		err = b.callError(topic, err)
		if backends.Reason(err) == "permanent" {
			// The call was refused for one of its entries, it does not say which.
			for i := range entries {
				errs[i] = b.sendOne(ctx, &entries[i])
			}
			return errs
		}
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	verdicts := make(map[string]error, len(entries))
	for _, done := range out.Successful {
		verdicts[aws.ToString(done.Id)] = nil
	}
	for _, failed := range out.Failed {
		verdicts[aws.ToString(failed.Id)] = b.entryError(topic, aws.ToString(failed.Code), aws.ToString(failed.Message), failed.SenderFault)
	}
	for i := range entries {
		verdict, ok := verdicts[entryID(i)]
		if !ok {
			verdict = fmt.Errorf("sns: publish to %s: the answer says nothing about the message", topic)
		}
		errs[i] = verdict
	}
	return errs
}

func (b *Backend) publishBatch(ctx context.Context, in *sns.PublishBatchInput) (*sns.PublishBatchOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return b.client.PublishBatch(ctx, in)
}

func (b *Backend) warnCut(key string) {
	b.cut.Add(1)
	b.warnCap.Do(func() {
		b.log.Warn("more metadata than message attributes, the rest is in the JSON only",
			"backend", b.Name(), "limit", maxAttributes, "first_left_out", key)
	})
}

func (b *Backend) warnLeftOut(key string) {
	b.cut.Add(1)
	b.warnKey.Do(func() {
		b.log.Warn("metadata that cannot be a message attribute is in the JSON only", "backend", b.Name(), "key", key)
	})
}

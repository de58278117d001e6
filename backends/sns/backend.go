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
	calls         *gatherer
	transfer      *http.Transport
	log           *slog.Logger

	shortened atomic.Uint64 // bodies
	cut       atomic.Uint64
	warnCap   sync.Once
	warnKey   sync.Once
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
	b.calls = newGatherer(c.Linger, b.send)
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
	return map[string]uint64{"attributes_cut": b.cut.Load(), "bodies_cut": b.shortened.Load()}
}

// Close implements backends.Backend.
func (b *Backend) Close() error {
	b.calls.close()
	b.transfer.CloseIdleConnections()
	return nil
}

// Publish implements backends.Backend.
func (b *Backend) Publish(ctx context.Context, batch []event.Event) []error {
	errs := make([]error, len(batch))
	entries := make([]entry, 0, len(batch))
	for i := range batch {
		en, err := b.newEntry(i, &batch[i], backends.Epoch(ctx))
		if err != nil {
			errs[i] = err
			continue
		}
		entries = append(entries, en)
	}
	held := map[string]bool{} // groups of FIFO topics in which an entry has failed
	for len(entries) > 0 {
		now, later := firstOfGroups(entries, held, errs)
		b.calls.publish(ctx, now, errs)
		for _, en := range now {
			if en.group != "" && errs[en.index] != nil {
				held[en.group] = true
			}
		}
		entries = later
	}
	return errs
}

// firstOfGroups returns the entries that can go out now: of each group of a FIFO topic the
// first. Those of a group in which an earlier one has failed must not overtake it.
func firstOfGroups(entries []entry, held map[string]bool, errs []error) (now, later []entry) {
	taken := map[string]bool{}
	for _, en := range entries {
		switch {
		case en.group == "":
			now = append(now, en)
		case held[en.group]:
			errs[en.index] = fmt.Errorf("sns: publish to %s: an earlier message of the group has failed", en.topic)
		case taken[en.group]:
			later = append(later, en)
		default:
			taken[en.group] = true
			now = append(now, en)
		}
	}
	return now, later
}

// send makes one call of entries that share a topic.
func (b *Backend) send(ctx context.Context, entries []entry, errs []error) {
	switch len(entries) {
	case 0:
	case 1:
		errs[entries[0].index] = b.sendOne(ctx, &entries[0])
	default:
		b.sendBatch(ctx, entries, errs)
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

func (b *Backend) sendBatch(ctx context.Context, entries []entry, errs []error) {
	topic := entries[0].topic
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
				errs[entries[i].index] = b.sendOne(ctx, &entries[i])
			}
			return
		}
		for _, en := range entries {
			errs[en.index] = err
		}
		return
	}
	verdicts := make(map[string]error, len(entries))
	for _, done := range out.Successful {
		verdicts[aws.ToString(done.Id)] = nil
	}
	for _, failed := range out.Failed {
		verdicts[aws.ToString(failed.Id)] = b.entryError(topic, aws.ToString(failed.Code), aws.ToString(failed.Message), failed.SenderFault)
	}
	for i, en := range entries {
		verdict, ok := verdicts[entryID(i)]
		if !ok {
			verdict = fmt.Errorf("sns: publish to %s: the answer says nothing about the message", topic)
		}
		errs[en.index] = verdict
	}
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

package kafka

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"eventpusher/backends"
	"eventpusher/internal/finding"
)

// Probe implements backends.Probing. It connects as for an event, asks for the topic, and
// sends no record.
func (b *Backend) Probe(ctx context.Context) []finding.Finding {
	c, err := kgo.NewClient(b.options...)
	if err != nil { // New has tried them
		return []finding.Finding{finding.Failf(b.name, "", "%v", err)}
	}
	defer c.Close()
	answer, err := b.lookUp(ctx, c)
	if err != nil {
		remedy := "start the brokers, or correct brokers"
		if backends.Reason(err) == "paused" {
			remedy = ""
		}
		return []finding.Finding{finding.Failf(b.name, remedy, "%v", err)}
	}
	topic := answer.Topics[0]
	list := []finding.Finding{finding.Okf(b.name, "connected to %d brokers of Kafka; topic %s has %d partitions", len(answer.Brokers), b.topic, len(topic.Partitions))}
	switch {
	case topic.AuthorizedOperations == math.MinInt32: // the broker does not say
		return append(list, finding.Okf(b.name, "whether the user may write shows with the first event"))
	case topic.AuthorizedOperations&(1<<kmsg.ACLOperationWrite) == 0:
		return append(list, finding.Failf(b.name, "grant the user Write on it", "the user may not write to topic %s", b.topic))
	}
	return append(list, finding.Okf(b.name, "the user may write to topic %s", b.topic))
}

package sns

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"eventpusher/backends"
	"eventpusher/event"
)

const (
	// maxBytes is the default limit of a topic, for one message with its attributes
	// as for a whole batch.
	maxBytes = 256 << 10
	// maxAttributes is how many SQS takes with raw message delivery; a message with
	// more is dropped there without a word.
	maxAttributes = 10
	// idAttribute carries the event's id.
	idAttribute = "event_id"
	// epochAttribute carries the epoch of the call, if several instances share the outbox.
	epochAttribute = "eventpusher-epoch"
)

// entry is one event as SNS gets it.
type entry struct {
	index      int // in the batch
	topic      string
	message    string
	attributes map[string]types.MessageAttributeValue
	group      string // of FIFO topics
	id         string
	size       int // as SNS counts it
}

// newEntry renders e for a call of that epoch (backends.Epoch). An error is final for the event.
func (b *Backend) newEntry(index int, e *event.Event, epoch uint64) (entry, error) {
	m, err := b.chosen.Form.Write(e)
	if err != nil {
		return entry{}, backends.Permanent(fmt.Errorf("sns: %w", err))
	}
	en := entry{
		index:   index,
		topic:   b.topics.of(e),
		message: string(m.Body),
		id:      e.ID,
	}
	if en.topic == "" {
		return en, backends.Permanent(fmt.Errorf("sns: no topic is configured for this event"))
	}
	if isFIFO(en.topic) {
		en.group = groupID(e.Key())
	}
	en.attributes = b.attributes(e, epoch)
	en.size = len(en.message)
	for name, value := range en.attributes {
		en.size += len(name) + len(*value.DataType) + len(*value.StringValue)
	}
	if en.size > maxBytes {
		return en, backends.Permanent(fmt.Errorf("sns: message of %d bytes, %d are allowed: %w", en.size, maxBytes, backends.ErrTooLarge))
	}
	return en, nil
}

// groupID returns the message group of a key. It is a hash because keys are JIDs:
// longer than the 128 characters of a group, in any script, and nobody's business.
func groupID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

// attributes returns the event's id, the epoch unless it is 0, and the metadata as message
// attributes: numbers as Number, all else as String. Of more than maxAttributes the first by
// name are sent, and what SNS does not take as attribute is left out; the JSON has
// everything.
func (b *Backend) attributes(e *event.Event, epoch uint64) map[string]types.MessageAttributeValue {
	attrs := map[string]types.MessageAttributeValue{}
	if e.ID != "" {
		attrs[idAttribute] = stringAttribute(e.ID)
	}
	if epoch != 0 {
		attrs[epochAttribute] = numberAttribute(strconv.FormatUint(epoch, 10))
	}
	for _, key := range e.Metadata.Keys() {
		text := e.Metadata.Text(key)
		switch {
		case key == idAttribute, key == epochAttribute && epoch != 0:
			continue
		case !validAttributeName(key), text == "":
			b.warnLeftOut(key)
			continue
		case len(attrs) == maxAttributes:
			b.warnCut(key)
			return attrs
		}
		switch e.Metadata[key].(type) {
		case int, int64, float64:
			attrs[key] = numberAttribute(text)
		default:
			attrs[key] = stringAttribute(text)
		}
	}
	return attrs
}

func numberAttribute(text string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: aws.String("Number"), StringValue: aws.String(text)}
}

func stringAttribute(s string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(printable(s))}
}

// printable replaces what the API refuses: characters outside of XML 1.0
// section 2.2.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t', r == '\n', r == '\r', r >= ' ' && r != utf8.RuneError && r != 0xFFFE && r != 0xFFFF:
			return r
		}
		return utf8.RuneError
	}, s)
}

// validAttributeName checks the rules of the SNS developer guide: up to 256 of
// A-Z a-z 0-9 _ - and single inner dots, not beginning with AWS. or Amazon.
func validAttributeName(name string) bool {
	if name == "" || len(name) > 256 || name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, "..") {
		return false
	}
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon.") {
		return false
	}
	for _, c := range []byte(lower) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// split cuts entries into calls: one topic each, at most batchSize entries and
// maxBytes in all, and on FIFO topics one entry of a group, since the entries of a
// batch fail singly and a later one must not overtake.
func split(entries []entry) [][]entry {
	var calls [][]entry
	open := map[string]int{} // topic to its call that still has room
	for _, en := range entries {
		i, ok := open[en.topic]
		if !ok || !fits(calls[i], en) {
			i = len(calls)
			open[en.topic] = i
			calls = append(calls, nil)
		}
		calls[i] = append(calls[i], en)
	}
	return calls
}

func fits(call []entry, en entry) bool {
	size := en.size
	for _, other := range call {
		size += other.size
		if en.group != "" && other.group == en.group {
			return false
		}
	}
	return len(call) < batchSize && size <= maxBytes
}

// entryID names an entry within its call.
func entryID(i int) string { return strconv.Itoa(i) }

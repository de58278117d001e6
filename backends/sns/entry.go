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
	"eventpusher/internal/tracing"
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
	topic      string
	message    string
	subject    *string
	attributes map[string]types.MessageAttributeValue
	group      string // of FIFO topics
	id         string
	size       int // as SNS counts it
}

// newEntry renders e for a call of that epoch (backends.Epoch). An error is final for the event.
func (b *Backend) newEntry(e *event.Event, epoch uint64) (entry, error) {
	en := entry{topic: b.topics.of(e), id: e.ID}
	if en.topic == "" {
		return en, backends.Permanent(fmt.Errorf("sns: no topic is configured for this event"))
	}
	if isFIFO(en.topic) {
		en.group = groupID(e.Key())
	}
	en.attributes = b.attributes(e, epoch)
	var err error
	if en.subject, err = b.values.subjectOf(e); err != nil {
		return en, backends.Permanent(fmt.Errorf("sns: %w", err))
	}
	written, err := b.values.named(e)
	if err == nil {
		err = b.write(&en, written)
	}
	if err != nil {
		return en, backends.Permanent(fmt.Errorf("sns: %w", err))
	}
	return en, nil
}

// write puts e into the entry.
func (b *Backend) write(en *entry, e *event.Event) error {
	m, err := b.chosen.Form.Write(e)
	if err != nil {
		return err
	}
	en.message = string(m.Body)
	if en.measure(); en.size > maxBytes {
		return &backends.TooLargeError{Size: en.size, Limit: maxBytes}
	}
	return nil
}

// measure counts as SNS does.
func (en *entry) measure() {
	en.size = len(en.message)
	for name, value := range en.attributes {
		en.size += len(name) + len(*value.DataType) + len(*value.StringValue)
	}
}

// groupID returns the message group of a key. It is a hash because keys are JIDs:
// longer than the 128 characters of a group, in any script, and nobody's business.
func groupID(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:16])
}

// attributes returns what stands beside the message: the event's id, the epoch unless it is 0,
// what the event is, where that is configured, the configured attributes, and the metadata. Numbers are
// Number, all else is String. Of more than maxAttributes the first are sent, metadata by
// name, and what SNS does not take as attribute is left out; the JSON has the metadata.
func (b *Backend) attributes(e *event.Event, epoch uint64) map[string]types.MessageAttributeValue {
	attrs := map[string]types.MessageAttributeValue{}
	if e.ID != "" {
		attrs[idAttribute] = stringAttribute(e.ID)
	}
	if parent := tracing.Parent(e.ID); parent != "" {
		attrs[tracing.Header] = stringAttribute(parent)
	}
	if epoch != 0 {
		attrs[epochAttribute] = numberAttribute(strconv.FormatUint(epoch, 10))
	}
	if b.values.event {
		for name, text := range map[string]string{"event_sort": e.Sort(), "event_kind": e.Kind.String(), "event_type": e.Type, "event_direction": e.Direction.String()} {
			if text != "" {
				attrs[name] = stringAttribute(text)
			}
		}
	}
	if e.Metadata[backends.TruncatedKey] == true { // before those that may find no room
		attrs[backends.TruncatedKey] = stringAttribute("true")
	}
	for _, a := range b.values.attributes {
		if value, err := a.of(e); err == nil {
			b.attribute(attrs, a.name, value)
		} else {
			b.warnLeftOut(a.name)
		}
	}
	for _, key := range e.Metadata.Keys() {
		b.attribute(attrs, key, e.Metadata[key])
	}
	return attrs
}

// attribute adds one unless there is one of its name, no room, or SNS would refuse it.
func (b *Backend) attribute(attrs map[string]types.MessageAttributeValue, name string, value any) {
	text := event.Metadata{name: value}.Text(name)
	if _, there := attrs[name]; there {
		return
	}
	switch {
	case !validAttributeName(name), text == "":
		b.warnLeftOut(name)
		return
	case len(attrs) >= maxAttributes:
		b.warnCut(name)
		return
	}
	switch value.(type) {
	case int, int64, float64:
		attrs[name] = numberAttribute(text)
	default:
		attrs[name] = stringAttribute(text)
	}
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

// entryID names an entry within its call.
func entryID(i int) string { return strconv.Itoa(i) }

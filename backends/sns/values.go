package sns

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"eventpusher/backends"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// maxSubject is how many characters a subject has at most (SNS API reference, Publish).
const maxSubject = 99

// values are what is sent of an event beside its form.
type values struct {
	guid       func(*event.Event) (any, error) // of the user of an event; nil: the bare JID
	subject    func(*event.Event) (any, error) // nil: none
	attributes []attributeValue                // in a fixed order
	event      bool                            // the event's sort, kind, type and direction are attributes
}

// attributeValue is a configured message attribute.
type attributeValue struct {
	name string
	of   func(*event.Event) (any, error)
}

// compile reads what c has of values.
func (b *Backend) compile(c *config.SNS, compile backends.Compile) (err error) {
	v := &b.values
	v.event = c.EventAttributes
	if c.UserGUID != "" {
		if c.Choice.Format != config.FormatMongooseIM && c.Choice.Format != "" {
			return errors.New("user_guid: only format mongooseim has a user_id; use format template")
		}
		if v.guid, err = compile(c.UserGUID); err != nil {
			return fmt.Errorf("user_guid: %w", err)
		}
	}
	if c.Subject != "" {
		if v.subject, err = compile(c.Subject); err != nil {
			return fmt.Errorf("subject: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.MessageAttributes)) {
		if !validAttributeName(name) {
			return fmt.Errorf("message_attributes: SNS has no attribute named %q: write up to 256 of A-Z a-z 0-9 _ - and single dots", name)
		}
		of, err := compile(c.MessageAttributes[name])
		if err != nil {
			return fmt.Errorf("message_attributes.%s: %w", name, err)
		}
		v.attributes = append(v.attributes, attributeValue{name, of})
	}
	return nil
}

// named returns e with user_guid's values in place of JIDs, as MongooseIM's plugin_module has
// it: the expression is asked of each of the two users, who is event.user then.
func (v *values) named(e *event.Event) (*event.Event, error) {
	if v.guid == nil {
		return e, nil
	}
	copied := *e
	for _, j := range []*jid.JID{&copied.From, &copied.To} {
		if *j == "" {
			continue
		}
		asked := *e
		asked.User = j.Bare()
		value, err := v.guid(&asked)
		if err != nil {
			return nil, fmt.Errorf("user_guid: %w", err)
		}
		*j = jid.JID(fmt.Sprint(value))
	}
	return &copied, nil
}

// subjectOf returns the subject in the form that SNS takes: one line of text; nil if it is
// empty.
func (v *values) subjectOf(e *event.Event) (*string, error) {
	if v.subject == nil {
		return nil, nil
	}
	value, err := v.subject(e)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	line := printable(strings.Join(strings.FieldsFunc(fmt.Sprint(value), func(r rune) bool { return r < ' ' || r == 0x7F }), " "))
	if utf8.RuneCountInString(line) > maxSubject {
		line = string([]rune(line)[:maxSubject])
	}
	if line = strings.TrimSpace(line); line == "" {
		return nil, nil
	}
	return &line, nil
}

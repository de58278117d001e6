// Package form writes events as receivers want them. The forms are the same for every
// type of destination but for MongooseIM's, which has its own for each.
package form

import (
	"fmt"

	"eventpusher/config"
	"eventpusher/event"
)

// Form is a way to write events. It is safe for concurrent use.
type Form interface {
	// Takes reports whether the form has words for e. It does not change over time.
	Takes(e *event.Event) bool
	// Write writes e. An error is final for e.
	Write(e *event.Event) (Message, error)
}

// Message is an event as its receiver gets it.
type Message struct {
	ContentType string
	// Attributes are the CloudEvents attributes that go beside the body, in a fixed order and
	// under the names of the specification, without a protocol's prefix; nil in all other forms.
	Attributes []Attribute
	Body       []byte
}

// Attribute is a CloudEvents attribute.
type Attribute struct{ Name, Value string }

// BatchType returns the content type of a JSON array of what a form writes; ok is false if the
// form cannot be written so.
func BatchType(f Form) (contentType string, ok bool) {
	switch f.(type) {
	case jsonForm:
		return "application/json", true
	case structured:
		return batchType, true
	}
	return "", false
}

// newForm returns the form that a configuration chooses. mongooseim is that of the type of
// destination, nil if MongooseIM has no such type; then the default is json.
func newForm(c config.Choice, mongooseim Form) (Form, error) {
	switch c.Format {
	case config.FormatMongooseIM, "":
		if mongooseim == nil && c.Format == "" {
			return jsonForm{}, nil
		}
		if mongooseim == nil {
			return nil, fmt.Errorf("MongooseIM has no such destination, so there is no format %q", c.Format)
		}
		return mongooseim, nil
	case config.FormatJSON:
		return jsonForm{}, nil
	case config.FormatCloudEvents:
		return structured{}, nil
	case config.FormatCloudEventsBinary:
		return binary{}, nil
	case config.FormatTemplate:
		return newTemplate(c.Template, c.ContentType)
	}
	return nil, fmt.Errorf("there is no format %q", c.Format)
}

// Chosen is which events a destination gets, and how they are written.
type Chosen struct {
	Events event.Selection
	Form   Form
}

// Wants reports whether the destination gets e.
func (c *Chosen) Wants(e *event.Event) bool { return c.Events.Has(e) && c.Form.Takes(e) }

// Choose reads what a configuration chooses: without events those of the sorts usual. It
// tries the form on a made-up event of each sort, and refuses what it cannot write.
func Choose(c config.Choice, mongooseim Form, usual ...string) (chosen Chosen, err error) {
	names := c.Events
	if names == nil {
		names = usual
	}
	if chosen.Events, err = event.ParseSelection(names); err != nil {
		return chosen, err
	}
	if chosen.Form, err = newForm(c, mongooseim); err != nil {
		return chosen, fmt.Errorf("format: %w", err)
	}
	for _, e := range chosen.Events.Samples() {
		if !chosen.Form.Takes(&e) {
			return chosen, fmt.Errorf("format %q has no words for %s: write another format, such as %q, or leave it out of events", c.Format, e.Sort(), config.FormatJSON)
		}
		if _, err := chosen.Form.Write(&e); err != nil {
			return chosen, fmt.Errorf("template: tried on a made-up event of %s: %w", e.Sort(), err)
		}
	}
	return chosen, nil
}

// Payload is the JSON of MongooseIM's sns and rabbit, with addresses in that form: of who
// came and went, and of messages with a body element, which may be empty.
type Payload event.AddressForm

// Takes implements Form.
func (Payload) Takes(e *event.Event) bool {
	return e.Kind == event.UserStatus || e.Kind == event.Chat && e.HasBody
}

// Write implements Form.
func (p Payload) Write(e *event.Event) (Message, error) {
	return Message{ContentType: "application/json", Body: event.AppendPayload(nil, e, event.AddressForm(p))}, nil
}

// jsonVersion is the version of the form json. Another one comes when a field gets another
// meaning or goes; a new field alone makes none.
const jsonVersion = 1

// jsonForm is the whole event.
type jsonForm struct{}

func (jsonForm) Takes(*event.Event) bool { return true }

func (jsonForm) Write(e *event.Event) (Message, error) {
	return Message{ContentType: "application/json", Body: event.AppendJSON(nil, e, jsonVersion)}, nil
}

package http

import (
	"net/url"

	"eventpusher/backends/form"
	"eventpusher/event"
)

// mongooseIM is the form of mod_event_pusher_http_defaults: the fields of a message with
// a body that is not empty.
type mongooseIM struct{}

var _ form.Form = mongooseIM{}

// Takes implements form.Form.
func (mongooseIM) Takes(e *event.Event) bool { return e.Kind == event.Chat && e.Body != "" }

// Write implements form.Form.
func (mongooseIM) Write(e *event.Event) (form.Message, error) {
	return form.Message{ContentType: "application/x-www-form-urlencoded", Body: appendForm(nil, e)}, nil
}

// usual are the events that MongooseIM publishes over HTTP: what local users send in chats.
const usual = "chat.in"

// formFields are the fields of mod_event_pusher_http_defaults, in its order.
// The receiver's domain is not among them.
var formFields = [...]string{"author", "server", "receiver", "message"}

// appendForm appends the form-encoded body for e: MongooseIM's fields, then the
// metadata in the order of its keys. Metadata under the name of a field takes its
// place. What MongooseIM writes (cow_qs) may differ in bytes, never once decoded.
func appendForm(dst []byte, e *event.Event) []byte {
	values := [...]string{e.From.Local(), e.From.Domain(), e.To.Local(), e.Body}
	for i, name := range formFields {
		if _, replaced := e.Metadata[name]; replaced {
			values[i] = e.Metadata.Text(name)
		}
		dst = appendField(dst, name, values[i])
	}
	for _, key := range e.Metadata.Keys() {
		if !isFormField(key) {
			dst = appendField(dst, key, e.Metadata.Text(key))
		}
	}
	return dst
}

func appendField(dst []byte, name, value string) []byte {
	if len(dst) > 0 {
		dst = append(dst, '&')
	}
	dst = append(dst, url.QueryEscape(name)...)
	dst = append(dst, '=')
	return append(dst, url.QueryEscape(value)...)
}

func isFormField(key string) bool {
	for _, name := range formFields {
		if key == name {
			return true
		}
	}
	return false
}

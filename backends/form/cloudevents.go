package form

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"eventpusher/event"
	"eventpusher/internal/tracing"
)

// CloudEvents 1.0.2 (https://github.com/cloudevents/spec): the whole event of the form json
// is the data, and the attributes are
//
//	id      the event's
//	source  the served host that reported it, as a URI (RFC 5122): xmpp:example.org
//	type    eventpusher. and the sort of event: eventpusher.chat.in
//	subject the user that it is about, a bare JID
//	time    when it happened

const (
	structuredType = "application/cloudevents+json; charset=UTF-8"
	batchType      = "application/cloudevents-batch+json; charset=UTF-8" // JSON event format 1.0.2, section 4
	typePrefix     = "eventpusher."
)

// attributes are in the order of the specification; specversion is the first.
func attributes(e *event.Event) []Attribute {
	list := []Attribute{{"specversion", "1.0"}, {"id", e.ID}, {"source", "xmpp:" + url.PathEscape(e.Host)}, {"type", typePrefix + e.Sort()}}
	if e.User != "" {
		list = append(list, Attribute{"subject", string(e.User)})
	}
	if parent := tracing.Parent(e.ID); parent != "" { // the extension for distributed tracing
		list = append(list, Attribute{tracing.Header, parent})
	}
	return append(list, Attribute{"time", e.Time.UTC().Format(time.RFC3339Nano)})
}

// binary has the attributes beside the data.
type binary struct{}

func (binary) Takes(e *event.Event) bool { return e.Sort() != "" }

func (binary) Write(e *event.Event) (Message, error) {
	m, err := jsonForm{}.Write(e)
	m.Attributes = attributes(e)
	return m, err
}

// structured has all in one JSON object.
type structured struct{}

func (structured) Takes(e *event.Event) bool { return e.Sort() != "" }

func (structured) Write(e *event.Event) (Message, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for _, a := range attributes(e) {
		name, _ := json.Marshal(a.Name) // a string
		value, _ := json.Marshal(a.Value)
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
		b.WriteByte(',')
	}
	b.WriteString(`"datacontenttype":"application/json","data":`)
	return Message{ContentType: structuredType, Body: append(event.AppendJSON(b.Bytes(), e, jsonVersion), '}')}, nil
}

// HeaderValue encodes a CloudEvents attribute for a header (HTTP binding 1.0.2, section
// 3.1.3.2): what is not printable ASCII, blanks, quotes and percent signs.
func HeaderValue(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

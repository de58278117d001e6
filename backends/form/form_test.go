package form_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/form"
	"eventpusher/config"
	"eventpusher/event"
)

// evil is text that breaks out of whatever is not escaped.
const evil = "a \"quote\", a \\, a <&>, a \u2028, a \x01 and }} {{.packet}}"

func choose(t *testing.T, c config.Choice) form.Form {
	t.Helper()
	if c.Format == config.FormatTemplate && c.ContentType == "" {
		c.ContentType = "application/json"
	}
	chosen, err := form.Choose(c, form.Payload(event.FullJID), "chat.in")
	if err != nil {
		t.Fatal(err)
	}
	return chosen.Form
}

func all(t *testing.T) []event.Event {
	t.Helper()
	s, err := event.ParseSelection([]string{"all"})
	if err != nil {
		t.Fatal(err)
	}
	list := s.Samples()
	for i := range list {
		if list[i].HasBody {
			list[i].Body = evil
		}
		list[i].Metadata = event.Metadata{"tenant": "a\"b", "n": int64(7), "ok": true}
	}
	return list
}

func write(t *testing.T, f form.Form, e *event.Event) form.Message {
	t.Helper()
	m, err := f.Write(e)
	if err != nil {
		t.Fatalf("%s: %v", e.Sort(), err)
	}
	return m
}

// TestJSON: what the form says is the event, and nothing of it is lost.
func TestJSON(t *testing.T) {
	f := choose(t, config.Choice{Format: config.FormatJSON})
	for _, e := range all(t) {
		m := write(t, f, &e)
		var got struct {
			Version int `json:"version"`
			event.Event
		}
		if err := json.Unmarshal(m.Body, &got); err != nil {
			t.Fatalf("%s: %v", m.Body, err)
		}
		e.Metadata["n"] = float64(7) // as JSON has it
		if diff := cmp.Diff(e, got.Event); diff != "" || got.Version != 1 || m.ContentType != "application/json" {
			t.Errorf("%s, version %d: %s", m.ContentType, got.Version, diff)
		}
	}
}

// TestWithoutMongooseIM: where MongooseIM has no such destination, the default is json.
func TestWithoutMongooseIM(t *testing.T) {
	chosen, err := form.Choose(config.Choice{}, nil, "chat.in")
	if err != nil {
		t.Fatal(err)
	}
	if m := write(t, chosen.Form, &all(t)[0]); !strings.HasPrefix(string(m.Body), `{"version":1,`) {
		t.Errorf("%s", m.Body)
	}
	if _, err := form.Choose(config.Choice{Format: config.FormatMongooseIM}, nil, "chat.in"); err == nil {
		t.Error("mongooseim is taken")
	}
}

// TestCloudEvents reads both modes with the official library.
func TestCloudEvents(t *testing.T) {
	for _, format := range []string{config.FormatCloudEvents, config.FormatCloudEventsBinary} {
		f := choose(t, config.Choice{Format: format})
		for _, e := range all(t) {
			m := write(t, f, &e)
			header := http.Header{"Content-Type": {m.ContentType}}
			for _, a := range m.Attributes {
				header.Set("ce-"+a.Name, a.Value)
			}
			if (len(m.Attributes) > 0) != (format == config.FormatCloudEventsBinary) {
				t.Errorf("%s has %d attributes beside the body", format, len(m.Attributes))
			}
			got, err := cloudevents.NewEventFromHTTPRequest(&http.Request{Header: header, Body: http.NoBody})
			if format == config.FormatCloudEvents {
				got = new(cloudevents.Event)
				err = json.Unmarshal(m.Body, got)
			} else if err == nil {
				err = got.SetData("application/json", json.RawMessage(m.Body))
			}
			if err == nil {
				err = got.Validate()
			}
			if err != nil {
				t.Fatalf("%s of %s: %v\n%s", format, e.Sort(), err, m.Body)
			}
			var data event.Event
			if err := got.DataAs(&data); err != nil || data.Body != e.Body {
				t.Errorf("data: %v, %q", err, data.Body)
			}
			want := [...]string{"1.0", e.ID, "xmpp:example.org", "eventpusher." + e.Sort(), string(e.User), e.Time.Format(time.RFC3339)}
			if diff := cmp.Diff(want, [...]string{got.SpecVersion(), got.ID(), got.Source(), got.Type(), got.Subject(), got.Time().Format(time.RFC3339)}); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// TestTemplate: no text of a user breaks out of the quotes of a JSON template.
func TestTemplate(t *testing.T) {
	f := choose(t, config.Choice{Format: config.FormatTemplate, Template: `
		{"text": "{{.body}} by {{.from}}", "whole": {{json .body}}, "n": {{json (index .metadata "n")}}, "none": {{json (index .metadata "none")}},
		{{with .room}}"room": "{{.}}",{{end}}{{if eq .kind "chat"}}"chat": true,{{else}}"kind": "{{.kind}}",{{end}}
		{{range $key, $value := .metadata}}{{$quoted := json $key}}{{$quoted}}: "{{$value}}",{{end}}"end": {{raw "1"}}}`})
	for _, e := range all(t) {
		m := write(t, f, &e)
		var got map[string]any
		if err := json.Unmarshal(m.Body, &got); err != nil {
			t.Fatalf("%v\n%s", err, m.Body)
		}
		if got["text"] != e.Body+" by "+string(e.From) || got["whole"] != e.Body || got["tenant"] != `a"b` || got["none"] != nil || got["n"] != "7" || got["end"] != float64(1) {
			t.Errorf("%s", m.Body)
		}
	}
}

// TestPlainTemplate: what is not JSON is left as it is.
func TestPlainTemplate(t *testing.T) {
	f := choose(t, config.Choice{Format: config.FormatTemplate, Template: "{{.user}}: {{.body}}", ContentType: "text/plain; charset=utf-8"})
	e := all(t)[0]
	if m := write(t, f, &e); string(m.Body) != "alice@example.org: "+evil || m.ContentType != "text/plain; charset=utf-8" {
		t.Errorf("%s %s", m.ContentType, m.Body)
	}
}

func TestTemplateOfOneEventFails(t *testing.T) {
	f := choose(t, config.Choice{Format: config.FormatTemplate, Template: `{"a": {{if .metadata}}{{.metadata.secret.deeper}}{{end}}1}`})
	e := all(t)[0]
	e.Metadata = event.Metadata{"secret": "hunter2"}
	_, err := f.Write(&e)
	if backends.Reason(err) != "permanent" || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
	large := choose(t, config.Choice{Format: config.FormatTemplate, Template: `{"a": [{{range .metadata}}{{json $.packet}},{{json $.packet}},{{json $.packet}},{{json $.packet}},{{json $.packet}},{{end}}1]}`})
	e.Metadata, e.Packet = event.Metadata{"a": true}, strings.Repeat("x", 1<<20)
	if _, err := large.Write(&e); backends.Reason(err) != "too_large" {
		t.Errorf("%v", err)
	}
}

// TestRefused: each error says where the fault is.
func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		c    config.Choice
		want string
	}{
		{config.Choice{Events: []string{"unack"}}, `format "" has no words for unack`},
		{config.Choice{Events: []string{"chat", "gossip"}}, `"gossip" is no sort`},
		{config.Choice{Format: "yaml"}, `no format "yaml"`},
		{config.Choice{Format: config.FormatTemplate, Template: "{{.body", ContentType: "text/plain"}, "template:1:"},
		{config.Choice{Format: config.FormatTemplate, Template: "{{.boddy}}", ContentType: "text/plain"}, ".boddy"},
		{config.Choice{Format: config.FormatTemplate, Template: "{{.body | _escape}}{{nothing}}", ContentType: "text/plain"}, "nothing"},
		{config.Choice{Format: config.FormatTemplate, Template: `{"a": {{.body}}}`, ContentType: "application/json"}, "does not make JSON"},
		{config.Choice{Format: config.FormatTemplate, Template: "x", ContentType: "no type"}, "content_type"},
	} {
		if _, err := form.Choose(tc.c, form.Payload(event.FullJID), "chat.in"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.c, err, tc.want)
		}
	}
}

// TestLine: values are escaped, the words of our own are not.
func TestLine(t *testing.T) {
	quote := func(s string) string { return "<" + strings.ReplaceAll(s, ".", "%") + ">" }
	for source, want := range map[string]string{
		"fixed.text": "fixed.text",
		"e.{{.sort}}.{{.user}}{{if .room}}.{{.room}}{{end}}":                                 "e.chat.in.<alice@example%org>",
		`{{with .body}}{{.}}{{end}}{{if eq .sort "chat.in"}}!{{end}}{{printf "%s.x" .type}}`: "<" + strings.ReplaceAll(evil, ".", "%") + ">!<chat%x>",
	} {
		l, err := form.NewLine(source, quote)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.Write(&all(t)[0]); err != nil || got != want || l.Fixed() != (source == want) || l.Source() != source {
			t.Errorf("%s: %q, %v, want %q", source, got, err, want)
		}
	}
	for _, source := range []string{"{{.sort", "{{raw .body}}", "{{json .body}}"} {
		if _, err := form.NewLine(source, quote); err == nil {
			t.Errorf("%s is taken", source)
		}
	}
	l, err := form.NewLine("{{.metadata.secret.deeper}}", quote)
	if err != nil {
		t.Fatal(err)
	}
	e := all(t)[0]
	e.Metadata = event.Metadata{"secret": "hunter2"}
	if _, err := l.Write(&e); backends.Reason(err) != "permanent" || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// FuzzTemplate: whatever users write, the JSON of a template is JSON, with their text in it.
func FuzzTemplate(f *testing.F) {
	f.Add(evil)
	chosen, err := form.Choose(config.Choice{Format: config.FormatTemplate, Template: `{"a": "{{.body}}", "b": {{json .body}}}`, ContentType: "application/json"}, nil, "chat.in")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		m, err := chosen.Form.Write(&event.Event{Body: body})
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		var got map[string]string
		if err := json.Unmarshal(m.Body, &got); err != nil || got["a"] != got["b"] || got["a"] != strings.ToValidUTF8(body, "\uFFFD") && len(got["a"]) == 0 {
			t.Errorf("%q: %v, %s", body, err, m.Body)
		}
	})
}

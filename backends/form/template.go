package form

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
)

// maxTemplated bounds what a template makes of one event, in bytes.
const maxTemplated = 4 << 20

// templated is the form template: Go's text/template over the fields of the form json.
// Where it makes JSON, every value that stands in it by itself is escaped for a JSON
// string, so that no text of a user can break out of its quotes; json writes a whole JSON
// value, with its quotes, and raw is left as it is.
type templated struct {
	template    *template.Template
	contentType string
	json        bool
}

// escapeName is the function that is put behind each value.
const escapeName = "_escape"

func newTemplate(text, contentType string) (Form, error) {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, errors.New("content_type is no media type, such as text/plain; charset=utf-8")
	}
	t := &templated{contentType: contentType, json: media == "application/json" || strings.HasSuffix(media, "+json")}
	escape := func(v any) string { return fmt.Sprint(v) }
	if t.json {
		escape = escapeJSON
	}
	t.template, err = parseTemplate(text, template.FuncMap{
		"json": encodeJSON, "raw": func(v any) raw { return raw(fmt.Sprint(v)) }, escapeName: escape,
	})
	return t, err
}

// parseTemplate reads a template and puts the function escapeName behind each value.
func parseTemplate(text string, functions template.FuncMap) (*template.Template, error) {
	t, err := template.New("template").Option("missingkey=error").Funcs(functions).Parse(text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	for _, defined := range t.Templates() {
		escapeAll(defined.Root)
	}
	return t, nil
}

// raw is text that is not escaped: what the template says is safe, and words of our own.
type raw string

func escapeJSON(v any) string {
	switch v := v.(type) {
	case raw:
		return string(v)
	case nil:
		return ""
	}
	quoted, err := encodeJSON(fmt.Sprint(v))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(quoted), `"`), `"`)
}

func encodeJSON(v any) (raw, error) {
	var b bytes.Buffer
	w := json.NewEncoder(&b)
	w.SetEscapeHTML(false)
	err := w.Encode(v)
	return raw(strings.TrimSuffix(b.String(), "\n")), err
}

// escapeAll puts escapeName behind each value that is written.
func escapeAll(n parse.Node) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			escapeAll(child)
		}
	case *parse.ActionNode:
		if len(n.Pipe.Decl) == 0 { // else it is an assignment, which writes nothing
			n.Pipe.Cmds = append(n.Pipe.Cmds, &parse.CommandNode{NodeType: parse.NodeCommand, Args: []parse.Node{parse.NewIdentifier(escapeName).SetPos(n.Pos)}})
		}
	case *parse.IfNode:
		escapeAll(n.List)
		escapeAll(n.ElseList)
	case *parse.RangeNode:
		escapeAll(n.List)
		escapeAll(n.ElseList)
	case *parse.WithNode:
		escapeAll(n.List)
		escapeAll(n.ElseList)
	}
}

func (t *templated) Takes(*event.Event) bool { return true }

func (t *templated) Write(e *event.Event) (Message, error) {
	out := bounded{most: maxTemplated}
	if err := t.template.Execute(&out, fieldsOf(e)); err != nil {
		if out.full {
			return Message{}, backends.Permanent(fmt.Errorf("the template makes more than %d bytes: %w", maxTemplated, backends.ErrTooLarge))
		}
		return Message{}, backends.Permanent(errors.New(withoutValues(err)))
	}
	if t.json && !json.Valid(out.Bytes()) {
		return Message{}, backends.Permanent(errors.New("the template does not make JSON of this event"))
	}
	return Message{ContentType: t.contentType, Body: out.Bytes()}, nil
}

// withoutValues says what is wrong with a template, and nothing of the event.
func withoutValues(err error) string {
	text, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "template: "), ">: ")
	if text == err.Error() {
		return "the template cannot be executed for this event"
	}
	return "the template cannot be executed for this event, at " + text + ">"
}

// fieldsOf are the fields of the form json, all of them, whether they are empty or not.
func fieldsOf(e *event.Event) map[string]any {
	metadata := map[string]any(e.Metadata)
	if metadata == nil {
		metadata = map[string]any{}
	}
	return map[string]any{
		"version": jsonVersion, "id": e.ID, "kind": e.Kind.String(), "type": e.Type, "direction": e.Direction.String(), "sort": raw(e.Sort()),
		"from": string(e.From), "to": string(e.To), "user": string(e.User), "room": string(e.Room),
		"body": e.Body, "has_body": e.HasBody, "class": e.Class.String(), "encrypted": e.Encrypted, "fallback": e.Fallback, "replaces": e.Replaces,
		"online": e.Online, "recipient_offline": e.RecipientOffline, "stranger": e.Stranger, "session_count": e.SessionCount, "stanza_id": e.StanzaID,
		"time": e.Time.UTC().Format(time.RFC3339Nano), "timestamp": e.Timestamp(), "host": e.Host, "dialect": e.Dialect, "packet": e.Packet,
		"reconciled": e.Reconciled, "unverified": e.Unverified, "replayed": e.Replayed, "metadata": metadata,
	}
}

// bounded is a buffer with an end.
type bounded struct {
	bytes.Buffer
	most int
	full bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.most {
		b.full = true
		return 0, errors.New("full")
	}
	return b.Buffer.Write(p)
}

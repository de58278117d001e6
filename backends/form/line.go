package form

import (
	"errors"
	"fmt"
	"strings"
	"text/template"

	"eventpusher/backends"
	"eventpusher/event"
)

// maxLine bounds what a Line makes of one event, in bytes.
const maxLine = 64 << 10

// Line is a template that makes a short text of an event, such as a subject. It knows the
// fields of the format template and none of its functions. It is safe for concurrent use.
type Line struct {
	template *template.Template // nil: text is the same for every event
	text     string
}

// NewLine reads a template. Each value that it writes goes through escape, but for .sort,
// whose words are our own.
func NewLine(text string, escape func(string) string) (*Line, error) {
	if !strings.Contains(text, "{{") {
		return &Line{text: text}, nil
	}
	t, err := parseTemplate(text, template.FuncMap{escapeName: func(v any) string {
		if own, ok := v.(raw); ok {
			return string(own)
		}
		return escape(fmt.Sprint(v))
	}})
	return &Line{template: t, text: text}, err
}

// Source is the template as it was written. It holds nothing of any event.
func (l *Line) Source() string { return l.text }

// Fixed reports whether the text is the same for every event.
func (l *Line) Fixed() bool { return l.template == nil }

// Write makes the text of e. An error is final for e and holds nothing of it.
func (l *Line) Write(e *event.Event) (string, error) {
	if l.template == nil {
		return l.text, nil
	}
	out := bounded{most: maxLine}
	if err := l.template.Execute(&out, fieldsOf(e)); err != nil {
		if out.full {
			return "", backends.Permanent(fmt.Errorf("the template makes more than %d bytes: %w", maxLine, backends.ErrTooLarge))
		}
		return "", backends.Permanent(errors.New(withoutValues(err)))
	}
	return out.String(), nil
}

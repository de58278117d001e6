// Package dataform reads and writes data forms (XEP-0004) as far as push needs them:
// fields of one value.
package dataform

import (
	"encoding/xml"
	"io"
	"strings"
	"unicode/utf8"

	"eventpusher/internal/plainxml"
)

// NS is the namespace of data forms.
const NS = "jabber:x:data"

// FormType is the name of the field that says what a form is for (XEP-0068).
const FormType = "FORM_TYPE"

// The types of a form that are used.
const (
	Ask    = "form"
	Submit = "submit"
	Result = "result"
)

// Form is a form as it came. Unmarshal it from the x element.
type Form struct {
	Type   string  `xml:"type,attr"`
	Fields []Field `xml:"jabber:x:data field"`
}

// Field is one of its fields.
type Field struct {
	Name   string   `xml:"var,attr"`
	Values []string `xml:"jabber:x:data value"`
}

// usual is how many fields most forms have.
const usual = 4

// Read reads the form whose x element has just begun, to its end, as encoding/xml would
// unmarshal it; false means that there is something odd in it. The form shares the input's
// memory.
func (f *Form) Read(r *plainxml.Reader) bool {
	f.Type, f.Fields = r.Attr("type"), make([]Field, 0, usual)
	return Children(r, func() bool {
		if !r.Is(NS, "field") {
			return r.Skip()
		}
		f.Fields = append(f.Fields, Field{Name: r.Attr("var")})
		return f.Fields[len(f.Fields)-1].read(r)
	})
}

func (f *Field) read(r *plainxml.Reader) bool {
	return Children(r, func() bool {
		if !r.Is(NS, "value") {
			return r.Skip()
		}
		value, next := "", r.Next()
		if next == plainxml.Text {
			value, next = r.Text(), r.Next()
		}
		f.Values = append(f.Values, value)
		return next == plainxml.End
	})
}

// Children reads to the end of the element that has just begun and calls read for each
// child, which it has to read to its end; false means that something is odd.
func Children(r *plainxml.Reader, read func() bool) bool {
	for {
		switch r.Next() {
		case plainxml.Start:
			if !read() {
				return false
			}
		case plainxml.End:
			return true
		case plainxml.Odd, plainxml.Done:
			return false
		}
	}
}

// Only reads to the end of the element that has just begun, and calls read for its child
// of that name; false means that something is odd, such as a second one.
func Only(r *plainxml.Reader, space, name string, read func() bool) bool {
	n := 0
	return Children(r, func() bool {
		if !r.Is(space, name) {
			return r.Skip()
		}
		n++
		return n == 1 && read()
	})
}

// Value returns the field's first value without the space around it.
func (f *Field) Value() string {
	if len(f.Values) == 0 {
		return ""
	}
	return strings.TrimSpace(f.Values[0])
}

// Value returns that of the last field of this name, empty if there is none.
func (f *Form) Value(name string) string {
	for i := len(f.Fields) - 1; i >= 0; i-- {
		if f.Fields[i].Name == name {
			return f.Fields[i].Value()
		}
	}
	return ""
}

// escape writes a text. Most need no escape, which saves a copy.
func escape(b Writer, text string) {
	plain := func(c rune) bool {
		return c >= ' ' && c < utf8.RuneSelf && c != '&' && c != '<' && c != '>' && c != '\'' && c != '"'
	}
	if strings.ContainsFunc(text, func(c rune) bool { return !plain(c) }) {
		_ = xml.EscapeText(b, []byte(text)) // a Writer takes everything
		return
	}
	_, _ = b.WriteString(text)
}

// Writer is a bytes.Buffer or a strings.Builder, which take everything.
type Writer interface {
	io.Writer
	io.StringWriter
}

// Write writes a form with n fields. An empty purpose leaves FORM_TYPE out.
func Write(b Writer, kind, purpose string, n int, field func(i int) (name, value string)) {
	_, _ = b.WriteString("<x xmlns='" + NS + "' type='" + kind + "'>")
	if purpose != "" {
		_, _ = b.WriteString("<field var='" + FormType + "' type='hidden'><value>" + purpose + "</value></field>")
	}
	for i := range n {
		name, value := field(i)
		_, _ = b.WriteString("<field var='")
		escape(b, name)
		_, _ = b.WriteString("'><value>")
		escape(b, value)
		_, _ = b.WriteString("</value></field>")
	}
	_, _ = b.WriteString("</x>")
}

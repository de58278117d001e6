// Package dataform reads and writes data forms (XEP-0004) as far as push needs them:
// fields of one value.
package dataform

import (
	"bytes"
	"encoding/xml"
	"strings"
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

// Write writes a form with n fields. An empty purpose leaves FORM_TYPE out.
func Write(b *bytes.Buffer, kind, purpose string, n int, field func(i int) (name, value string)) {
	b.WriteString("<x xmlns='" + NS + "' type='" + kind + "'>")
	if purpose != "" {
		b.WriteString("<field var='" + FormType + "' type='hidden'><value>" + purpose + "</value></field>")
	}
	for i := range n {
		name, value := field(i)
		b.WriteString("<field var='")
		_ = xml.EscapeText(b, []byte(name)) // a buffer takes everything
		b.WriteString("'><value>")
		_ = xml.EscapeText(b, []byte(value))
		b.WriteString("</value></field>")
	}
	b.WriteString("</x>")
}

package notify

import (
	"encoding/xml"
	"strings"

	"eventpusher/backends/push/internal/dataform"
	"eventpusher/internal/plainxml"
)

// formSummary is the FORM_TYPE of what a notification tells (XEP-0357 section 8.1).
const formSummary = "urn:xmpp:push:summary"

// NSPriority is the namespace of the element that says how urgent a notification is:
// xeps.tigase.net/docs/push-notifications/priority.
const NSPriority = "tigase:push:priority:0"

// Element returns the notification element of a summary, as MongooseIM writes it. Without
// fields it has no form.
func Element(fields []Field) string { return Urgent(fields, false) }

// Urgent is Element, with the mark that the notification is urgent if the client asks for it.
func Urgent(fields []Field, marked bool) string {
	size := 256 // about what is around the fields
	for i := range fields {
		size += 48 + len(fields[i].Name) + len(fields[i].Value)
	}
	var b strings.Builder
	b.Grow(size)
	begin(&b)
	if len(fields) > 0 {
		dataform.Write(&b, dataform.Submit, formSummary, len(fields), func(i int) (string, string) { return fields[i].Name, fields[i].Value })
	}
	return end(&b, marked)
}

// Element returns the notification element of what was encrypted. It has no form.
func (e *Encrypted) Element(marked bool) string {
	var b strings.Builder
	b.Grow(256 + len(e.Data))
	begin(&b)
	b.WriteString("<encrypted xmlns='" + NSEncrypt + "' iv='" + e.IV + "'")
	if e.Call() {
		b.WriteString(" type='" + voip + "'")
	}
	b.WriteString(">" + e.Data + "</encrypted>")
	return end(&b, marked)
}

func begin(b *strings.Builder) { b.WriteString("<notification xmlns='" + NS + "'>") }

func end(b *strings.Builder, marked bool) string {
	if marked {
		b.WriteString("<priority xmlns='" + NSPriority + "'>high</priority>")
	}
	b.WriteString("</notification>")
	return b.String()
}

// Published is a notification element as servers write it. What is missing is empty.
type Published struct {
	XMLName   struct{}      `xml:"urn:xmpp:push:0 notification"`
	Form      dataform.Form `xml:"jabber:x:data x"`
	Encrypted Encrypted     `xml:"tigase:push:encrypt:0 encrypted"`
}

// ReadElement reads a notification element. What it returns may share the element's memory.
func ReadElement(element string) (Published, error) {
	p, ok := readPlain(element)
	if ok {
		return p, nil
	}
	p = Published{}
	err := xml.Unmarshal([]byte(element), &p)
	return p, err
}

// readPlain reads what is plain XML, as nearly all notifications are.
func readPlain(element string) (p Published, ok bool) {
	r := plainxml.NewReader(element, "")
	if r.Next() != plainxml.Start || !r.Is(NS, "notification") {
		return p, false
	}
	ok = p.Read(r)
	return p, ok && r.Next() == plainxml.Done
}

// Read reads the element that has just begun, to its end, as encoding/xml would unmarshal
// it; false means that there is something odd in it.
func (p *Published) Read(r *plainxml.Reader) bool {
	forms, encrypted := 0, 0
	return dataform.Children(r, func() bool {
		switch {
		case r.Is(dataform.NS, "x"):
			forms++
			return forms == 1 && p.Form.Read(r)
		case r.Is(NSEncrypt, "encrypted"):
			encrypted++
			return encrypted == 1 && p.Encrypted.read(r)
		}
		return r.Skip()
	})
}

func (e *Encrypted) read(r *plainxml.Reader) bool {
	e.IV, e.Type = r.Attr("iv"), r.Attr("type")
	next := r.Next()
	if next == plainxml.Text {
		e.Data, next = r.Text(), r.Next()
	}
	return next == plainxml.End
}

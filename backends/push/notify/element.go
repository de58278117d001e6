package notify

import (
	"encoding/xml"
	"strings"

	"eventpusher/backends/push/internal/dataform"
	"eventpusher/internal/plainxml"
)

// formSummary is the FORM_TYPE of what a notification tells (XEP-0357 section 8.1).
const formSummary = "urn:xmpp:push:summary"

// Element returns the notification element of a summary, as MongooseIM writes it. Without
// fields it has no form.
func Element(fields []Field) string {
	size := 256 // about what is around the fields
	for i := range fields {
		size += 48 + len(fields[i].Name) + len(fields[i].Value)
	}
	var b strings.Builder
	b.Grow(size)
	b.WriteString("<notification xmlns='" + NS + "'>")
	if len(fields) > 0 {
		dataform.Write(&b, dataform.Submit, formSummary, len(fields), func(i int) (string, string) { return fields[i].Name, fields[i].Value })
	}
	b.WriteString("</notification>")
	return b.String()
}

// notification is the element as servers write it. Its name is checked only.
type notification struct {
	XMLName struct{}      `xml:"urn:xmpp:push:0 notification"`
	Form    dataform.Form `xml:"jabber:x:data x"`
}

// ReadElement returns the form of a notification element, which is empty if it has none. It
// may share the element's memory.
func ReadElement(element string) (dataform.Form, error) {
	n, ok := readPlain(element)
	if ok {
		return n.Form, nil
	}
	n = notification{}
	err := xml.Unmarshal([]byte(element), &n)
	return n.Form, err
}

// readPlain reads what is plain XML, as nearly all notifications are.
func readPlain(element string) (n notification, ok bool) {
	r := plainxml.NewReader(element, "")
	if r.Next() != plainxml.Start || !r.Is(NS, "notification") {
		return n, false
	}
	ok = dataform.Only(r, dataform.NS, "x", func() bool { return n.Form.Read(r) })
	return n, ok && r.Next() == plainxml.Done
}

package push

import (
	"bytes"
	"encoding/xml"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/registration"
)

// formSummary and formOptions are the FORM_TYPEs of XEP-0357 section 6 and of
// XEP-0060 section 7.1.5.
const (
	formSummary = "urn:xmpp:push:summary"
	formOptions = "http://jabber.org/protocol/pubsub#publish-options"
	nsPubSub    = "http://jabber.org/protocol/pubsub"
)

// publishPayload is the pubsub element that publishes a summary at a service's
// node, as MongooseIM writes it: the item has no id, and publish-options are there
// only if the client has given any.
func publishPayload(s *registration.Service, fields []decide.Field) []byte {
	var b bytes.Buffer
	b.WriteString("<pubsub xmlns='" + nsPubSub + "'><publish node='")
	xml.EscapeText(&b, []byte(s.Node))
	b.WriteString("'><item><notification xmlns='" + registration.NS + "'>")
	writeForm(&b, formSummary, len(fields), func(i int) (string, string) { return fields[i].Name, fields[i].Value })
	b.WriteString("</notification></item></publish>")
	if len(s.Options) > 0 {
		b.WriteString("<publish-options>")
		writeForm(&b, formOptions, len(s.Options), func(i int) (string, string) { return s.Options[i].Name, s.Options[i].Value })
		b.WriteString("</publish-options>")
	}
	b.WriteString("</pubsub>")
	return b.Bytes()
}

// writeForm writes a submitted data form (XEP-0004).
func writeForm(b *bytes.Buffer, purpose string, n int, field func(int) (name, value string)) {
	b.WriteString("<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>" + purpose + "</value></field>")
	for i := range n {
		name, value := field(i)
		b.WriteString("<field var='")
		xml.EscapeText(b, []byte(name))
		b.WriteString("'><value>")
		xml.EscapeText(b, []byte(value))
		b.WriteString("</value></field>")
	}
	b.WriteString("</x>")
}

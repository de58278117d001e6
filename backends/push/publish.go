package push

import (
	"bytes"
	"encoding/xml"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/internal/dataform"
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
	dataform.Write(&b, dataform.Submit, formSummary, len(fields), func(i int) (string, string) { return fields[i].Name, fields[i].Value })
	b.WriteString("</notification></item></publish>")
	if len(s.Options) > 0 {
		b.WriteString("<publish-options>")
		dataform.Write(&b, dataform.Submit, formOptions, len(s.Options), func(i int) (string, string) { return s.Options[i].Name, s.Options[i].Value })
		b.WriteString("</publish-options>")
	}
	b.WriteString("</pubsub>")
	return b.Bytes()
}

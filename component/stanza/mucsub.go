package stanza

import (
	"encoding/xml"
	"strings"
)

// The nodes of MUC/Sub, an extension of ejabberd by which a room sends what happens in it
// to users who are not in it: https://docs.ejabberd.im/developer/xmpp-clients-bots/extensions/muc-sub/
const (
	subscriptionNodes = "urn:xmpp:mucsub:nodes:"
	messagesNode      = subscriptionNodes + "messages"
	eventURI          = "http://jabber.org/protocol/pubsub#event"
)

// IsSubscription reports whether s is a message of MUC/Sub, by its looks: any user can
// send the like.
func (s *Stanza) IsSubscription() bool {
	return s.Kind == Message && s.Flags.Has(HasPubsub) && strings.Contains(s.Raw, subscriptionNodes)
}

// Subscribed decodes the message that a message of MUC/Sub brings into env. It returns
// false, with env undefined, if there is none or more than one: subjects, affiliations and
// others have nodes of their own.
func (d *Decoder) Subscribed(s *Stanza, env *Envelope) bool {
	inner := subscribed(s.Raw)
	return inner != "" && d.Decode([]byte(inner), env) == nil && env.Outer.Kind == Message
}

// subscribed returns the one message/event/items/item/message of the node for messages in
// raw, empty if there is not exactly one. An element that takes prefixes from around it is
// not found to be well-formed later.
func subscribed(raw string) (inner string) {
	path := [...]xml.Name{
		{Space: clientURI, Local: "message"}, {Space: eventURI, Local: "event"}, {Space: eventURI, Local: "items"},
		{Space: eventURI, Local: "item"}, {Space: clientURI, Local: "message"},
	}
	d := xml.NewDecoder(strings.NewReader(raw))
	depth, on := 0, 0 // on: so many of the open elements are on the path
	var start int64
	for {
		before := d.InputOffset()
		token, err := d.Token()
		if err != nil {
			return inner // at the end, or of what encoding/xml refuses nothing
		}
		switch t := token.(type) {
		case xml.StartElement:
			if on == depth && depth < len(path) && t.Name == path[depth] && (t.Name.Local != "items" || attribute(t, "node") == messagesNode) {
				on++
				start = before
			}
			depth++
		case xml.EndElement:
			if on == depth {
				if on--; depth == len(path) {
					if inner != "" {
						return ""
					}
					inner = raw[start:d.InputOffset()]
				}
			}
			depth--
		}
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name == (xml.Name{Local: name}) {
			return a.Value
		}
	}
	return ""
}

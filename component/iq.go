package component

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"

	"mellium.im/xmpp/component"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/ping"
	"mellium.im/xmpp/version"

	"eventpusher/internal/jid"
)

// nsStanzas is the namespace of stanza error conditions (RFC 6120 section 8.3.2).
const nsStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"

// software is the name that disco#info and jabber:iq:version give.
const software = "eventpusher"

// iq is what has to be known of an IQ in order to answer it.
type iq struct {
	name               xml.Name
	from, to, id, kind string // kind is the type attribute
	children           []xml.StartElement
}

// parseElement reads one top-level element of the stream by itself. It keeps what
// a user wrote away from the session's parser, for which any fault in it is the
// end of the stream.
func parseElement(frame []byte) (*iq, error) {
	d := xml.NewDecoder(bytes.NewReader(frame))
	d.DefaultSpace = component.NSAccept
	q := &iq{}
	for depth := 0; ; {
		token, err := d.Token()
		switch {
		case err == io.EOF:
			return q, nil
		case err != nil:
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			switch depth {
			case 0:
				q.name = t.Name
				q.from, q.to = unprefixed(t, "from"), unprefixed(t, "to")
				q.id, q.kind = unprefixed(t, "id"), unprefixed(t, "type")
			case 1:
				q.children = append(q.children, t)
			}
			depth++
		case xml.EndElement:
			depth--
		}
	}
}

// unprefixed returns the attribute of that name. An attribute x:from says nothing
// about the sender.
func unprefixed(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (q *iq) isIQ() bool { return q.name.Local == "iq" && q.name.Space == component.NSAccept }

// isReply reports whether the IQ answers one of ours; such are never answered.
// What has no type or a wrong one is taken for a request, so that its sender
// learns of it.
func (q *iq) isReply() bool { return q.kind == "result" || q.kind == "error" }

// responder answers the IQs that are addressed to the component (RFC 6120 section
// 8.2.3 demands an answer to each): disco, ping and version for what it is, an
// error for anything else. Messages and presences, subscriptions and probes
// included, are never answered: a component that says nothing about itself gives
// no grounds for loops, and whoever wants a subscription adds it on the server.
type responder struct {
	name    jid.JID
	version string
}

// answer returns the answer to a request and what kind of request it was; nil
// if there is nobody to answer or nobody was asked.
func (r *responder) answer(q *iq) (reply []byte, kind string) {
	to := q.to
	if to == "" {
		to = string(r.name)
	}
	// An answer from another domain than ours would cost the whole stream.
	if q.from == "" || jid.JID(jid.Prepare(to).Domain()) != r.name {
		return nil, "unanswerable"
	}
	var b strings.Builder
	head := func(kind string) {
		b.WriteString("<iq type='" + kind + "' from='")
		xml.EscapeText(&b, []byte(to))
		b.WriteString("' to='")
		xml.EscapeText(&b, []byte(q.from))
		if q.id != "" {
			b.WriteString("' id='")
			xml.EscapeText(&b, []byte(q.id))
		}
		b.WriteString("'>")
	}
	fail := func(kind, condition string) {
		head("error")
		b.WriteString("<error type='" + kind + "'><" + condition + " xmlns='" + nsStanzas + "'/></error>")
	}
	kind = "unsupported"
	switch ns := q.request(); {
	case ns == "":
		kind = "bad_request"
		fail("modify", "bad-request")
	case q.kind == "set":
		fail("cancel", "service-unavailable")
	case ns == ping.NS:
		kind = "ping"
		head("result")
	case ns == version.NS:
		kind = "version"
		head("result")
		b.WriteString("<query xmlns='" + version.NS + "'><name>" + software + "</name><version>")
		xml.EscapeText(&b, []byte(r.version))
		b.WriteString("</version></query>")
	case ns == disco.NSInfo, ns == disco.NSItems:
		kind = "disco"
		switch {
		case unprefixed(q.children[0], "node") != "": // there are no nodes (XEP-0030 section 7)
			fail("cancel", "item-not-found")
		case ns == disco.NSItems:
			head("result")
			b.WriteString("<query xmlns='" + disco.NSItems + "'/>")
		default:
			head("result")
			b.WriteString("<query xmlns='" + disco.NSInfo + "'><identity category='component' type='generic' name='" + software + "'/>" +
				"<feature var='" + disco.NSInfo + "'/><feature var='" + ping.NS + "'/><feature var='" + version.NS + "'/></query>")
		}
	default:
		fail("cancel", "service-unavailable")
	}
	b.WriteString("</iq>")
	return []byte(b.String()), kind
}

// request returns the namespace of what is asked for, empty if the IQ is no valid
// request: a get or set has an id and exactly one child (RFC 6120 section 8.2.3).
// The element names tell nothing that their namespaces do not, except that a
// namespace with a wrong element is some request that is not supported.
func (q *iq) request() string {
	if q.kind != "get" && q.kind != "set" || len(q.children) != 1 || q.id == "" {
		return ""
	}
	name := q.children[0].Name
	want := "query"
	if name.Space == ping.NS {
		want = "ping"
	}
	if name.Local != want {
		return "unknown"
	}
	return name.Space
}

package stanza

// space is a namespace that the decoder knows by name; all others are unknownSpace.
type space uint8

const (
	unknownSpace space = iota
	noSpace            // xmlns=''
	xmlSpace
	xmlnsSpace
	streamSpace
	acceptSpace // jabber:component:accept
	clientSpace
	serverSpace
	forwardSpace
	delaySpace
	carbonsSpace
	mamSpace
	pubsubEventSpace
	mucSpace
	mucUserSpace
	statesSpace
	receiptsSpace
	markersSpace
	callSpace
	hintsSpace
	stanzaIDSpace
	privilege1Space
	privilege2Space
	emeSpace
	omemoLegacySpace
	omemoSpace
	openpgpSpace
	legacyPGPSpace
	fallbackSpace
	correctionSpace
	reactionsSpace
	retractionSpace
	feedSpace
)

const (
	streamURI = "http://etherx.jabber.org/streams"
	clientURI = "jabber:client"
	feedURI   = "urn:eventpusher:feed:1"
)

// spaceOf returns the namespace of that URI.
func spaceOf(uri []byte) space {
	switch string(uri) {
	case "":
		return noSpace
	case "http://www.w3.org/XML/1998/namespace":
		return xmlSpace
	case "http://www.w3.org/2000/xmlns/":
		return xmlnsSpace
	case streamURI:
		return streamSpace
	case "jabber:component:accept":
		return acceptSpace
	case clientURI:
		return clientSpace
	case "jabber:server":
		return serverSpace
	case "urn:xmpp:forward:0":
		return forwardSpace
	case "urn:xmpp:delay":
		return delaySpace
	case "urn:xmpp:carbons:2":
		return carbonsSpace
	case "urn:xmpp:mam:2", "urn:xmpp:mam:1", "urn:xmpp:mam:0":
		return mamSpace
	case "http://jabber.org/protocol/pubsub#event":
		return pubsubEventSpace
	case "http://jabber.org/protocol/muc":
		return mucSpace
	case "http://jabber.org/protocol/muc#user":
		return mucUserSpace
	case "http://jabber.org/protocol/chatstates":
		return statesSpace
	case "urn:xmpp:receipts":
		return receiptsSpace
	case "urn:xmpp:chat-markers:0":
		return markersSpace
	case "urn:xmpp:jingle-message:0":
		return callSpace
	case "urn:xmpp:hints":
		return hintsSpace
	case "urn:xmpp:sid:0":
		return stanzaIDSpace
	case "urn:xmpp:privilege:1":
		return privilege1Space
	case "urn:xmpp:privilege:2":
		return privilege2Space
	case "urn:xmpp:eme:0":
		return emeSpace
	case "eu.siacs.conversations.axolotl":
		return omemoLegacySpace
	case "urn:xmpp:omemo:1", "urn:xmpp:omemo:2":
		return omemoSpace
	case "urn:xmpp:openpgp:0":
		return openpgpSpace
	case "jabber:x:encrypted":
		return legacyPGPSpace
	case "urn:xmpp:fallback:0":
		return fallbackSpace
	case "urn:xmpp:message-correct:0":
		return correctionSpace
	case "urn:xmpp:reactions:0":
		return reactionsSpace
	case "urn:xmpp:message-retract:1", "urn:xmpp:message-retract:0":
		return retractionSpace
	case feedURI:
		return feedSpace
	}
	return unknownSpace
}

// isContent reports whether stanzas live in s. A server that passes a stanza on may
// leave the namespace of the stream it came from.
func (s space) isContent() bool {
	return s == acceptSpace || s == clientSpace || s == serverSpace
}

// binding is a prefix declaration in scope.
type binding struct {
	prefix span
	// quoted is the value with its quotes, as it came.
	quoted span
	uri    text
	space  space
	// used says from where the prefix was used: usedBy bits.
	used uint8
}

const (
	usedAnywhere uint8 = 1 << iota
	usedByInner        // from inside the forwarded stanza
)

// The stream header binds one prefix; it stands first in Decoder.ns, has no text in
// the frame, and frames may redeclare it.
const (
	streamPrefix   = "stream"
	streamBindings = 1
)

// xmlBinding stands for the prefix xml, which needs no declaration.
const xmlBinding = -1

// declare takes note of the declaration a.
// Namespaces in XML 1.0, section 3: the names xml and xmlns are reserved, a prefix
// cannot be undeclared.
func (d *Decoder) declare(a *attr) error {
	prefixed, local := a.prefixed(), d.bytes(a.localName())
	isXML := prefixed && string(local) == "xml"
	uri := text{span: a.value}
	if !a.plain {
		uri = d.unescape(&d.uris, inURIs, a.value)
	}
	s := spaceOf(d.textBytes(uri))
	switch {
	case s == xmlnsSpace, prefixed && string(local) == "xmlns", (s == xmlSpace) != isXML, prefixed && s == noSpace:
		return refuse(BadNamespace, a.name.from)
	case isXML:
		return nil
	}
	quoted := span{a.value.from - 1, a.value.to + 1}
	if !prefixed {
		d.start.space, d.start.xmlns = s, quoted
		return nil
	}
	if len(d.ns) >= maxPrefixes {
		return refuse(TooManyMarkups, a.name.from)
	}
	d.ns = append(d.ns, binding{prefix: a.localName(), quoted: quoted, uri: uri, space: s})
	return nil
}

// resolve returns the binding of a prefix, noting that it was used.
func (d *Decoder) resolve(prefix span) (int, error) {
	name := d.bytes(prefix)
	for i := len(d.ns) - 1; i >= streamBindings; i-- {
		if string(d.bytes(d.ns[i].prefix)) == string(name) {
			return d.use(i), nil
		}
	}
	switch string(name) {
	case "xml":
		return xmlBinding, nil
	case streamPrefix:
		return d.use(0), nil
	}
	return 0, refuse(BadNamespace, prefix.from)
}

func (d *Decoder) use(i int) int {
	d.ns[i].used |= usedAnywhere
	if d.inPayload || d.atPayload {
		d.ns[i].used |= usedByInner
	}
	return i
}

// sameURI reports whether two bindings of different prefixes mean one namespace.
func (d *Decoder) sameURI(i, j int) bool {
	if i == xmlBinding || j == xmlBinding {
		return false // declare lets no other prefix be bound to the XML namespace
	}
	return string(d.uriBytes(i)) == string(d.uriBytes(j))
}

func (d *Decoder) uriBytes(i int) []byte {
	if i < streamBindings {
		return []byte(streamURI)
	}
	return d.textBytes(d.ns[i].uri)
}

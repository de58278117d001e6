package xmppserver

import (
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Namespaces of XEP-0114 and RFC 6120.
const (
	nsAccept  = "jabber:component:accept"
	nsStream  = "http://etherx.jabber.org/streams"
	nsStreams = "urn:ietf:params:xml:ns:xmpp-streams"
	nsPing    = "urn:xmpp:ping"
)

// handshake does XEP-0114 section 3 from the server's side and reports whether
// the component is in. Refusals are worded as Prosody words them.
func (s *Server) handshake(session *Session) bool {
	if session.fault.Silent {
		io.Copy(io.Discard, session.conn)
		return false
	}
	if session.fault.Raw != "" {
		session.Send(session.fault.Raw)
		io.Copy(io.Discard, session.conn)
		return false
	}
	header, err := nextStart(session.decoder)
	if err != nil {
		return false
	}
	to := attribute(header, "to")
	switch {
	case header.Name.Local != "stream" || header.Name.Space != nsStream || attribute(header, "xmlns") != nsAccept:
		return session.refuse("invalid-namespace", "")
	case to == "":
		return session.refuse("improper-addressing", "")
	case to != s.options.Component:
		return session.refuse("host-unknown", to+" does not match any configured external components")
	}
	id := rand.Text()
	if session.fault.NoStreamID {
		id = ""
	}
	prologue, answer := xmlDeclaration, "<handshake/>"
	if session.fault.Prologue != "" {
		prologue = session.fault.Prologue
	}
	if session.fault.Answer != "" {
		answer = session.fault.Answer
	}
	if session.Send(prologue+streamHeader(to, id)) != nil {
		return false
	}
	if session.fault.OtherID {
		id = rand.Text()
	}
	var handshake struct {
		XMLName xml.Name
		Digest  string `xml:",chardata"`
	}
	if session.decoder.Decode(&handshake) != nil {
		return false
	}
	digest := sha1.Sum([]byte(id + s.options.Secret))
	switch {
	case session.fault.StreamError != "":
		return session.fail(session.fault.StreamError, "")
	case session.fault.Drop:
		return false
	case handshake.XMLName.Local != "handshake",
		subtle.ConstantTimeCompare([]byte(strings.ToLower(handshake.Digest)), []byte(hex.EncodeToString(digest[:]))) != 1:
		return session.fail("not-authorized", "Given token does not match calculated token")
	case !s.claim(session):
		return session.fail("conflict", "Component already connected")
	}
	return session.Send(answer+session.fault.Glue) == nil
}

// pong answers a ping (XEP-0199) to a served host and reports whether it did.
func (s *Server) pong(session *Session, stanza Stanza) bool {
	if s.options.NoPongs || stanza.Name != "iq" || stanza.Type != "get" ||
		!strings.Contains(stanza.Inner, nsPing) || !slices.Contains(s.options.Hosts, stanza.To) {
		return false
	}
	session.Send(fmt.Sprintf("<iq type='result' id='%s' from='%s' to='%s'/>", Escape(stanza.ID), Escape(stanza.To), Escape(stanza.From)))
	return true
}

const xmlDeclaration = "<?xml version='1.0'?>"

func streamHeader(from, id string) string {
	attr := ""
	if id != "" {
		attr = " id='" + id + "'"
	}
	return "<stream:stream xmlns='" + nsAccept + "' xmlns:stream='" + nsStream + "' from='" + Escape(from) + "'" + attr + ">"
}

// refuse sends a header and a stream error to a component that never got one.
func (s *Session) refuse(condition, text string) bool {
	if s.Send(xmlDeclaration+streamHeader("", "")) == nil {
		s.fail(condition, text)
	}
	return false
}

// fail sends a stream error (RFC 6120 section 4.9) and the end of the stream.
func (s *Session) fail(condition, text string) bool {
	if text != "" {
		text = "<text xmlns='" + nsStreams + "'>" + Escape(text) + "</text>"
	}
	s.Send("<stream:error><" + condition + " xmlns='" + nsStreams + "'/>" + text + "</stream:error></stream:stream>")
	return false
}

// nextStart skips the XML declaration and whitespace up to the next start tag.
func nextStart(d *xml.Decoder) (xml.StartElement, error) {
	for {
		token, err := d.Token()
		if err != nil {
			return xml.StartElement{}, err
		}
		if start, ok := token.(xml.StartElement); ok {
			return start, nil
		}
	}
}

func attribute(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name && a.Name.Space == "" {
			return a.Value
		}
	}
	return ""
}

// Escape returns s as character data or an attribute value.
func Escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

package component

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"unicode/utf8"

	"mellium.im/xmpp/component"

	"eventpusher/component/stanza"
)

// nsStanzas is the namespace of stanza error conditions (RFC 6120 section 8.3.2).
const nsStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"

// maxErrorText bounds what is kept of the text of an error, in bytes.
const maxErrorText = 512

// StanzaError is the error that a request was answered with, or that one of ours is
// (RFC 6120 section 8.3).
type StanzaError struct {
	// Type is cancel, continue, modify, auth or wait. Only wait says that the same
	// request may succeed later.
	Type string
	// Condition is the defined condition, such as item-not-found.
	Condition string
	// Text is for people; it may be empty. Of a peer's it is cut to 512 bytes.
	Text string
	// App is the application's own condition, zero if there is none.
	App xml.Name
}

// Error implements error. The peer's text, which may quote what users wrote, is not
// part of it.
func (e *StanzaError) Error() string {
	s := "component: the request was refused: " + e.Condition + " (" + e.Type + ")"
	if e.App.Local != "" {
		s += ", " + e.App.Local
	}
	return s
}

// Temporary reports whether trying again later may help.
func (e *StanzaError) Temporary() bool { return e.Type == "wait" }

// appendTo writes the error element.
func (e *StanzaError) appendTo(b []byte) []byte {
	b = append(b, "<error type='"...)
	b = appendEscaped(b, e.Type)
	b = append(b, "'><"...)
	b = append(b, e.Condition...)
	b = append(b, " xmlns='"+nsStanzas+"'/>"...)
	if e.Text != "" {
		b = append(b, "<text xmlns='"+nsStanzas+"'>"...)
		b = appendEscaped(b, e.Text)
		b = append(b, "</text>"...)
	}
	if e.App.Local != "" {
		b = append(b, '<')
		b = append(b, e.App.Local...)
		b = append(b, " xmlns='"...)
		b = appendEscaped(b, e.App.Space)
		b = append(b, "'/>"...)
	}
	return append(b, "</error>"...)
}

// parseError reads the error of an IQ of that type, which the caller has found
// well-formed. One without a condition, or without an error element, counts as
// undefined-condition: that it is an error is beyond doubt.
func parseError(frame []byte) *StanzaError {
	e := &StanzaError{}
	d := xml.NewDecoder(bytes.NewReader(frame))
	d.DefaultSpace = component.NSAccept
	inError, inText := false, false
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			if err != io.EOF {
				e.Text = ""
			}
			break
		}
		switch t := token.(type) {
		case xml.StartElement:
			depth++
			switch {
			case depth == 2 && t.Name.Local == "error" && e.Type == "":
				inError = true
				e.Type = unprefixed(t, "type")
			case depth == 3 && inError && t.Name == xml.Name{Space: nsStanzas, Local: "text"}:
				inText = e.Text == ""
			case depth == 3 && inError && t.Name.Space == nsStanzas && e.Condition == "":
				e.Condition = t.Name.Local
			case depth == 3 && inError && t.Name.Space != nsStanzas && e.App.Local == "":
				e.App = t.Name
			}
		case xml.CharData:
			if depth == 3 && inText && len(e.Text) < maxErrorText {
				e.Text += string(t)
			}
		case xml.EndElement:
			if depth == 2 {
				inError = false
			}
			if depth == 3 {
				inText = false
			}
			depth--
		}
	}
	if len(e.Text) > maxErrorText {
		e.Text = strings.ToValidUTF8(e.Text[:maxErrorText], "")
	}
	if e.Condition == "" {
		e.Condition = "undefined-condition"
	}
	if e.Type == "" {
		e.Type = "cancel"
	}
	return e
}

// unprefixed returns the attribute of that name. An attribute x:type is another one.
func unprefixed(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Space == "" && a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// appendEscaped appends s as the value of an attribute or as text. Nearly nothing
// needs it.
func appendEscaped(b []byte, s string) []byte {
	if strings.ContainsAny(s, "<>&'\"\t\n\r") || !utf8.ValidString(s) {
		return append(b, stanza.Escape(s)...)
	}
	return append(b, s...)
}

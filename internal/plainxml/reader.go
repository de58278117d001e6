// Package plainxml reads the XML that XMPP servers really write some ten times faster than
// encoding/xml: elements without prefixes, attributes, text, the five entities of XML.
// Whatever else there is, and whatever is no XML, it only calls odd. The caller then
// asks encoding/xml, so that nothing is taken or refused for this package's sake.
package plainxml

import (
	"strings"
	"unicode/utf8"
)

// Token is what Next has found.
type Token uint8

// The tokens.
const (
	// Odd: the input is beyond this package, or no XML. Nothing read so far may be
	// relied upon.
	Odd   Token = iota
	Start       // see Name, Space, Attr
	End         // of the innermost element that is open
	Text        // see Text
	Done        // the one element that the input consists of has ended, and so has the input
)

// maxDepth and maxAttrs are more than any stanza has that is worth the hurry.
const (
	maxDepth = 32
	maxAttrs = 16
)

// usual is the depth of a notification, and more attributes than its elements have.
const usual = 4

// Reader reads one element. What it returns shares the input's memory wherever it can.
type Reader struct {
	in    string
	at    int
	space string // outside of the element
	began bool
	empty bool // the start tag that was read ends its element as well

	open  []element
	attrs []attr
	text  string
}

type element struct{ name, space string }

type attr struct{ name, value string }

// NewReader returns a Reader of in. The default namespace outside is space.
func NewReader(in, space string) *Reader {
	return &Reader{in: in, space: space, open: make([]element, 0, usual), attrs: make([]attr, 0, usual)}
}

// Next reads the next token. After Odd and Done it must not be called again.
func (r *Reader) Next() Token {
	switch {
	case r.empty:
		r.empty = false
		return r.pop()
	case len(r.open) == 0 && r.began:
		if r.at < len(r.in) {
			return Odd
		}
		return Done
	case r.at >= len(r.in):
		return Odd
	case r.in[r.at] != '<':
		return r.readText()
	case strings.HasPrefix(r.in[r.at:], "</"):
		return r.readEnd()
	}
	return r.readStart()
}

// Name returns the local name of the element that has just begun.
func (r *Reader) Name() string { return r.open[len(r.open)-1].name }

// Space returns the namespace of the element that has just begun.
func (r *Reader) Space() string { return r.open[len(r.open)-1].space }

// Is reports whether the element that has just begun has that name.
func (r *Reader) Is(space, name string) bool { return r.Name() == name && r.Space() == space }

// Attr returns an attribute of the element that has just begun, empty if it has none of
// that name.
func (r *Reader) Attr(name string) string {
	for i := range r.attrs {
		if r.attrs[i].name == name {
			return r.attrs[i].value
		}
	}
	return ""
}

// Text returns the text that was just read. It is never empty.
func (r *Reader) Text() string { return r.text }

// Skip reads to the end of the element that has just begun; false means Odd.
func (r *Reader) Skip() bool {
	for depth := len(r.open); len(r.open) >= depth; {
		if t := r.Next(); t == Odd {
			return false
		}
	}
	return true
}

func (r *Reader) pop() Token {
	r.open = r.open[:len(r.open)-1]
	return End
}

func (r *Reader) readText() Token {
	if len(r.open) == 0 {
		return Odd
	}
	n := strings.IndexByte(r.in[r.at:], '<')
	if n < 0 {
		return Odd
	}
	text, ok := plain(r.in[r.at : r.at+n])
	if !ok {
		return Odd
	}
	r.at, r.text = r.at+n, text
	return Text
}

func (r *Reader) readEnd() Token {
	if len(r.open) == 0 {
		return Odd
	}
	rest, ok := strings.CutPrefix(r.in[r.at+2:], r.Name())
	if !ok || !strings.HasPrefix(rest, ">") {
		return Odd
	}
	r.at += 2 + len(r.Name()) + 1
	return r.pop()
}

func (r *Reader) readStart() Token {
	name := nameAt(r.in, r.at+1)
	if name == "" || len(r.open) == maxDepth {
		return Odd
	}
	r.at += 1 + len(name)
	r.began, r.attrs = true, r.attrs[:0]
	e := element{name, r.space}
	if n := len(r.open); n > 0 {
		e.space = r.open[n-1].space
	}
	for {
		rest := r.in[r.at:]
		switch {
		case strings.HasPrefix(rest, ">"):
			r.at++
		case strings.HasPrefix(rest, "/>"):
			r.at, r.empty = r.at+2, true
		case strings.HasPrefix(rest, " "):
			r.at++
			if !r.readAttr() {
				return Odd
			}
			continue
		default:
			return Odd
		}
		for i := range r.attrs {
			if r.attrs[i].name == "xmlns" {
				e.space = r.attrs[i].value
			}
		}
		r.open = append(r.open, e)
		return Start
	}
}

// readAttr reads one attribute; those of the prefix xml mean nothing to anybody here.
func (r *Reader) readAttr() bool {
	at := r.at
	if strings.HasPrefix(r.in[at:], "xml:") {
		at += len("xml:")
	}
	name := nameAt(r.in, at)
	rest := r.in[at+len(name):]
	if name == "" || len(rest) < 2 || rest[0] != '=' || rest[1] != '\'' && rest[1] != '"' {
		return false
	}
	n := strings.IndexByte(rest[2:], rest[1])
	if n < 0 {
		return false
	}
	value, ok := plain(rest[2 : 2+n])
	if !ok || len(r.attrs) == maxAttrs {
		return false
	}
	for i := range r.attrs {
		if r.attrs[i].name == r.in[r.at:at+len(name)] {
			return false
		}
	}
	r.attrs = append(r.attrs, attr{r.in[r.at : at+len(name)], value})
	r.at = at + len(name) + 2 + n + 1
	return true
}

// nameAt returns the name at i, empty if there is none but of plain letters. A prefix is
// no part of it, so that a colon follows.
func nameAt(s string, i int) string {
	n := i
	for ; n < len(s); n++ {
		c := s[n]
		if letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'; !letter && (n == i || c != '-' && c != '.' && (c < '0' || c > '9')) {
			break
		}
	}
	return s[i:n]
}

// plain returns what s stands for, unless it has what needs a closer look: references
// other than the five, markup, carriage returns, what is no UTF-8 or no character of XML.
func plain(s string) (string, bool) {
	entities := false
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '&':
			entities = true
		case c == '<', c == '>' && i > 0 && s[i-1] == ']', c < ' ' && c != '\t' && c != '\n':
			return "", false
		case c >= utf8.RuneSelf:
			char, n := utf8.DecodeRuneInString(s[i:])
			if char == utf8.RuneError && n == 1 || char == '\uFFFE' || char == '\uFFFF' {
				return "", false
			}
			i += n
			continue
		}
		i++
	}
	if !entities {
		return s, true
	}
	return unescape(s)
}

func unescape(s string) (string, bool) {
	var b strings.Builder
	b.Grow(len(s))
	for {
		before, reference, found := strings.Cut(s, "&")
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		name, rest, found := strings.Cut(reference, ";")
		if !found {
			return "", false
		}
		switch name {
		case "amp":
			b.WriteByte('&')
		case "lt":
			b.WriteByte('<')
		case "gt":
			b.WriteByte('>')
		case "quot":
			b.WriteByte('"')
		case "apos":
			b.WriteByte('\'')
		default:
			return "", false
		}
		s = rest
	}
}

package stanza

import (
	"encoding/xml"
	"strings"
	"unicode/utf8"
)

// Escape returns text as character data or the value of an attribute that is written.
func Escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes everything
	return b.String()
}

// text checks the character data from i on and returns where it ends, at a '<'.
// plain says that it stands for itself: no reference, no carriage return.
func (d *Decoder) text(i int) (end int, plain bool, err error) {
	i = textRun(d.src, i)
	if i < len(d.src) && d.src[i] == '<' {
		return i, true, nil
	}
	return d.oddText(i)
}

// oddText does what text does for what is more than a run of ASCII.
func (d *Decoder) oddText(i int) (end int, plain bool, err error) {
	b := d.src
	plain = true
	for {
		for i < len(b) && byteClass[b[i]]&textStop == 0 {
			i++
		}
		if i == len(b) {
			return i, plain, d.truncated()
		}
		switch b[i] {
		case '<':
			return i, plain, nil
		case '&':
			_, n := reference(b[i:])
			if n == 0 {
				return i, plain, refuse(BadReference, i)
			}
			i += n
			plain = false
		case '\r':
			i++
			plain = false
		case ']':
			// XML 1.0 section 2.4.
			if i+2 < len(b) && b[i+1] == ']' && b[i+2] == '>' {
				return i, plain, refuse(Malformed, i)
			}
			i++
		case lastPlane:
			if i+2 >= len(b) {
				return i, plain, d.truncated()
			}
			if isNonCharacter(b, i) {
				return i, plain, refuse(BadCharacter, i)
			}
			i += 3
		default:
			return i, plain, refuse(BadCharacter, i)
		}
	}
}

// cdata checks the content of a CDATA section from i on and returns where it ends,
// at "]]>".
func (d *Decoder) cdata(i int) (end int, plain bool, err error) {
	b := d.src
	plain = true
	for {
		for i < len(b) && byteClass[b[i]]&textStop == 0 {
			i++
		}
		if i == len(b) {
			return i, plain, d.truncated()
		}
		switch b[i] {
		case '<', '&':
			i++
		case '\r':
			i++
			plain = false
		case ']':
			if i+2 < len(b) && b[i+1] == ']' && b[i+2] == '>' {
				return i, plain, nil
			}
			i++
		case lastPlane:
			if i+2 >= len(b) {
				return i, plain, d.truncated()
			}
			if isNonCharacter(b, i) {
				return i, plain, refuse(BadCharacter, i)
			}
			i += 3
		default:
			return i, plain, refuse(BadCharacter, i)
		}
	}
}

// value checks an attribute value whose opening quote is at i and returns where its
// closing quote is.
func (d *Decoder) value(i int) (end int, plain bool, err error) {
	quote := d.src[i]
	i = valueRun(d.src, i+1)
	if i < len(d.src) && d.src[i] == quote {
		return i, true, nil
	}
	return d.oddValue(i, quote)
}

// oddValue does what value does for what is more than a run of ASCII.
func (d *Decoder) oddValue(i int, quote byte) (end int, plain bool, err error) {
	b := d.src
	plain = true
	for {
		for i < len(b) && byteClass[b[i]]&attrStop == 0 {
			i++
		}
		if i == len(b) {
			return i, plain, d.truncated()
		}
		switch c := b[i]; c {
		case quote:
			return i, plain, nil
		case '"', '\'':
			i++
		case '<':
			return i, plain, refuse(BadAttribute, i)
		case '&':
			_, n := reference(b[i:])
			if n == 0 {
				return i, plain, refuse(BadReference, i)
			}
			i += n
			plain = false
		case '\r':
			i++
			plain = false
		case lastPlane:
			if i+2 >= len(b) {
				return i, plain, d.truncated()
			}
			if isNonCharacter(b, i) {
				return i, plain, refuse(BadCharacter, i)
			}
			i += 3
		default:
			return i, plain, refuse(BadCharacter, i)
		}
	}
}

// reference reads the reference at the beginning of b, which is '&', and returns its
// character and length; the length is 0 if it is none that RFC 6120 section 11.1
// and the Char range allow.
func reference(b []byte) (r rune, n int) {
	if len(b) > 1 && b[1] == '#' {
		return numericReference(b)
	}
	for _, e := range [...]struct {
		text string
		r    rune
	}{{"&apos;", '\''}, {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}} {
		if len(b) >= len(e.text) && string(b[:len(e.text)]) == e.text {
			return e.r, len(e.text)
		}
	}
	return 0, 0
}

func numericReference(b []byte) (r rune, n int) {
	i, base := 2, rune(10)
	if len(b) > 2 && b[2] == 'x' {
		i, base = 3, 16
	}
	first := i
	for ; i < len(b); i++ {
		digit := base
		switch c := rune(b[i]); {
		case '0' <= c && c <= '9':
			digit = c - '0'
		case 'a' <= c && c <= 'f':
			digit = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			digit = c - 'A' + 10
		}
		if digit >= base {
			break
		}
		if r <= utf8.MaxRune {
			r = r*base + digit
		}
	}
	if i == first || i == len(b) || b[i] != ';' || !isXMLChar(r) {
		return 0, 0
	}
	return r, i + 1
}

// appendText appends checked character data or a checked attribute value with its
// references resolved and its line ends made "\n" (XML 1.0 section 2.11). As
// encoding/xml does it, tabs and line ends in attribute values stay what they are.
func appendText(dst, b []byte) []byte {
	for i := 0; i < len(b); {
		switch c := b[i]; c {
		case '&':
			r, n := reference(b[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
		default:
			dst, i = appendChar(dst, b, i)
		}
	}
	return dst
}

// appendCDATA is appendText for the content of a CDATA section.
func appendCDATA(dst, b []byte) []byte {
	for i := 0; i < len(b); {
		dst, i = appendChar(dst, b, i)
	}
	return dst
}

func appendChar(dst, b []byte, i int) ([]byte, int) {
	if b[i] != '\r' {
		return append(dst, b[i]), i + 1
	}
	i++
	if i < len(b) && b[i] == '\n' {
		i++
	}
	return append(dst, '\n'), i
}

package stanza

import "unicode/utf8"

// What a byte may be, as bits of byteClass.
const (
	nameStart uint8 = 1 << iota // begins an NCName
	namePart                    // continues an NCName
	textStop                    // character data must look at it more closely
	attrStop                    // an attribute value must look at it more closely
	beyond                      // part of a character beyond ASCII
)

var byteClass = func() (class [256]uint8) {
	for c := range class {
		switch {
		case c >= utf8.RuneSelf:
			class[c] = beyond
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
			class[c] = nameStart | namePart
		case '0' <= c && c <= '9', c == '-', c == '.':
			class[c] = namePart
		case c < ' ' && c != '\t' && c != '\n':
			class[c] = textStop | attrStop
		}
	}
	for _, c := range []byte{'<', '&', lastPlane} {
		class[c] |= textStop | attrStop
	}
	class[']'] |= textStop
	class['"'] |= attrStop
	class['\''] |= attrStop
	return class
}()

// lastPlane begins the UTF-8 of U+F000 to U+FFFF, whose last two code points are no
// XML characters.
const lastPlane = 0xEF

// isNonCharacter reports whether the character that begins with lastPlane at b[i]
// is U+FFFE or U+FFFF.
func isNonCharacter(b []byte, i int) bool {
	return b[i+1] == 0xBF && b[i+2] >= 0xBE
}

// isXMLChar is the production Char of XML 1.0, section 2.2.
func isXMLChar(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' ||
		' ' <= r && r <= 0xD7FF || 0xE000 <= r && r <= 0xFFFD || 0x10000 <= r && r <= 0x10FFFF
}

// ncName returns the end of the NCName at b[i], or i if there is none
// (Namespaces in XML 1.0, section 3; the characters are those of XML 1.0, fifth
// edition, section 2.3, to which RFC 6120 refers).
func ncName(b []byte, i int) int {
	start := i
	i += letters(b, i)
	if i == start && i < len(b) && byteClass[b[i]]&(nameStart|beyond) == 0 {
		return i
	}
	for {
		for i < len(b) && byteClass[b[i]]&namePart != 0 {
			i++
		}
		if i == len(b) || b[i] < utf8.RuneSelf {
			return i
		}
		r, n := utf8.DecodeRune(b[i:])
		if !isNameStart(r) && (i == start || !isNameRune(r)) {
			return i
		}
		i += n
	}
}

// isNameStart is the production NameStartChar beyond ASCII.
func isNameStart(r rune) bool {
	switch {
	case r < 0x300:
		return r >= 0xC0 && r != 0xD7 && r != 0xF7
	case r < 0x2000:
		return r >= 0x370 && r != 0x37E
	case r < 0x3001:
		return r == 0x200C || r == 0x200D || 0x2070 <= r && r <= 0x218F || 0x2C00 <= r && r <= 0x2FEF
	}
	return r <= 0xD7FF || 0xF900 <= r && r <= 0xFDCF || 0xFDF0 <= r && r <= 0xFFFD || 0x10000 <= r && r <= 0xEFFFF
}

// isNameRune is what NameChar adds to NameStartChar beyond ASCII.
func isNameRune(r rune) bool {
	return r == 0xB7 || 0x300 <= r && r <= 0x36F || r == 0x203F || r == 0x2040
}

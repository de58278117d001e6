package stanza

import "bytes"

// scanState is where in the markup of an element a scanner stands.
type scanState uint8

const (
	inText    scanState = iota
	inOpen              // behind '<'
	inName              // in the name of a start tag
	inTag               // in a start tag behind its name, outside quotes
	inQuote             // in an attribute value
	inEndName           // in the name of an end tag
	inEndTag            // behind it
	inBang              // behind "<!", before it is clear what follows
	inComment           // looking for "-->"
	inCDATA             // looking for "]]>"
	inPI                // looking for "?>"
)

// scanner finds the end of one element.
//
// It looks at each byte once, wherever the input is cut, and keeps no reference to
// it, so that an element can be followed to its end without being buffered.
// It knows just enough of XML not to be misled: quotes, CDATA sections, comments and
// processing instructions. Judging them is the decoder's part.
type scanner struct {
	state scanState
	quote byte
	// seen counts the bytes of a literal ("<![CDATA[", "-->", ...) met so far.
	seen int
	// slash: the last byte of the tag outside quotes was '/'.
	slash bool
	// bang is the literal that inBang expects, once its first byte is known.
	bang     string
	depth    int
	maxDepth int
	deep     bool
	hash     uint64
	// open holds the hashes of the names of the open elements, the outermost first.
	// Matching them tells a broken stream at once; counting alone would swallow
	// one stanza after the other.
	open []uint64
}

func (s *scanner) reset() {
	*s = scanner{maxDepth: s.maxDepth, open: s.open[:0]}
}

// FNV-1a, 64 bits.
const (
	hashSeed  = 14695981039346656037
	hashPrime = 1099511628211
)

// scan follows the element, whose '<' is the first byte it sees after reset, through
// p. It returns how much of p it took and whether the element ended there.
// An end tag at depth 0 counts as an element.
func (s *scanner) scan(p []byte) (n int, done bool, defect Defect) {
	i := 0
	for i < len(p) {
		switch s.state {
		case inText:
			j := bytes.IndexByte(p[i:], '<')
			if j < 0 {
				return len(p), false, 0
			}
			i += j + 1
			s.state = inOpen
		case inOpen:
			if defect = s.opened(p[i]); defect != 0 {
				return i, false, defect
			}
			i++
		case inName:
			i = s.name(p, i)
			if i < len(p) {
				s.state, s.slash = inTag, false
			}
		case inTag:
			j := i
			for j < len(p) && scanClass[p[j]] == 0 {
				j++
			}
			if j > i {
				i, s.slash = j, false
			}
			if i == len(p) {
				break
			}
			c := p[i]
			i++
			switch c {
			case '/':
				s.slash = true
			case '>':
				if s.started() {
					return i, true, 0
				}
			case '<':
				return i - 1, false, Malformed
			default:
				s.state, s.quote, s.slash = inQuote, c, false
			}
		case inQuote:
			value := p[i:]
			j := bytes.IndexByte(value, s.quote)
			if j >= 0 {
				value = value[:j]
			}
			if k := bytes.IndexByte(value, '<'); k >= 0 {
				return i + k, false, BadAttribute
			}
			if j < 0 {
				return len(p), false, 0
			}
			i += j + 1
			s.state = inTag
		case inEndName:
			for i < len(p) && p[i] != '>' && !isSpace(p[i]) {
				s.hash = (s.hash ^ uint64(p[i])) * hashPrime
				i++
			}
			if i < len(p) {
				s.state = inEndTag
			}
		case inEndTag:
			c := p[i]
			i++
			if c == '>' {
				if done, defect = s.ended(); done || defect != 0 {
					return i, done, defect
				}
			} else if !isSpace(c) {
				return i - 1, false, Malformed
			}
		case inBang:
			if defect = s.banged(p[i]); defect != 0 {
				return i, false, defect
			}
			i++
		case inComment:
			i = s.terminator(p, i, '-', 2)
		case inCDATA:
			i = s.terminator(p, i, ']', 2)
		case inPI:
			i = s.terminator(p, i, '?', 1)
		}
	}
	return i, false, 0
}

// scanClass marks the bytes that mean something in a tag outside quotes.
var scanClass = [256]uint8{'/': 1, '>': 1, '<': 1, '"': 1, '\'': 1}

// opened judges the first byte behind '<'.
func (s *scanner) opened(c byte) Defect {
	switch {
	case c == '/':
		s.state, s.hash = inEndName, hashSeed
	case c == '!' || c == '?':
		if s.depth == 0 {
			return RestrictedXML
		}
		s.seen = 0
		s.state = inBang
		s.bang = ""
		if c == '?' {
			s.state = inPI
		}
	case c == '>' || c == '<' || isSpace(c):
		return Malformed
	default:
		s.state, s.hash = inName, (hashSeed^uint64(c))*hashPrime
	}
	return 0
}

// name takes the rest of a start tag's name.
func (s *scanner) name(p []byte, i int) int {
	h := s.hash
	for i < len(p) && scanClass[p[i]] == 0 && !isSpace(p[i]) {
		h = (h ^ uint64(p[i])) * hashPrime
		i++
	}
	s.hash = h
	return i
}

// started is called at the '>' of a start tag and reports whether that was the whole
// element.
func (s *scanner) started() bool {
	s.state = inText
	if s.depth >= s.maxDepth {
		s.deep = true
	}
	if s.slash {
		return s.depth == 0
	}
	if s.depth < s.maxDepth {
		s.open = append(s.open, s.hash)
	}
	s.depth++
	return false
}

// ended is called at the '>' of an end tag.
func (s *scanner) ended() (done bool, defect Defect) {
	s.state = inText
	if s.depth == 0 {
		return true, 0
	}
	s.depth--
	if s.depth < s.maxDepth {
		// Beyond the limit names are not kept: the element is lost anyway.
		if s.open[s.depth] != s.hash {
			return false, TagMismatch
		}
		s.open = s.open[:s.depth]
	}
	return s.depth == 0, 0
}

// banged judges a byte behind "<!": only a comment and a CDATA section have an end
// that is beyond doubt; a DOCTYPE may hold anything.
func (s *scanner) banged(c byte) Defect {
	if s.seen == 0 {
		switch c {
		case '-':
			s.bang = "--"
		case '[':
			s.bang = "[CDATA["
		default:
			return RestrictedXML
		}
	}
	if c != s.bang[s.seen] {
		return Malformed
	}
	s.seen++
	if s.seen == len(s.bang) {
		s.state = inComment
		if c == '[' {
			s.state = inCDATA
		}
		s.seen = 0
	}
	return 0
}

// terminator looks for '>' behind at least want times mark.
func (s *scanner) terminator(p []byte, i int, mark byte, want int) int {
	for i < len(p) {
		if s.seen == 0 {
			j := bytes.IndexByte(p[i:], mark)
			if j < 0 {
				return len(p)
			}
			i += j
		}
		c := p[i]
		i++
		switch {
		case c == mark:
			s.seen++
		case c == '>' && s.seen >= want:
			s.state, s.seen = inText, 0
			return i
		default:
			s.seen = 0
		}
	}
	return i
}

func isSpace(c byte) bool {
	const spaces uint64 = 1<<' ' | 1<<'\t' | 1<<'\n' | 1<<'\r'
	return c <= ' ' && spaces>>c&1 != 0
}

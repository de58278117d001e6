package stanza

import "fmt"

// Defect is what is wrong with a piece of XML. Its String is constant and suits
// a metric's label.
type Defect uint8

// The defects. RFC 6120 section 11 lets a receiver close the stream for each of
// them; which ones do is said at SyntaxError and StanzaError.
const (
	Malformed      Defect = iota + 1 // markup that is none, a tag cut off, bytes behind the element
	BadEncoding                      // not UTF-8
	BadCharacter                     // outside the Char range of XML 1.0 (section 2.2)
	BadName                          // no NCName or QName where one must be (Namespaces in XML 1.0)
	BadAttribute                     // no value, no quotes, no space before it, '<' in it
	DuplicateAttr                    // the same attribute twice, also by two prefixes of one namespace
	BadNamespace                     // unbound or misused prefix, forbidden declaration
	BadReference                     // unknown entity, number that is no character
	TagMismatch                      // end tag without its start tag
	RestrictedXML                    // comment, processing instruction, DOCTYPE (RFC 6120 section 11.1)
	StrayText                        // characters between stanzas
	NestedTooDeep                    // beyond Limits.Depth
	Oversized                        // beyond Limits.Size
	TooManyMarkups                   // beyond the bounds on attributes and prefix declarations
	NotStanza                        // well-formed, but no message or presence
)

var defectNames = [...]string{
	"unknown", "malformed markup", "invalid UTF-8", "illegal character", "invalid name",
	"invalid attribute", "duplicate attribute", "namespace violation", "invalid reference",
	"tag mismatch", "restricted XML", "text between stanzas", "nested too deep", "oversized",
	"too many attributes or prefixes", "not a message or presence",
}

// String returns the defect in a few constant words.
func (d Defect) String() string {
	if int(d) < len(defectNames) {
		return defectNames[d]
	}
	return defectNames[0]
}

// SyntaxError says that a stream cannot be cut into elements any more: whatever
// follows might be a part of what came before, so the only remedy is a new
// connection.
//
// It is reported for text, comments, processing instructions and declarations
// between stanzas, for a DOCTYPE anywhere, for end tags that do not match and for
// a '<' inside a tag, which is what a quote that was never closed runs into.
type SyntaxError struct {
	Defect Defect
	// Offset counts bytes from where the framer began.
	Offset int64
}

// Error says what is wrong and where.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("stanza: broken stream: %v at byte %d", e.Defect, e.Offset)
}

// StanzaError says why one stanza is refused. The stream behind it is sound: the
// stanza is to be counted and skipped.
//
// RFC 6120 section 11.1 asks to close the stream for a comment or a processing
// instruction. Inside a stanza they are refused by StanzaError instead: the end of
// the element is beyond doubt, and one user's odd stanza that a server passed on
// must not cost the events of all others.
type StanzaError struct {
	Defect Defect
	// Offset is the position in the frame.
	Offset int
}

// Error says what is wrong and where.
func (e *StanzaError) Error() string {
	return fmt.Sprintf("stanza: %v at byte %d", e.Defect, e.Offset)
}

// Package stanza holds one decoded message or presence and turns the bytes of a
// component stream (XEP-0114) into it.
//
// It frames stanzas, checks that they are well-formed XML and well-formed in
// namespaces, and extracts what the translator asks for, without building a tree.
// encoding/xml is the reference that it is fuzzed against.
package stanza

import (
	"time"

	"eventpusher/internal/jid"
)

// Kind is the name of the stanza element.
type Kind uint8

// The kinds of stanza that carry events.
const (
	Message Kind = iota + 1
	Presence
)

// String returns the element name.
func (k Kind) String() string {
	switch k {
	case Message:
		return "message"
	case Presence:
		return "presence"
	}
	return "unknown"
}

// Flags are the children of a stanza that the translator asks for.
type Flags uint32

// One flag for each kind of child, named after its specification.
const (
	HasDelay      Flags = 1 << iota // XEP-0203 delay
	HasForwarded                    // XEP-0297 forwarded
	HasCarbon                       // XEP-0280 sent or received
	HasMAMResult                    // XEP-0313 result
	HasPubsub                       // XEP-0060 event
	HasMUC                          // XEP-0045 muc (a join) in a presence
	HasMUCUser                      // XEP-0045 muc#user
	HasSubject                      // RFC 6121 subject
	HasState                        // XEP-0085 chat state
	HasReceipt                      // XEP-0184 received
	HasMarker                       // XEP-0333 marker (not markable)
	HasCall                         // XEP-0353 Jingle message
	HasEncrypted                    // XEP-0380, OMEMO, OpenPGP (XEP-0373, XEP-0027) or an OTR body
	HasError                        // error child
	HasNoStore                      // XEP-0334 no-store
	HasStore                        // XEP-0334 store
	HasFallback                     // XEP-0428 fallback that stands for the whole body
	HasReaction                     // XEP-0444 reactions
	HasRetraction                   // XEP-0424 retract
)

// Has reports whether all of f are set.
func (s Flags) Has(f Flags) bool { return s&f == f }

// Stanza is one decoded message or presence.
// Its strings share the memory of Raw wherever the XML needed no unescaping.
type Stanza struct {
	Kind Kind
	// From and To are prepared; To is empty where the server sent none.
	From, To jid.JID
	// Type and ID are the attributes as they came, empty where absent.
	Type, ID string
	// Body is the character data directly inside the first child named body,
	// whatever its namespace or language, as MongooseIM reads it: without pieces
	// between two markups that are nothing but whitespace, so a blank body is empty.
	Body    string
	HasBody bool
	Flags   Flags
	// Replaces is the id attribute of the XEP-0308 replace element: the id of the
	// message that this one corrects.
	Replaces string
	// DelayFrom is the from attribute of the first delay, DelayStamp its time;
	// zero where absent or malformed.
	DelayFrom  jid.JID
	DelayStamp time.Time
	// StanzaIDBy lists the by attributes of the XEP-0359 stanza-ids, first two only.
	StanzaIDBy [2]jid.JID
	// Raw is the stanza as XML whose default namespace is declared on it.
	Raw string
}

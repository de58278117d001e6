package stanza

// ForwardState says what a stanza forwards.
type ForwardState uint8

// The states.
const (
	// NotForwarded: it has no forwarded element (XEP-0297).
	NotForwarded ForwardState = iota
	// ForwardedOne: it is a message with exactly one forwarded element as its child,
	// which holds exactly one message or presence in jabber:client or jabber:server,
	// at most one XEP-0203 delay and nothing else but whitespace.
	ForwardedOne
	// ForwardedOther: it forwards something that nobody may take for a stanza: an iq,
	// nothing, several stanzas, one in another namespace, text beside it, or it is
	// itself a presence.
	ForwardedOther
)

// String returns the state as logs and metrics name it.
func (s ForwardState) String() string {
	switch s {
	case NotForwarded:
		return "none"
	case ForwardedOne:
		return "one"
	case ForwardedOther:
		return "other"
	}
	return "unknown"
}

// Envelope is what one frame holds. Whether what it says about others may be believed
// is not the decoder's to judge: any user can send a component a forwarded element.
type Envelope struct {
	// Outer is the element itself.
	Outer Stanza
	// Inner is the stanza that it forwards; zero unless Forward is ForwardedOne.
	// Only one level is unwrapped: a stanza that Inner forwards shows in its Flags as
	// HasForwarded, one that a carbon or an archive result holds as HasCarbon or
	// HasMAMResult.
	Inner   Stanza
	Forward ForwardState
	// Privilege is the advertisement of XEP-0356, nil if there is none.
	Privilege *Privileges
	// Feed is what the first child of Outer says in the namespace of the event-feed,
	// nil if it is in none or Outer is no message.
	Feed *Feed
}

// reset empties e but for the memory of Feed, which stays with it while it is used for
// one event after the other.
func (e *Envelope) reset() {
	feed := e.Feed
	*e = Envelope{Feed: feed}
}

// Privileges is what a server lets the component do (XEP-0356): the first privilege
// element that is a child of the message.
type Privileges struct {
	// Version is 1 or 2, from the namespace urn:xmpp:privilege:1 (ejabberd up to 25)
	// or urn:xmpp:privilege:2.
	Version     int
	Permissions []Permission
}

// Permission is one perm element of Privileges.
type Permission struct {
	// Access is what for: message, presence, roster or iq. Type is how much of it, for
	// instance outgoing or managed_entity; empty for iq, where namespaces say it.
	Access, Type string
}

// Package event says what an event is: something that happened to a user or a
// message, in the three kinds of MongooseIM's mod_event_pusher
// (include/mod_event_pusher_events.hrl) and some of our own, and how it is written as
// JSON.
package event

import (
	"time"

	"eventpusher/internal/jid"
)

// Kind is what sort of thing happened.
type Kind uint8

// The kinds, after MongooseIM's user_status_event, chat_event and
// unack_msg_event; it has none for the others. Numbers are kept on disk.
const (
	UserStatus Kind = iota + 1 // a session came online or went offline
	Chat                       // a message was sent or is on its way to a local user
	// Unack: a hibernating XEP-0198 session has not acknowledged a message. From is
	// the sender, To the session, User its account.
	Unack
	// Stored: the server has stored a message because nobody was there to take it.
	// It follows the message's Chat events and is no second one of them: it is for
	// push alone. From is the sender, User the account, RecipientOffline true.
	Stored
	// Notification: somebody's server asks us, as its user's push service, to notify a
	// device that is registered here (XEP-0357 section 6). It is for push alone.
	// From is the sender that the summary names, else the server; To is the component
	// with the device's node as the resource, User the device's owner, empty if nobody
	// said, Body what the summary tells, Packet the notification element. The push backend
	// also makes it of a message, as it makes Push: StanzaID is then the ID of that event.
	Notification
	// Removed: the user's account is no more. It is for push alone, which ends what was
	// registered for it, and no filter is asked. From and User are the account. Time says
	// what was registered before; what a new account of the name registers comes later.
	Removed
	// Missed: a room has told its occupants something while a member of it was neither
	// there nor had a session at all. It is for push alone, one for each such member. From
	// is the occupant who spoke, Room the room, To and User the member, RecipientOffline true.
	// There is no Packet, and of the text only MissedBody bytes, since one message makes as
	// many of them as members are away.
	Missed
	// Push: a message, or what stands for it, is to be told to one registration of the
	// recipient (XEP-0357). The push backend makes it of one of the events above, and only
	// it gets it: it passes no filter. From is the other side of the conversation, To the
	// push service with the registration's node as the resource, User the recipient,
	// StanzaID the ID of the event that it comes from, Packet the notification element.
	Push
)

// MissedBody is how many bytes the Body of a Missed event has at most.
const MissedBody = 4 << 10

// String returns the kind as expressions and metrics name it.
func (k Kind) String() string {
	switch k {
	case UserStatus:
		return "user_status"
	case Chat:
		return "chat"
	case Unack:
		return "unack"
	case Stored:
		return "stored"
	case Notification:
		return "notification"
	case Removed:
		return "account_removed"
	case Missed:
		return "missed"
	case Push:
		return "push"
	}
	return "unknown"
}

// Direction is the way of a chat event; other kinds have none.
type Direction uint8

// The directions as MongooseIM defines them.
// In is a message that a local user sent, Out one routed towards a local domain.
const (
	NoDirection Direction = iota
	In
	Out
)

// String returns "in", "out" or, for events that have no direction, "".
func (d Direction) String() string {
	switch d {
	case In:
		return "in"
	case Out:
		return "out"
	}
	return ""
}

// Class is what sort of content a message carries; it is decided once, by the
// translator, so that nobody downstream has to look into the packet.
type Class uint8

// The classes of content.
const (
	Other      Class = iota // nothing below applies
	Content                 // a non-empty body
	Marker                  // XEP-0333 chat marker
	Receipt                 // XEP-0184 delivery receipt
	State                   // XEP-0085 chat state
	Subject                 // subject without body (XEP-0045 section 8.1)
	Call                    // XEP-0353 Jingle message
	Reaction                // XEP-0444 reactions without body
	Retraction              // XEP-0424 retraction without body
)

var classNames = [...]string{"other", "content", "marker", "receipt", "state", "subject", "call", "reaction", "retraction"}

// String returns the class as expressions name it.
func (c Class) String() string {
	if int(c) < len(classNames) {
		return classNames[c]
	}
	return "other"
}

// JID is an XMPP address (RFC 7622), prepared.
type JID = jid.JID

// Metadata is what filters add to an event: a flat map of string, bool, int64
// and finite float64 values.
type Metadata map[string]any

// Event is one thing that happened.
//
// It is a value that nobody changes after the filter chain; the strings may
// share one buffer.
type Event struct {
	// ID identifies the event for receivers that recognise repeated deliveries:
	// 32 lower-case hexadecimal digits, the same on every attempt and backend.
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Type is online or offline for user status, empty for Removed, for the other kinds
	// that of the message: chat, groupchat, headline or normal.
	Type      string    `json:"type"`
	Direction Direction `json:"direction,omitempty"`
	// From and To are the addresses as routed, prepared.
	// For user status From is the full JID of the session and To is empty.
	From jid.JID `json:"from"`
	To   jid.JID `json:"to,omitempty"`
	// User is the bare JID that the event is about: the sender of In, the
	// recipient of Out, the user whose status changed or whose account was removed.
	User jid.JID `json:"user"`
	// Room is the bare JID of the room of a groupchat message.
	Room jid.JID `json:"room,omitempty"`
	// Body is the text of the first body. HasBody tells an empty one from none.
	Body    string `json:"body,omitempty"`
	HasBody bool   `json:"has_body,omitempty"`
	Class   Class  `json:"class"`
	// Encrypted says that the body is a placeholder (XEP-0380, OMEMO, OpenPGP, OTR).
	Encrypted bool `json:"encrypted,omitempty"`
	// Fallback says that all of the body is for clients that do not know what the message
	// is (XEP-0428), such as a reaction or a retraction.
	Fallback bool `json:"fallback,omitempty"`
	// Replaces is the stanza id of the message that this one corrects (XEP-0308).
	Replaces string `json:"replaces,omitempty"`
	// Online is the new status of the session (user status).
	Online bool `json:"online,omitempty"`
	// RecipientOffline says that nobody was there to take the message. It is true of
	// every Stored and Missed event, and of an Out chat event if the recipient is a user of a
	// host whose event-feed knows all its sessions and knows none of his: the last
	// snapshot has ended and nothing has been lost since. A session without presence
	// counts as being there, and so does a hibernating one (XEP-0198), as both do
	// for MongooseIM's push. False proves nothing; where the feed would know but does
	// not for now, Unverified is set as well.
	RecipientOffline bool `json:"recipient_offline,omitempty"`
	// Stranger says that the sender of a chat message is not among the contacts of User, the
	// recipient. Only modules of the event-feed tell, and only of a recipient who has no
	// session, or whose session has not acknowledged the message. False proves nothing.
	Stranger bool `json:"stranger,omitempty"`
	// SessionCount is the number of available resources of User at that moment; a
	// hibernating one counts.
	SessionCount int `json:"session_count"`
	// StanzaID is the id attribute of the stanza, as the client chose it.
	StanzaID string `json:"stanza_id,omitempty"`
	// Time is when the component received the stanza, or the trusted feed's own
	// time stamp.
	Time time.Time `json:"time"`
	// Host is the served host whose feed reported the event.
	Host string `json:"host"`
	// Dialect names the feed that reported it.
	Dialect string `json:"dialect"`
	// Packet is the stanza as XML in jabber:client.
	Packet string `json:"packet"`
	// Reconciled marks a status found out after a gap in the feed.
	Reconciled bool `json:"reconciled,omitempty"`
	// Unverified marks a presence state that the feed cannot confirm: what
	// SessionCount and RecipientOffline say is in doubt.
	Unverified bool `json:"unverified,omitempty"`
	// Replayed marks an event that an operator has sent again after it had been a
	// dead letter: it comes out of order.
	Replayed bool `json:"replayed,omitempty"`
	// Metadata is what the filter chain added; nil when it added nothing.
	Metadata Metadata `json:"metadata,omitempty"`
}

// Key returns the key within which order is kept: in events by sender and
// conversation, out events by recipient and conversation together with what
// becomes of the message, presence and the end of an account by user. Each
// notification has a key of its own: when a device is told little, the newest must not
// wait behind the older ones. Push events are ordered by registration and conversation.
func (e *Event) Key() string { return string(e.AppendKey(nil)) }

// Sender is the user who has caused the event, a bare JID. It is empty for all that rooms tell:
// it counts as one user's, for one user can speak in any number of rooms.
func (e *Event) Sender() jid.JID {
	if e.Room != "" && e.From.Bare() == e.Room {
		return ""
	}
	return e.From.Bare()
}

// AppendKey appends Key to dst.
func (e *Event) AppendKey(dst []byte) []byte {
	switch {
	case e.Direction == In:
		return appendSpaced(dst, string(e.From.Bare()), string(e.To.Bare()))
	case e.Direction == Out, e.Kind == Unack, e.Kind == Stored, e.Kind == Missed:
		return appendSpaced(dst, string(e.To.Bare()), string(e.From.Bare()))
	case e.Kind == Notification:
		return appendSpaced(dst, string(e.To), e.ID)
	case e.Kind == Push:
		return appendSpaced(dst, string(e.User), string(e.From.Bare()), string(e.To))
	}
	return append(dst, e.User...)
}

func appendSpaced(dst []byte, first string, others ...string) []byte {
	dst = append(dst, first...)
	for _, text := range others {
		dst = append(append(dst, ' '), text...)
	}
	return dst
}

// Timestamp returns Time in microseconds since the Unix epoch, the unit of
// MongooseIM's sample filter (its documentation says milliseconds, its code and
// test microseconds).
func (e *Event) Timestamp() int64 { return e.Time.UnixMicro() }

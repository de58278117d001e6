// Package decide says which events are worth a push notification and what it
// tells, by the rules of MongooseIM's push plugins
// (src/event_pusher/mod_event_pusher_push_plugin_defaults.erl, _enhanced.erl and
// _hints.erl).
//
// It looks at nothing but the event. Whether the recipient is offline was decided
// by the translator and stands in it.
package decide

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// Plugin is the set of rules, by MongooseIM's names without their common prefix.
type Plugin string

// The plugins. Each one has the rules of the one before and more.
const (
	// Defaults pushes messages with a body to who is offline.
	Defaults Plugin = "defaults"
	// Enhanced also pushes, to the one device concerned, what a hibernating session
	// has not acknowledged (XEP-0198).
	Enhanced Plugin = "enhanced"
	// Hints also honours XEP-0334: no-store is never pushed, and a call (XEP-0353)
	// that asks to be stored is pushed without a body.
	Hints Plugin = "hints"
)

// Reason says why an event makes no notification; the empty one is that it does.
type Reason string

// The reasons of this package, as metrics and explanations name them.
const (
	Push       Reason = ""
	NotMessage Reason = "not_a_message"    // a status, or a message on its way in
	WrongType  Reason = "type"             // neither chat nor groupchat
	Online     Reason = "online"           // somebody is there to take it
	Unclear    Reason = "unknown_status"   // the feed cannot tell whether somebody is
	CannotTell Reason = "feed_cannot_tell" // the feed never knows who is offline
	Unacked    Reason = "unacked"          // the plugin leaves those to the end of the session
	NoBody     Reason = "no_body"          // a chat state, a receipt, a marker, a subject
	NoStore    Reason = "no_store"         // XEP-0334
	OwnMessage Reason = "own_message"      // from the recipient
	NotOurs    Reason = "not_local"        // the recipient is no user of a served host
	Expired    Reason = "expired"          // waited longer than a notification is worth
	RuleSkip   Reason = "rule_skip"        // a rule of the configuration
	RuleOfCall Reason = "rule_content"     // a rule pushes calls, and this is none
	NoRule     Reason = "no_rule"          // there are rules, and none is about it
)

// Notice is what is to be told.
type Notice struct {
	// Recipient is the bare JID of the user, Session the one that has not
	// acknowledged the message; empty unless the notice is for that one alone.
	Recipient, Session jid.JID
	// Sender is who wrote: the bare JID, or in a room the occupant.
	// Conversation is the bare JID of the other side.
	Sender, Conversation jid.JID
	// Body is the text, at most MaxBody bytes of it; Generic says that it was left out,
	// and what there is says no more than that there is something.
	Body    string
	Generic bool
	// Call is the step of a call without a body, such as propose, CallID its id.
	Call, CallID string
	Media        []string // of the call: audio, video
	// Count is the number of the conversation's messages since the recipient was last
	// there, this one included; 1 where nobody counts.
	// Total is that of all conversations.
	Count, Total int
	// Key is the same for all events of a message, and for messages of the same sender that
	// repeat id and text.
	Key string
}

// eventFeed is the one dialect that knows all sessions of a host.
const eventFeed = "event-feed"

// Decider has the rules of one configuration. It is a value and safe for concurrent use.
type Decider struct {
	Plugin  Plugin
	Content notify.Content
	Rules   []config.PushRule // in place of Plugin; nil: none
}

// Concerns applies the rules about who gets a notification: Push, or why nobody
// does. It looks at no text, so that it can be asked for each event.
func (d Decider) Concerns(e *event.Event) Reason {
	switch e.Kind {
	case event.Chat:
		if e.Direction != event.Out {
			return NotMessage
		}
	case event.Stored, event.Missed:
	case event.Unack:
		if d.Plugin == Defaults && d.Rules == nil {
			return Unacked
		}
	default:
		return NotMessage
	}
	switch {
	case e.Type != "chat" && e.Type != "groupchat":
		return WrongType
	case e.User.Local() == "":
		return NotOurs
	case d.Rules != nil:
		_, r := d.ruled(e, nil)
		return r
	case e.Kind == event.Unack || e.RecipientOffline:
		return Push
	case e.Unverified:
		return Unclear
	case e.SessionCount == 0 && e.Dialect != eventFeed:
		return CannotTell
	}
	return Online
}

// Decide says what the event is worth.
func (d Decider) Decide(e *event.Event) (Notice, Reason) {
	if r := d.Concerns(e); r != Push {
		return Notice{}, r
	}
	n := Notice{
		Recipient: e.User, Sender: e.From, Conversation: e.From.Bare(),
		Body: e.Body, Count: 1, Total: 1, Key: key(e),
	}
	if e.Type == "chat" {
		n.Sender = n.Conversation
	}
	if e.Kind == event.Unack && d.Rules == nil {
		n.Session = e.To
	}
	if n.Conversation == n.Recipient {
		return Notice{}, OwnMessage
	}
	if d.Rules != nil || d.Plugin == Hints {
		h := readHints(e.Packet)
		call, r := d.hinted(e, &h)
		switch {
		case r != Push:
			return Notice{}, r
		case call && h.callID == "":
			return Notice{}, RuleOfCall
		case call:
			n.Call, n.CallID, n.Media, n.Sender = h.call, h.callID, h.media, n.Conversation
			if d.Content == notify.ContentNone {
				n.Sender = ""
			}
			return n, Push
		}
	}
	if e.Body == "" {
		return Notice{}, NoBody
	}
	n.Body = notify.Cut(n.Body, MaxBody)
	if e.Encrypted || d.Content != notify.ContentBody {
		n.Body, n.Generic = notify.GenericBody, true
	}
	if d.Content == notify.ContentNone {
		n.Sender = ""
	}
	return n, Push
}

// hinted reports whether the notice is about a call, or why there is to be none.
func (d Decider) hinted(e *event.Event, h *hints) (call bool, r Reason) {
	switch {
	case d.Rules != nil:
		content, r := d.ruled(e, h)
		return content == contentJingle, r
	case h.noStore:
		return false, NoStore
	}
	return e.Body == "" && h.store && h.callID != "", Push
}

// MaxBody is how many bytes of a text a notification has; what is cut ends in an
// ellipsis. No provider takes more than 4 KiB in all, so that a longer one would reach
// nobody; and a stanza of it, with its quotes escaped, could be one for which the server
// ends the component's stream.
const MaxBody = 3 << 10

// keyText is how much of a text belongs to a key: what all events of a message have.
const keyText = event.MissedBody - utf8.UTFMax

// key returns Notice.Key. The text belongs to it, since some clients count their ids from 1
// at each start. Keys are remembered, so that they are short whatever the sender puts into
// an id.
func key(e *event.Event) string {
	content := e.Body[:min(len(e.Body), keyText)]
	if content == "" && e.StanzaID == "" {
		content = e.Packet // which is not the same for all of them
	}
	b := make([]byte, 0, 512)
	for _, part := range [...]string{string(e.User), string(e.From), e.StanzaID, content} {
		b = append(append(b, part...), 0)
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// Fields returns the notice as MongooseIM's summary form has it.
func (n *Notice) Fields() []notify.Field {
	if n.Call != "" {
		call := []notify.Field{{Name: "jingle-message", Value: n.Call}, {Name: "jingle-session-id", Value: n.CallID}}
		if n.Sender != "" {
			call = append([]notify.Field{{Name: "message-sender", Value: string(n.Sender)}}, call...)
		}
		return call
	}
	fields := append(make([]notify.Field, 0, 3), notify.Field{Name: "message-count", Value: strconv.Itoa(n.Count)})
	if n.Sender != "" {
		fields = append(fields, notify.Field{Name: "last-message-sender", Value: string(n.Sender)})
	}
	return append(fields, notify.Field{Name: "last-message-body", Value: n.Body})
}

// Private returns the notice as it is encrypted for a client that asks for it. e is the
// event that n was made of.
func (n *Notice) Private(e *event.Event) notify.Private {
	p := notify.Private{Unread: n.Count, Type: e.Type, Message: n.Body}
	told := n.Sender != ""
	if told {
		p.Sender = string(n.Conversation)
	}
	switch {
	case n.Call != "":
		p.Type, p.SID = "call", n.CallID
		if told {
			p.Sender = string(e.From)
		}
		if n.Call == proposed {
			p.Media = append([]string{}, n.Media...)
		}
	case told && e.Type == "groupchat":
		p.Nickname = e.From.Resource()
	}
	return p
}

// proposed is the step of a call by which somebody calls (XEP-0353).
const proposed = "propose"

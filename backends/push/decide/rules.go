package decide

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"eventpusher/backends/push/notify"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// The reasons of a user's own rules, for one registration.
const (
	Muted        Reason = "muted"          // the user has muted the conversation
	RoomUnwanted Reason = "room_unwanted"  // the user has listed rooms, and not this one
	NotMentioned Reason = "not_mentioned"  // the user wants mentions from the room, and this is none
	Unknown      Reason = "unknown_sender" // the user wants to be told of contacts only
)

// UserRules say what a user does not want to be told at one registration, and how the rest is to
// be told. The client gives them with the registration, in Tigase's elements (see Elements).
// The zero value refuses nothing. It is safe for concurrent use as long as nobody changes it.
type UserRules struct {
	// Muted are the conversations of which nothing is told, by the bare JID of the other side
	// or of the room. The value is when that ends, in seconds since 1970; 0: never.
	Muted map[jid.JID]int64 `json:"muted,omitempty"`
	// Rooms are the rooms of which something is told, by their bare JID. With a nick only
	// messages that mention it are. nil: all rooms; empty: none.
	Rooms map[jid.JID]string `json:"rooms,omitzero"`
	// IgnoreUnknown: nothing is told of chats with those who are no contacts.
	IgnoreUnknown bool `json:"ignore_unknown,omitempty"`
	// Encryption: nobody but the client may read notifications; nil: the push service may.
	Encryption *notify.Encryption `json:"encryption,omitempty"`
	// Priority: notifications are marked as urgent.
	Priority bool `json:"priority,omitempty"`
}

// Refuses returns why the user does not want to be told of a message; Push: the rules do
// not say so. e is the event that n was made of. A nil receiver has no rules.
func (r *UserRules) Refuses(e *event.Event, n *Notice) Reason {
	if r == nil {
		return Push
	}
	if until, muted := r.Muted[n.Conversation]; muted && (until == 0 || e.Time.Before(time.Unix(until, 0))) {
		return Muted
	}
	if r.IgnoreUnknown && e.Stranger {
		return Unknown
	}
	if e.Type != "groupchat" || r.Rooms == nil {
		return Push
	}
	nick, wanted := r.Rooms[n.Conversation]
	switch {
	case !wanted:
		return RoomUnwanted
	case nick != "" && (e.Encrypted || !mentions(e.Body, nick)):
		return NotMentioned
	}
	return Push
}

// mentions reports whether a text has the nick as a word, in upper or lower case. Of a long
// text it looks at as much as there is of one that was missed in a room: users choose nicks,
// and others texts.
func mentions(text, nick string) bool {
	text = text[:min(len(text), event.MissedBody)]
	text, nick = strings.ToLower(text), strings.ToLower(nick)
	for at := 0; ; {
		i := strings.Index(text[at:], nick)
		if i < 0 {
			return false
		}
		before, after := text[:at+i], text[at+i+len(nick):]
		last, _ := utf8.DecodeLastRuneInString(before)
		first, _ := utf8.DecodeRuneInString(after)
		if !partOfWord(last) && !partOfWord(first) {
			return true
		}
		_, size := utf8.DecodeRuneInString(nick)
		at += i + size
	}
}

func partOfWord(c rune) bool {
	return c != utf8.RuneError && (unicode.IsLetter(c) || unicode.IsDigit(c) || c == '_')
}

// Encrypted reports whether nobody but the client may read notifications. A nil receiver has
// no rules.
func (r *UserRules) Encrypted() bool { return r != nil && r.Encryption != nil }

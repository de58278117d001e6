package translator

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
)

// The types of message that make events. A missing type is normal (RFC 6121
// section 5.2.2); error and unknown types make none, as in MongooseIM's
// mod_event_pusher_hook_translator:chat_type.
const (
	chat      = "chat"
	groupchat = "groupchat"
	headline  = "headline"
	normal    = "normal"
)

func messageType(attr string) (string, bool) {
	switch attr {
	case chat, groupchat, headline, normal:
		return attr, true
	case "":
		return normal, true
	}
	return "", false
}

// message applies the one rule for in and out to a stanza copied at that moment.
func (t *Translator) message(s *trust.Fact, copied trust.Copy, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	kind, ok := messageType(s.Type)
	if !ok {
		return dst, SkippedType
	}
	from, to := t.hosts.resolve(s.From), t.hosts.resolve(s.To)
	if s.To == "" {
		// RFC 6120 section 10.3.1: without an address it goes to the sender's account.
		to = t.hosts.resolve(from.bare)
	}
	if to.domain == t.component && s.Flags.Has(stanza.HasForwarded) {
		return dst, SkippedForwarded
	}
	if !from.session && from.localUser() && (s.Feed != trust.EventFeed || serverMade(s)) {
		return dst, SkippedServerMade // else it comes by the server's API, in a user's name
	}
	if !from.localUser() || s.Feed == trust.EventFeed && copied == trust.ReceivedCopy {
		reason, ok := t.arrives(s, copied, received, &from, &to, kind)
		if !ok {
			return dst, reason
		}
		if s, ok = t.opened(s, &from, &kind); !ok {
			return dst, SkippedServerMade
		}
		return t.chat(dst, s, received, kind, event.Out, &from, &to), 0
	}
	if reason, ok := t.leaves(s, copied, received, &from, &to, kind); !ok {
		return dst, reason
	}
	dst = t.chat(dst, s, received, kind, event.In, &from, &to)
	if to.host != nil && !s.Report.Unreached && (to.localUser() || !t.usersOnly) {
		dst = t.chat(dst, s, received, kind, event.Out, &from, &to)
	}
	return dst, 0
}

// leaves reports whether s is the copy made when the local session from sent it,
// the only one that makes events.
func (t *Translator) leaves(s *trust.Fact, copied trust.Copy, received time.Time, from, to *address, kind string) (Reason, bool) {
	switch {
	case s.Feed == trust.EventFeed && copied == trust.SentCopy:
		return 0, true // it tells, once for each message, and a source has many hosts
	case copied == trust.ReceivedCopy, s.Host != "" && string(s.Host) != from.domain:
		return SkippedReceiveCopy, false
	case s.Feed == trust.Direct:
		return SkippedForeign, to.domain == t.component
	case copied == trust.SentCopy:
		return 0, true
	case s.Feed != trust.ServiceLog:
		return SkippedUnmarked, false
	}
	if !to.named || to.domain != from.domain {
		// Nobody who could receive it reports to this host.
		return 0, true
	}
	return t.firstSent(s, received, to, kind)
}

// arrives reports whether s is the copy of somebody else's message that was made
// when it was about to reach the local user to.
func (t *Translator) arrives(s *trust.Fact, copied trust.Copy, received time.Time, from, to *address, kind string) (Reason, bool) {
	if !to.localUser() || copied == trust.SentCopy {
		return SkippedForeign, false
	}
	if s.Flags.Has(stanza.HasMAMResult) && s.From.IsBare() && !s.HasBody {
		// A room answering from its archive. With a body or from an occupant it is
		// somebody who tries to hide a message behind a result.
		return SkippedArchive, false
	}
	if s.Feed == trust.ServiceLog {
		// It makes a copy for each session that gets the message.
		return t.firstArrived(s, received, from, to, kind)
	}
	return SkippedUnmarked, copied == trust.ReceivedCopy
}

// chat appends the event of one direction.
func (t *Translator) chat(dst []event.Event, s *trust.Fact, received time.Time, kind string, d event.Direction, from, to *address) []event.Event {
	about := to
	if d == event.In {
		about = from
	}
	dst = append(dst, base(s, received))
	e := &dst[len(dst)-1] // an event is large, so it is made in its place
	t.content(e, s, received, kind, from, to, about)
	e.Kind, e.Direction = event.Chat, d
	e.RecipientOffline = d == event.Out && t.absent(to)
	e.Stranger = d == event.Out && stranger(s, kind, to)
	return dst
}

// content sets what an event about a message says that is about the user about.
func (t *Translator) content(e *event.Event, s *trust.Fact, received time.Time, kind string, from, to, about *address) {
	e.Type = kind
	e.From, e.To = from.full, to.full
	e.Body, e.HasBody = s.Body, s.HasBody
	e.Class = classify(s)
	e.Encrypted = s.Flags.Has(stanza.HasEncrypted)
	e.Fallback = s.HasBody && s.Flags.Has(stanza.HasFallback)
	e.Replaces = s.Replaces
	if kind == groupchat {
		e.Room = to.bare
		if !from.localUser() {
			e.Room = from.bare
			if e.Body == "" && e.Class == event.Subject {
				// The subject that a room replays to whoever joins; some rooms put an empty
				// body beside it, which is no message of anybody.
				e.HasBody = false
			}
		}
	}
	e.User = about.bare
	if about.localUser() {
		var doubt bool
		e.SessionCount, doubt = t.sessions.count(about.bare, received)
		e.Unverified = doubt || t.unverified(about.host.statuses, e.SessionCount)
	}
}

// stranger reports whether the event-feed says that the sender is no contact of to. Who speaks
// in a room needs not be one.
func stranger(s *trust.Fact, kind string, to *address) bool {
	return s.Report.Stranger && kind != groupchat && to.localUser()
}

// absent reports whether the event-feed knows all sessions on the host of a and none
// of its user, so that nobody is there to take a message.
func (t *Translator) absent(a *address) bool {
	return t.sessions.whole && a.localUser() && a.host.statuses == trust.EventFeed && t.sessions.users[a.bare] == nil
}

// classify says what a message is, what it is most of all first: clients put
// chat states and receipt requests beside everything.
func classify(s *trust.Fact) event.Class {
	switch f := s.Flags; {
	case s.Body != "":
		return event.Content
	case f.Has(stanza.HasCall):
		return event.Call
	case f.Has(stanza.HasReaction):
		return event.Reaction
	case f.Has(stanza.HasRetraction):
		return event.Retraction
	case f.Has(stanza.HasReceipt):
		return event.Receipt
	case f.Has(stanza.HasMarker):
		return event.Marker
	case f.Has(stanza.HasSubject):
		return event.Subject
	case f.Has(stanza.HasState):
		return event.State
	}
	return event.Other
}

package translator

import (
	"time"
	"unicode/utf8"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
)

// missed makes an event for each local user whom the event-feed names as a member of a
// room who has missed what an occupant has said there. Who is named elsewhere is not ours
// to notify.
func (t *Translator) missed(s *trust.Fact, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	if s.Kind != stanza.Message || s.Type != groupchat {
		return dst, SkippedType
	}
	from := t.hosts.resolve(s.From)
	if !from.named || !from.session || from.localUser() {
		return dst, SkippedForeign // no occupant of a room
	}
	body := beginning(s.Body, event.MissedBody)
	for _, member := range s.Report.Members {
		to := t.hosts.resolve(member)
		if !to.localUser() {
			continue
		}
		dst = append(dst, base(s, received))
		e := &dst[len(dst)-1]
		t.content(e, s, received, groupchat, &from, &to, &to)
		e.Kind, e.RecipientOffline = event.Missed, true
		e.Body, e.Packet = body, ""
	}
	return dst, SkippedForeign
}

// beginning returns at most size bytes of a text, whole characters.
func beginning(text string, size int) string {
	if len(text) <= size {
		return text
	}
	for size > 0 && !utf8.RuneStart(text[size]) {
		size--
	}
	return text[:size]
}

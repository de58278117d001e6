package translator

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/event"
)

// missed makes an event for each local user whom the event-feed names as a member of a
// room who has missed what an occupant has said there. Who is named elsewhere is not ours
// to notify.
func (t *Translator) missed(s *stanza.Stanza, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	if s.Kind != stanza.Message || s.Type != groupchat {
		return dst, SkippedType
	}
	from := t.hosts.resolve(s.From)
	if !from.named || !from.session || from.localUser() {
		return dst, SkippedForeign // no occupant of a room
	}
	for _, member := range s.Report.Members {
		to := t.hosts.resolve(member)
		if !to.localUser() {
			continue
		}
		dst = append(dst, base(s, received))
		e := &dst[len(dst)-1]
		t.content(e, s, received, groupchat, &from, &to, &to)
		e.Kind, e.RecipientOffline = event.Missed, true
	}
	return dst, SkippedForeign
}

package translator

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
)

// prompt is how soon the end of an account is heard of, as a rule; servers and we agree
// on the time to that at least.
const prompt = 2 * time.Second

// removed makes an event of the end of an account. The presence table stays as it is:
// the server closes the sessions of the account, and tells of each.
func (t *Translator) removed(s *trust.Fact, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	about := t.hosts.resolve(s.Report.User)
	if !about.localUser() || about.session {
		return dst, SkippedForeign
	}
	e := base(s, received)
	e.Kind, e.From, e.User = event.Removed, about.bare, about.bare
	e.Time = removedAt(&s.Report, received)
	return append(dst, e), 0
}

// removedAt returns the time that parts what the old account has asked of us from what
// a new one of the name has, both by the time of receipt.
//
// Requests and a prompt report come by one stream, in the server's order, so that its
// receipt is that time, whatever the clocks say; a request that was on its way
// when the account ended came before. A report that was kept while we were away comes
// when there may be a new account, so there the server's clock has to do.
func removedAt(r *stanza.Report, received time.Time) time.Time {
	at := happened(r, received)
	if received.Sub(at) < prompt {
		return received
	}
	return at
}

package translator

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
)

// A report's own time is believed if it is not later than the receipt of the report
// by more than clockAhead, nor earlier by more than reportKept: servers' clocks
// differ, and their modules keep reports while we are away.
const (
	clockAhead = 5 * time.Minute
	reportKept = 31 * 24 * time.Hour
)

// happened returns when what r reports happened.
func happened(r *stanza.Report, received time.Time) time.Time {
	if r.At.IsZero() || r.At.After(received.Add(clockAhead)) || r.At.Before(received.Add(-reportKept)) {
		return received
	}
	return r.At
}

// report translates what the event-feed reports (docs/feed-protocol.md). The fact says
// what the stanza is, so that nothing has to be told from its looks.
func (t *Translator) report(s *trust.Fact, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	r := &s.Report
	index, src := t.sessions.named(r.Source, received)
	repeated := src.position(r.Epoch, r.Seq)
	if h := t.hosts.find(string(s.Host)); h != nil {
		h.reported(index)
		if h.statuses == 0 || r.Kind == stanza.SnapshotStart {
			h.statuses = trust.EventFeed
		}
	}
	first := len(dst)
	reason := SkippedFact
	switch r.Kind {
	case stanza.MessageSent:
		dst, reason = t.message(s, trust.SentCopy, received, dst)
	case stanza.MessageReceived:
		if from := t.hosts.resolve(s.From); from.localUser() && from.host.elsewhere(index) {
			return dst, SkippedReceiveCopy // its own server reports that it was sent
		}
		dst, reason = t.message(s, trust.ReceivedCopy, received, dst)
	case stanza.MessageOffline, stanza.MessageUnacked:
		dst, reason = t.undelivered(s, received, dst)
	case stanza.RoomMissed:
		dst, reason = t.missed(s, received, dst)
	case stanza.SessionOnline, stanza.SessionPresence, stanza.SessionOffline, stanza.SnapshotSession,
		stanza.SessionStart, stanza.SessionEnd, stanza.SessionHibernate, stanza.SessionResumed:
		return t.session(s, index, src, repeated, received, dst)
	case stanza.AccountRemoved:
		return t.removed(s, received, dst)
	case stanza.SnapshotStart:
		src.begin(r)
	case stanza.SnapshotEnd:
		return t.snapshotEnd(s, index, src, repeated, received, dst)
	case stanza.MessageFailed, stanza.RoomMessage, stanza.RoomJoin, stanza.RoomPart:
	default:
		reason = SkippedUnknownFact
	}
	at := happened(r, received)
	for i := range dst[first:] {
		e := &dst[first+i]
		e.Time = at
		if repeated && e.Kind == event.Chat && e.Direction == event.Out {
			// The table is ahead of the message.
			e.RecipientOffline, e.Unverified = false, true
		}
	}
	return dst, reason
}

// undelivered makes an event of a message that has not got through: one that is
// stored, or that a hibernating session has not acknowledged. MongooseIM's
// unack_msg_event takes messages of all types but error.
func (t *Translator) undelivered(s *trust.Fact, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	kind, ok := messageType(s.Type)
	if s.Kind != stanza.Message || !ok {
		return dst, SkippedType
	}
	about := t.hosts.resolve(s.Report.User)
	if !about.localUser() {
		return dst, SkippedForeign
	}
	from, to := t.hosts.resolve(s.From), about
	if s, ok = t.opened(s, &from, &kind); !ok {
		return dst, SkippedServerMade
	}
	e := base(s, received)
	if e.Kind = event.Unack; s.Report.Kind == stanza.MessageOffline {
		e.Kind, e.RecipientOffline = event.Stored, true
		if s.To != "" {
			to = t.hosts.resolve(s.To)
		}
	}
	t.content(&e, s, received, kind, &from, &to, &about)
	e.Stranger = stranger(s, kind, &about)
	return append(dst, e), 0
}

package translator

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
)

// outcome is what a fact about a session says that has not been told: that the one
// under its full JID has gone, that one has come, or first the one and then the other.
type outcome struct {
	went, came bool
	// reconciled: found out after something was missed. It is the went, if there is one.
	reconciled bool
	elsewhere  bool // the session has gone on at another source since
}

// hear enters what the event-feed says about the session a into the table.
// stamp is when it happened, in seconds since the epoch by the server's clock.
//
// A session that nothing was known of and that is found to be available has come
// while something was missed, unless its source says that nothing has been
// since the process before this one, which then has told of it.
func (t *sessions) hear(a *address, index uint16, fact stanza.ReportKind, present bool, stamp uint32) outcome {
	u := t.users[a.bare]
	i := u.find(a.resource())
	if i < 0 {
		if o, late := t.departedBefore(a, index, fact, present, stamp); late {
			return o
		}
		switch fact {
		case stanza.SessionEnd:
			return outcome{}
		case stanza.SessionOffline: // it came before this process, and stays bound
			s := t.enter(a, index)
			s.changed = stamp
			t.vanish(s)
			return outcome{went: true}
		}
		s := t.enter(a, index)
		s.changed = stamp
		return t.found(s, fact, present)
	}
	s := &u.sessions[i]
	// A session is at one place at a time, but what its places say comes in any order.
	adopted := s.source == lesser
	moved := s.source != index && !adopted
	if moved && (stamp < s.changed || fact == stanza.SessionOffline || fact == stanza.SessionEnd) {
		o := t.late(index, fact, present, s.marks&(available|ended) != 0)
		if o.went {
			t.vanish(s)
		}
		return o
	}
	was, before := s.marks, s.generation
	stale := t.confirm(s)
	t.move(s, index)
	s.changed = stamp
	if moved || stale {
		s.marks &^= replacing
	}
	switch fact {
	case stanza.SessionEnd:
		if was&doubled != 0 {
			s.marks &^= replacing
			if stale {
				// Of the two, the end of the other one may have been missed: that only the
				// snapshot can tell.
				s.generation = before
				return outcome{}
			}
			if was&(available|renewed) == available { // the old one's
				t.vanish(s)
				return outcome{went: true, reconciled: true}
			}
			return outcome{}
		}
		t.depart(a.full, departure{stamp, index, was&(available|ended) != 0})
		t.remove(a.bare, u, i)
		return outcome{went: was&available != 0, reconciled: true}
	case stanza.SessionOffline:
		if was&owing != 0 {
			s.marks &^= owing
			return outcome{}
		}
		t.vanish(s)
		return outcome{went: was&ended == 0}
	case stanza.SessionStart:
		switch {
		case moved || stale || adopted:
			if was&available != 0 {
				t.vanish(s)
				return outcome{went: true, reconciled: stale}
			}
		default:
			s.marks |= doubled
		}
		return outcome{}
	case stanza.SessionOnline:
		if s.marks&doubled != 0 {
			s.marks |= renewed
		}
		if was&available == 0 {
			return t.found(s, fact, present)
		}
		if !moved && !stale && was&doubled != 0 && was&renewed == 0 {
			s.marks |= owing
			return outcome{went: true, came: true}
		}
		again := moved || stale
		return outcome{went: again, came: again, reconciled: again && stale}
	case stanza.SnapshotSession:
		s.marks &^= replacing
		if !present && was&available != 0 {
			t.vanish(s)
			return outcome{went: true, reconciled: true}
		}
	}
	if was&available == 0 {
		return t.found(s, fact, present)
	}
	return outcome{}
}

// found makes s, which was not available, available if the fact says so.
func (t *sessions) found(s *session, fact stanza.ReportKind, present bool) outcome {
	switch {
	case fact == stanza.SessionOnline:
		t.appear(s)
		return outcome{came: true}
	case fact == stanza.SessionPresence, fact == stanza.SnapshotSession && present:
		t.appear(s)
		told := t.sources[s.source].told
		return outcome{came: !told, reconciled: !told}
	}
	return outcome{}
}

// session makes the events of a fact about one session.
func (t *Translator) session(s *trust.Fact, index uint16, src *source, repeated bool, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	r := &s.Report
	full := r.User
	if full == "" {
		full = s.From
	}
	a := t.hosts.resolve(full)
	if !a.localUser() || !a.session {
		return dst, SkippedForeign
	}
	a.host.statuses = trust.EventFeed
	if repeated {
		return t.retell(s, src, received, dst)
	}
	at := happened(r, received)
	t.sessions.current(a.bare, received)
	o := t.sessions.hear(&a, index, r.Kind, s.Kind == stanza.Presence && s.Type == "", seconds(at))
	switch {
	case o.elsewhere:
		return dst, SkippedElsewhere
	case !o.went && !o.came && (r.Kind == stanza.SessionStart || r.Kind == stanza.SessionEnd ||
		r.Kind == stanza.SessionHibernate || r.Kind == stanza.SessionResumed):
		return dst, SkippedFact
	case !o.went && !o.came:
		return dst, SkippedUnchanged
	}
	count, doubt := t.sessions.count(a.bare, received)
	unsure := doubt || t.shaky(trust.EventFeed)
	if o.went {
		left := count
		if o.came {
			left--
		}
		dst = t.tell(s, src, telling{session: a.full, count: int32(left), reconciled: o.reconciled, unverified: unsure}, received, dst)
	}
	if o.came {
		dst = t.tell(s, src, telling{session: a.full, online: true, count: int32(count), reconciled: o.reconciled && !o.went, unverified: unsure}, received, dst)
	}
	return dst, 0
}

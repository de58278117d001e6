package trust

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// Module reports whether the element of the event-feed in env is a feed module's: in a
// message from the bare domain of a forwarder, or of a host that the source has
// announced as its own, to our bare domain. Any user can send the same from his own
// address, and a server sends what we wrote back in an error.
func (j *Judge) Module(env *stanza.Envelope, announced bool, now time.Time) bool {
	outer := &env.Outer
	switch {
	case !j.forwarders.Has(outer.From) && !announced, outer.Kind != stanza.Message, outer.To != j.name:
		j.metrics.count(Direct, untrustedFeed)
		j.complain(untrustedFeed, Direct, outer.From, now)
	case outer.Type == "error":
		j.metrics.count(EventFeed, errorStanza)
	default:
		return true
	}
	return false
}

// Serves reports whether what a feed says about the host counts.
func (j *Judge) Serves(host jid.JID) bool { return j.forwarders.Has(host) && j.local(host) }

// Announced makes the event-feed the authority for the served ones of these hosts, and
// returns the others.
func (j *Judge) Announced(hosts []jid.JID, now time.Time) (unserved []jid.JID) {
	for _, host := range hosts {
		if !j.Serves(host) {
			unserved = append(unserved, host)
			continue
		}
		j.admit(host, Messages, EventFeed, now)
		j.admit(host, Presence, EventFeed, now)
	}
	return unserved
}

// Report returns the fact that a report of the event-feed stands for, nil if it does not
// count; either way it is counted. Untranslatable says that the report lacks what its
// kind needs. The fact is valid until the next call.
func (j *Judge) Report(env *stanza.Envelope, now time.Time) (*Fact, Verdict) {
	v := j.report(env, now)
	j.metrics.count(EventFeed, v)
	if v != Trusted {
		j.passed(&env.Inner, EventFeed, v.why())
		return nil, v
	}
	j.fact = Fact{
		Stanza: env.Inner, Feed: EventFeed, Copy: copyOf(&env.Inner, env.Feed.Report.Kind),
		Host: env.Outer.From, Received: now, Report: env.Feed.Report,
	}
	return &j.fact, v
}

// Told notes that a stanza of the event-feed does not count although it is trusted.
func (j *Judge) Told(s *stanza.Stanza, why string) { j.passed(s, EventFeed, why) }

// report judges a report. It completes the stanza: clients leave the sender out, and
// some kinds have no stanza.
func (j *Judge) report(env *stanza.Envelope, now time.Time) Verdict {
	host, r, s := env.Outer.From, &env.Feed.Report, &env.Inner
	room := r.Kind == stanza.RoomMessage || r.Kind == stanza.RoomJoin || r.Kind == stanza.RoomPart
	missed := r.Kind == stanza.RoomMissed
	bracket := r.Kind == stanza.SnapshotStart || r.Kind == stanza.SnapshotEnd
	kind, optional := carried(r.Kind)
	switch {
	case bracket: // of a snapshot of all hosts; the module sends it from any of them
		*s = stanza.Stanza{From: r.User}
		if j.Serves(host) && !j.admit(host, Presence, EventFeed, now) {
			return notAuthoritative
		}
		return Trusted
	case !j.Serves(host):
		return foreign
	case r.Kind == stanza.UnknownReport:
		return ignored
	case r.User.Local() == "" && !missed, missed && len(r.Members) == 0,
		r.Kind == stanza.AccountRemoved && !r.User.IsBare():
		return Untranslatable
	case jid.JID(r.User.Domain()) != host && !room && !missed:
		return foreign
	case kind == 0, optional && env.Forward == stanza.NotForwarded:
		*s = stanza.Stanza{From: r.User}
	case env.Forward != stanza.ForwardedOne || s.Kind != kind:
		return Untranslatable
	case jid.JID(s.To.Domain()) == j.name && s.Flags.Has(stanza.HasForwarded):
		return nestedForward
	case missed && jid.JID(s.From.Domain()) != host:
		return foreign // a host speaks for its own rooms alone
	case r.Kind == stanza.MessageSent || kind == stanza.Presence:
		if s.From == "" { // clients leave it out, and the server need not write it
			s.From = r.User
		}
		if jid.JID(s.From.Domain()) != host {
			return foreign // only the sender's own host sees what is sent
		}
	}
	// The end of an account is of no class: no other feed tells of it.
	if r.Kind != stanza.AccountRemoved && !j.admit(host, reportClass(r.Kind), EventFeed, now) {
		return notAuthoritative
	}
	if (r.Kind == stanza.MessageSent || r.Kind == stanza.MessageReceived) && j.told.before(s, r, now) {
		return notAuthoritative
	}
	return Trusted
}

// copyOf returns the moment at which the stanza of a report was copied.
func copyOf(s *stanza.Stanza, k stanza.ReportKind) Copy {
	switch {
	case s.Kind == 0:
		return UnknownCopy
	case s.Kind == stanza.Presence, k == stanza.MessageSent, k == stanza.RoomMessage:
		return SentCopy
	}
	return ReceivedCopy
}

// carried says what a report of that kind forwards, 0 for nothing.
func carried(k stanza.ReportKind) (kind stanza.Kind, optional bool) {
	switch k {
	case stanza.MessageSent, stanza.MessageReceived, stanza.MessageOffline, stanza.MessageUnacked,
		stanza.MessageFailed, stanza.RoomMessage, stanza.RoomMissed:
		return stanza.Message, false
	case stanza.SessionOnline, stanza.SessionPresence, stanza.SessionOffline:
		return stanza.Presence, false
	case stanza.SnapshotSession:
		return stanza.Presence, true
	}
	return 0, false
}

// reportClass returns the class that a report of that kind belongs to.
func reportClass(k stanza.ReportKind) Class {
	switch k {
	case stanza.SessionOffline, stanza.SessionEnd:
		return Offline
	}
	if kind, _ := carried(k); kind == stanza.Message {
		return Messages
	}
	return Presence
}

package translator

import (
	"strconv"
	"strings"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
)

// presence makes a user status event of the first available presence of a
// session and of its unavailable one.
//
// It follows MongooseIM (mod_presence) but for repeated unavailable presences,
// which make one event: priority does not matter, later presences make none. An
// unavailable of a session that it has never heard of makes one, because the
// session may have come online before the component was started. After a gap in the
// feed (Gap), the next presence of a session counts as its first.
func (t *Translator) presence(s *trust.Fact, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	if s.Type != "" && s.Type != "unavailable" {
		return dst, SkippedType
	}
	from := t.hosts.resolve(s.From)
	if !from.localUser() || !from.session {
		return dst, SkippedForeign
	}
	if !t.undirected(s, &from) {
		return dst, SkippedDirected
	}
	snapshot := t.snapshot(s, &from)
	var what news
	if s.Type == "" {
		from.host.statuses = s.Feed
		from.host.snapshots = from.host.snapshots || snapshot && s.Feed == trust.Privilege
		what = t.sessions.available(&from, priority(s), received, snapshot, repeats(s.Feed), exact(s.Feed, from.host))
	} else {
		if from.host.statuses == 0 {
			from.host.statuses = s.Feed
		}
		what = t.sessions.unavailable(&from, received)
	}
	switch what {
	case nothing:
		return dst, SkippedUnchanged
	case crowdedOut:
		return dst, SkippedCrowded
	}
	e := base(s, received)
	e.Kind, e.Type = event.UserStatus, "offline"
	if e.Online = s.Type == ""; e.Online {
		e.Type = "online"
	}
	e.User = from.bare
	count, doubt := t.sessions.count(from.bare, received)
	e.SessionCount = count
	e.Unverified = doubt || !confirmed(s.Feed) || count > 0 && !confirmed(from.host.statuses)
	e.Reconciled = snapshot || what == maybeAgain
	return append(dst, e), 0
}

// undirected reports whether s tells everybody, not somebody, that the session
// from is there or gone.
//
// Where the recipient settles that, children do not count, as in MongooseIM: a user
// who adds those of rooms to his unavailable would stay online for good.
func (t *Translator) undirected(s *trust.Fact, from *address) bool {
	if s.Copy == trust.ReceivedCopy {
		return false
	}
	switch s.Feed {
	case trust.Privilege:
		// Servers hand on undirected ones only (XEP-0356 section 7).
		return string(s.To) == t.component
	case trust.Direct:
		// Any node of ours may be the contact that a user has subscribed, or be taken
		// for a room by a client that joins (XEP-0045).
		return s.To.Domain() == t.component && s.Flags&(stanza.HasMUC|stanza.HasMUCUser) == 0
	}
	if s.Host != "" && string(s.Host) != from.domain {
		return false
	}
	switch s.Feed {
	case trust.ServiceLog:
		// ejabberd writes the user's own bare JID into an undirected presence; the
		// copies that contacts and other resources get have full JIDs. The
		// unavailable that it writes itself when a session ends without one is seen
		// at contacts only, and there looks like that of a subscription revoked while
		// the session lives on, so it proves nothing.
		return s.To == "" || s.To == from.bare
	case trust.Firewall:
		return s.To == "" || s.To.Bare() == from.bare
	}
	return false
}

// snapshot reports whether s repeats a presence of before, as servers stamp the
// answers to probes and what they send to a component that has just connected.
func (t *Translator) snapshot(s *trust.Fact, from *address) bool {
	return repeats(s.Feed) &&
		s.Flags.Has(stanza.HasDelay) && (string(s.DelayFrom) == from.domain || s.DelayFrom == from.full)
}

// repeats reports whether servers send the presences of a dialect again, when the
// component has connected or asked for them.
func repeats(d trust.Feed) bool { return d == trust.Privilege || d == trust.Direct }

// confirmed reports whether a dialect also tells of sessions that end without a
// word; a subscription (direct) does of those who granted it. ejabberd's mod_service_log and mod_privilege do not.
func confirmed(d trust.Feed) bool {
	return d == trust.EventFeed || d == trust.Firewall || d == trust.Direct
}

// exact reports whether a feed tells of the end of every session on a host. By the
// presence privilege Prosody does, which is known by its snapshots; ejabberd does not.
func exact(f trust.Feed, h *host) bool {
	return f == trust.Firewall || f == trust.Direct || f == trust.Privilege && h.snapshots
}

// unverified reports whether a session count is in doubt on a host whose statuses
// come by d: nothing confirms that sessions have ended, or, where only who
// subscribed us is known, that there are none, or the event-feed does not know all
// sessions for now.
func (t *Translator) unverified(d trust.Feed, count int) bool {
	return t.shaky(d) || d == trust.Direct && count == 0
}

// shaky is unverified for a user of whom that dialect has told something.
func (t *Translator) shaky(d trust.Feed) bool {
	return !confirmed(d) || d == trust.EventFeed && !t.sessions.whole
}

// priority returns the priority of an available presence (RFC 6121 section
// 4.7.2.3), zero when there is none.
// Only ejabberd's way to deliver to bare JIDs depends on it, and ejabberd writes
// stanzas anew, so the text is found in one form; an element that a user hides
// elsewhere to be mistaken for it is about nobody else.
func priority(s *trust.Fact) int8 {
	const tag = "<priority>"
	if s.Feed != trust.ServiceLog {
		return 0
	}
	_, rest, ok := strings.Cut(s.Raw, tag)
	if !ok {
		return 0
	}
	text, _, _ := strings.Cut(rest, "<")
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 8)
	if err != nil {
		return 0
	}
	return int8(n)
}

package translator

import (
	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// The sources of a cluster tell their facts in order, each for itself. After the link
// was down they tell of the past side by side, so a session that has moved from
// one node to another can be heard of from the second one first. The servers' clocks
// settle which fact is the later one; nodes of a cluster must agree on the time.

// departure is when and where a session has ended.
type departure struct {
	stamp  uint32 // in seconds since the epoch
	source uint16
	told   bool // its end, or that of the one before it
}

// depart remembers the end of a session, if another source can be late with it.
func (t *sessions) depart(full jid.JID, d departure) {
	if len(t.sources) > 2 {
		t.departed.Add(t.hash(full), d)
	}
}

// departedBefore reports whether a session that is not there has ended at another
// source after the fact, and what the fact says then.
func (t *sessions) departedBefore(a *address, index uint16, fact stanza.ReportKind, present bool, stamp uint32) (outcome, bool) {
	if t.departed.Len() == 0 {
		return outcome{}, false
	}
	key := t.hash(a.full)
	d, ok := t.departed.Peek(key)
	over := stamp < d.stamp || stamp == d.stamp && fact == stanza.SessionOffline
	if !ok || d.source == index || !over {
		return outcome{}, false
	}
	o := t.late(index, fact, present, d.told)
	if o.went {
		d.told = true
		t.departed.Add(key, d)
	}
	return o, true
}

// late says what is news in a fact about a session that has gone on at another source
// since: nothing, but for a session that a process before this one has told to be
// online. This one, that does not know where it was, has not told that it went.
func (t *sessions) late(index uint16, fact stanza.ReportKind, present, told bool) outcome {
	src := t.sources[index]
	went := false
	switch fact {
	case stanza.SessionOffline:
		went = !src.whole
	case stanza.SessionPresence, stanza.SnapshotSession:
		went = src.told && (present || fact == stanza.SessionPresence)
	}
	if told || !went {
		return outcome{elsewhere: true}
	}
	return outcome{went: true, reconciled: fact != stanza.SessionOffline}
}

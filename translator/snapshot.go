package translator

import (
	"strings"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// begin opens a snapshot, in place of any before. One that comes again after a loss
// does not count: what it says of sessions has been heard before the loss.
func (src *source) begin(r *stanza.Report) {
	src.snapshot, src.open = strings.Clone(r.ID), r.Seq > src.barred
}

// snapshotEnd closes a snapshot: sessions of the source that neither it nor anything
// after the loss has said a word about have gone.
//
// So have those of which nobody but a lesser feed has spoken, once all sources
// know their sessions.
func (t *Translator) snapshotEnd(s *trust.Fact, index uint16, src *source, repeated bool, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	open := src.open && src.snapshot == s.Report.ID
	src.open = src.open && !open
	switch {
	case repeated:
		return t.retell(s, src, received, dst)
	case !open:
		return dst, SkippedFact
	}
	src.whole, src.told = true, false
	t.sessions.settle()
	whole := t.sessions.whole
	first := len(dst)
	dst = t.close(s, src, received, dst, nil, func(domain string, c *session) bool {
		if c.source == index {
			return t.sessions.stale(c)
		}
		h := t.hosts.find(domain)
		return whole && c.source == lesser && h != nil && h.statuses == trust.EventFeed
	})
	if len(dst) == first {
		return dst, SkippedFact
	}
	return dst, 0
}

// close takes the sessions that gone names out of the table, those of these users or
// without users of all, and makes the events that they are offline.
func (t *Translator) close(s *trust.Fact, src *source, received time.Time, dst []event.Event, users []jid.JID, gone func(string, *session) bool) []event.Event {
	var ends []telling
	end := func(bare jid.JID, c session) {
		full := jid.JID(string(bare) + "/" + c.resource)
		if c.source != lesser {
			// It may have ended, and gone on elsewhere, any time after it was last heard of.
			t.sessions.depart(full, departure{c.changed, c.source, c.marks&(available|ended) != 0})
		}
		if c.marks&available != 0 {
			count, _ := t.sessions.tally(t.sessions.users[bare])
			ends = append(ends, telling{session: full, count: int32(count), reconciled: true})
		}
	}
	if users == nil {
		t.sessions.drop(gone, end)
	}
	for _, bare := range users {
		t.sessions.dropOf(bare, gone, end)
	}
	for _, w := range ends {
		_, doubt := t.sessions.tally(t.sessions.users[w.session.Bare()])
		w.unverified = doubt || t.shaky(s.Feed)
		dst = t.tell(s, src, w, received, dst)
	}
	return dst
}

// Settled says that the snapshot which the host sends by itself, or the answers to all
// probes of its users, have been translated. Sessions on the host that nothing
// has confirmed since the last gap, although they were known in the same way, have
// ended: it appends their offline events, marked reconciled, to dst. That holds for
// these users, or with nil for all of the host. It is for feeds that number nothing;
// the event-feed has its own snapshots. Settled belongs to the goroutine that calls Translate.
func (t *Translator) Settled(host jid.JID, users []jid.JID, dst []event.Event) []event.Event {
	domain := string(host)
	h := t.hosts.find(domain)
	if h == nil {
		return dst
	}
	h.snapshots = h.snapshots || users == nil
	received := t.now()
	first := len(dst)
	s := &trust.Fact{Stanza: stanza.Stanza{Kind: stanza.Presence}, Feed: h.statuses, Host: host}
	dst = t.close(s, nil, received, dst, users, func(of string, c *session) bool {
		return of == domain && c.marks&repeatable != 0 && c.source == lesser && t.sessions.stale(c)
	})
	t.noteTable()
	for i := range dst[first:] {
		e := &dst[first+i]
		t.sessions.offline.Add(t.sessions.hash(e.From), struct{}{})
		s.From, s.Raw = e.From, e.Packet
		t.ids.assign(s, received, dst[first+i:first+i+1])
	}
	t.counters.events.Add(int64(len(dst) - first))
	return dst
}

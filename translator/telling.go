package translator

import (
	"encoding/xml"
	"slices"
	"strings"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// tellingsKept is how many events of a source may follow one that told about a
// session until that is forgotten. A source sends at most a window of events,
// 512 unless configured, again.
const tellingsKept = 4096

// telling is one status event of the event-feed.
//
// The events of a source that an outbox refused come again, when the table has long
// taken them in. So it is remembered what they told: that tells the same once more, and
// leaves the table alone.
type telling struct {
	seq        uint64
	session    jid.JID
	count      int32
	online     bool
	reconciled bool
	unverified bool
}

// tell appends the event of w to dst and remembers it, if src is not nil.
func (t *Translator) tell(s *trust.Fact, src *source, w telling, received time.Time, dst []event.Event) []event.Event {
	if src != nil {
		w.seq = s.Report.Seq
		w.session = jid.JID(strings.Clone(string(w.session))) // not the stanza's memory
		src.remember(w)
	}
	return append(dst, statusEvent(s, &w, received))
}

// remember keeps w, and now and then drops those that will not be asked for any more.
func (src *source) remember(w telling) {
	const batch = 256
	if n := len(src.tellings); n > 0 && n%batch == 0 {
		old := 0
		for old < n && src.tellings[old].seq+tellingsKept < w.seq {
			old++
		}
		if old > 0 {
			src.tellings = slices.Clone(src.tellings[old:])
		}
	}
	src.tellings = append(src.tellings, w)
}

// retell appends what s told when it came first.
func (t *Translator) retell(s *trust.Fact, src *source, received time.Time, dst []event.Event) ([]event.Event, Reason) {
	seq := s.Report.Seq
	at, found := slices.BinarySearchFunc(src.tellings, seq, func(w telling, seq uint64) int {
		switch {
		case w.seq < seq:
			return -1
		case w.seq > seq:
			return 1
		}
		return 0
	})
	if !found {
		return dst, SkippedUnchanged
	}
	for ; at < len(src.tellings) && src.tellings[at].seq == seq; at++ {
		dst = append(dst, statusEvent(s, &src.tellings[at], received))
	}
	return dst, 0
}

// statusEvent returns the event that a session has come or gone. Its packet is the
// presence that says so, or one made up where there is none.
func statusEvent(s *trust.Fact, w *telling, received time.Time) event.Event {
	e := event.Event{
		Kind: event.UserStatus, Type: "offline", From: w.session, User: w.session.Bare(),
		Online: w.online, SessionCount: int(w.count), Reconciled: w.reconciled, Unverified: w.unverified,
		Time: received, Host: string(s.Host), Dialect: s.Feed.String(),
	}
	said := ""
	if w.online {
		e.Type = "online"
	} else {
		said = "unavailable"
	}
	if s.Feed == trust.EventFeed {
		e.Time = happened(&s.Report, received)
	}
	if s.Kind == stanza.Presence && s.Type == said && s.Raw != "" {
		e.Packet, e.StanzaID = s.Raw, s.ID
	} else {
		e.Packet = madeUp(w.session, said)
	}
	return e
}

// madeUp returns a presence that nobody has sent.
func madeUp(from jid.JID, kind string) string {
	var b strings.Builder
	b.WriteString("<presence xmlns='jabber:client' from='")
	_ = xml.EscapeText(&b, []byte(from)) // a Builder takes everything
	b.WriteByte('\'')
	if kind != "" {
		b.WriteString(" type='" + kind + "'")
	}
	b.WriteString("/>")
	return b.String()
}

package stanza

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"eventpusher/internal/jid"
)

// The bounds of docs/feed-protocol.md.
const (
	maxFeedName   = 128       // characters of a source or an epoch
	maxFeedNumber = 1<<63 - 1 // 19 digits
	maxMembers    = 1000      // of one RoomMissed
)

// maxNames is how many sources and epochs a Decoder remembers.
const maxNames = 256

// feedFields is what is collected of the feed's element while a stanza is read.
type feedFields struct {
	element FeedElement
	kind    ReportKind
	source  text
	epoch   text
	user    text
	id      text
	members text
	token   text
	at      time.Time
	seq     uint64 // FeedEvent; FeedLost: from
	last    uint64 // FeedLost: to
	lost    bool   // MessageSent: it has reached no local user
	unknown bool   // of a message: the sender is no contact of the recipient
	count   int

	first, next, prevLast    uint64
	hosts, server, prevEpoch text
	clean, tokens            bool
}

// openFeed takes the start tag of the feed's element. One that lacks what it must have
// is FeedOther, for nobody could say which event it stands for.
func (d *Decoder) openFeed(local []byte) {
	d.feed = feedFields{element: FeedOther, source: d.attr("source"), epoch: d.attr("epoch")}
	f := &d.feed
	if !isFeedName(d.textBytes(f.source)) || !isFeedName(d.textBytes(f.epoch)) {
		return
	}
	switch string(local) {
	case "event":
		d.openEvent()
	case "hello":
		d.openHello()
	case "lost":
		f.seq, f.last = feedNumber(d.feedAttr("from")), feedNumber(d.feedAttr("to"))
		if f.seq > 0 && f.last >= f.seq && d.openToken() {
			f.element = FeedLost
		}
	}
}

func (d *Decoder) openEvent() {
	f := &d.feed
	if f.seq = feedNumber(d.feedAttr("seq")); f.seq == 0 || !d.openToken() {
		return
	}
	f.element = FeedEvent
	f.kind = reportKind(d.feedAttr("kind"))
	f.at = parseFeedTime(d.feedAttr("t"))
	f.user = d.attr("user")
	if f.kind >= SnapshotStart && f.kind <= SnapshotEnd {
		f.id = d.attr("id")
		if count := feedNumber(d.feedAttr("count")); count <= 1<<31-1 {
			f.count = int(count)
		}
	}
	if f.kind == MessageSent {
		f.lost = string(d.feedAttr("reached")) == "false"
	}
	if f.kind >= MessageSent && f.kind <= MessageUnacked {
		f.unknown = string(d.feedAttr("contact")) == "false"
	}
	if f.kind == RoomMissed {
		f.members = d.attr("members")
	}
}

// openToken takes the token of an event or of lost, and reports whether it can be one.
func (d *Decoder) openToken() bool {
	d.feed.token = d.attr("token")
	return !d.feed.token.present || isFeedName(d.textBytes(d.feed.token))
}

func (d *Decoder) openHello() {
	f := &d.feed
	f.first, f.next = feedNumber(d.feedAttr("first")), feedNumber(d.feedAttr("next"))
	if f.first == 0 || f.next < f.first {
		return
	}
	f.prevEpoch = d.attr("prev-epoch")
	if f.prevEpoch.present && !isFeedName(d.textBytes(f.prevEpoch)) {
		return
	}
	f.element = FeedHello
	f.prevLast = feedNumber(d.feedAttr("prev-last"))
	f.clean, f.tokens = isTrue(d.feedAttr("clean")), isTrue(d.feedAttr("token"))
	f.hosts, f.server = d.attr("hosts"), d.attr("server")
}

// isTrue reports whether b is true, as an xs:boolean may be written.
func isTrue(b []byte) bool { return string(b) == "true" || string(b) == "1" }

// feedAttr returns the value of the attribute of that name in no namespace, until the
// next one is asked for.
func (d *Decoder) feedAttr(name string) []byte { return d.textBytes(d.attr(name)) }

// fillFeed makes what was collected the Feed of env. of turns texts into strings; names
// are strings of their own, since they are kept for long and a stanza is large.
func (d *Decoder) fillFeed(env *Envelope, of func(text) string) {
	f := &d.feed
	if f.element == NoFeed {
		env.Feed = nil
		return
	}
	if env.Feed == nil {
		env.Feed = new(Feed)
	}
	out := env.Feed
	*out = Feed{Element: f.element}
	if f.element == FeedOther {
		return
	}
	out.Source, out.Epoch = d.name(f.source), d.name(f.epoch)
	if f.token.present {
		out.Token = d.name(f.token)
	}
	switch f.element {
	case FeedEvent:
		out.Kind, out.Seq, out.At, out.Count = f.kind, f.seq, f.at, f.count
		out.User = jid.Prepare(of(f.user))
		out.ID, out.Unreached, out.Stranger = of(f.id), f.lost, f.unknown
		if f.kind == RoomMissed {
			out.Members = members(of(f.members))
		}
	case FeedLost:
		out.From, out.To = f.seq, f.last
	case FeedHello:
		out.Hello = Hello{
			First: f.first, Next: f.next, Server: strings.Clone(of(f.server)),
			PrevLast: f.prevLast, Clean: f.clean, Token: f.tokens,
		}
		if f.prevEpoch.present {
			out.Hello.PrevEpoch = d.name(f.prevEpoch)
		}
		for _, host := range strings.Fields(of(f.hosts)) {
			out.Hello.Hosts = append(out.Hello.Hosts, jid.Prepare(strings.Clone(host)))
		}
	}
}

// members reads a list of accounts. What is no account's address is left out, for one odd
// entry must not cost the others; a list beyond the bound is no list.
func members(list string) []jid.JID {
	var all []jid.JID
	n := 0
	for entry := range strings.FieldsSeq(list) {
		if n++; n > maxMembers {
			return nil
		}
		if member := jid.Prepare(entry); member.IsBare() && member.Local() != "" && member.Domain() != "" {
			all = append(all, member)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// name returns a text as a string that equal ones share: nearly all events have the
// source and epoch of the one before.
func (d *Decoder) name(t text) string {
	b := d.textBytes(t)
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if len(d.names) == maxNames { // only somebody who forges has so many
		clear(d.names)
	}
	s := string(b)
	d.names[s] = s
	return s
}

// isFeedName reports whether b can be the name of a source or an epoch: 1 to 128
// characters, none of them whitespace or a control character.
func isFeedName(b []byte) bool {
	if len(b) == 0 || len(b) > 4*maxFeedName {
		return false
	}
	n := 0
	for _, r := range string(b) {
		if n++; n > maxFeedName || unicode.IsSpace(r) || unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// feedNumber reads a number from 1 to maxFeedNumber in decimal digits; 0 is what is none.
func feedNumber(b []byte) (n uint64) {
	if len(b) > 19 {
		return 0
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}
		n = 10*n + uint64(c-'0')
	}
	if n > maxFeedNumber {
		return 0
	}
	return n
}

// parseFeedTime reads seconds since 1970 with three decimals; the zero time if b is
// something else. Twelve digits of seconds reach beyond any calendar in use.
func parseFeedTime(b []byte) time.Time {
	const decimals = len(".000")
	point := len(b) - decimals
	if point < 1 || point > 12 || b[point] != '.' {
		return time.Time{}
	}
	n := int64(0)
	for i, c := range b {
		if i == point {
			continue
		}
		if c < '0' || c > '9' {
			return time.Time{}
		}
		n = 10*n + int64(c-'0')
	}
	return time.UnixMilli(n).UTC()
}

// reportKind returns the kind of that name.
func reportKind(kind []byte) ReportKind {
	switch string(kind) {
	case "message-sent":
		return MessageSent
	case "message-received":
		return MessageReceived
	case "message-offline":
		return MessageOffline
	case "message-unacked":
		return MessageUnacked
	case "message-failed":
		return MessageFailed
	case "online":
		return SessionOnline
	case "presence":
		return SessionPresence
	case "offline":
		return SessionOffline
	case "session-start":
		return SessionStart
	case "session-end":
		return SessionEnd
	case "hibernate":
		return SessionHibernate
	case "resumed":
		return SessionResumed
	case "account-removed":
		return AccountRemoved
	case "room-message":
		return RoomMessage
	case "room-join":
		return RoomJoin
	case "room-part":
		return RoomPart
	case "room-missed":
		return RoomMissed
	case "snapshot-start":
		return SnapshotStart
	case "snapshot":
		return SnapshotSession
	case "snapshot-end":
		return SnapshotEnd
	}
	return UnknownReport
}

package component

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// Position is a place in the sequence of a source of the event-feed; see
// docs/feed-protocol.md.
type Position struct {
	Source, Epoch string
	Seq           uint64
}

// MaxUndecodable is how many bytes of a stanza that cannot be decoded are handed over
// at most.
const MaxUndecodable = 64 << 10

// Undecodable is a message or presence that cannot be decoded, or an event of the
// event-feed that does not hold what its kind needs.
type Undecodable struct {
	// At is the event's place, nil for what did not come by the event-feed.
	At *Position
	// User is whom the event was about, empty as At is nil.
	User jid.JID
	// From and To are the addresses of the element as the server delivered it, empty
	// where they lie behind the damage.
	From, To jid.JID
	// Element is message or presence.
	Element string
	// Reason says in a few constant words what is wrong.
	Reason string
	// Bytes is its beginning, at most MaxUndecodable bytes, and valid until the call
	// that brings it returns. It may be anything but a well-formed element.
	Bytes []byte
	// Received is when the component read it.
	Received time.Time
}

// module reports whether the element of the event-feed in env is a feed module's: in a
// message from the bare domain of a forwarder, or of a host that the source has
// announced as its own, to our bare domain. Any user can send the same from his own
// address, and a server sends what we wrote back in an error.
func (f *Feeds) module(env *stanza.Envelope, announced bool) bool {
	outer := &env.Outer
	switch {
	case !f.forwarders[outer.From] && !announced, outer.Kind != stanza.Message, outer.To != f.name:
		f.metrics.count(stanza.Direct, untrustedFeed)
	case outer.Type == "error":
		f.metrics.count(stanza.EventFeed, errorStanza)
	default:
		return true
	}
	return false
}

// announced makes the event-feed the authority for the served ones of these hosts, and
// returns the others.
func (f *Feeds) announced(hosts []jid.JID) (unserved []jid.JID) {
	for _, host := range hosts {
		if !f.serves(host) {
			unserved = append(unserved, host)
			continue
		}
		f.authority.establish(host, stanza.EventFeed)
	}
	return unserved
}

// serves reports whether what a feed says about the host counts.
func (f *Feeds) serves(host jid.JID) bool { return f.forwarders[host] && f.local(host) }

// reported returns the stanza that an event of the event-feed stands for, with its
// Dialect, Copy, Host, Received and Report filled in, if it counts; either way it is
// counted. untranslatable says that the event lacks what its kind needs.
func (f *Feeds) reported(env *stanza.Envelope, now time.Time) (*stanza.Stanza, trust) {
	s, t := f.judge(env)
	f.metrics.count(stanza.EventFeed, t)
	if t != trusted {
		return nil, t
	}
	s.Host, s.Received = env.Outer.From, now
	return s, trusted
}

func (f *Feeds) judge(env *stanza.Envelope) (*stanza.Stanza, trust) {
	host, r, s := env.Outer.From, &env.Feed.Report, &env.Inner
	room := r.Fact == stanza.RoomMessage || r.Fact == stanza.RoomJoin || r.Fact == stanza.RoomPart
	missed := r.Fact == stanza.RoomMissed
	bracket := r.Fact == stanza.SnapshotStart || r.Fact == stanza.SnapshotEnd
	kind, optional := carried(r.Fact)
	switch {
	case !f.serves(host):
		return nil, foreign
	case r.Fact == stanza.UnknownFact:
		return nil, ignored
	case r.User.Local() == "" && !bracket && !missed, missed && len(r.Members) == 0,
		r.Fact == stanza.AccountRemoved && !r.User.IsBare():
		return nil, untranslatable
	case jid.JID(r.User.Domain()) != host && !bracket && !room && !missed:
		return nil, foreign
	case kind == 0, optional && env.Forward == stanza.NotForwarded:
		*s = stanza.Stanza{From: r.User}
	case env.Forward != stanza.ForwardedOne || s.Kind != kind:
		return nil, untranslatable
	case jid.JID(s.To.Domain()) == f.name && s.Flags.Has(stanza.HasForwarded):
		return nil, nestedForward
	case missed && jid.JID(s.From.Domain()) != host:
		return nil, foreign // a host speaks for its own rooms alone
	case r.Fact == stanza.MessageSent || kind == stanza.Presence:
		if s.From == "" { // clients leave it out, and the server need not write it
			s.From = r.User
		}
		if jid.JID(s.From.Domain()) != host {
			return nil, foreign // only the sender's own host sees what is sent
		}
	}
	s.Dialect, s.Report = stanza.EventFeed, *r
	switch {
	case s.Kind == 0:
	case kind == stanza.Presence, r.Fact == stanza.MessageSent, r.Fact == stanza.RoomMessage:
		s.Copy = stanza.SentCopy
	default:
		s.Copy = stanza.ReceivedCopy
	}
	// The end of an account is of no class: no other feed tells of it.
	if r.Fact != stanza.AccountRemoved && !f.authority.admit(host, classOf(s), stanza.EventFeed) {
		return nil, notAuthoritative
	}
	return s, trusted
}

// carried says what an event of that kind forwards, 0 for nothing.
func carried(f stanza.Fact) (kind stanza.Kind, optional bool) {
	switch f {
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

// classOfFact returns the class that a kind of event belongs to.
func classOfFact(f stanza.Fact) Class {
	switch f {
	case stanza.MessageSent, stanza.MessageReceived, stanza.MessageOffline, stanza.MessageUnacked,
		stanza.MessageFailed, stanza.RoomMessage, stanza.RoomMissed:
		return MessageFact
	case stanza.SessionOffline, stanza.SessionEnd:
		return OfflineFact
	}
	return PresenceFact
}

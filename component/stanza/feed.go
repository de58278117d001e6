package stanza

import (
	"time"

	"eventpusher/internal/jid"
)

// FeedElement is an element of urn:eventpusher:feed:1 as the first child of a
// message; docs/feed-protocol.md has them all.
type FeedElement uint8

// The elements that a feed module sends.
const (
	NoFeed    FeedElement = iota
	FeedHello             // a module introduces itself
	FeedEvent             // something happened
	FeedLost              // a hole in the sequence
	FeedOther             // of that namespace, but none of these or not sound
)

// ReportKind is what a report, one event of the event-feed, says has happened.
type ReportKind uint8

// The kinds, in the order of docs/feed-protocol.md.
const (
	NoReport ReportKind = iota
	MessageSent
	MessageReceived
	MessageOffline
	MessageUnacked
	MessageFailed
	SessionOnline
	SessionPresence
	SessionOffline
	SessionStart
	SessionEnd
	SessionHibernate
	SessionResumed
	AccountRemoved
	RoomMessage
	RoomJoin
	RoomPart
	RoomMissed
	SnapshotStart
	SnapshotSession
	SnapshotEnd
	UnknownReport // a kind that this version does not know
)

// Report is what the event-feed says beside the stanza that it forwards, or, for
// facts about sessions, instead of one.
type Report struct {
	Kind ReportKind
	// Source and Epoch name the sequence, Seq is the place in it.
	Source, Epoch string
	Seq           uint64
	// User is whom it is about: a session (full JID) or an account.
	User jid.JID
	// At is when it happened by the server's clock; zero where absent or malformed.
	At time.Time
	// Unreached says that the message was sent to a local user and did not reach one (MessageSent).
	Unreached bool
	// Stranger says that the sender is not among the contacts of the local recipient
	// (MessageSent to MessageUnacked). Modules look only if the recipient has no session that
	// takes the message.
	Stranger bool
	// ID is the snapshot's, Count how many sessions it had (SnapshotEnd).
	ID    string
	Count int
	// Members are the accounts that a RoomMissed is about: bare JIDs, ascending and no
	// one twice, at most 1000; nil if the list was absent, empty or longer.
	Members []jid.JID
}

// Feed is what a message says in the namespace of the event-feed. Which fields
// are set depends on Element.
type Feed struct {
	Element FeedElement
	Report         // FeedEvent; of FeedHello and FeedLost only Source and Epoch
	Hello   Hello  // FeedHello
	Token   string // FeedEvent, FeedLost: of the resume that the module follows, if it repeats tokens
	From    uint64 // FeedLost: the first number that is gone
	To      uint64 // FeedLost: the last one
}

// Hello is what a module says about itself.
type Hello struct {
	First, Next uint64
	Hosts       []jid.JID
	Server      string // the server's name and version, for people
	PrevEpoch   string
	PrevLast    uint64 // 0: unknown
	Clean       bool
	Token       bool // the module repeats the token of resume on its elements
}

// Package trust decides which stanzas are facts: who may say what, by which feed a
// stanza came, and which feed counts for each host and class.
//
// The terms, each with one meaning:
//
//	feed       the way by which a server reports: event-feed, service_log, firewall,
//	           privilege or direct; also called by the name of its wire form
//	source     one server process behind the event-feed, which numbers what it reports
//	class      what a fact is about: messages, presence, or sessions that go offline;
//	           for each host and class one feed is the authority
//	fact       a stanza or report that trust has found to be true and to count
//	report     one event of the event-feed; its kind says what has happened
//	complete   everything that a source had to report about its sessions has been reported
package trust

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// Feed is the way by which a server reports to the component.
type Feed uint8

// The feeds, best first: the lower one is the authority where two report the same
// class of fact for one host.
const (
	EventFeed  Feed = iota + 1 // our own module, urn:eventpusher:feed:1
	ServiceLog                 // ejabberd's mod_service_log
	Firewall                   // Prosody's mod_firewall, FORWARD to out@, in@, presence@, muc@
	Privilege                  // presence by XEP-0356
	Direct                     // stanzas addressed to the component itself
)

const numFeeds = int(Direct) + 1

var feedNames = [numFeeds]string{"unknown", "event-feed", "service_log", "firewall", "privilege", "direct"}

// String returns the name that configuration, logs and metrics use.
func (f Feed) String() string {
	if int(f) < len(feedNames) {
		return feedNames[f]
	}
	return feedNames[0]
}

// reports says whether a feed can report facts of a class.
func (f Feed) reports(c Class) bool { return f != Privilege || c != Messages }

// Class is a class of fact. Feeds overlap, and one fact must not become two events. So
// for each served host and class one feed is the authority.
type Class uint8

// The classes.
const (
	Messages   Class = iota // messages
	Presence                // available presence, and whatever is not a message
	Offline                 // unavailable presence
	numClasses              // their number
)

var classNames = [numClasses]string{"message", "presence", "offline"}

// String returns the class as configuration, logs and the status name it.
func (c Class) String() string {
	if c < numClasses {
		return classNames[c]
	}
	return "unknown"
}

// MarshalText makes the class readable in the status.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Copy says at which moment of its way the server copied a stanza.
type Copy uint8

// The moments. A feed that marks none gives UnknownCopy.
const (
	UnknownCopy  Copy = iota
	SentCopy          // when a local session sent it
	ReceivedCopy      // when it was about to reach a local user
)

// Fact is what a server has reported and what counts. Its strings share the memory of
// Raw, as those of the stanza do.
type Fact struct {
	// Stanza is what happened. A report without a stanza leaves Kind zero and From the
	// user of the report.
	stanza.Stanza
	// Feed is the way that the fact came.
	Feed Feed
	Copy Copy
	// Host is the forwarder that was trusted. For a stanza that was sent to the component
	// itself it is the served host of the sender.
	Host jid.JID
	// Received is when the component read it.
	Received time.Time
	// Report is what the event-feed says beside the stanza; zero for other feeds. Its At
	// is when the fact happened by the server's clock.
	Report stanza.Report
}

// class returns the class of a stanza that did not come by the event-feed.
func class(s *stanza.Stanza) Class {
	switch {
	case s.Kind == stanza.Message:
		return Messages
	case s.Type == "unavailable":
		return Offline
	}
	return Presence
}

package app

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"sync/atomic"
	"time"

	"eventpusher/component"
	"eventpusher/component/eventfeed"
	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/trace"
	"eventpusher/translator"
)

// sink connects the link, the translator and the pusher: facts go one way, and what became
// of them the other (component.Sink, pusher.Feeds). The link calls it from the goroutine
// that reads the stream, which makes the translator and the buffer safe without a lock.
// link and pusher are set before either of them runs.
type sink struct {
	translator *translator.Translator
	box        outbox.Outbox
	pusher     *pusher.Pusher
	link       *component.Link
	events     []event.Event
	served     atomic.Pointer[trust.Served] // to be served on the next connection; nil: nothing new
	crowd      crowd
	trace      *trace.Recorder
}

var (
	_ component.Sink = (*sink)(nil)
	_ pusher.Feeds   = (*sink)(nil)
)

// Attached implements component.Sink.
func (s *sink) Attached() {
	if served := s.served.Swap(nil); served != nil {
		s.translator.Serve(served.Hosts, served.MUCHosts)
	}
	s.translator.Gap()
}

// Take implements component.Sink. A position goes to disk together with the events, so
// that after a crash the feed goes on exactly after them.
func (s *sink) Take(f *trust.Fact, at eventfeed.Position) bool {
	s.events = s.events[:0]
	if f != nil {
		s.events = s.translator.Translate(f, s.events)
		if len(s.events) == 0 {
			s.passed(&f.Stanza, f.Feed, s.translator.Skipped())
		}
		s.crowd.note(s.translator.Crowded(), f.Received)
	}
	defer s.forget()
	if at.Source == "" {
		s.pusher.Push(s.events)
		return true
	}
	at.Complete = s.translator.Complete(at.Source)
	return s.pusher.PushFeed(s.events, outbox.Position(at))
}

// passed remembers a stanza that made no event, if somebody could ask for it.
func (s *sink) passed(of *stanza.Stanza, f trust.Feed, why string) {
	if of.ID != "" {
		s.trace.Pass(trace.Passed{Time: time.Now(), StanzaID: of.ID, From: string(of.From), To: string(of.To), Feed: f.String(), Why: why})
	}
}

// forget lets go of what the events point to, and of the room that the end of a great
// snapshot needed.
func (s *sink) forget() {
	const most = 1024
	clear(s.events)
	if cap(s.events) > most {
		s.events = nil
	}
}

// Settled implements component.Sink.
func (s *sink) Settled(host jid.JID, users []jid.JID) {
	s.events = s.translator.Settled(host, users, s.events[:0])
	s.pusher.Push(s.events)
	s.forget()
}

// Resumed implements component.Sink.
func (s *sink) Resumed(source string, c eventfeed.Continuity) {
	if c == eventfeed.Overtaken {
		s.translator.Forget(source) // as if this process had just begun
	}
	s.translator.Resume(source, c != eventfeed.Missed)
}

// Bury implements component.Sink: it makes a dead letter of what cannot be read.
func (s *sink) Bury(u *eventfeed.Undecodable) bool {
	e := &event.Event{
		ID: undecodableID(u.At), Type: u.Element, From: u.From, To: u.To, User: u.User.Bare(), Host: u.From.Domain(),
		Time: u.Received, Packet: strings.ToValidUTF8(string(u.Bytes), "\uFFFD"),
	}
	letters := []outbox.DeadLetter{{
		Event: e, Reason: outbox.ReasonUndecodable, Err: u.Reason, Accepted: u.Received, Died: time.Now(),
	}}
	if u.At.Source == "" {
		s.pusher.Bury(letters)
		return true
	}
	e.Dialect = trust.EventFeed.String()
	at := u.At
	at.Complete = s.translator.Complete(at.Source)
	return s.pusher.BuryFeed(letters, outbox.Position(at))
}

// undecodableID is the same each time that the feed brings the event.
func undecodableID(at eventfeed.Position) string {
	var id [16]byte
	if at.Source == "" {
		rand.Read(id[:])
	} else {
		var b bytes.Buffer
		for _, text := range [...]string{"undecodable", at.Source, at.Epoch} {
			b.WriteString(text)
			b.WriteByte(0)
		}
		digest := sha256.Sum256(binary.BigEndian.AppendUint64(b.Bytes(), at.Seq))
		copy(id[:], digest[:])
	}
	return hex.EncodeToString(id[:])
}

// Positions implements component.Sink.
func (s *sink) Positions() []eventfeed.Position { return positions(s.box.Positions()) }

// Kept implements pusher.Feeds.
func (s *sink) Kept(list []outbox.Position) { s.link.Kept(positions(list)) }

// Refused implements pusher.Feeds.
func (s *sink) Refused(source string) { s.link.Refused(source) }

func positions(list []outbox.Position) []eventfeed.Position {
	all := make([]eventfeed.Position, len(list))
	for i, at := range list {
		all[i] = eventfeed.Position(at)
	}
	return all
}

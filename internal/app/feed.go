package app

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"eventpusher/component"
	"eventpusher/component/stanza"
	"eventpusher/event"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
	"eventpusher/translator"
)

// feeder takes what the link hands over. The link calls it from its reading goroutine
// alone, which makes the buffer and the translator safe without a lock.
type feeder struct {
	translator *translator.Translator
	pusher     *pusher.Pusher
	box        outbox.Outbox
	events     []event.Event
}

// handle takes a fact of a feed that is not acknowledged.
func (f *feeder) handle(s *stanza.Stanza) {
	f.events = f.translator.Translate(s, f.events[:0])
	f.pusher.Push(f.events)
	clear(f.events)
}

// fed takes one of the event-feed. The position goes to disk together with the events,
// so that after a crash the feed goes on exactly behind them.
func (f *feeder) fed(s *stanza.Stanza, at component.Position, accepted func(error)) {
	f.events = f.events[:0]
	if s != nil {
		f.events = f.translator.Translate(s, f.events)
	}
	f.pusher.PushAcked(f.events, []outbox.Position{outbox.Position(at)}, accepted)
	clear(f.events)
}

// undecodable makes a dead letter of what cannot be read.
func (f *feeder) undecodable(u component.Undecodable, accepted func(error)) {
	e := &event.Event{
		ID: undecodableID(u.At), Type: u.Element, From: u.From, To: u.To, User: u.User.Bare(), Host: u.From.Domain(),
		Time: u.Received, Packet: strings.ToValidUTF8(string(u.Bytes), "\uFFFD"),
	}
	letters := []outbox.DeadLetter{{
		Event: e, Reason: outbox.ReasonUndecodable, Err: u.Reason, Accepted: u.Received, Died: time.Now(),
	}}
	if u.At == nil {
		f.pusher.Bury(letters)
		return
	}
	e.Dialect = stanza.EventFeed.String()
	f.pusher.BuryAcked(letters, []outbox.Position{outbox.Position(*u.At)}, accepted)
}

// undecodableID is the same each time that the feed brings the event.
func undecodableID(at *component.Position) string {
	var id [16]byte
	if at == nil {
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

// committed returns how far a source has come on disk.
func (f *feeder) committed(source string) (epoch string, seq uint64, ok bool) {
	for _, p := range f.box.Positions() {
		if p.Source == source {
			return p.Epoch, p.Seq, true
		}
	}
	return "", 0, false
}

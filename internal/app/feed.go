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
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
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
	// Of the sources of which a loss has yet to be noted on disk, or a snapshot is
	// coming that began after it.
	lossUntold, snapshot map[string]bool
}

func newFeeder(tr *translator.Translator, p *pusher.Pusher, box outbox.Outbox) *feeder {
	return &feeder{translator: tr, pusher: p, box: box, lossUntold: make(map[string]bool), snapshot: make(map[string]bool)}
}

// handle takes a fact of a feed that is not acknowledged.
func (f *feeder) handle(s *trust.Fact) {
	f.events = f.translator.Translate(s, f.events[:0])
	f.pusher.Push(f.events)
	f.forget()
}

// fed takes one of the event-feed. The position goes to disk together with the events,
// so that after a crash the feed goes on exactly behind them.
func (f *feeder) fed(s *trust.Fact, at component.Position, accepted func(error)) {
	f.events = f.events[:0]
	if s != nil {
		f.events = f.translator.Translate(s, f.events)
	}
	f.pusher.PushAcked(f.events, f.positions(s, at), accepted)
	f.forget()
}

// forget lets go of what the events point to, and of the room that the end of a great
// snapshot needed.
func (f *feeder) forget() {
	const most = 1024
	clear(f.events)
	if cap(f.events) > most {
		f.events = nil
	}
}

// Beside a source's position stands whether all was told of its sessions there: after a
// loss that takes a whole snapshot. The names of sources have no spaces.
const (
	toldPrefix = "sessions "
	toldAll    = "known"
	toldNot    = "unknown"
)

// positions are those that go to disk with an event.
func (f *feeder) positions(s *trust.Fact, at component.Position) []outbox.Position {
	list := []outbox.Position{outbox.Position(at)}
	note := func(state string) {
		list = append(list, outbox.Position{Source: toldPrefix + at.Source, Epoch: state, Seq: at.Seq})
	}
	fact := stanza.NoReport
	if s != nil {
		fact = s.Report.Kind
	}
	switch {
	case f.lossUntold[at.Source]:
		delete(f.lossUntold, at.Source)
		note(toldNot)
	case fact == stanza.SnapshotEnd && f.snapshot[at.Source]:
		delete(f.snapshot, at.Source)
		note(toldAll)
	}
	if fact == stanza.SnapshotStart {
		f.snapshot[at.Source] = true
	}
	return list
}

// resumed takes note of a source that goes on.
func (f *feeder) resumed(source string, complete bool) {
	if !complete {
		f.lossUntold[source] = true
		delete(f.snapshot, source)
	}
	f.translator.Resume(source, complete)
}

// overtaken forgets what another process knows better by now, as if this one had just begun.
func (f *feeder) overtaken(source string) {
	delete(f.lossUntold, source)
	delete(f.snapshot, source)
	f.translator.Forget(source)
}

// told reports whether all was told of a source's sessions at its position on disk.
func (f *feeder) told(source string) bool {
	for _, p := range f.box.Positions() {
		if p.Source == toldPrefix+source {
			return p.Epoch == toldAll
		}
	}
	return false
}

// settled pushes that sessions have ended which the server does not know any more.
func (f *feeder) settled(host jid.JID, users []jid.JID) {
	f.events = f.translator.Settled(host, users, f.events[:0])
	f.pusher.Push(f.events)
	f.forget()
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
	e.Dialect = trust.EventFeed.String()
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

package eventfeed

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// event takes one event and hands it over if it is the next one.
func (s *Sources) event(env *stanza.Envelope, b []byte, reason string, now time.Time) verdict {
	f, host := env.Feed, env.Outer.From
	src, v := s.advance(f, host, f.Seq, f.Seq)
	if v == duplicated {
		s.judge.Told(&env.Inner, "it has come again, and was taken before")
	}
	if v != accepted {
		return v
	}
	at := Position{Source: src.name, Epoch: f.Epoch, Seq: f.Seq}
	var ok bool
	switch {
	case reason == "":
		v, reason, ok = s.hand(src, env, at, now)
		if v == unreadable {
			b = []byte(env.Outer.Raw)
		}
	case s.judge.Serves(host):
		v = unreadable
	default:
		v, ok = unwanted, s.sink.Take(nil, at)
	}
	if v == unreadable {
		if len(b) > briefBytes && !s.letters.AllowN(now, 1) {
			b = b[:briefBytes]
		}
		ok = s.sink.Bury(undecodable(env, at, b, reason, now))
	}
	if !ok {
		s.notAccepted(src)
	}
	return v
}

// notAccepted takes note that the sink has no room for what was handed over last.
func (s *Sources) notAccepted(src *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src.pending = src.before
	s.refused(src)
}

// hand judges an event and hands it over. If it cannot be handled, the verdict is
// unreadable, and it is still to be buried for this reason.
func (s *Sources) hand(src *source, env *stanza.Envelope, at Position, now time.Time) (v verdict, reason string, ok bool) {
	defer func() {
		if r := recover(); r != nil {
			s.metrics.panics.Inc()
			s.log.Error("component: panic while an event was handled, it becomes a dead letter; please report this",
				"source", at.Source, "epoch", at.Epoch, "seq", at.Seq, "panic", harmless(r), "stack", string(debug.Stack()))
			v, reason, ok = unreadable, "a defect in eventpusher: its handling panicked", false
		}
	}()
	fact, verdict := s.judge.Report(env, now)
	elsewhere := verdict == trust.Trusted && s.toldElsewhere(src, fact)
	switch {
	case elsewhere:
		s.judge.Told(&fact.Stanza, "the feed of its sender's host reports it")
	case verdict == trust.Trusted:
		return accepted, "", s.sink.Take(fact, at)
	case verdict == trust.Untranslatable:
		return unreadable, "an event without what its kind needs", false
	}
	return unwanted, "", s.sink.Take(nil, at)
}

// toldElsewhere reports whether a message came to the source from a user of another
// server that the component serves too, and the feed of that server reports messages. It
// reports this one as sent, and that gives the event of its arrival as well. A feed that was
// there before is expected to come.
func (s *Sources) toldElsewhere(src *source, f *trust.Fact) bool {
	if f.Report.Kind != stanza.MessageReceived || f.From.Local() == "" || !s.judge.Hosts().Of(f.From) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sender := jid.JID(f.From.Domain())
	return !slices.Contains(src.hello.Hosts, sender) && (s.judge.TellsMessages(sender) || s.expected())
}

// expected reports whether a source that was there once has not come yet since this process
// began, or has only said hello. s.mu is held.
func (s *Sources) expected() bool {
	return slices.ContainsFunc(s.sink.Positions(), func(at Position) bool {
		src := s.byName[at.Source]
		return src == nil || src.inEpoch == "" || src.quiet && src.there(time.Now())
	})
}

// harmless describes the value of a panic without what users wrote.
func harmless(r any) string {
	if err, ok := r.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", r)
}

// lost takes note of events that the module has given up.
func (s *Sources) lost(f *stanza.Feed, host jid.JID) verdict {
	src, v := s.advance(f, host, f.From, f.To)
	if v != accepted {
		return v
	}
	s.log.Warn("component: the server has given up events before they could be taken",
		"source", f.Source, "from", f.From, "to", f.To)
	s.sink.Resumed(src.name, Missed)
	if !s.sink.Take(nil, Position{Source: src.name, Epoch: f.Epoch, Seq: f.To}) {
		s.notAccepted(src)
	}
	return v
}

// advance moves a source's sequence on over from..to if that is what comes next, and tells
// the sink before if something was missed. The caller then hands it over.
func (s *Sources) advance(f *stanza.Feed, host jid.JID, from, to uint64) (*source, verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.byName[f.Source]
	if src == nil {
		return nil, unexpected
	}
	if v := s.prove(src, f, host, from); v != accepted {
		return src, v
	}
	v := s.move(src, f, from, to)
	if v == accepted && src.untold {
		src.untold = false
		if f.Element == stanza.FeedEvent { // a loss is told anyway
			s.sink.Resumed(src.name, src.news)
		}
	}
	return src, v
}

// prove looks at the token of an element. The first element with the token of a resume
// opens the sequence that the resume was about. s.mu is held.
func (s *Sources) prove(src *source, f *stanza.Feed, host jid.JID, first uint64) verdict {
	switch {
	case f.Token == "" && (src.token != "" || s.proven[host] || s.options.RequireToken):
		return unproven
	case f.Token == src.token:
		return accepted
	}
	o, ok := src.proves(f.Token, f.Epoch)
	if !ok {
		return unexpected
	}
	s.opened(src, &o, f.Epoch, first)
	for _, host := range [...]jid.JID{host, src.host} {
		s.proven[jid.JID(strings.Clone(string(host)))] = true // not the stanza's memory
	}
	return accepted
}

// move is advance for an element that may count. s.mu is held.
func (s *Sources) move(src *source, f *stanza.Feed, from, to uint64) verdict {
	now, lost := time.Now(), f.Element == stanza.FeedLost
	v := src.place(f.Epoch, from, to, lost)
	if v != unexpected {
		s.spoke(src, f, now)
	}
	switch {
	case v == missing && src.gap.staysMissing(from):
		s.skip(src, from-1)
		v = accepted
	case v == missing && !src.gap.open:
		src.gap.open, src.owed = true, true
		s.say(src, now)
	case v == duplicated:
		src.duplicate++
	}
	if v != accepted {
		return v
	}
	if lost {
		n := to - from + 1
		if !src.fresh {
			n = to - src.received
		}
		s.hole(src, n)
	} else if f.Kind == stanza.SnapshotEnd && f.ID == src.snapshot {
		src.snapshot = ""
	}
	src.reached(to)
	src.before, src.pending = src.pending, Position{Source: src.name, Epoch: f.Epoch, Seq: to}
	return v
}

package eventfeed

import (
	"crypto/rand"
	"strconv"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// NS is the namespace of version 1 of the protocol.
const NS = "urn:eventpusher:feed:1"

// Run tells the sources of one connection what they are to know, until done is closed.
// What is due was put off for a moment, so that one acknowledgement stands for many
// events, or found the writer's queue full; it is never lost, since each says all
// that there is to say. Once a minute it looks for sources that are silent.
func (s *Sources) Run(done <-chan struct{}) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-s.wake:
		case <-tick.C:
		case <-done:
			return
		}
		timer := time.NewTimer(ackDelay)
		select {
		case <-timer.C:
		case <-done:
			timer.Stop()
			return
		}
		s.sayAll(time.Now())
	}
}

// nudge makes Run look for what is due after ackDelay.
func (s *Sources) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Sources) sayAll(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.byName {
		if src.gap.open && !src.owed && now.Sub(src.askedAt) >= gapRetry {
			src.owed = true
		}
		src.doubt(now, longSilence)
		if src.unasked() && now.Sub(src.doubted) >= doubtPause {
			src.wantSnapshot = true
		}
		s.say(src, now)
	}
}

// say tells a source what is due: a resume before anything else, then what is kept, then
// that we want to know who is there. s.mu is held.
func (s *Sources) say(src *source, now time.Time) {
	if s.send == nil || s.options.Silent {
		return
	}
	if src.owed && src.idle() && !now.Before(src.askAt) {
		s.resume(src, now)
	}
	if n := src.unacked(); n > 0 && s.element(src.host, src.name, "ack", src.committed.Epoch, src.committed.Seq, "") {
		src.acked = src.committed.Seq
		s.metrics.acks.Inc()
	}
	if src.wantSnapshot && src.reachable() && !src.owed && (!src.gap.open || src.unasked()) {
		id, to := rand.Text(), src.host
		if n := len(src.openings); n > 0 && src.openings[n-1].greeted != nil {
			to = src.openings[n-1].greeted.host
		}
		if s.write(to, "<snapshot xmlns='"+NS+"' source='"+stanza.Escape(src.name)+"' id='"+id+"'/>") {
			src.wantSnapshot, src.snapshot = false, id
			if src.asked.IsZero() {
				src.asked = now
			}
			s.metrics.snapshots.Inc()
		}
	}
	if src.due() {
		s.nudge()
	}
}

// resume tells a source behind which of its events it is to go on. s.mu is held, and
// nothing is pending, so what the outbox has is all that it will have.
func (s *Sources) resume(src *source, now time.Time) {
	o := opening{greeted: src.greeted, token: rand.Text()}
	o.kept = s.kept(src.name)
	g := &src.greeting
	if src.greeted != nil {
		g = src.greeted
	}
	// A server that was set back to an older state gives numbers out twice. Told to go
	// on behind one that it does not have, it would not go on at all.
	o.rewound = src.greeted != nil && o.kept.Epoch == g.epoch && o.kept.Seq >= g.hello.Next
	if o.at = o.kept; o.rewound {
		o.at = Position{}
	}
	if !s.element(g.host, src.name, "resume", o.at.Epoch, o.at.Seq, o.token) {
		return
	}
	s.metrics.resumes.Inc()
	src.owed, src.greeted = false, nil
	src.askedAt, src.askAt = now, now.Add(askPause)
	if src.gap.open {
		src.gap.tries++
	}
	if !g.hello.Token { // it does not repeat tokens, so its next element is the first
		o.token = ""
		s.opened(src, &o, g.epoch, g.hello.First)
		return
	}
	if len(src.openings) == maxOpenings {
		src.openings = src.openings[1:]
	}
	src.openings = append(src.openings, o)
}

// opened opens the sequence behind a resume. s.mu is held.
func (s *Sources) opened(src *source, o *opening, epoch string, first uint64) {
	unknown := src.open(o, epoch, first)
	if !unknown || src.judged == epoch {
		return
	}
	src.judged = epoch
	src.unknownLosses++
	src.wantSnapshot = true
	s.metrics.unknown.Inc()
	s.log.Warn("component: the server came back without the events that it had kept, how many are lost is unknown",
		"source", src.name, "epoch_before", o.kept.Epoch, "last_kept", o.kept.Seq, "epoch", epoch)
}

// kept returns the position of a source on disk, zero if there is none.
func (s *Sources) kept(source string) Position {
	for _, at := range s.sink.Positions() {
		if at.Source == source {
			return at
		}
	}
	return Position{}
}

// element sends an element that names a place in the sequence and reports whether it was
// taken.
func (s *Sources) element(to jid.JID, source, name, epoch string, seq uint64, token string) bool {
	attrs := ""
	if epoch != "" {
		attrs = " epoch='" + stanza.Escape(epoch) + "' seq='" + strconv.FormatUint(seq, 10) + "'"
	}
	if token != "" {
		attrs += " token='" + token + "'"
	}
	return s.write(to, "<"+name+" xmlns='"+NS+"' source='"+stanza.Escape(source)+"'"+attrs+"/>")
}

func (s *Sources) write(to jid.JID, element string) bool {
	return s.send([]byte("<message from='" + stanza.Escape(string(s.name)) + "' to='" + stanza.Escape(string(to)) + "'>" + element + "</message>"))
}

package eventfeed

import (
	"slices"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// Silence alone tells nothing: a quiet server has nothing to say. So a source in doubt is
// asked for a snapshot, unless it speaks within doubtPause. If it says nothing for
// trust.Patience then, it is gone until it speaks again. One that has said nothing for
// longSilence is in doubt.
const (
	doubtPause  = 2 * time.Second
	longSilence = 10 * time.Minute
)

// silent reports whether no source of a host is there any more. Those of which nothing came
// for trust.Patience are asked, since the judge has heard another feed: a module that was
// unloaded says nothing.
func (s *Sources) silent(host jid.JID, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	silent := true
	for _, src := range s.byName {
		if src.since.IsZero() || !src.spoke || !src.has(host, s.judge.Hosts()) {
			continue // a hello alone may be anybody's
		}
		if src.doubt(now, trust.Patience); src.unasked() {
			s.nudge()
		}
		silent = silent && src.gone(now)
	}
	return silent
}

// spoke takes note that a source is there. With a token, or the id of the snapshot that it
// was asked for, it proves that it has said hello itself. s.mu is held.
func (s *Sources) spoke(src *source, f *stanza.Feed, now time.Time) {
	back := src.proven && src.gone(now)
	src.heard, src.doubted, src.asked, src.spoke = now, time.Time{}, time.Time{}, true
	proves := f.Epoch == src.epoch && (src.token != "" || src.snapshot != "" && f.ID == src.snapshot)
	if back || proves && !src.proven {
		s.introduce(src, now)
	}
}

// has reports whether it says that a host, as configured, is one of its own.
func (src *source) has(host jid.JID, served jid.Domains) bool {
	return slices.ContainsFunc(src.hello.Hosts, func(its jid.JID) bool { return served.Configured(its) == host })
}

// doubt takes note that nothing came of it for so long.
func (src *source) doubt(now time.Time, silence time.Duration) {
	if src.doubted.IsZero() && !src.since.IsZero() && now.Sub(src.heard) >= silence {
		src.doubted = now
	}
}

// unasked reports whether it is in doubt and yet to be asked whether it is there.
func (src *source) unasked() bool { return !src.doubted.IsZero() && src.asked.IsZero() }

// gone reports whether it was asked for a snapshot and said nothing for trust.Patience. While
// its events wait to be kept, its window may be full.
func (src *source) gone(now time.Time) bool {
	return !src.asked.IsZero() && now.Sub(src.asked) >= trust.Patience && src.idle()
}

// there reports whether it has introduced itself on this connection and is not gone.
func (src *source) there(now time.Time) bool { return !src.since.IsZero() && !src.gone(now) }

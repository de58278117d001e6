package eventfeed

import "time"

const (
	gapRetry = 10 * time.Second // until a missing event is asked for again
	gapTries = 2                // so often, before a missing event is left out
)

// gap is a number that is missing.
type gap struct {
	open    bool
	tries   int    // how many resumes it has cost
	answers int    // how many answers to them have begun
	behind  uint64 // the last number that came behind it
	unread  bool   // a stanza of the source's host that hid its number came since then
}

// staysMissing takes note of a number behind the gap and reports whether the answers to our
// resumes leave the gap. The numbers on their way to us rise, so one that does not rise begins
// an answer; what came before it will come again. A module that goes on without ever
// answering is not waited for.
func (g *gap) staysMissing(from uint64) bool {
	begins := g.tries > 0 && from <= g.behind
	g.behind = from
	if begins {
		g.answers++
	}
	return begins && (g.answers >= gapTries || g.unread) || g.tries > 2*gapTries
}

// skip gives up events that stay missing although the module was asked for them again:
// one that cannot be read must not stop the others. s.mu is held.
func (s *Sources) skip(src *source, to uint64) {
	n := to - src.received
	s.log.Warn("component: events of a source stay missing, they are left out", "source", src.name, "from", src.received+1, "to", to,
		"unreadable", src.gap.unread, "remedy", "look for dead letters of reason undecodable; without any, see the log of the server's feed module")
	s.metrics.skipped.Add(float64(n))
	s.hole(src, n)
	src.received, src.untold, src.news = to, true, Missed
}

// hole counts events that were lost. s.mu is held.
func (s *Sources) hole(src *source, n uint64) {
	src.holes++
	src.lost += n
	src.wantSnapshot = true
	s.metrics.holes.Inc()
	s.metrics.lost.Add(float64(n))
	s.nudge()
}

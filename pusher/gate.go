package pusher

import (
	"iter"
	"slices"
	"time"
)

// What opens a backend's breaker, and what a closed gate does.
const (
	tripFailures = 5                // calls in a row that failed for a reason that passes
	tripParties  = 3                // of at least so many keys: one bad conversation is no outage
	openFor      = time.Second      // pause before each probe of a dead service
	pauseFirst   = time.Second      // pause before the first probe of a service that refuses us
	pauseLongest = 60 * time.Second // it doubles up to this
	// pauseAfter is how many calls in a row must be refused before the backend pauses, and
	// pauseParties of how many senders at least. A service or a firewall before it may refuse
	// an event for its text, so the events of one user are no reason to hold up the others.
	pauseAfter   = 5
	pauseParties = tripParties
)

// State is how a backend's gate stands.
type State uint8

// The states of a gate; the numbers are those of the metric.
const (
	Closed   State = iota // normal
	HalfOpen              // one event is on its way as a probe
	Open                  // the service is down; probes follow
	Paused                // the service refuses everything until an operator acts; probes follow
)

// String returns the state as status pages show it.
func (s State) String() string {
	switch s {
	case HalfOpen:
		return "half-open"
	case Open:
		return "open"
	case Paused:
		return "paused"
	}
	return "closed"
}

// MarshalText writes the state as String does, for status pages in JSON.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// gate decides how much a backend's lanes may send: everything, one probe, or
// nothing for now. It is not safe for concurrent use.
type gate struct {
	// The breaker. What a call says that began in another round is no news.
	tripped   bool      // it is open, or half-open once openUntil is over
	round     int       // ends when the breaker opens or closes
	failures  int       // calls in a row of this round
	openUntil time.Time // its own pause
	holdUntil time.Time // a longer one that the service asked for
	probing   bool

	refused     int      // calls in a row
	refusedOf   distinct // their senders
	paused      bool
	pausedUntil time.Time
	pauseFor    time.Duration

	failedOf distinct // the keys of the failures in a row
}

// distinct counts different values, up to a few.
type distinct struct {
	values [tripParties]uint64
	n      int
}

func (d *distinct) note(v uint64) {
	if d.n < len(d.values) && !slices.Contains(d.values[:d.n], v) {
		d.values[d.n] = v
		d.n++
	}
}

// state returns how the gate stands.
func (g *gate) state() State {
	switch {
	case g.paused:
		return Paused
	case !g.tripped:
		return Closed
	case time.Now().Before(g.openUntil):
		return Open
	}
	return HalfOpen
}

// trip opens the breaker, or opens it again after a probe has failed.
func (g *gate) trip(now time.Time) {
	g.tripped, g.openUntil, g.failures = true, now.Add(openFor), 0
	g.round++
}

// noteFailure notes that a call has failed for a reason that passes.
func (g *gate) noteFailure(now time.Time) {
	g.failures++
	if g.tripped || g.failures >= tripFailures && g.failedOf.n >= tripParties {
		g.trip(now)
	}
}

// noteSuccess notes that the service has answered.
func (g *gate) noteSuccess() {
	g.failures = 0
	if g.tripped {
		g.tripped = false
		g.round++
	}
}

// permit says how many events the next call may take; with none, when to ask
// again (zero: after the probe on its way).
func (g *gate) permit(now time.Time, batch int) (limit int, probe bool, again time.Time) {
	state := g.state()
	if state == Closed {
		return batch, false, time.Time{}
	}
	wait := g.holdUntil
	switch {
	case g.probing:
		return 0, false, time.Time{}
	case state == Paused:
		wait = g.pausedUntil
	case state == Open && g.openUntil.After(wait):
		wait = g.openUntil
	}
	if wait.After(now) {
		return 0, false, wait
	}
	return 1, true, time.Time{}
}

// verdict is what a call says about the service as a whole.
type verdict uint8

const (
	noEvidence verdict = iota // given up by ourselves
	reachable                 // it answered for at least one event
	refusing                  // nothing goes before an operator acts
	failing                   // no event went through, for reasons that pass
)

// noRound is the round of calls that say nothing about the breaker.
const noRound = -1

// enter notes that a call begins, and returns the round that it belongs to.
func (g *gate) enter(probe bool) (round int) {
	g.probing = probe
	if g.paused {
		return noRound
	}
	return g.round
}

// change is what a call has done to the gate, for logs and metrics.
type change struct {
	from, to State
	counts   bool // the failures of the call count as attempts
}

// leave notes how a call ended. parties are the keys of its events, or their senders if
// the verdict is refusing; after is the longest pause that the service asked for.
func (g *gate) leave(round int, probe bool, v verdict, parties iter.Seq[uint64], after time.Duration, now time.Time) change {
	before := g.state()
	if probe {
		g.probing = false
	}
	switch v {
	case noEvidence:
	case refusing:
		g.refused++
		for sender := range parties {
			g.refusedOf.note(sender)
		}
		switch {
		case !g.paused && (g.refused < pauseAfter || g.refusedOf.n < pauseParties):
		case !g.paused:
			g.paused, g.pauseFor = true, pauseFirst
			g.pausedUntil = now.Add(g.pauseFor)
		case probe:
			g.pauseFor = min(2*g.pauseFor, pauseLongest)
			g.pausedUntil = now.Add(g.pauseFor)
		}
		if !g.paused && round == g.round { // it answers, so it is not down
			g.noteSuccess()
		}
	case reachable:
		if probe {
			g.paused = false
		}
		g.failedOf, g.refusedOf, g.refused = distinct{}, distinct{}, 0
		if round == g.round {
			g.noteSuccess()
		}
	case failing:
		if probe && g.paused { // it no longer refuses; the breaker judges the rest
			g.paused = false
		}
		for key := range parties {
			g.failedOf.note(key)
		}
		if round == g.round {
			g.noteFailure(now)
		}
		if g.state() == Open && after > 0 {
			if until := now.Add(after); until.After(g.holdUntil) {
				g.holdUntil = until
			}
		}
	}
	to := g.state()
	if to == Closed {
		g.holdUntil = time.Time{}
	}
	return change{from: before, to: to, counts: before == Closed}
}

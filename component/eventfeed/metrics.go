package eventfeed

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// verdict is what the place of an element in its source's sequence makes of it; the
// label of eventpusher_feed_events_total.
type verdict uint8

const (
	accepted   verdict = iota // handed over to be kept
	unreadable                // the same, as a dead letter
	unwanted                  // only its place is kept: its kind, its host or another feed
	duplicated                // seen before
	missing                   // a number before it is missing
	unexpected                // not of a sequence that is open
	turnedAway                // not taken, since one before it could not be kept
	malformed                 // not an element of the protocol
	unproven                  // without a token, from a host that was heard with tokens
	surplus                   // of one source too many
	numVerdicts
)

var verdictNames = [numVerdicts]string{
	"accepted", "undecodable", "ignored", "duplicate", "gap", "unexpected", "turned_away", "malformed", "no_token", "too_many_sources",
}

// Metrics counts what happens on the event-feed. Sources are not labels, since their
// names come from outside.
type Metrics struct {
	events    [numVerdicts]prometheus.Counter
	refused   prometheus.Counter
	holes     prometheus.Counter
	lost      prometheus.Counter
	unknown   prometheus.Counter
	acks      prometheus.Counter
	resumes   prometheus.Counter
	snapshots prometheus.Counter
	skipped   prometheus.Counter
	unserved  prometheus.Counter
	panics    prometheus.Counter
}

// NewMetrics registers the metrics with reg; a nil reg keeps them to themselves.
// Registering twice with one registry panics, as promauto does.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{}
	events := f.NewCounterVec(prometheus.CounterOpts{
		Name: "eventpusher_feed_events_total",
		Help: "Events of the event-feed, by what became of them.",
	}, []string{"result"})
	for v := verdict(0); v < numVerdicts; v++ {
		m.events[v] = events.WithLabelValues(verdictNames[v])
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "eventpusher_feed_" + name + "_total", Help: help})
	}
	m.refused = counter("refused", "Times that events of a source could not be kept; the server sends them again.")
	m.holes = counter("holes", "Times that the server gave up events before they could be taken.")
	m.lost = counter("lost_events", "Events that the server gave up before they could be taken.")
	m.unknown = counter("unknown_losses", "Times that a server came back without the events that it had kept; how many is unknown.")
	m.acks = counter("acks", "Acknowledgements sent to the server.")
	m.resumes = counter("resumes", "Times that the server was told after which event to go on.")
	m.snapshots = counter("snapshots", "Times that the server was asked for all sessions.")
	m.skipped = counter("skipped_events", "Events that stayed missing although the server was asked for them again; they are left out.")
	m.unserved = counter("unserved_hellos", "Introductions of a feed module from a host that is neither in general.hosts nor a forwarder.")
	m.panics = counter("panics", "Events whose handling panicked; each is a defect and left a dead letter.")
	return m
}

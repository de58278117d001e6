package component

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"eventpusher/component/trust"
)

// Metrics counts what happens on the link. All label values come from fixed sets.
type Metrics struct {
	trust     *trust.Metrics
	bad       *prometheus.CounterVec
	iqs       *prometheus.CounterVec
	connects  *prometheus.CounterVec
	connected prometheus.Gauge
	panics    prometheus.Counter

	feedEvents    [numVerdicts]prometheus.Counter
	feedRefused   prometheus.Counter
	feedHoles     prometheus.Counter
	feedLost      prometheus.Counter
	feedUnknown   prometheus.Counter
	feedAcks      prometheus.Counter
	feedResumes   prometheus.Counter
	feedSnapshots prometheus.Counter
}

// NewMetrics registers the metrics of the link with reg; a nil reg keeps them to
// themselves. Registering twice with one registry panics, as promauto does.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		trust: trust.NewMetrics(reg),
		bad: f.NewCounterVec(prometheus.CounterOpts{
			Name: "eventpusher_bad_stanzas_total",
			Help: "Stanzas that were skipped because they cannot be read, by what is wrong with them.",
		}, []string{"reason"}),
		iqs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "eventpusher_iqs_total",
			Help: "IQs from and to the XMPP server, by what was done.",
		}, []string{"kind"}),
		connects: f.NewCounterVec(prometheus.CounterOpts{
			Name: "eventpusher_component_connects_total",
			Help: "Attempts to attach to the XMPP server and losses of the link, by result.",
		}, []string{"result"}),
		connected: f.NewGauge(prometheus.GaugeOpts{
			Name: "eventpusher_component_connected",
			Help: "1 while the component is attached to the XMPP server.",
		}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "eventpusher_component_panics_total",
			Help: "Panics on the link; each is a defect and cost one reconnection.",
		}),
	}
	m.feed(f)
	return m
}

// feed makes the metrics of the event-feed. Sources are no labels, since their names
// come from outside.
func (m *Metrics) feed(f promauto.Factory) {
	events := f.NewCounterVec(prometheus.CounterOpts{
		Name: "eventpusher_feed_events_total",
		Help: "Events of the event-feed, by what became of them.",
	}, []string{"result"})
	for v := verdict(0); v < numVerdicts; v++ {
		m.feedEvents[v] = events.WithLabelValues(verdictNames[v])
	}
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Name: "eventpusher_feed_" + name + "_total", Help: help})
	}
	m.feedRefused = counter("refused", "Events of the event-feed that could not be kept; the server sends them again.")
	m.feedHoles = counter("holes", "Times that the server gave up events before they could be taken.")
	m.feedLost = counter("lost_events", "Events that the server gave up before they could be taken.")
	m.feedUnknown = counter("unknown_losses", "Times that a server came back without the events that it had kept; how many is unknown.")
	m.feedAcks = counter("acks", "Acknowledgements sent to the server.")
	m.feedResumes = counter("resumes", "Times that the server was told behind which event to go on.")
	m.feedSnapshots = counter("snapshots", "Times that the server was asked for all sessions.")
}

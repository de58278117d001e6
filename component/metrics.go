package component

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"eventpusher/component/eventfeed"
	"eventpusher/component/trust"
)

// Metrics counts what happens on the link. All label values come from fixed sets.
type Metrics struct {
	trust     *trust.Metrics
	feed      *eventfeed.Metrics
	bad       *prometheus.CounterVec
	iqs       *prometheus.CounterVec
	connects  *prometheus.CounterVec
	connected prometheus.Gauge
	panics    prometheus.Counter
}

// NewMetrics registers the metrics of the link with reg; a nil reg keeps them to
// themselves. Registering twice with one registry panics, as promauto does.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	return &Metrics{
		trust: trust.NewMetrics(reg), feed: eventfeed.NewMetrics(reg),
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
}

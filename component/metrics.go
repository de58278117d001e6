package component

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"eventpusher/component/stanza"
)

// trust is what became of a stanza, the label of eventpusher_stanzas_total.
type trust uint8

const (
	trusted          trust = iota // passed on
	notAuthoritative              // another dialect reports this class of fact of this host
	untrustedForward              // forwarded by somebody who is no forwarder
	nestedForward                 // a forwarder's copy of what a user forwarded to us
	untrustedPriv                 // privileges advertised by somebody who cannot grant them
	foreign                       // about nobody on a served host, or from nobody there
	errorStanza                   // type error: servers echo payloads in them
	untranslatable                // a wrapper with something else than one message or presence
	misaddressed                  // not to an address that means something here
	ignored                       // understood, and no event by design
	numTrusts
)

var trustNames = [numTrusts]string{
	"trusted", "not_authoritative", "untrusted_forward", "nested_forward", "untrusted_privilege",
	"foreign", "error", "untranslatable", "misaddressed", "ignored",
}

const numDialects = int(stanza.Direct) + 1

// Metrics counts what happens on the link. All label values come from fixed sets.
type Metrics struct {
	stanzas   [numDialects][numTrusts]prometheus.Counter
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
	stanzas := f.NewCounterVec(prometheus.CounterOpts{
		Name: "eventpusher_stanzas_total",
		Help: "Messages and presences from the XMPP server, by dialect of the feed and by what trust made of them.",
	}, []string{"dialect", "trust"})
	m := &Metrics{
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
	// The fast path counts without looking labels up. Only what occurs is exposed
	// from the start: the dialects that can be classified.
	for d := stanza.ServiceLog; d <= stanza.Direct; d++ {
		for t := trust(0); t < numTrusts; t++ {
			m.stanzas[d][t] = stanzas.WithLabelValues(d.String(), trustNames[t])
		}
	}
	return m
}

// count adds one stanza.
func (m *Metrics) count(d stanza.Dialect, t trust) { m.stanzas[d][t].Inc() }

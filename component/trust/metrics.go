package trust

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Verdict is what trust makes of a stanza, the label of eventpusher_stanzas_total.
type Verdict uint8

// The verdicts.
const (
	Trusted          Verdict = iota // a fact
	notAuthoritative                // another feed reports this class of fact of this host
	untrustedForward                // forwarded by a sender that is not a forwarder
	nestedForward                   // a forwarder's copy of what a user forwarded to us
	untrustedFeed                   // an element of the event-feed from a sender that is not a forwarder
	untrustedPriv                   // privileges advertised by a sender that cannot grant them
	foreign                         // about nobody on a served host, or from nobody there
	errorStanza                     // type error: servers echo payloads in them
	Untranslatable                  // a wrapper with something else than one message or presence
	misaddressed                    // not to an address that means something here
	ignored                         // understood, and no event by design
	numVerdicts
)

var verdictNames = [numVerdicts]string{
	"trusted", "not_authoritative", "untrusted_forward", "nested_forward", "untrusted_feed", "untrusted_privilege",
	"foreign", "error", "untranslatable", "misaddressed", "ignored",
}

// reasons say to people why a stanza made no event.
var reasons = [numVerdicts]string{
	notAuthoritative: "another feed counts for this at the host, or has told it",
	untrustedForward: "its sender is none of [component] forwarders, and may not forward",
	nestedForward:    "it is a copy of what a user has forwarded to the component",
	untrustedFeed:    "its sender is none of [component] forwarders, and may not speak for a feed",
	untrustedPriv:    "its sender cannot grant privileges",
	foreign:          "it is about nobody at [general] hosts, or not from the host that it is about",
	errorStanza:      "it is an error",
	Untranslatable:   "what it carries is not one message or presence",
	misaddressed:     "it is addressed to nothing that means something here",
	ignored:          "nothing is made of this kind",
}

func (v Verdict) why() string { return reasons[v] }

// Metrics counts stanzas by feed and verdict. All label values come from fixed sets.
type Metrics struct {
	stanzas   [numFeeds][numVerdicts]prometheus.Counter
	authority *prometheus.GaugeVec
}

// NewMetrics registers the metrics with reg; a nil reg keeps them to themselves.
// Registering twice with one registry panics, as promauto does.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	stanzas := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "eventpusher_stanzas_total",
		Help: "Messages and presences from the XMPP server, by feed and by what trust made of them.",
	}, []string{"dialect", "trust"})
	m := &Metrics{authority: promauto.With(reg).NewGaugeVec(prometheus.GaugeOpts{
		Name: "eventpusher_feed_authority",
		Help: "1 for the feed that counts for a host and class of fact; 0 once it is not heard: for 20 s after the link was set up, or after it was asked whether it is there.",
	}, []string{"host", "class", "feed"})}
	// The fast path counts without looking labels up. Only what occurs is exposed
	// from the start: the feeds that can be told apart.
	for f := EventFeed; f <= Direct; f++ {
		for v := Verdict(0); v < numVerdicts; v++ {
			m.stanzas[f][v] = stanzas.WithLabelValues(f.String(), verdictNames[v])
		}
	}
	return m
}

func (m *Metrics) count(f Feed, v Verdict) { m.stanzas[f][v].Inc() }

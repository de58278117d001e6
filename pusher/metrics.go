package pusher

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"eventpusher/event"
	"eventpusher/pusher/filter"
	"eventpusher/pusher/outbox"
)

// Metrics are what the pusher counts. One Metrics serves one pusher and its chain.
type Metrics struct {
	events     *prometheus.CounterVec
	dropped    *prometheus.CounterVec
	filters    *prometheus.CounterVec
	when       *prometheus.CounterVec
	deliveries *prometheus.CounterVec
	failures   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	backlog    *backlog
	dead       *prometheus.CounterVec
	shed       *prometheus.CounterVec
	breaker    *prometheus.GaugeVec
	panics     *prometheus.CounterVec
	byKind     [event.Push + 1][event.Out + 1]prometheus.Counter
	droppedBy  map[dropReason]prometheus.Counter
}

// dropReason says why an event reached no backend.
type dropReason string

const (
	dropFilter      dropReason = "filter"       // a filter said so
	dropFilterError dropReason = "filter_error" // a filter failed, with on_error = "drop"
	dropUnwanted    dropReason = "unwanted"     // no backend publishes such events
	dropStopped     dropReason = "stopped"      // pushed after Drain
	dropOutbox      dropReason = "outbox"       // the outbox could not take it
)

// NewMetrics registers the metrics with reg; with nil they are only counted.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Name: "eventpusher_" + name, Help: help}, labels)
	}
	m := &Metrics{
		events:     counter("events_total", "Events that reached the pusher.", "kind", "direction"),
		dropped:    counter("events_dropped_total", "Events that were handed to no backend, by reason.", "reason"),
		filters:    counter("filter_events_total", "Verdicts of filters: keep, drop or error.", "filter", "outcome"),
		when:       counter("when_events_total", "What the condition (when) of a backend said of events that the backend wants: keep, drop or error.", "backend", "outcome"),
		deliveries: counter("deliveries_total", "Events that a backend has delivered.", "backend"),
		failures:   counter("delivery_failures_total", "Deliveries that failed, by reason; most are tried again.", "backend", "reason"),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "eventpusher_delivery_seconds",
			Help:    "Time from the acceptance of an event until its backend had delivered it, retries included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200},
		}, []string{"backend"}),
		backlog: newBacklog(),
		dead:    counter("dead_letters_total", "Events that will not be delivered, by backend (empty: none has seen it) and reason.", "backend", "reason"),
		shed:    counter("events_shed_total", "Oldest waiting events given up because the backend's queue was full.", "backend"),
		breaker: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "eventpusher_breaker_state",
			Help: "State of the backend: 0 closed (normal), 1 half-open, 2 open, 3 paused.",
		}, []string{"backend"}),
		panics: counter("pusher_panics_total", "Panics that were caught, by where.", "where"),
	}
	for kind := range m.byKind {
		for direction := range m.byKind[kind] {
			k, d := event.Kind(kind), event.Direction(direction)
			if (k == event.Chat) == (d == event.NoDirection) {
				continue // does not happen; counted by hand if it does
			}
			if k >= event.UserStatus {
				m.byKind[kind][direction] = m.events.WithLabelValues(k.String(), d.String())
			}
		}
	}
	m.droppedBy = make(map[dropReason]prometheus.Counter)
	for _, r := range []dropReason{dropFilter, dropFilterError, dropUnwanted, dropStopped, dropOutbox} {
		m.droppedBy[r] = m.dropped.WithLabelValues(string(r))
	}
	if reg != nil {
		reg.MustRegister(m.backlog)
	}
	for _, reason := range []string{reasonFilter, outbox.ReasonUndecodable} {
		m.dead.WithLabelValues("", reason) // shown from the start
	}
	return m
}

// Filters are what a filter.Chain counts.
func (m *Metrics) Filters() filter.Metrics {
	return filter.Metrics{Verdicts: m.filters, Panics: m.panics.WithLabelValues("filter")}
}

// event counts one event that reached the pusher.
func (m *Metrics) event(e *event.Event) {
	if int(e.Kind) < len(m.byKind) && int(e.Direction) < len(m.byKind[0]) {
		if c := m.byKind[e.Kind][e.Direction]; c != nil {
			c.Inc()
			return
		}
	}
	m.events.WithLabelValues(e.Kind.String(), e.Direction.String()).Inc()
}

// backendMetrics are the metrics of one backend, looked up once.
type backendMetrics struct {
	deliveries prometheus.Counter
	seconds    prometheus.Observer
	breaker    prometheus.Gauge
	failures   func(reason string) prometheus.Counter
	dead       func(reason string) prometheus.Counter
	when       func(outcome string) prometheus.Counter
}

func (m *Metrics) backend(name string) *backendMetrics {
	m.shed.WithLabelValues(name) // shown from the start
	return &backendMetrics{
		deliveries: m.deliveries.WithLabelValues(name),
		seconds:    m.seconds.WithLabelValues(name),
		breaker:    m.breaker.WithLabelValues(name),
		failures:   func(reason string) prometheus.Counter { return m.failures.WithLabelValues(name, reason) },
		dead:       func(reason string) prometheus.Counter { return m.dead.WithLabelValues(name, reason) },
		when:       func(outcome string) prometheus.Counter { return m.when.WithLabelValues(name, outcome) },
	}
}

// backlog tells what is waiting when somebody asks, so that neither Push nor the
// lanes have to keep a gauge up to date.
type backlog struct {
	waiting, parked, oldest, lost, unconfigured *prometheus.Desc

	mu      sync.Mutex
	readers map[string]counted
}

// counted is what waits for one backend.
type counted struct {
	reader     outbox.Reader
	configured bool
}

func newBacklog() *backlog {
	labels := []string{"backend"}
	return &backlog{
		waiting:      prometheus.NewDesc("eventpusher_waiting_events", "Events accepted and not yet delivered, those in flight included.", labels, nil),
		parked:       prometheus.NewDesc("eventpusher_parked_events", "Those of the waiting events whose conversation keeps failing while its backend works.", labels, nil),
		oldest:       prometheus.NewDesc("eventpusher_oldest_event_seconds", "Age of the oldest event that is not yet delivered; 0 when there is none.", labels, nil),
		lost:         prometheus.NewDesc("eventpusher_events_unreadable_total", "Accepted events passed over because the disk does not give them back, restarts included.", labels, nil),
		unconfigured: prometheus.NewDesc("eventpusher_unconfigured_events", "Events that wait for a backend that is not configured.", labels, nil),
		readers:      make(map[string]counted),
	}
}

func (b *backlog) add(backend string, r outbox.Reader, configured bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers[backend] = counted{r, configured}
}

func (b *backlog) remove(backend string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.readers, backend)
}

// Describe implements prometheus.Collector.
func (b *backlog) Describe(ch chan<- *prometheus.Desc) {
	ch <- b.waiting
	ch <- b.parked
	ch <- b.oldest
	ch <- b.lost
	ch <- b.unconfigured
}

// Collect implements prometheus.Collector.
func (b *backlog) Collect(ch chan<- prometheus.Metric) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, c := range b.readers {
		s := c.reader.Stats()
		if !c.configured {
			ch <- prometheus.MustNewConstMetric(b.unconfigured, prometheus.GaugeValue, float64(s.Waiting+s.InFlight), name)
			continue
		}
		age := 0.0
		if !s.Oldest.IsZero() {
			age = time.Since(s.Oldest).Seconds()
		}
		ch <- prometheus.MustNewConstMetric(b.waiting, prometheus.GaugeValue, float64(s.Waiting+s.InFlight), name)
		ch <- prometheus.MustNewConstMetric(b.parked, prometheus.GaugeValue, float64(s.Parked), name)
		ch <- prometheus.MustNewConstMetric(b.oldest, prometheus.GaugeValue, age, name)
		ch <- prometheus.MustNewConstMetric(b.lost, prometheus.CounterValue, float64(s.Lost), name)
	}
}

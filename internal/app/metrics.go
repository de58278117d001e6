package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/backends"
	"eventpusher/pusher/outbox"
	"eventpusher/translator"
)

// buildInfo is a gauge that is always 1 and carries the version.
func buildInfo(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "eventpusher_build_info",
		Help:        "Always 1; the label says which version runs.",
		ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 })
}

// heldLines counts the lines that the log has held back.
func heldLines(held func() uint64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "eventpusher_log_lines_held_total",
		Help: "Lines that were not logged, since there were too many with one message within a minute.",
	}, func() float64 { return float64(held()) })
}

// translatorCollector exports the translator's own counts, which keeps the
// translator free of metrics.
type translatorCollector struct {
	translator *translator.Translator
	skipped    *prometheus.Desc
	ambiguous  *prometheus.Desc
	unmasked   *prometheus.Desc
	ghosts     *prometheus.Desc
	users      *prometheus.Desc
	resources  *prometheus.Desc
	sessions   *prometheus.Desc
}

func newTranslatorCollector(t *translator.Translator) *translatorCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("eventpusher_"+name, help, labels, nil)
	}
	return &translatorCollector{
		translator: t,
		skipped:    desc("stanzas_skipped_total", "Trusted stanzas that made no event, by reason.", "reason"),
		ambiguous:  desc("ambiguous_sends_total", "Messages without an id on a feed that marks no direction, taken for sent ones by counting."),
		unmasked:   desc("unmasked_redeliveries_total", "Messages that posed as redelivered and were found out."),
		ghosts:     desc("presence_ghosts_total", "Sessions given up without evidence of their end: too many for one user, or in doubt for a day."),
		users:      desc("presence_users", "Users in the presence table."),
		resources:  desc("presence_resources", "Available resources in the presence table."),
		sessions:   desc("presence_sessions", "Sessions in the presence table, available or not."),
	}
}

// Describe implements prometheus.Collector.
func (c *translatorCollector) Describe(ch chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(c, ch)
}

// Collect implements prometheus.Collector.
func (c *translatorCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.translator.Stats()
	counter := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	for r := translator.Reason(0); r < translator.Reasons; r++ {
		counter(c.skipped, s.Skipped[r], r.String())
	}
	counter(c.ambiguous, s.AmbiguousSends)
	counter(c.unmasked, s.Unmasked)
	counter(c.ghosts, s.Ghosts)
	gauge(c.users, s.Users)
	gauge(c.resources, s.Resources)
	gauge(c.sessions, s.Sessions)
}

// backendCollector exports what backends count beside the verdicts on events.
type backendCollector struct {
	backends func() []backends.Backend
	counts   *prometheus.Desc
}

func newBackendCollector(list func() []backends.Backend) *backendCollector {
	return &backendCollector{backends: list, counts: prometheus.NewDesc("eventpusher_backend_occurrences_total",
		"What a backend counts beside deliveries, such as unroutable messages or connections.", []string{"backend", "what"}, nil)}
}

// Describe implements prometheus.Collector.
func (c *backendCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.counts }

// Collect implements prometheus.Collector.
func (c *backendCollector) Collect(ch chan<- prometheus.Metric) {
	for _, b := range c.backends() {
		counting, ok := b.(backends.Counting)
		if !ok {
			continue
		}
		for what, n := range counting.Counts() {
			ch <- prometheus.MustNewConstMetric(c.counts, prometheus.CounterValue, float64(n), b.Name(), what)
		}
	}
}

// outboxCollector exports whether the outbox works, and what it found when it was
// opened.
type outboxCollector struct {
	box                      outbox.Outbox
	torn, unreadable         float64
	failing, cut, startHoles *prometheus.Desc
}

func newOutboxCollector(box outbox.Outbox, found outbox.Recovery) *outboxCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("eventpusher_outbox_"+name, help, nil, nil)
	}
	return &outboxCollector{
		box: box, torn: float64(found.TornBytes()), unreadable: float64(found.Unreadable()),
		failing:    desc("failing", "1 while the outbox cannot write, save or read what it should; the log and /readyz say why."),
		cut:        desc("start_torn_bytes", "Bytes of unfinished records that the start cut off the log."),
		startHoles: desc("start_unreadable_events", "Events that the start found missing or unreadable in the log."),
	}
}

// Describe implements prometheus.Collector.
func (c *outboxCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *outboxCollector) Collect(ch chan<- prometheus.Metric) {
	failing := 0.0
	if c.box.Err() != nil {
		failing = 1
	}
	for desc, v := range map[*prometheus.Desc]float64{c.failing: failing, c.cut: c.torn, c.startHoles: c.unreadable} {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v)
	}
}

package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/pusher/outbox"
)

// clusterCollector exports how this instance stands among those that share its
// outbox.
type clusterCollector struct {
	elector                        outbox.Elector
	leading, instances, partitions *prometheus.Desc
}

func newClusterCollector(e outbox.Elector) *clusterCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("eventpusher_cluster_"+name, help, nil, nil)
	}
	return &clusterCollector{
		elector:    e,
		leading:    desc("leading", "1 on the instance that holds the link to the XMPP server, else 0."),
		instances:  desc("instances", "Instances that share the outbox and are alive, as this one sees it."),
		partitions: desc("partitions", "Partitions whose events this instance delivers."),
	}
}

// Describe implements prometheus.Collector.
func (c *clusterCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.leading
	ch <- c.instances
	ch <- c.partitions
}

// Collect implements prometheus.Collector.
func (c *clusterCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.elector.Standing()
	leading := 0
	if s.Leading {
		leading = 1
	}
	for d, v := range map[*prometheus.Desc]int{c.leading: leading, c.instances: s.Instances, c.partitions: s.Partitions} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
}

package config

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// More calls at once than these do not deliver more, so no backend makes them,
// whatever pool_size and workers say.
const (
	MaxSNSCalls       = 16 // each of a batch of up to 10 messages
	MaxRabbitChannels = 2  // each with up to half of the pool's window
)

// meanings says what values that were written for MongooseIM mean here, where that
// is not what they mean there.
func (l *loader) meanings(c *Config) {
	l.poolMeanings(c)
	l.rabbitMeanings(c)
	l.httpMeanings(c)
	l.pushMeanings(c)
	if at := pusherPath.with("sns").with("pool_size"); l.given(at...) && c.Pusher.SNS != nil && c.Pusher.SNS.PoolSize > MaxSNSCalls {
		l.note(at.String(), fmt.Sprintf("%d calls at once are made at most, each of up to 10 messages; more would not deliver more", MaxSNSCalls))
	}
	if s := c.Pusher.SNS; s != nil && s.Host != "" && s.Region != "" {
		if theirs := signingRegion(s.Host); theirs != s.Region {
			l.note(pusherPath.with("sns").with("region").String(), "requests are signed for "+quote(s.Region)+
				"; MongooseIM takes the region out of sns_host and would sign for "+quote(theirs))
		}
	}
}

// signingRegion is the region that MongooseIM signs for: the second of four or more
// labels of sns_host, otherwise us-east-1 (erlcloud_aws:aws_region_from_host).
func signingRegion(host string) string {
	if u, err := url.Parse(host); err == nil && u.Hostname() != "" {
		host = u.Hostname()
	}
	if labels := strings.Split(host, "."); len(labels) >= 4 {
		return labels[1]
	}
	return "us-east-1"
}

// poolMeanings has one note for each option that Erlang's worker pools need and we
// do not, with all pools that set it.
func (l *loader) poolMeanings(c *Config) {
	var pools []keyPath
	for _, tag := range slices.Sorted(maps.Keys(c.Pools.HTTP)) {
		pools = append(pools, keyPath{"outgoing_pools", "http", tag})
	}
	if c.Pools.Rabbit != nil {
		pools = append(pools, keyPath{"outgoing_pools", "rabbit", "event_pusher"})
	}
	if c.Pools.RDBMS != nil {
		pools = append(pools, keyPath{"outgoing_pools", "rdbms", "default"})
	}
	if c.Pusher.Push != nil {
		pools = append(pools, pusherPath.with("push").with("wpool"))
	}
	for _, option := range []struct{ name, meaning string }{
		{"scope", "every pool serves all hosts"},
		{"strategy", "work is spread by conversation, which keeps order"},
		{"call_timeout", "nobody waits for a worker: events wait in the outbox"},
		{"max_worker_queue_len", "no event is dropped because a worker is busy; [outbox] bounds what waits"},
	} {
		var where []string
		for _, pool := range pools {
			path := pool.with(option.name)
			if l.given(path...) && l.layers.Get(path.viperKey()) != "global" {
				where = append(where, pool.String())
			}
		}
		if len(where) > 0 {
			l.note(strings.Join(where, ", "), option.name+" has no effect here: "+option.meaning)
		}
	}
	var unused []string
	for _, tag := range slices.Sorted(maps.Keys(c.Pools.HTTP)) {
		if !c.usesHTTPPool(tag) {
			unused = append(unused, keyPath{"outgoing_pools", "http", tag}.String())
		}
	}
	if c.Pools.Rabbit != nil && !c.usesRabbitPool() {
		unused = append(unused, "outgoing_pools.rabbit.event_pusher")
	}
	if c.Pools.RDBMS != nil && !c.usesRDBMSPool() {
		unused = append(unused, "outgoing_pools.rdbms.default")
	}
	if len(unused) > 0 {
		l.note(strings.Join(unused, ", "), "not used by any backend")
	}
}

func (l *loader) rabbitMeanings(c *Config) {
	p := c.Pools.Rabbit
	if p == nil {
		return
	}
	connection := keyPath{"outgoing_pools", "rabbit", "event_pusher", "connection"}
	if !p.ConfirmsEnabled {
		l.warn(connection.with("confirms_enabled").String(), "false voids the delivery contract: what the broker has not stored when it or the connection fails is lost unnoticed",
			"remove the key; confirms are on by default here and published in a window")
	}
	if p.TLS != nil && p.Port == 5672 && p.Addresses == nil {
		l.warn(connection.with("tls").String(), "tls does not change the port, which is 5672, where RabbitMQ usually speaks plain AMQP",
			"write port = 5671, unless the broker speaks TLS on 5672")
	}
	if r := c.Pusher.Rabbit; r != nil {
		l.exchangeMeanings(r, p)
	}
	if at := (keyPath{"outgoing_pools", "rabbit", "event_pusher", "workers"}); l.given(at...) && p.Workers > MaxRabbitChannels {
		l.note(at.String(), fmt.Sprintf("%d channels are used at most, on one connection, with up to window messages on the way; more would not deliver more", MaxRabbitChannels))
	}
	if l.given(connection.with("reconnect").with("attempts")...) {
		l.note(connection.with("reconnect").with("attempts").String(), "reconnecting never gives up here, so that nothing that waits is lost")
	}
}

// exchangeMeanings says what options of the exchanges and of the pool mean together.
func (l *loader) exchangeMeanings(r *Rabbit, p *RabbitPool) {
	at := pusherPath.with("rabbit")
	var passing []string
	for _, key := range slices.Sorted(maps.Keys(r.exchanges())) {
		if !r.exchanges()[key].Durable {
			passing = append(passing, at.with(key).String())
		}
	}
	if p.Persistent && len(passing) > 0 {
		l.note(strings.Join(passing, ", "), "messages are persistent, but the exchange and its bindings end when the broker restarts: "+
			"write durable = true, after deleting the exchange in the broker where it exists, and let consumers declare it so too")
	}
	if r.Unroutable != "drop" && !(p.Mandatory && p.ConfirmsEnabled) {
		l.warn(at.with("unroutable").String(), quote(r.Unroutable)+" has no effect: without mandatory and confirms_enabled nobody learns which message no queue took",
			"remove mandatory = false and confirms_enabled = false from the pool's connection, where they are")
	}
}

func (l *loader) httpMeanings(c *Config) {
	var verified []string
	for _, tag := range slices.Sorted(maps.Keys(c.Pools.HTTP)) {
		if p := c.Pools.HTTP[tag]; p.TLS == nil && strings.HasPrefix(strings.ToLower(p.Host), "https:") {
			verified = append(verified, keyPath{"outgoing_pools", "http", tag}.String())
		}
	}
	if len(verified) > 0 {
		l.note(strings.Join(verified, ", "), "https without a tls section: certificates are verified here against the system's roots; MongooseIM leaves that to Erlang's defaults")
	}
	if c.Pusher.HTTP == nil {
		return
	}
	for i, h := range c.Pusher.HTTP.Handlers {
		prefix := c.Pools.HTTP[h.PoolName].PathPrefix
		if prefix != "" && h.Path != "" && !strings.HasSuffix(prefix, "/") {
			// Neither is shown: both may be the secret of a webhook.
			l.note(pusherPath.with("http").with("handlers").with(position(i)).with("path").String(),
				"is joined to the pool's path_prefix with exactly one slash; MongooseIM puts none between them")
		}
	}
}

func (l *loader) pushMeanings(c *Config) {
	if c.Pusher.Push == nil {
		return
	}
	at := pusherPath.with("push")
	if l.given(at.with("backend")...) && c.Pusher.Push.Backend == "mnesia" {
		l.note(at.with("backend").String(), `"mnesia" means the store that is embedded here; registrations in MongooseIM's Mnesia are not taken over`)
	}
	if l.given(at.with("iqdisc")...) {
		l.note(at.with("iqdisc").String(), "has no effect here: registrations are handled in the order in which they arrive")
	}
}

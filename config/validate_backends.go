package config

import (
	"maps"
	"slices"
	"strings"
)

var pusherPath = keyPath{"modules", pusherPrefix}

func (l *loader) backends(c *Config) {
	m := &c.Pusher
	l.sns(m.SNS, c.General.Hosts)
	l.http(c)
	l.rabbit(c)
	l.push(c)
	l.mongoosePush(c)
	publishes := len(c.Destinations) > 0 || m.SNS != nil || m.Push != nil || m.HTTP != nil && len(m.HTTP.Handlers) > 0 || m.Rabbit != nil && m.Rabbit.exchanges() != nil
	if !publishes {
		l.warn(pusherPath.String(), "no destination is configured: events go nowhere",
			"add a [[destination]], or [modules.mod_event_pusher.sns], .http with a handler, or .rabbit with an exchange")
	}
}

func (l *loader) sns(s *SNS, hosts []string) {
	if s == nil {
		return
	}
	at := pusherPath.with("sns")
	required := func(key, value, remedy string) {
		l.require(at.with(key).String(), remedy, value == "")
	}
	required("region", s.Region, `write region = "eu-west-1", say`)
	required("account_id", s.AccountID, `write the AWS account that owns the topics, as a string of 12 digits`)
	l.awsKeys(s, at)
	if s.PresenceUpdatesTopic == "" && s.PMMessagesTopic == "" && s.MUCMessagesTopic == "" {
		l.warn(at.String(), "no topic is given, so nothing is published to SNS",
			"write presence_updates_topic, pm_messages_topic or muc_messages_topic")
	}
	l.choice(&s.Choice, at)
	if s.MUCHost != "" && !strings.Contains(s.MUCHost, hostPlaceholder) {
		s.MUCHost = l.domain("modules.mod_event_pusher.sns.muc_host", s.MUCHost)
		if slices.Contains(hosts, s.MUCHost) {
			l.warn(at.with("muc_host").String(), quote(s.MUCHost)+" is one of general.hosts, which have no rooms: no groupchat message is published",
				`write the domain of the rooms, such as "conference.`+hostPlaceholder+`"`)
		}
	}
}

func (l *loader) http(c *Config) {
	if c.Pusher.HTTP == nil {
		return
	}
	at := pusherPath.with("http").with("handlers")
	handlers := c.Pusher.HTTP.Handlers
	if len(handlers) == 0 {
		l.warn(at.String(), "there is no handler, so nothing is published over HTTP", "add [["+at.String()+"]]")
	}
	for i := range handlers {
		// mongoose_http_client:make_request drops one slash; more of them change nothing
		// here, since path_prefix and path are joined with one.
		handlers[i].Path = Secret(strings.TrimLeft(handlers[i].Path.Reveal(), "/"))
		h := handlers[i]
		here := at.with(position(i))
		if !l.isSettled(here.with("path").String()) && slices.ContainsFunc(handlers[:i], h.sameTarget) {
			l.errorf(here.String(), "is the same as an earlier handler: every event would go there twice", "remove it, or give it another path or pool_name")
		}
		if h.Name != "" {
			named := here.with("name").String()
			if h.Name == "sns" || h.Name == "rabbit" {
				l.errorf(named, quote(h.Name)+" is the name of another backend", "choose another name")
			}
			if slices.ContainsFunc(handlers[:i], func(earlier HTTPHandler) bool { return earlier.Name == h.Name }) {
				l.errorf(named, quote(h.Name)+" is the name of an earlier handler", "choose another name")
			}
		}
		l.httpPool(c, here.with("pool_name").String(), h.PoolName)
		l.choice(&handlers[i].Choice, here)
	}
}

// sameTarget reports whether both send to the same place; their paths have lost
// their leading slashes.
func (h HTTPHandler) sameTarget(other HTTPHandler) bool {
	return h.PoolName == other.PoolName && h.Path == other.Path
}

// httpPool complains when there is no http pool of that tag.
func (l *loader) httpPool(c *Config, path, tag string) {
	if _, ok := c.Pools.HTTP[tag]; ok || l.isSettled(path) {
		return
	}
	missing := keyPath{"outgoing_pools", "http", tag}
	if l.isSettled(missing.String()) {
		return
	}
	tags := slices.Collect(maps.Keys(c.Pools.HTTP))
	remedy := "add [" + missing.with("connection").String() + "] with its host, or name another pool (" + tagList(tags) + ")"
	if near := nearest(tag, tags); near != "" {
		remedy = "did you mean " + quote(near) + "? " + remedy
	}
	l.errorf(path, "there is no pool outgoing_pools.http."+keyPath{tag}.String(), remedy)
}

// exchanges lists the exchanges that are configured, with their keys.
func (r *Rabbit) exchanges() map[string]*Exchange {
	var active map[string]*Exchange
	for key, e := range map[string]*Exchange{
		"presence_exchange": r.Presence, "chat_msg_exchange": r.Chat, "groupchat_msg_exchange": r.GroupChat,
	} {
		if e != nil {
			if active == nil {
				active = make(map[string]*Exchange)
			}
			active[key] = e
		}
	}
	return active
}

func (l *loader) rabbit(c *Config) {
	r := c.Pusher.Rabbit
	if r == nil {
		return
	}
	at := pusherPath.with("rabbit")
	exchanges := r.exchanges()
	if len(exchanges) == 0 {
		l.note(at.String(), "no exchange is configured, so nothing is published to RabbitMQ; add .presence_exchange, .chat_msg_exchange or .groupchat_msg_exchange")
		return
	}
	l.choice(&r.Choice, at)
	for key, x := range exchanges {
		l.declaration(x, at.with(key))
	}
	const pool = "outgoing_pools.rabbit.event_pusher"
	if c.Pools.Rabbit == nil && !l.isSettled(pool) {
		remedy := "add [" + pool + "]; it may be empty, for a broker on localhost with the defaults"
		for _, path := range l.ignored {
			if strings.HasPrefix(path, "outgoing_pools.rabbit.") {
				remedy = "rename [" + path + "]: the tag must be event_pusher"
			}
		}
		l.errorf(pool, "is missing, and "+at.String()+" publishes through it", remedy)
	}
	// RabbitMQ closes the channel of who declares an exchange again with other
	// properties (AMQP 0-9-1 exchange.declare, PRECONDITION_FAILED).
	byName := make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(exchanges)) {
		e := exchanges[key]
		other, taken := byName[e.Name]
		if taken && (exchanges[other].Type != e.Type || exchanges[other].Durable != e.Durable) {
			l.errorf(at.with(key).with("name").String(), "exchange "+quote(e.Name)+" is also declared by "+other+" with another type or durable, which RabbitMQ refuses",
				"use another name, or the same type and durable")
		}
		byName[e.Name] = key
	}
}

func (l *loader) push(c *Config) {
	p := c.Pusher.Push
	if p == nil {
		return
	}
	at := pusherPath.with("push")
	if l.given(at.with("iqdisc")...) {
		l.require(at.with("iqdisc").with("type").String(), `write type = "one_queue", or remove iqdisc`, !l.given(at.with("iqdisc").with("type")...))
	}
	if len(p.VirtualPubsubHosts) > 0 && c.Pusher.MongoosePush == nil {
		l.warn(at.with("virtual_pubsub_hosts").String(), "nothing stands behind them: notifications for them are refused",
			"add [modules.mod_push_service_mongoosepush], or remove the hosts")
	}
	backend := at.with("backend").String()
	switch pool := c.Pools.RDBMS; {
	case p.Backend == "rdbms" && pool == nil && !l.isSettled("outgoing_pools.rdbms.default"):
		l.errorf(backend, `"rdbms" needs the pool outgoing_pools.rdbms.default`, "add [outgoing_pools.rdbms.default.connection]")
	case p.Backend == "rdbms" && pool != nil && pool.Driver == "mysql":
		l.warn("outgoing_pools.rdbms.default.connection.driver", "registrations are kept in PostgreSQL, not in MySQL",
			`write driver = "pgsql", or backend = "mnesia" for the embedded store`)
	case p.Backend == "rdbms" && pool != nil && pool.Driver == "cockroachdb":
		l.warn("outgoing_pools.rdbms.default.connection.driver", "registrations are kept in PostgreSQL; CockroachDB was not tested", `write driver = "pgsql" for a PostgreSQL`)
	case p.Backend == "mnesia" && c.Outbox.Engine == "nats":
		l.errorf(backend, "registrations that one instance keeps are unknown to the others that share the outbox in NATS",
			`write backend = "nats" or "rdbms", or engine = "embedded" under [outbox]`)
	case p.Backend == "nats" && c.Outbox.Engine != "nats":
		l.errorf(backend, `"nats" keeps registrations beside the outbox, whose engine is "`+c.Outbox.Engine+`"`, `write engine = "nats" under [outbox], or another backend`)
	}
}

func (l *loader) mongoosePush(c *Config) {
	if p := c.Pusher.MongoosePush; p != nil {
		l.httpPool(c, "modules.mod_push_service_mongoosepush.pool_name", p.PoolName)
	}
}

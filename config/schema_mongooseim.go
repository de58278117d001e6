package config

import (
	"math"
	"strings"
	"time"
)

// Keys, types, defaults and ranges below are those of MongooseIM 6.8, and of 6.9 where it has more
// (mongoose_config_spec.erl and config_spec/0 of each module); what eventpusher
// adds says so.

func (m *Modules) field() field {
	pusher := table("mod_event_pusher",
		choice("follow", &m.Follow, "6.8", "6.8", followNew), // ours
		section("sns", &m.SNS, (*SNS).fields),
		section("http", &m.HTTP, func(h *HTTP) []field {
			return []field{list("handlers", &h.Handlers, (*HTTPHandler).fields)}
		}),
		section("rabbit", &m.Rabbit, (*Rabbit).fields),
		section("push", &m.Push, (*Push).fields),
	)
	pusher.remedies = oldPusherKeys()
	modules := table("modules",
		pusher,
		section("mod_push_service_mongoosepush", &m.MongoosePush, func(p *MongoosePush) []field {
			return []field{
				text("pool_name", &p.PoolName, "undefined", nonEmpty),
				choice("api_version", &p.APIVersion, "v3", "v2", "v3"),
				integer("max_http_connections", &p.MaxHTTPConnections, int64(100), 0, math.MaxInt32),
			}
		}),
	)
	modules.unknown = (*checker).foreignModule
	return modules
}

func (s *SNS) fields() []field {
	return join([]field{
		text("presence_updates_topic", &s.PresenceUpdatesTopic, nil),
		text("pm_messages_topic", &s.PMMessagesTopic, nil),
		text("muc_messages_topic", &s.MUCMessagesTopic, nil),
		text("sns_host", &s.Host, nil, isServiceHost),
		text("region", &s.Region, nil, filled),
	},
		s.awsFields(),
		[]field{
			text("account_id", &s.AccountID, nil, filled),
			stockModule("plugin_module", "mod_event_pusher_sns_defaults"),
			integer("pool_size", &s.PoolSize, int64(100), 1, math.MaxInt16),
			integer("publish_retry_count", &s.PublishRetryCount, int64(2), 0, 1000),
			millis("publish_retry_time_ms", &s.PublishRetryTime, int64(50), 0),
			// Ours: MongooseIM had muc_host until its version 5 and sends always what
			// message_structure_json asks for.
			text("muc_host", &s.MUCHost, nil, isDomainPattern),
			boolean("message_structure_json", &s.MessageStructureJSON, false),
			text("user_guid", &s.UserGUID, nil, filled),
		}, s.publishing(false), s.Choice.fields())
}

// publishing are the keys, all of them ours, of how messages are published, which
// [[destination]] has too.
func (s *SNS) publishing(attributes bool) []field {
	return []field{
		formulas("message_attributes", &s.MessageAttributes),
		boolean("event_attributes", &s.EventAttributes, attributes),
		text("subject", &s.Subject, nil, filled),
		duration("linger", &s.Linger, "50ms", 0),
	}
}

func (h *HTTPHandler) fields() []field {
	return join([]field{
		text("name", &h.Name, nil, nonEmpty), // ours
		text("pool_name", &h.PoolName, "http_pool", nonEmpty),
	},
		secret("path", &h.Path, ""), // its _file is ours
		[]field{stockModule("callback_module", "mod_event_pusher_http_defaults")}, h.Choice.fields())
}

func (r *Rabbit) fields() []field {
	return join(r.Choice.fields(), []field{
		section("presence_exchange", &r.Presence, exchangeFields("presence")),
		section("chat_msg_exchange", &r.Chat, messageExchangeFields("chat_msg")),
		section("groupchat_msg_exchange", &r.GroupChat, messageExchangeFields("groupchat_msg")),
	}, r.publishing(false))
}

// publishing are the keys, all of them ours, of how messages are published, which
// [[destination]] has too.
func (r *Rabbit) publishing(headers bool) []field {
	return []field{
		choice("unroutable", &r.Unroutable, "drop", "drop", "retry", "dead_letter"),
		text("routing_key", &r.RoutingKey, nil, filled),
		choice("long_routing_key", &r.LongRoutingKey, "dead_letter", "dead_letter", "cut"),
		boolean("event_headers", &r.EventHeaders, headers),
		duration("expiration", &r.Expiration, nil, time.Millisecond),
	}
}

func exchangeFields(name string) func(*Exchange) []field {
	return func(e *Exchange) []field {
		return []field{
			text("name", &e.Name, name, nonEmpty),
			text("type", &e.Type, "topic", nonEmpty),
			boolean("durable", &e.Durable, false),
			choice("declare", &e.Declare, "active", "active", "passive", "none"), // ours, as the next two
			text("alternate_exchange", &e.AlternateExchange, nil, nonEmpty),
			boolean("auto_delete", &e.AutoDelete, false),
		}
	}
}

func messageExchangeFields(name string) func(*Exchange) []field {
	return func(e *Exchange) []field {
		return append(exchangeFields(name)(e),
			text("sent_topic", &e.SentTopic, name+"_sent", nonEmpty),
			text("recv_topic", &e.RecvTopic, name+"_recv", nonEmpty),
		)
	}
}

func (p *Push) fields() []field {
	return []field{
		choice("backend", &p.Backend, "mnesia", "mnesia", "rdbms", "nats"), // nats is ours
		pushPlugin(&p.Plugin),
		list("rules", &p.Rules, (*PushRule).fields), // since 6.9
		texts("virtual_pubsub_hosts", &p.VirtualPubsubHosts, []any{}, isPubsubHost),
		choice("content", &p.Content, "body", "body", "sender", "none"), // ours, as the next two
		duration("max_age", &p.MaxAge, "1h", time.Second),
		integer("max_registrations", &p.MaxRegistrations, int64(64), 1, 10_000),
		when(&p.When),
		table("wpool", p.WPool.sizing("available_worker")...),
		table("iqdisc",
			choice("type", &p.IQDiscType, "one_queue", "no_queue", "one_queue", "queues", "parallel"),
			integer("workers", &p.IQDiscWorkers, nil, 1, math.MaxInt32),
		),
	}
}

// when is a key of each backend, and ours. Package pusher compiles it.
func when(dst *string) field { return text("when", dst, nil, filled) }

// sizing are the options of a pool that has no scope.
func (p *PoolOptions) sizing(strategy string) []field {
	return []field{
		integer("workers", &p.Workers, int64(10), 1, math.MaxInt16),
		choice("strategy", &p.Strategy, strategy,
			"best_worker", "random_worker", "next_worker", "available_worker", "next_available_worker"),
		millis("call_timeout", &p.CallTimeout, int64(5000), 1),
		integer("max_worker_queue_len", &p.MaxWorkerQueueLen, nil, 0, math.MaxInt32),
	}
}

func (p *PoolOptions) fields() []field {
	return append(p.sizing("best_worker"), choice("scope", &p.Scope, "global", "global", "host_type", "host"))
}

func (p *Pools) field() field {
	rabbit := table("rabbit", section("event_pusher", &p.Rabbit, (*RabbitPool).fields))
	rabbit.unknown = (*checker).foreignTag
	rdbms := table("rdbms", section("default", &p.RDBMS, (*RDBMSPool).fields))
	rdbms.unknown = (*checker).foreignTag
	pools := table("outgoing_pools", tagged("http", &p.HTTP, (*HTTPPool).fields), rabbit, rdbms)
	pools.unknown = (*checker).foreignPool
	return pools
}

func (p *HTTPPool) fields() []field {
	return append(p.PoolOptions.fields(), table("connection",
		scalar("host", textShape, nil, textWith(isHTTPHost), func(s string) { p.Host = strings.TrimSuffix(s, "/") }),
		text("path_prefix", &p.PathPrefix, "/", nonEmpty),
		millis("request_timeout", &p.RequestTimeout, int64(2000), 0),
		section("tls", &p.TLS, (*TLS).fields),
	))
}

func (p *RabbitPool) fields() []field {
	connection := table("connection", join([]field{
		text("host", &p.Host, "localhost", isHostname),
		integer("port", &p.Port, int64(5672), 0, 65535),
		text("username", &p.Username, "guest", nonEmpty),
	},
		secret("password", &p.Password, "guest", nonEmpty),
		[]field{
			text("virtual_host", &p.VirtualHost, "/", nonEmpty),
			boolean("confirms_enabled", &p.ConfirmsEnabled, true), // MongooseIM: false
			table("reconnect",
				integer("attempts", &p.ReconnectAttempts, int64(0), 0, math.MaxInt32),
				millis("delay", &p.ReconnectDelay, int64(2000), 0),
			),
			// Ours, beside confirms_enabled.
			boolean("persistent", &p.Persistent, true),
			boolean("mandatory", &p.Mandatory, true),
			section("tls", &p.TLS, (*TLS).fields),
			texts("addresses", &p.Addresses, nil, isBrokerAddress),
		}, p.connection())...)
	connection.remedies = oldRabbitKeys()
	return append(p.PoolOptions.fields(), connection)
}

// connection are the keys, all of them ours, of a connection to RabbitMQ that
// [[destination]] has too.
func (p *RabbitPool) connection() []field {
	return []field{
		integer("window", &p.Window, int64(256), 1, 65535),
		duration("settle", &p.Settle, "60s", 0),
		choice("sasl", &p.SASL, "plain", "plain", "external"),
		duration("heartbeat", &p.Heartbeat, "10s", time.Second),
		text("connection_name", &p.ConnectionName, "eventpusher", nonEmpty),
	}
}

func (p *RDBMSPool) fields() []field {
	tls := section("tls", &p.TLS, func(t *TLS) []field {
		return append(t.fields(), boolean("required", new(bool), false))
	})
	return append(p.PoolOptions.fields(), table("connection", join([]field{
		choice("driver", &p.Driver, nil, "pgsql", "mysql", "cockroachdb"),
		text("host", &p.Host, nil, isHostname),
		integer("port", &p.Port, nil, 0, 65535), // default by driver
		text("database", &p.Database, nil, filled),
		text("username", &p.Username, nil, filled),
	},
		secret("password", &p.Password, nil, filled),
		[]field{
			integer("keepalive_interval", new(int), nil, 1, math.MaxInt32),
			millis("query_timeout", &p.QueryTimeout, int64(5000), 1),
			integer("max_start_interval", new(int), int64(30), 1, math.MaxInt32),
			tls,
		})...))
}

// stockModule is a key that names Erlang code. MongooseIM's own means what happens
// here anyway; an operator's own cannot run here, and to ignore it would route
// events otherwise than the file says.
func stockModule(name, stock string) field {
	judge := func(s string) *complaint {
		if s == stock {
			return nil
		}
		return ownModule(s, stock)
	}
	return text(name, new(string), stock, judge)
}

func pushPlugin(dst *string) field {
	const prefix = "mod_event_pusher_push_plugin_"
	convert := func(v any) (string, *complaint) {
		s, bad := anyText(v)
		if bad != nil {
			return "", bad
		}
		switch plugin := strings.TrimPrefix(s, prefix); {
		case plugin == s:
		case plugin == "defaults" || plugin == "enhanced" || plugin == "hints":
			return plugin, nil
		}
		return "", ownModule(s, prefix+"defaults, _enhanced or _hints")
	}
	return scalar("plugin_module", textShape, prefix+"defaults", convert, into(dst))
}

func ownModule(name, stock string) *complaint {
	return &complaint{
		"module " + quote(name) + " is Erlang code, which cannot run here",
		"remove the key (stock: " + stock + ") and say what the module decides with [[filter]] and its expressions",
	}
}

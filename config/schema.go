package config

import (
	"time"
)

// This file and schema_mongooseim.go are the schema: every key with its type,
// default and range, bound to the place where its value goes.

// fields is the top level of config.toml, with the program's own types.
func (c *Config) fields(own []Type) []field {
	return []field{
		table("component", c.Component.fields()...),
		c.General.field(),
		c.Pusher.field(),
		destinations(&c.Destinations, own),
		table("push", c.AppServer.fields()...),
		c.Pools.field(),
		filters(&c.Filters, own),
		table("outbox", c.Outbox.fields()...),
		table("admin", c.Admin.fields()...),
		table("log", c.Log.fields()...),
	}
}

func (c *Component) fields() []field {
	return join([]field{
		text("address", &c.Address, "localhost:5347", isDialAddress),
		text("name", &c.Name, nil, isDomain),
	},
		secret("secret", &c.Secret, nil, filled),
		[]field{
			section("tls", &c.TLS, (*TLS).fields),
			texts("forwarders", &c.Forwarders, nil, isHostPattern),
			texts("muc_hosts", &c.MUCHosts, nil, isHostPattern),
			texts("feeds", &c.Feeds, []any{}, isFeed),
			choice("feed_token", &c.FeedToken, "optional", "optional", "required"),
			size("max_stanza_size", &c.MaxStanzaSize, "4MiB", 64<<10),
			integer("max_depth", &c.MaxDepth, int64(1000), 4, 10_000),
			duration("handshake_timeout", &c.HandshakeTimeout, "10s", time.Millisecond),
			duration("ping_interval", &c.PingInterval, "30s", time.Millisecond),
			duration("ping_timeout", &c.PingTimeout, "30s", time.Millisecond),
			duration("reconnect_min", &c.ReconnectMin, "500ms", time.Millisecond),
			duration("reconnect_max", &c.ReconnectMax, "5s", time.Millisecond),
		})
}

func (g *General) field() field {
	f := table("general", texts("hosts", &g.Hosts, nil, isHostPattern))
	f.unknown = (*checker).foreignGeneral
	return f
}

func (o *Outbox) fields() []field {
	return []field{
		choice("engine", &o.Engine, "embedded", "embedded", "nats"),
		text("path", &o.Path, "outbox", nonEmpty),
		size("max_size", &o.MaxSize, "10GiB", 1<<20),
		duration("max_age", &o.MaxAge, "72h", time.Second),
		duration("shutdown_timeout", &o.ShutdownTimeout, "10s", 0),
		choice("on_damage", &o.OnDamage, "stop", "stop", "skip"),
		table("nats", o.NATS.fields()...),
	}
}

func (n *NATS) fields() []field {
	return append(n.NATSServers.fields(),
		text("stream", &n.Stream, "EVENTPUSHER", isStreamName),
		integer("replicas", &n.Replicas, int64(1), 1, 5),
		integer("partitions", &n.Partitions, int64(16), 1, 64),
		duration("takeover", &n.Takeover, "15s", 5*time.Second))
}

func (n *NATSServers) fields() []field {
	return join([]field{
		text("url", &n.URL, "nats://localhost:4222", isNATSURL),
		text("credentials_file", &n.CredentialsFile, nil, nonEmpty),
		text("username", &n.Username, nil, nonEmpty),
	},
		secret("password", &n.Password, nil, nonEmpty),
		[]field{section("tls", &n.TLS, (*TLS).fields)})
}

func (a *Admin) fields() []field {
	return join([]field{text("listen", &a.Listen, nil, isListenAddress)},
		secret("token", &a.Token, nil, nonEmpty))
}

func (l *Log) fields() []field {
	return []field{
		level("level", &l.Level, "info"),
		texts("levels", &l.Levels, nil, isPackageLevel),
		choice("format", &l.Format, "text", "text", "json"),
	}
}

// fields are MongooseIM's options for a TLS client (its just_tls).
func (t *TLS) fields() []field {
	return join([]field{
		choice("verify_mode", &t.VerifyMode, "peer", "peer", "selfsigned_peer", "none"),
		text("certfile", &t.CertFile, nil, nonEmpty),
		text("keyfile", &t.KeyFile, nil, nonEmpty),
		text("cacertfile", &t.CACertFile, nil, nonEmpty),
	},
		secret("password", &t.KeyPassword, nil, nonEmpty),
		[]field{
			text("ciphers", &t.Ciphers, nil, nonEmpty),
			texts("versions", &t.Versions, nil, oneOf("tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3")),
			texts("crl_files", &t.CRLFiles, nil, nonEmpty),
			boolean("disconnect_on_failure", new(bool), true),
			table("server_name_indication",
				scalar("enabled", booleanShape, true, truth, func(on bool) { t.DisableSNI = !on }),
				text("host", &t.ServerName, nil, nonEmpty),
				choice("protocol", new(string), "default", "default", "https"),
			),
		})
}

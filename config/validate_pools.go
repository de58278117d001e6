package config

import (
	"maps"
	"slices"
	"time"
)

func (l *loader) pools(c *Config) {
	for _, tag := range slices.Sorted(maps.Keys(c.Pools.HTTP)) {
		c.Pools.HTTP[tag] = l.checkHTTPPool(c.Pools.HTTP[tag], keyPath{"outgoing_pools", "http", tag}, c.usesHTTPPool(tag))
	}
	if p := c.Pools.Rabbit; p != nil {
		at := keyPath{"outgoing_pools", "rabbit", "event_pusher"}
		l.poolOptions(at, &p.PoolOptions)
		l.tls(p.TLS, at.with("connection").with("tls").String(), c.usesRabbitPool())
		l.keepVerifying(at)
		l.broker(p, p.TLS, at.with("connection"))
	}
	if p := c.Pools.RDBMS; p != nil {
		l.checkRDBMSPool(c, p)
	}
}

func (l *loader) checkHTTPPool(p HTTPPool, at keyPath, used bool) HTTPPool {
	connection := at.with("connection")
	l.poolOptions(at, &p.PoolOptions)
	l.require(connection.with("host").String(), `write host = "http://localhost:8000", say`, p.Host == "")
	if p.RequestTimeout == 0 {
		const fallback = 2 * time.Second
		l.warn(connection.with("request_timeout").String(), "is 0, with which no request can succeed; "+fallback.String()+" is used", "write milliseconds, such as 2000")
		p.RequestTimeout = fallback
	}
	l.tls(p.TLS, connection.with("tls").String(), used)
	l.keepVerifying(at)
	return p
}

func (l *loader) checkRDBMSPool(c *Config, p *RDBMSPool) {
	at := keyPath{"outgoing_pools", "rdbms", "default"}
	connection := at.with("connection")
	l.poolOptions(at, &p.PoolOptions)
	l.require(connection.with("driver").String(), `write driver = "pgsql"`, p.Driver == "")
	l.require(connection.with("host").String(), "name the database server", p.Host == "")
	l.require(connection.with("database").String(), "name the database", p.Database == "")
	l.require(connection.with("username").String(), "name the database user", p.Username == "")
	l.require(connection.with("password").String(), "set password, password_file or "+connection.with("password").variable(), p.Password == "")
	if p.Port == 0 {
		p.Port = map[string]int{"pgsql": 5432, "mysql": 3306, "cockroachdb": 26257}[p.Driver]
	}
	l.tls(p.TLS, connection.with("tls").String(), c.usesRDBMSPool())
	l.keepVerifying(at)
}

// poolOptions checks the one rule between the options of all pools
// (mongoose_config_spec:process_pool in MongooseIM).
func (l *loader) poolOptions(at keyPath, p *PoolOptions) {
	if l.given(at.with("max_worker_queue_len")...) && p.Strategy != "best_worker" {
		l.errorf(at.with("max_worker_queue_len").String(), "goes only with strategy best_worker, as in MongooseIM", "remove it: it means nothing here")
	}
}

// keepVerifying warns of a promise that is not kept: to go on without verification.
func (l *loader) keepVerifying(pool keyPath) { l.keepVerifyingAt(pool.with("connection").with("tls")) }

func (l *loader) keepVerifyingAt(tls keyPath) {
	path := tls.with("disconnect_on_failure")
	if on, ok := l.layers.Get(path.viperKey()).(bool); ok && !on {
		l.warn(path.String(), "a certificate that fails verification always ends the connection here", `write verify_mode = "none" to do without verification`)
	}
}

func (c *Config) usesHTTPPool(tag string) bool {
	if p := c.Pusher.MongoosePush; p != nil && p.PoolName == tag {
		return true
	}
	return c.Pusher.HTTP != nil && slices.ContainsFunc(c.Pusher.HTTP.Handlers, func(h HTTPHandler) bool { return h.PoolName == tag })
}

func (c *Config) usesRabbitPool() bool {
	return c.Pusher.Rabbit != nil && c.Pusher.Rabbit.exchanges() != nil
}

func (c *Config) usesRDBMSPool() bool {
	return c.Pusher.Push != nil && c.Pusher.Push.Backend == "rdbms"
}

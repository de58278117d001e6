package config

// NotBuilt returns one line for each part of the configuration that this build
// checks but does not act on, in a stable order. It is no error: the rest works.
func (c *Config) NotBuilt() []string {
	lines := []string{
		"outbox: this build keeps accepted events in memory, at most queue_events for each backend; " +
			"engine, path, max_size, max_age and nats have no effect yet, and what waits is lost at a crash",
	}
	if c.Pusher.Push != nil {
		lines = append(lines, "modules.mod_event_pusher.push: this build does not send push notifications yet")
	}
	if c.Pusher.MongoosePush != nil {
		lines = append(lines, "modules.mod_push_service_mongoosepush: this build does not speak to MongoosePush yet")
	}
	if c.Pools.RDBMS != nil {
		lines = append(lines, "outgoing_pools.rdbms.default: this build does not connect to databases yet")
	}
	return lines
}

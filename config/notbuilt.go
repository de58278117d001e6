package config

// NotBuilt returns one line for each part of the configuration that this build
// checks but does not act on, in a stable order. It is no error: the rest works.
func (c *Config) NotBuilt() []string {
	var lines []string
	if c.Outbox.Engine == "nats" {
		lines = append(lines, "outbox.engine, outbox.nats: NATS is not part of this build; the embedded engine is used instead")
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

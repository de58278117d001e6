package config

// NotBuilt returns one line for each part of the configuration that this build
// checks but does not act on, in a stable order. It is no error: the rest works.
func (c *Config) NotBuilt() []string {
	var lines []string
	if p := c.Pusher.Push; p != nil && p.Backend == "nats" {
		lines = append(lines, "modules.mod_event_pusher.push.backend: registrations are not kept in NATS by this build; the embedded store is used instead")
	}
	return lines
}

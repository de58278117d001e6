package config

// NATSDestination has the keys of type nats.
type NATSDestination struct {
	NATSServers
	Subject string // a template; required
	Stream  string // that has to take the events; empty: any
}

// Keys implements Settings.
func (n *NATSDestination) Keys() []Key {
	return append(n.NATSServers.fields(),
		text("subject", &n.Subject, nil, filled),
		text("stream", &n.Stream, nil, filled))
}

// Check implements Settings.
func (n *NATSDestination) Check(s *Section) {
	s.Require("subject", `write subject = "events.{{.sort}}", say`, n.Subject == "")
	s.l.natsServers(&n.NATSServers, s.at, true)
}

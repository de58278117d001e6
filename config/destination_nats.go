package config

// NATSDestination has the keys of type nats.
type NATSDestination struct {
	NATSServers
	Subject string // a template; required
	Stream  string // that has to take the events; empty: any
}

func (n *NATSDestination) fields() []field {
	return append(n.NATSServers.fields(),
		text("subject", &n.Subject, nil, filled),
		text("stream", &n.Stream, nil, filled))
}

func (l *loader) destinationNATS(n *NATSDestination, at keyPath) {
	l.require(at.with("subject").String(), `write subject = "events.{{.sort}}", say`, n.Subject == "")
	l.natsServers(&n.NATSServers, at, true)
}

package config

import (
	"net"
	"strings"
)

// KafkaDestination has the keys of type kafka.
type KafkaDestination struct {
	Brokers  []string // host:port of some of the cluster's brokers; required
	Topic    string   // required
	SASL     string   // plain, scram-sha-256 or scram-sha-512; empty: no login
	Username string
	Password Secret
	TLS      *TLS
}

// Keys implements Settings.
func (k *KafkaDestination) Keys() []Key {
	return join([]field{
		texts("brokers", &k.Brokers, nil, isHostPort),
		text("topic", &k.Topic, nil, isTopic),
		choice("sasl", &k.SASL, nil, "plain", "scram-sha-256", "scram-sha-512"),
		text("username", &k.Username, nil, nonEmpty),
	},
		secret("password", &k.Password, nil, nonEmpty),
		[]field{section("tls", &k.TLS, (*TLS).fields)})
}

// Check implements Settings.
func (k *KafkaDestination) Check(s *Section) {
	l, at := s.l, s.at
	l.require(at.with("brokers").String(), `write brokers = ["kafka1.example.org:9092"], say`, len(k.Brokers) == 0)
	l.require(at.with("topic").String(), `write topic = "xmpp-events", say`, k.Topic == "")
	login := k.SASL != "" || k.Username != "" || k.Password != ""
	l.require(at.with("sasl").String(), `write sasl = "scram-sha-512", or the mechanism that the brokers offer`, login && k.SASL == "")
	l.require(at.with("username").String(), "name the user, or remove sasl and password", login && k.Username == "")
	l.require(at.with("password").String(), "set password or password_file, the password of username", login && k.Password == "")
	l.tls(k.TLS, at.with("tls").String(), true)
}

// isHostPort is a server to connect to.
func isHostPort(s string) *complaint {
	host, port, err := net.SplitHostPort(s)
	if err != nil || !isPort(port) || isHostname(host) != nil {
		return &complaint{quote(s) + " is not a host with a port", `write "kafka.example.org:9092", say`}
	}
	return nil
}

// isTopic is a name that Kafka takes for a topic (org.apache.kafka.common.internals.Topic).
func isTopic(s string) *complaint {
	const longest = 249
	other := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}
	if s == "" || s == "." || s == ".." || len(s) > longest || strings.ContainsFunc(s, other) {
		return &complaint{"is not the name of a topic", "write at most 249 letters, digits, dots, - and _"}
	}
	return nil
}

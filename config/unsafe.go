package config

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"eventpusher/internal/loopback"
)

// This file warns of what works and is unsafe: connections that others can read, logins and
// secrets that everybody knows, and files that other local users can read or replace.

// link is one way to another host, as the configuration has it.
type link struct {
	path   string // of the key that names the host
	host   string // without port
	secure bool   // TLS is used
	shows  string // what others can read on the way
	remedy string
}

// unsafe warns of links without TLS that leave this machine, and of guest at RabbitMQ.
func (l *loader) unsafe(c *Config) {
	warned := make(map[string]bool)
	for _, way := range c.links() {
		if way.secure || way.host == "" || loopback.Host(way.host) || warned[way.path] {
			continue
		}
		warned[way.path] = true
		l.warn(way.path, quote(way.host)+" is reached over the network without TLS: "+way.shows+" can be read on the way", way.remedy)
	}
	if c.usesRabbitPool() && c.Pools.Rabbit != nil {
		l.guest(c.Pools.Rabbit, keyPath{"outgoing_pools", "rabbit", "event_pusher", "connection"})
	}
	for i := range c.Destinations {
		if d := &c.Destinations[i]; d.Type == "rabbit" {
			l.guest(&d.Broker, keyPath{destinationKey, position(i)})
		}
	}
}

// Exposed warns of a directory of the outbox that other local users can enter, or that
// belongs to root, since then the program runs as root. A directory that does not exist yet is
// made for its owner only.
func (o *Outbox) Exposed() (list []Problem) {
	info, err := os.Stat(o.Path)
	if err != nil || !info.IsDir() {
		return nil
	}
	warn := func(text, remedy string) {
		list = append(list, Problem{Warning, "outbox.path", text, remedy})
	}
	absolute, err := filepath.Abs(o.Path)
	if err == nil && info.Mode()&0o007 != 0 && othersReach(filepath.Dir(absolute)) {
		warn("every user of this machine can enter or list "+o.Path, "chmod o-rwx "+o.Path)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Uid == 0 {
		warn(o.Path+" belongs to root, so eventpusher runs as root: a fault in it or in a library would be one of the whole machine",
			"run it as a user of its own, as deploy/systemd/eventpusher.service does, and: chown -R that user "+o.Path)
	}
	return list
}

// guest warns of RabbitMQ's default login, whose password is public, on another machine.
func (l *loader) guest(p *RabbitPool, at keyPath) {
	remote := func(host string) bool { return !loopback.Host(host) }
	if p.SASL != "external" && p.Username == "guest" && p.Password == "guest" && slices.ContainsFunc(p.hosts(), remote) {
		l.warn(at.with("username").String(), `"guest" with the password "guest" is used over the network, and everybody knows it; RabbitMQ refuses it there unless loopback_users was changed`,
			"add a user with a password of its own: docs/rabbitmq.md, Permissions")
	}
}

// hosts returns the nodes of the broker, without ports.
func (p *RabbitPool) hosts() []string {
	if p.Addresses == nil {
		return []string{p.Host}
	}
	return hostsOf(p.Addresses)
}

// hostsOf takes the ports off.
func hostsOf(addresses []string) (hosts []string) {
	for _, address := range addresses {
		if host, _, err := net.SplitHostPort(address); err == nil {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// links is the table of all ways out that are used.
func (c *Config) links() []link {
	list := broadcast(nil, "component.address", hostsOf([]string{c.Component.Address}), c.Component.TLS, "the secret's hash and every message",
		"add [component.tls] and the server's TLS port, or connect over loopback or a private tunnel")
	if c.Outbox.Engine == "nats" {
		list = append(list, c.Outbox.NATS.links(keyPath{"outbox", "nats"}, "[outbox.nats.tls]")...)
	}
	pool := keyPath{"outgoing_pools", "http"}
	for tag, p := range c.Pools.HTTP {
		if c.usesHTTPPool(tag) {
			list = append(list, webLink(pool.with(tag).with("connection").with("host"), p.Host, "every event"))
		}
	}
	if p := c.Pools.Rabbit; p != nil && c.usesRabbitPool() {
		at := keyPath{"outgoing_pools", "rabbit", "event_pusher", "connection"}
		key := "host"
		if p.Addresses != nil {
			key = "addresses"
		}
		list = broadcast(list, at.with(key).String(), p.hosts(), p.TLS, "the password and every event", "add ["+at.with("tls").String()+"] and write the broker's TLS port, usually 5671")
	}
	if p := c.Pools.RDBMS; p != nil && c.usesRDBMSPool() {
		at := keyPath{"outgoing_pools", "rdbms", "default", "connection"}
		list = broadcast(list, at.with("host").String(), []string{p.Host}, p.TLS, "every registration", "add ["+at.with("tls").String()+"]")
	}
	if s := c.Pusher.SNS; s != nil {
		list = append(list, webLink(pusherPath.with("sns").with("sns_host"), s.Host, "every event"))
	}
	for i := range c.Destinations {
		list = append(list, c.Destinations[i].links(keyPath{destinationKey, position(i)})...)
	}
	for i, app := range c.AppServer.Apps {
		at := keyPath{"push", "app", position(i)}
		if app.APNs != nil {
			list = append(list, webLink(at.with("apns").with("url"), app.APNs.URL, "every notification and what authenticates us"))
		}
		if app.FCM != nil {
			list = append(list, webLink(at.with("fcm").with("url"), app.FCM.URL, "every notification and what authenticates us"))
		}
	}
	return list
}

func (d *Destination) links(at keyPath) []link {
	const section = "add a [destination.tls] below it"
	switch d.Type {
	case "http":
		shows := "every event"
		if h := &d.HTTP; h.Password != "" || h.BearerToken != "" || h.OAuth2 != nil || len(h.Headers) > 0 {
			shows = "every event and what authenticates us"
		}
		list := []link{webLink(at.with("url"), d.URL.Reveal(), shows)}
		if o := d.HTTP.OAuth2; o != nil {
			list = append(list, webLink(at.with("oauth2").with("token_url"), o.TokenURL, "client_secret"))
		}
		return list
	case "sns":
		return []link{webLink(at.with("endpoint"), d.SNS.Host, "every event")}
	case "rabbit":
		return broadcast(nil, at.with("addresses").String(), d.Broker.hosts(), d.TLS, "the password and every event", section+", and write the broker's TLS port, usually 5671")
	case "kafka":
		return broadcast(nil, at.with("brokers").String(), hostsOf(d.Kafka.Brokers), d.Kafka.TLS, "every message", section+", and name the brokers' TLS port")
	case "nats":
		return d.NATS.links(at, "a [destination.tls] below it")
	}
	return nil
}

func (n *NATSServers) links(at keyPath, section string) (list []link) {
	for one := range strings.SplitSeq(n.URL, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err == nil {
			list = append(list, link{at.with("url").String(), u.Hostname(), n.TLS != nil || u.Scheme == "tls" || u.Scheme == "wss", "every message",
				"add " + section + ", or write tls:// and let the server speak TLS"})
		}
	}
	return list
}

// webLink is that of a URL. A host without a scheme is reached by HTTPS.
func webLink(at keyPath, address, shows string) link {
	u, err := url.Parse(address)
	if err != nil {
		return link{}
	}
	return link{at.String(), u.Hostname(), u.Scheme != "http", shows, "write https:// and let the receiver speak TLS"}
}

// broadcast appends a link to each host.
func broadcast(list []link, path string, hosts []string, tls *TLS, shows, remedy string) []link {
	for _, host := range hosts {
		list = append(list, link{path, host, tls != nil, shows, remedy})
	}
	return list
}

// publicSecrets are the secrets that config.toml.example and the documentation show.
var publicSecrets = []string{
	"-----BEGIN PRIVATE KEY-----", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE", "api-key", "aws-secret", "aws-token", "bearer-token", "change-me", "database-secret",
	"joes-password", "kafka-password", "key-password", "nats-password", "oauth-secret", "t0ken", "whsec_c2FtcGxlIHNhbXBsZSBzYW1wbGUgc2FtcGxlIQ==", "{}",
}

// secretIn judges a secret of the configuration itself. file says that it stands in the file,
// and not in the environment.
func (l *loader) secretIn(at keyPath, s Secret, file bool) {
	if s == "" {
		return
	}
	if name := at[len(at)-1]; file && name != "url" && name != "path" { // an address is not always a secret
		l.holdsSecrets = true
	}
	l.publicSecret(at, s)
}

// publicSecret warns of a secret that everybody can look up.
func (l *loader) publicSecret(at keyPath, s Secret) {
	if slices.Contains(publicSecrets, s.Reveal()) {
		l.warn(at.String(), "is the secret that the documentation shows as an example, so everybody knows it", "make one of your own, such as by: openssl rand -base64 32")
	}
}

// secretFile warns if other local users can read or replace a file that holds a secret.
func (l *loader) secretFile(path, name string) { l.exposed(path, name, true) }

// exposed warns if users other than the owner and the group can write a file, or can read one
// that is secret. A missing file gives no warning.
func (l *loader) exposed(path, name string, secret bool) {
	read, write := openToOthers(name)
	subject := name + " "
	if path == name {
		subject = ""
	}
	switch {
	case write:
		l.warn(path, subject+"can be written by every user of this machine", "chmod o-w "+name)
	case secret && read:
		l.warn(path, subject+"holds a secret and can be read by every user of this machine", "chmod o-rwx "+name+", and let the user that runs eventpusher own it")
	}
}

// openToOthers reports what users other than the owner and the group may do with a file. They need
// to get through each directory above it.
func openToOthers(name string) (read, write bool) {
	name, err := filepath.Abs(name)
	if err != nil {
		return false, false
	}
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return false, false
	}
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return false, false
	}
	if !othersReach(filepath.Dir(name)) {
		return false, false
	}
	return info.Mode()&0o004 != 0, info.Mode()&0o002 != 0
}

// othersReach reports whether users other than the owner and the group get through a directory
// and each one above it. Its path is absolute.
func othersReach(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

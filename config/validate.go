package config

import (
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"eventpusher/internal/jid"
	"eventpusher/internal/loopback"
)

// validate checks what concerns several keys, fills in defaults that depend on
// other keys and resolves file names. Single values have been checked already.
func (l *loader) validate(c *Config) {
	l.general(c)
	l.component(c)
	l.filters(c.Filters)
	l.backends(c)
	l.destinations(c)
	l.pushRules(&c.Pusher)
	l.appServer(c)
	l.pools(c)
	l.outbox(c)
	l.admin(c)
	l.meanings(c)
	l.unsafe(c)
}

func (l *loader) general(c *Config) {
	remedy := `list the XMPP domains that the server serves: hosts = ["example.org"]`
	if l.mentions("host_types") || l.mentions("default_server_domain") {
		remedy += "; dynamic domains have to be listed too, host_types and default_server_domain name none"
	}
	for _, name := range l.ignoredGeneral {
		if distance(name, "hosts", 2) < 2 {
			remedy = "did you mean hosts where general." + name + " stands?"
		}
	}
	l.domains("general.hosts", c.General.Hosts)
	l.require("general.hosts", remedy, len(c.General.Hosts) == 0)
	l.wildcards(c)
}

// wildcards checks that the link can ask some host whether it is there, and says what wildcards mean.
func (l *loader) wildcards(c *Config) {
	named := jid.Named(c.General.Hosts)
	switch {
	case len(named) == len(c.General.Hosts):
	case len(named) == 0:
		l.errorf("general.hosts", "has wildcards only", "list one domain by its name as well: the link asks it whether the server is there")
	default:
		l.note("general.hosts", "every domain that a wildcard stands for is trusted to say what its users do, also one of another server that reaches this one: "+
			"use wildcards for domains of your own only")
	}
}

func (l *loader) mentions(generalKey string) bool {
	return slices.Contains(l.ignoredGeneral, generalKey)
}

func (l *loader) component(c *Config) {
	k := &c.Component
	k.Name = l.domain("component.name", k.Name)
	l.require("component.name", `name the component's domain, as the server's configuration has it: name = "events.example.org"`, k.Name == "")
	l.require("component.secret", "set secret, secret_file or "+keyPath{"component", "secret"}.variable(), k.Secret == "")
	if k.Name != "" && jid.NewDomains(jid.Named(c.General.Hosts)...).Has(jid.JID(k.Name)) {
		l.errorf("component.name", quote(k.Name)+" is one of general.hosts: a component needs a domain of its own",
			`write a name such as "events.`+k.Name+`"`)
	}
	if k.MUCHosts == nil {
		k.MUCHosts = defaultMUCHosts(c.General.Hosts, k.Name)
	} else {
		l.domains("component.muc_hosts", k.MUCHosts)
		if k.Name != "" && jid.NewDomains(jid.Named(k.MUCHosts)...).Has(jid.JID(k.Name)) {
			l.errorf("component.muc_hosts", "contains the component's own name "+quote(k.Name), "list the domains of the chat rooms only")
		}
	}
	if k.Forwarders == nil {
		k.Forwarders = slices.Concat(c.General.Hosts, k.MUCHosts)
	} else {
		l.domains("component.forwarders", k.Forwarders)
	}
	l.feeds(k.Feeds)
	if k.ReconnectMin > k.ReconnectMax {
		l.errorf("component.reconnect_min", "is "+k.ReconnectMin.String()+", longer than reconnect_max, "+k.ReconnectMax.String(),
			"write a shorter one, or a longer reconnect_max")
	}
	l.tls(k.TLS, "component.tls", true)
}

// defaultMUCHosts are the names that servers give their room services by default:
// ejabberd and Prosody conference., MongooseIM muc. Served hosts and the component
// itself are none.
func defaultMUCHosts(hosts []string, component string) []string {
	rooms := make([]string, 0, 2*len(hosts))
	for _, host := range hosts {
		rooms = append(rooms, "conference."+host, "muc."+host)
	}
	return slices.DeleteFunc(rooms, func(room string) bool { return room == component || slices.Contains(hosts, room) })
}

func (l *loader) outbox(c *Config) {
	l.natsServers(&c.Outbox.NATS.NATSServers, keyPath{"outbox", "nats"}, c.Outbox.Engine == "nats")
}

func (l *loader) natsServers(n *NATSServers, at keyPath, used bool) {
	n.CredentialsFile = l.keptFile(n.CredentialsFile, at.with("credentials_file").String(), used)
	l.tls(n.TLS, at.with("tls").String(), used)
	if !used {
		return
	}
	remedy := "set password or password_file, the password of username"
	if at[0] == "outbox" { // not in an array, so the environment can set it
		remedy = "set password, password_file or " + at.with("password").variable() + ", the password of username"
	}
	l.require(at.with("password").String(), remedy, n.Username != "" && n.Password == "")
	l.require(at.with("username").String(), "name the user of the password", n.Username == "" && n.Password != "")
	if n.CredentialsFile != "" && n.Username != "" {
		l.errorf(at.with("username").String(), "stands beside credentials_file, and only one of them can be used", "remove one of them")
	}
}

func (l *loader) admin(c *Config) {
	if c.Admin.Listen == "" {
		return
	}
	host, _, _ := net.SplitHostPort(c.Admin.Listen)
	l.require("admin.token", "set token, token_file or "+keyPath{"admin", "token"}.variable()+
		`: admin.listen = `+strconv.Quote(c.Admin.Listen)+` can be reached from other machines ("127.0.0.1:9090" cannot)`,
		c.Admin.Token == "" && !loopback.Host(host))
}

// tls checks the files of a TLS section that is used. Of one that is not, only
// names are resolved: a pool of MongooseIM's own may name files of its machine.
func (l *loader) tls(t *TLS, path string, used bool) {
	if t == nil {
		return
	}
	t.CertFile = l.file(t.CertFile, path+".certfile", used)
	t.KeyFile = l.keptFile(t.KeyFile, path+".keyfile", used)
	t.CACertFile = l.file(t.CACertFile, path+".cacertfile", used)
	for i, name := range t.CRLFiles {
		t.CRLFiles[i] = l.file(name, path+".crl_files", used)
	}
	if !used {
		return
	}
	if t.VerifyMode == "none" {
		l.warn(path+".verify_mode", `"none" checks no certificate: everybody on the way to the server can read and change everything`,
			`write "peer" and the authority's certificate as cacertfile, or "selfsigned_peer"`)
	}
	if slices.Contains(t.Versions, "tlsv1") || slices.Contains(t.Versions, "tlsv1.1") {
		l.warn(path+".versions", "allows a version below TLS 1.2, whose ciphers and digests can be broken",
			`leave versions out, or write ["tlsv1.2", "tlsv1.3"]; if the server has no other, update it`)
	}
	if t.CertFile != "" {
		l.require(path+".keyfile", "name the private key of certfile", t.KeyFile == "")
	} else if t.KeyFile != "" {
		l.require(path+".certfile", "name the certificate of keyfile", true)
	}
}

// file resolves a file name and, when the file will be used, checks that it exists.
func (l *loader) file(name, path string, used bool) string {
	if name == "" {
		return ""
	}
	resolved := l.resolve(name)
	if !used {
		return resolved
	}
	info, err := os.Stat(resolved)
	switch {
	case err != nil:
		l.errorf(path, "cannot read "+resolved+": "+reason(err), readRemedy(err))
	case info.IsDir():
		l.errorf(path, resolved+" is a directory", "name a file")
	}
	return resolved
}

// keptFile is file for one that holds a secret.
func (l *loader) keptFile(name, path string, used bool) string {
	resolved := l.file(name, path, used)
	if used && resolved != "" {
		l.secretFile(path, resolved)
	}
	return resolved
}

// domains folds a list of domains, and complains about the first one that stands there
// twice, in whichever form.
func (l *loader) domains(path string, list []string) {
	for i := range list {
		list[i] = l.domain(path, list[i])
	}
	for i, name := range list {
		if slices.Contains(list[:i], name) || !jid.Wild(name) && jid.NewDomains(jid.Named(list[:i])...).Has(jid.JID(name)) {
			l.errorf(path, quote(name)+" stands there twice", "remove one of them")
			return
		}
	}
}

// domain folds an XMPP domain, and complains about one that IDNA refuses: no server can
// have it in the form in which it is compared.
func (l *loader) domain(path, name string) string {
	if before, after, ok := strings.Cut(name, "*."); ok && jid.Wild(name) {
		return before + "*." + l.domain(path, after)
	}
	folded, err := jid.FoldDomain(name)
	if err != nil {
		l.errorf(path, quote(name)+" is not a domain ("+err.Error()+")",
			"write it as the server does in its own addresses, in Unicode or as A-label (xn--)")
		return name
	}
	if old := jid.IDNA2003(folded); old != folded {
		l.warn(path, quote(name)+" is written "+quote(string(old))+" by servers that follow IDNA2003, such as Prosody and ejabberd",
			"write "+quote(string(old))+" if the addresses of its users end so")
	}
	return folded.String()
}

// unique complains about the first item that stands twice in a list.
func (l *loader) unique(path string, items []string) {
	for i, item := range items {
		if slices.Contains(items[:i], item) {
			l.errorf(path, quote(item)+" stands there twice", "remove one of them")
			return
		}
	}
}

// tagList writes the tags of pools for a message.
func tagList(tags []string) string {
	if len(tags) == 0 {
		return "there is none"
	}
	slices.Sort(tags)
	return "there are: " + strings.Join(tags, ", ")
}

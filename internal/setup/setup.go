// Package setup makes a first configuration: a config.toml, and the commands that attach the
// program to an XMPP server.
package setup

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"unicode"

	"eventpusher/internal/jid"
	"eventpusher/internal/loopback"
)

// Options say what is attached to what.
type Options struct {
	Server string   // prosody, ejabberd, mongooseim or openfire
	Hosts  []string // the XMPP domains, at least one
	Name   string   // of the component; empty: events. before the first host
	Rooms  []string // the domains of the chat rooms that the server has
	To     string   // a type of destination, or the URL of one; empty: http
	Config string   // how the commands name config.toml
}

//go:embed *.tmpl
var files embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"toml": strconv.Quote, "lua": strconv.Quote, "list": list,
}).ParseFS(files, "*.tmpl"))

func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(v)
	}
	return strings.Join(quoted, ", ")
}

// ports are those on which the servers take components by default.
var ports = map[string]int{"prosody": 5347, "ejabberd": 5347, "mongooseim": 8888, "openfire": 5275}

// Servers returns the names of the servers that are known.
func Servers() []string { return []string{"prosody", "ejabberd", "mongooseim", "openfire"} }

// destination is where events go.
type destination struct {
	Type    string
	URL     string // empty: it is known by something else
	Local   bool   // URL is of this machine
	Address string // host:port of URL
	TLS     bool
}

// schemes are those of URLs that -to takes.
var schemes = map[string]struct {
	kind, port string
	tls        bool
}{
	"http":  {"http", "80", false},
	"https": {"http", "443", true},
	"amqp":  {"rabbit", "5672", false},
	"amqps": {"rabbit", "5671", true},
	"nats":  {"nats", "4222", false},
	"tls":   {"nats", "4222", true},
	"kafka": {"kafka", "9092", false},
}

// types are the types of destinations, and where they are until something else is said.
var types = []struct{ name, url string }{
	{"http", "http://localhost:8000/events"},
	{"rabbit", "amqp://localhost"},
	{"nats", "nats://localhost"},
	{"kafka", "kafka://localhost"},
	{"sns", ""},
}

// Types returns the types of destinations.
func Types() (names []string) {
	for _, t := range types {
		names = append(names, t.name)
	}
	return names
}

// Plan is a first configuration.
type Plan struct {
	Config   []byte // config.toml; it holds a secret
	Commands []byte // for a shell on the server's machine; they hold the secret, too
}

// domain is what may stand in the server's configuration without being taken for more.
var domain = regexp.MustCompile(`^[\p{L}\p{M}\p{N}_.-]+$`)

// Make makes a configuration with a fresh secret. An error says which option is wrong.
func Make(o Options) (Plan, error) {
	if !slices.Contains(Servers(), o.Server) {
		return Plan{}, fmt.Errorf("-server is one of %s", strings.Join(Servers(), ", "))
	}
	if len(o.Hosts) == 0 {
		return Plan{}, fmt.Errorf("-host is the XMPP domain of the server, what follows the @ in its users' addresses")
	}
	if o.Name == "" {
		o.Name = "events." + o.Hosts[0]
	}
	for _, name := range slices.Concat(o.Hosts, o.Rooms, []string{o.Name}) {
		if _, err := jid.FoldDomain(name); err != nil || !domain.MatchString(name) {
			return Plan{}, fmt.Errorf("%q is no domain", name)
		}
	}
	if slices.Contains(o.Hosts, o.Name) {
		return Plan{}, fmt.Errorf("-name is a domain of the component's own, not that of users: %s", o.Name)
	}
	to, err := where(o.To)
	if err != nil {
		return Plan{}, err
	}
	values := struct {
		Options
		To      destination
		Address string
		Secret  string
		First   string
	}{o, to, net.JoinHostPort("localhost", strconv.Itoa(ports[o.Server])), rand.Text(), o.Hosts[0]}
	var plan Plan
	for name, text := range map[string]*[]byte{"config.toml.tmpl": &plan.Config, o.Server + ".sh.tmpl": &plan.Commands} {
		var out bytes.Buffer
		if err := templates.ExecuteTemplate(&out, name, values); err != nil {
			return Plan{}, err
		}
		*text = out.Bytes()
	}
	return plan, nil
}

// where finds the destination that -to means.
func where(to string) (destination, error) {
	to = cmp.Or(to, types[0].name)
	for _, t := range types {
		if t.name == to && t.url == "" {
			return destination{Type: t.name}, nil
		}
		if t.name == to {
			to = t.url
		}
	}
	if strings.ContainsFunc(to, unicode.IsSpace) {
		return destination{}, fmt.Errorf("-to holds blanks: %q", to)
	}
	u, err := url.Parse(to)
	if err == nil && u.User != nil {
		return destination{}, errors.New("-to must not hold a password, which other users of this machine could see: write it into the file afterwards")
	}
	if err == nil && u.Hostname() != "" {
		if s, ok := schemes[u.Scheme]; ok {
			return destination{s.kind, to, loopback.Host(u.Hostname()), net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), s.port)), s.tls}, nil
		}
	}
	return destination{}, fmt.Errorf("-to is one of %s, or a URL that begins with %s", strings.Join(Types(), ", "), strings.Join(slices.Sorted(maps.Keys(schemes)), ", "))
}

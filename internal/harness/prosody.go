//go:build linux

package harness

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ProsodyOptions says how a Prosody differs from the plain one: users alice,
// bob, carol and dave, rooms at conference.localhost, the component
// events.localhost with the secret "secret", and the modules roster, saslauth,
// disco, ping, offline, smacks and carbons.
type ProsodyOptions struct {
	Hosts      []string // virtual hosts; every user exists on each
	Users      []string
	MUC        string   // host of the rooms
	Components []string // names; all attach at the same port
	Modules    []string // more modules for the virtual hosts, such as "mam"
	// Firewall loads mod_firewall with rules that copy everything it can to the
	// first component and keep users from addressing presences to it.
	Firewall bool
	// FirewallRules loads mod_firewall with these rule files instead, given
	// relative to the module's root; example.org in them becomes localhost.
	FirewallRules []string
	// EventFeed loads feeds/prosody's mod_event_feed for the first component on
	// every virtual host and on the host of the rooms.
	EventFeed bool
	// PluginPaths are further directories of modules, relative to the module's root.
	PluginPaths []string
	// Privilege grants every component XEP-0356 presence, roster and messages.
	Privilege bool
	// DelegatePush delegates urn:xmpp:push:0 to the first component (XEP-0355).
	DelegatePush bool
	// Federation lets the server talk to those that Federate makes.
	Federation bool
	// Accounts lets Register and Unregister work.
	Accounts bool
	// Config is Lua for the global section.
	Config string
	// File is a configuration, relative to the module's root, that takes the place of all
	// that other options say of the configuration. The ports, the interfaces and the plugins
	// in it become those of the test; $COMPONENT_SECRET is "secret".
	File string
}

// Prosody starts a Prosody for one test; that takes about a third of a second.
func Prosody(t testing.TB, o ProsodyOptions) *XMPPServer {
	t.Helper()
	o.Hosts = orDefault(o.Hosts, defaultHosts)
	o.Users = orDefault(o.Users, defaultUsers)
	o.Components = orDefault(o.Components, defaultComponents)
	o.MUC = cmp.Or(o.MUC, defaultMUC)

	n := 2
	if o.Federation {
		n = 3
	}
	s, ports := startServer(t, "prosody", n, func(s *server, ports []int) error {
		return prepareProsody(s, ports, o)
	})
	x := &XMPPServer{
		Domain: o.Hosts[0], MUC: o.MUC, Component: o.Components[0], Secret: defaultSecret,
		t: t, s: s, c2s: loopback(ports[0]), components: prosodyComponents(o.Components, ports[1]),
	}
	if o.Federation {
		x.s2s = loopback(ports[2])
	}
	if o.Accounts {
		x.accounts = prosodyShell{s}
	}
	return x
}

func prosodyComponents(names []string, port int) map[string]componentPorts {
	all := make(map[string]componentPorts)
	for _, name := range names {
		all[name] = componentPorts{plain: loopback(port)}
	}
	return all
}

func prepareProsody(s *server, ports []int, o ProsodyOptions) error {
	prosody, err := exec.LookPath("prosody")
	if err != nil {
		return fmt.Errorf("%w (run internal/harness/install.sh)", err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "conf.d"), 0o755); err != nil { // for what a test adds
		return err
	}
	for _, host := range o.Hosts {
		accounts := filepath.Join(s.dir, "data", prosodyFileName(host), "accounts")
		if err := os.MkdirAll(accounts, 0o755); err != nil {
			return err
		}
		for _, user := range o.Users {
			account := fmt.Sprintf("return { [\"password\"] = %q; };\n", Password)
			if err := os.WriteFile(filepath.Join(accounts, prosodyFileName(user)+".dat"), []byte(account), 0o644); err != nil {
				return err
			}
		}
	}
	rules, err := writeRules(s, o)
	if err != nil {
		return err
	}
	modules := slices.Concat([]string{"roster", "saslauth", "disco", "ping", "offline", "smacks", "carbons"}, o.Modules)
	if len(rules) > 0 {
		modules = append(modules, "firewall")
	}
	if o.Privilege {
		modules = append(modules, "privilege")
	}
	if o.EventFeed {
		modules = append(modules, "event_feed")
	}
	if o.DelegatePush {
		modules = append(modules, "delegation")
	}
	if o.Accounts {
		modules = append(modules, "admin_shell")
	}
	federationPort := 0
	if o.Federation {
		modules = append(modules, "dialback")
		federationPort = ports[2]
	}
	plugins := o.PluginPaths
	if o.EventFeed {
		plugins = append([]string{"feeds/prosody"}, plugins...)
	}
	if plugins, err = underModuleRoot(plugins); err != nil {
		return err
	}
	err = s.render("prosody.cfg.lua", "prosody.cfg.lua", map[string]any{
		"Dir": s.dir, "C2SPort": ports[0], "ComponentPort": ports[1], "Modules": modules, "Rules": rules,
		"Privilege": o.Privilege, "Components": o.Components, "Config": o.Config, "Hosts": o.Hosts, "MUC": o.MUC,
		"Secret": defaultSecret, "PluginPaths": plugins, "EventFeed": o.EventFeed, "DelegatePush": o.DelegatePush,
		"FederationPort": federationPort,
	})
	if err != nil {
		return err
	}
	if o.File != "" {
		if err := writeProsodyFile(s, ports, o.File); err != nil {
			return err
		}
	}

	s.args = []string{prosody, "--config", filepath.Join(s.dir, "prosody.cfg.lua"), "-F"}
	s.env = append(baseEnv(s.dir), "COMPONENT_SECRET="+defaultSecret)
	s.logs = []string{"output.log", "prosody.log"}
	components := prosodyComponents(o.Components, ports[1])
	s.ready = func(limit time.Duration) error {
		return streamsAnswer(limit, o.Hosts[0], loopback(ports[0]), components)
	}
	return nil
}

// writeProsodyFile makes a configuration of the module's one of a private server.
func writeProsodyFile(s *server, ports []int, file string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return err
	}
	first := fmt.Sprintf(`run_as_root = true
daemonize = false
pidfile = "%[1]s/prosody.pid"
data_path = "%[1]s/data"
certificates = "%[1]s/certs"
interfaces = { "127.0.0.1" }
c2s_ports = { %[2]d }
s2s_ports = { }
http_ports = { }
https_ports = { }
`, s.dir, ports[0])
	all := strings.NewReplacer(`{ 5347 }`, fmt.Sprintf("{ %d }", ports[1]), `{ "*" }`, `{ "127.0.0.1" }`,
		"/usr/local/lib/prosody/modules", filepath.Join(root, "feeds", "prosody")).Replace(string(text))
	return os.WriteFile(filepath.Join(s.dir, "prosody.cfg.lua"), []byte(first+all), 0o644)
}

// writeRules puts the firewall's rules into the server's directory.
func writeRules(s *server, o ProsodyOptions) (names []string, err error) {
	if len(o.FirewallRules) == 0 {
		if !o.Firewall {
			return nil, nil
		}
		err := s.render("events.pfw", "events.pfw", map[string]string{"Component": o.Components[0], "MUC": o.MUC})
		return []string{filepath.Join(s.dir, "events.pfw")}, err
	}
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	for _, rules := range o.FirewallRules {
		text, err := os.ReadFile(filepath.Join(root, rules))
		if err != nil {
			return nil, err
		}
		name := filepath.Join(s.dir, filepath.Base(rules))
		text = []byte(strings.ReplaceAll(string(text), "example.org", "localhost"))
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// underModuleRoot makes names of directories relative to the module's root
// absolute. It looks at all that is in them, so that go test knows that its
// cached results are of no more use when a file changes.
func underModuleRoot(names []string) ([]string, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	all := make([]string, 0, len(names))
	for _, name := range names {
		name = filepath.Join(root, name)
		err := filepath.WalkDir(name, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			_, err = os.Stat(path)
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, name)
	}
	return all, nil
}

// prosodyFileName encodes a name as Prosody's internal storage does: anything
// but letters and digits becomes %xx.
func prosodyFileName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}

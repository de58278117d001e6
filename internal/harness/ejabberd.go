//go:build linux

package harness

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// EjabberdOptions says how an ejabberd differs from the plain one: users alice,
// bob, carol and dave, rooms at conference.localhost, the component
// events.localhost with the secret "secret" on a plain and a TLS listener, and
// the modules of a usual installation (roster, disco, ping, offline messages,
// stream management, carbons, MUC, PEP, MAM, blocking).
type EjabberdOptions struct {
	Hosts      []string // virtual hosts; every user exists on each
	Users      []string
	MUC        string   // host of the rooms
	Components []string // names; each has listeners of its own
	// ServiceLog loads mod_service_log for the first component.
	ServiceLog bool
	// Privilege grants every component XEP-0356 presence, roster and messages.
	Privilege bool
	// EventFeed compiles feeds/ejabberd and loads mod_event_feed for the first
	// component. Options of it are YAML below the module, indented by four spaces.
	EventFeed        bool
	EventFeedOptions string
	// Eval is Erlang that is evaluated before the server starts.
	Eval string
	// Node gives the Erlang node a name, "NAME@127.X.Y.Z", by which others can join it into
	// a cluster. All of a cluster take the same NodePort, each on its own address.
	Node     string
	NodePort int
	// DelegatePush delegates urn:xmpp:push:0 to the components (XEP-0355).
	DelegatePush bool
	// Federation lets the server talk to those that Federate makes.
	Federation bool
	// Accounts lets Register and Unregister work.
	Accounts bool
	// API lists further commands that API may call.
	API []string
	// Unchecked are components that may write in any name: their listener has no from check.
	Unchecked []string
	// RoomOptions is YAML, the options of new rooms in braces.
	RoomOptions string
	// NodesBy is the one who may create nodes at pubsub.localhost; empty lets everybody.
	NodesBy string
	// StreamManagement is YAML, the options of mod_stream_mgmt in braces.
	StreamManagement string
	// Modules is YAML below "modules:", indented by two spaces.
	Modules string
}

// ejabberdStarted is what ejabberd logs when its modules are loaded; its ports
// are open before that.
const ejabberdStarted = "is started in the node"

// Ejabberd starts an ejabberd for one test; that takes 2-4 s.
func Ejabberd(t testing.TB, o EjabberdOptions) *XMPPServer {
	t.Helper()
	o.Hosts = orDefault(o.Hosts, defaultHosts)
	o.Users = orDefault(o.Users, defaultUsers)
	o.Components = orDefault(o.Components, defaultComponents)
	o.MUC = cmp.Or(o.MUC, defaultMUC)

	n := 1 + 2*len(o.Components)
	if o.api() {
		n++
	}
	if o.Federation {
		n++
	}
	s, ports := startServer(t, "ejabberd", n, func(s *server, ports []int) error {
		return prepareEjabberd(s, ports, o)
	})
	x := &XMPPServer{
		Domain: o.Hosts[0], MUC: o.MUC, Component: o.Components[0], Secret: defaultSecret,
		CAFile: filepath.Join(s.dir, "ca.pem"),
		t:      t, s: s, c2s: loopback(ports[0]), components: ejabberdComponents(o.Components, ports[1:]),
	}
	if o.api() {
		x.accounts = ejabberdAPI{loopback(ports[1+2*len(o.Components)])}
	}
	if o.Federation {
		x.s2s = loopback(ports[n-1])
	}
	for _, host := range o.Hosts {
		for _, user := range o.Users {
			x.register(t, user, host)
		}
	}
	return x
}

// api reports whether the server listens for mod_http_api.
func (o *EjabberdOptions) api() bool { return o.Accounts || len(o.API) > 0 }

// API calls a command of an ejabberd that was made with it in the option API.
func (s *XMPPServer) API(command string, args map[string]string) {
	s.t.Helper()
	s.must(command, s.accounts.(ejabberdAPI).call(command, args))
}

func ejabberdComponents(names []string, ports []int) map[string]componentPorts {
	all := make(map[string]componentPorts)
	for i, name := range names {
		all[name] = componentPorts{plain: loopback(ports[2*i]), tls: loopback(ports[2*i+1])}
	}
	return all
}

func prepareEjabberd(s *server, ports []int, o EjabberdOptions) error {
	erl, err := exec.LookPath("erl")
	if err != nil {
		return fmt.Errorf("%w (run internal/harness/install.sh)", err)
	}
	// Debian keeps ejabberd and its libraries beside each other, outside of
	// Erlang's own library directory.
	libs, err := filepath.Glob("/usr/lib/*/ejabberd-*")
	if err != nil || len(libs) == 0 {
		return fmt.Errorf("no ejabberd below /usr/lib (run internal/harness/install.sh)")
	}
	for _, name := range []string{"home", "db", "log"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o755); err != nil {
			return err
		}
	}
	certificate := filepath.Join(s.dir, "server.pem")
	names := slices.Concat(o.Hosts, o.Components, []string{o.MUC})
	if err := writeCertificate(certificate, filepath.Join(s.dir, "ca.pem"), names); err != nil {
		return err
	}
	type listener struct {
		Component     string
		Port, TLSPort int
		Unchecked     bool
	}
	var listeners []listener
	for i, name := range o.Components {
		listeners = append(listeners, listener{name, ports[1+2*i], ports[2+2*i], slices.Contains(o.Unchecked, name)})
	}
	apiPort, federationPort := 0, 0
	if o.api() {
		apiPort = ports[1+2*len(o.Components)]
	}
	if o.Federation {
		federationPort = ports[len(ports)-1]
	}
	err = s.render("ejabberd.yml", "ejabberd.yml", map[string]any{
		"Hosts": o.Hosts, "Certificate": certificate, "C2SPort": ports[0], "Listeners": listeners,
		"Components": o.Components, "Secret": defaultSecret, "MUC": o.MUC, "ServiceLog": o.ServiceLog,
		"Privilege": o.Privilege, "Modules": o.Modules, "NodesBy": o.NodesBy, "StreamManagement": cmp.Or(o.StreamManagement, "{}"),
		"EventFeed": o.EventFeed, "DelegatePush": o.DelegatePush, "EventFeedOptions": o.EventFeedOptions,
		"FederationPort": federationPort, "APIPort": apiPort, "API": slices.Concat([]string{"register", "unregister"}, o.API),
		"RoomOptions": cmp.Or(o.RoomOptions, "{}"),
	})
	if err != nil {
		return err
	}

	log := filepath.Join(s.dir, "log", "ejabberd.log")
	// Started like this Erlang needs no epmd.
	s.args = []string{erl, "-noinput", "+K", "true", "+P", "250000", "+sbwt", "none",
		"-mnesia", "dir", fmt.Sprintf("%q", filepath.Join(s.dir, "db"))}
	if o.Node != "" {
		// Without the port mapper of the machine: everybody knows the port.
		_, address, _ := strings.Cut(o.Node, "@")
		s.args = append(s.args, "-name", o.Node, "-setcookie", "harness", "-start_epmd", "false", "-erl_epmd_port", fmt.Sprint(o.NodePort),
			"-kernel", "inet_dist_use_interface", "{"+strings.ReplaceAll(address, ".", ",")+"}")
	}
	if o.Eval != "" {
		s.args = append(s.args, "-eval", o.Eval)
	}
	if o.EventFeed {
		ebin := filepath.Join(s.dir, "ebin")
		if err := compileEventFeed(ebin, libs[0]); err != nil {
			return err
		}
		s.args = append(s.args, "-pa", ebin)
	}
	s.args = append(s.args, "-s", "ejabberd")
	s.env = append(baseEnv(s.dir),
		"ERL_LIBS="+filepath.Dir(libs[0]),
		"EJABBERD_CONFIG_PATH="+filepath.Join(s.dir, "ejabberd.yml"),
		"EJABBERD_LOG_PATH="+log,
		"ERL_CRASH_DUMP="+filepath.Join(s.dir, "log", "erl_crash.dump"),
	)
	s.logs = []string{"output.log", "log/ejabberd.log"}
	components := ejabberdComponents(o.Components, ports[1:])
	s.ready = func(limit time.Duration) error {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if bytes.Count(text, []byte(ejabberdStarted)) < s.starts {
			return fmt.Errorf("not yet in its log: %q", ejabberdStarted)
		}
		return streamsAnswer(limit, o.Hosts[0], loopback(ports[0]), components)
	}
	return nil
}

// compileEventFeed puts the beams of feeds/ejabberd into a new directory.
func compileEventFeed(ebin, ejabberd string) error {
	erlc, err := exec.LookPath("erlc")
	if err != nil {
		return fmt.Errorf("%w (run internal/harness/install.sh)", err)
	}
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	feed := filepath.Join(root, "feeds", "ejabberd")
	sources, err := filepath.Glob(filepath.Join(feed, "src", "*.erl"))
	if err != nil || len(sources) == 0 {
		return fmt.Errorf("no sources in %s", feed)
	}
	// Debian calls the library p1_xmpp, others xmpp.
	headers, err := filepath.Glob("/usr/lib/erlang/lib/*xmpp-*/include")
	if err != nil || len(headers) == 0 {
		return fmt.Errorf("no headers of xmpp below /usr/lib/erlang/lib (run internal/harness/install.sh)")
	}
	if err := os.Mkdir(ebin, 0o755); err != nil {
		return err
	}
	args := []string{"-Wall", "-Werror", "-o", ebin, "-I", filepath.Join(feed, "include"),
		"-I", headers[0], "-I", filepath.Join(ejabberd, "include"), "-pa", filepath.Join(ejabberd, "ebin")}
	out, err := exec.Command(erlc, append(args, sources...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("compile mod_event_feed: %w\n%s", err, out)
	}
	return nil
}

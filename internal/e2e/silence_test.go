package e2e

import (
	"cmp"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"eventpusher/internal/control"
	"eventpusher/internal/harness"
)

// noticeable is a way to misconfigure or break the link or a feed, and the three signs by
// which an operator learns of it: a log line that names the remedy, a metric and a line
// of doctor. Each sign is a regular expression for one line.
type noticeable struct {
	name    string
	address func(s *harness.XMPPServer) string // default: that of events.localhost
	hosts   string                             // [general] hosts as TOML; default: localhost
	// component is put into [component], CAFILE in it being the server's; more is put
	// behind all.
	component, more string
	env             []string
	// before is done on the server before the program runs, meanwhile afterwards, as soon
	// as it has the metric once, if that is set.
	before, meanwhile func(t *testing.T, s *harness.XMPPServer)
	once              string

	log, metric, doctor string
}

// start runs the program against the server until the end of the test. Rows that take
// their time are all started before the first one is checked.
func (n noticeable) start(t *testing.T, server *harness.XMPPServer) *noticing {
	t.Helper()
	address := server.ComponentAddr
	if n.address != nil {
		address = func(string) string { return n.address(server) }
	}
	c := &noticing{noticeable: n, w: &world{t: t, env: n.env, sink: harness.HTTPSink(t)}, outbox: filepath.Join(t.TempDir(), "outbox")}
	if n.before != nil {
		n.before(t, server)
	}
	c.began = time.Now()
	c.w.run(fmt.Sprintf(`
[component]
address = %q
name = "events.localhost"
secret = "secret"
%s
[general]
hosts = [%s]
[admin]
listen = "127.0.0.1:0"
[outbox]
path = %q
[[modules.mod_event_pusher.http.handlers]]
name = "hook"
[outgoing_pools.http.http_pool.connection]
host = %q
%s`, address("events.localhost"), strings.ReplaceAll(n.component, "CAFILE", server.CAFile), cmp.Or(n.hosts, `"localhost"`), c.outbox, c.w.sink.URL(), n.more))
	if n.once != "" {
		c.sign(t, "metric", n.once, c.metrics)
	}
	if n.meanwhile != nil {
		n.meanwhile(t, server)
	}
	return c
}

// noticing is the program of a row.
type noticing struct {
	noticeable
	w      *world
	outbox string
	began  time.Time
}

// sign waits for a line.
func (c *noticing) sign(t *testing.T, name, pattern string, text func() string) {
	t.Helper()
	line, seen := regexp.MustCompile("(?m)"+pattern), ""
	if !poll(limit, func() bool { seen = text(); return line.MatchString(seen) }) {
		t.Errorf("no %s like %s in\n%s", name, pattern, seen)
	}
}

func (c *noticing) metrics() string {
	_, body := c.w.get("/metrics")
	return body
}

// check waits for the signs.
func (c *noticing) check(t *testing.T) {
	c.sign(t, "log line", c.log, c.w.log.String)
	c.sign(t, "metric", c.metric, c.metrics)
	t.Logf("figures: noticed within %v", time.Since(c.began).Round(100*time.Millisecond))
	c.sign(t, "line of doctor", c.doctor, func() string {
		client, err := control.Dial(t.Context(), c.outbox)
		if err != nil {
			t.Fatal(err)
		}
		found, err := client.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var lines strings.Builder
		for _, f := range found {
			fmt.Fprintln(&lines, f)
		}
		return lines.String()
	})
}

// connects is the metric of failed attempts to attach.
func connects(result string) string {
	return `^eventpusher_component_connects_total\{result="` + result + `"\} [1-9]`
}

// TestSilenceLink keeps the program from attaching to each server, in all ways.
func TestSilenceLink(t *testing.T) {
	const down = "not attached to the XMPP server.*"
	secret := noticeable{
		name: "wrong secret", env: []string{"EVENTPUSHER_COMPONENT_SECRET=wrong"},
		log: down + "make .component. secret equal", metric: connects("not_authorized"), doctor: "^FAIL +server .*secret",
	}
	clientPort := noticeable{
		name: "the port of clients", address: (*harness.XMPPServer).C2SAddr,
		log: down + "set .component. address to the component port", metric: connects("wrong_port"), doctor: "^FAIL +server .*component port",
	}
	wantsTLS := noticeable{
		name: "TLS on a port without", component: "tls = { verify_mode = \"none\" }",
		log: down + "remove tls from .component.", metric: connects("tls"), doctor: "^FAIL +server .*remove tls",
	}
	for _, f := range []struct {
		name  string
		start func(t *testing.T) *harness.XMPPServer
		rows  []noticeable
	}{
		{
			"prosody", func(t *testing.T) *harness.XMPPServer {
				server := harness.Prosody(t, harness.ProsodyOptions{Users: users})
				server.AttachComponent(t, server.Component) // is there first
				return server
			},
			[]noticeable{
				secret, clientPort, {
					name: "unknown name", env: []string{"EVENTPUSHER_COMPONENT_NAME=other.localhost"},
					log: down + "declare it there", metric: connects("host_unknown"), doctor: "^FAIL +server .*declare it there",
				}, {
					name: "name taken",
					log:  down + "stop the other one", metric: connects("conflict"), doctor: "^FAIL +server .*stop the other one",
				}, {
					name: "nothing listens", address: func(*harness.XMPPServer) string { return "127.0.0.1:1" },
					log: down + "start the XMPP server", metric: connects("refused"), doctor: "^FAIL +server .*start the XMPP server",
				}, {
					name: "the server's name does not resolve", address: func(*harness.XMPPServer) string { return "nowhere.invalid:5347" },
					log: down + "correct .component. address", metric: connects("dns"), doctor: "^FAIL +server .*correct .component. address",
				},
			},
		}, {
			"ejabberd", func(t *testing.T) *harness.XMPPServer {
				return harness.Ejabberd(t, harness.EjabberdOptions{Users: users})
			},
			[]noticeable{
				secret, clientPort, wantsTLS, {
					name: "unknown name", env: []string{"EVENTPUSHER_COMPONENT_NAME=other.localhost"},
					log: down + "must list this name", metric: connects("not_authorized"), doctor: "^FAIL +server .*must list this name",
				}, {
					name: "no TLS on a port with", address: tlsAddress,
					log: down + "add tls to .component.|" + down + "whether that port wants TLS", metric: connects("(tls|closed)"), doctor: "^FAIL +server .*(add tls|wants TLS)",
				}, {
					name: "unknown authority", address: tlsAddress, component: "tls = { verify_mode = \"peer\" }",
					log: down + "tls.cacertfile", metric: connects("tls"), doctor: "^FAIL +server .*cacertfile",
				}, {
					name: "a certificate for another name", address: tlsAddress,
					component: `tls = { cacertfile = "CAFILE", server_name_indication = { host = "elsewhere.localhost" } }`,
					log:       down + "tls.server_name_indication.host", metric: connects("tls"), doctor: "^FAIL +server .*server_name_indication",
				},
			},
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			server := f.start(t)
			for _, row := range f.rows {
				t.Run(row.name, func(t *testing.T) {
					c := row.start(t, server)
					c.check(t)
					if code, reasons := c.w.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(reasons, "not connected") {
						t.Errorf("readyz: %d %s", code, reasons)
					}
				})
			}
		})
	}
}

func tlsAddress(s *harness.XMPPServer) string { return s.ComponentTLSAddr("events.localhost") }

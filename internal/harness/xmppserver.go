//go:build linux

package harness

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"
)

//go:embed templates
var templates embed.FS

// Password is the password of every user of every server.
const Password = "pw"

// XMPPServer is a running Prosody or ejabberd. Its methods fail the test it was
// made for.
type XMPPServer struct {
	// Domain is the first virtual host, "localhost" unless an option says
	// otherwise; MUC is the host of the rooms.
	Domain, MUC string
	// Component is the first component's name, Secret every component's secret.
	Component, Secret string
	// CAFile holds, in PEM, the certificate authority of the TLS listeners;
	// empty on Prosody, which has none.
	CAFile string

	t          testing.TB
	s          *server
	c2s        string
	s2s        string // empty: it does not federate
	components map[string]componentPorts
	accounts   accountCommands // nil without the option Accounts
}

// componentPorts are the addresses where one component attaches.
type componentPorts struct{ plain, tls string }

// Names of users and hosts that the options of both servers leave out.
var (
	defaultUsers      = []string{"alice", "bob", "carol", "dave"}
	defaultHosts      = []string{"localhost"}
	defaultComponents = []string{"events.localhost"}
)

const (
	defaultMUC    = "conference.localhost"
	defaultSecret = "secret"
)

// Stop ends the server cleanly.
func (s *XMPPServer) Stop() { s.t.Helper(); s.must("stop", s.s.stop()) }

// Kill ends the server as kill -9 does.
func (s *XMPPServer) Kill() { s.t.Helper(); s.must("kill", s.s.kill()) }

// Start starts a stopped or killed server on the same ports with its data.
func (s *XMPPServer) Start() { s.t.Helper(); s.must("start", s.s.start()) }

// Restart is Stop and Start.
func (s *XMPPServer) Restart() {
	s.t.Helper()
	s.Stop()
	s.Start()
}

// Pause freezes the server: connections stay open, nothing is answered.
func (s *XMPPServer) Pause() { s.t.Helper(); s.must("pause", s.s.freeze(true)) }

// Resume lets a paused server go on.
func (s *XMPPServer) Resume() { s.t.Helper(); s.must("resume", s.s.freeze(false)) }

func (s *XMPPServer) must(verb string, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", verb, s.s.name, err, s.s.tail())
	}
}

// PID is the server's process id, 0 while it is down.
func (s *XMPPServer) PID() int {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	return s.s.pid
}

// C2SAddr is the host:port for clients.
func (s *XMPPServer) C2SAddr() string { return s.c2s }

// ComponentAddr is the host:port for the component of that name (on ejabberd
// each has a listener of its own).
func (s *XMPPServer) ComponentAddr(name string) string {
	s.t.Helper()
	return s.ports(name).plain
}

// ComponentTLSAddr is the host:port for the component of that name over direct
// TLS; ejabberd only.
func (s *XMPPServer) ComponentTLSAddr(name string) string {
	s.t.Helper()
	addr := s.ports(name).tls
	if addr == "" {
		s.t.Fatalf("%s has no TLS for components", s.s.name)
	}
	return addr
}

func (s *XMPPServer) ports(name string) componentPorts {
	s.t.Helper()
	ports, ok := s.components[name]
	if !ok {
		s.t.Fatalf("%s has no component %s", s.s.name, name)
	}
	return ports
}

// Log returns the end of the server's log.
func (s *XMPPServer) Log() string { return s.s.tail() }

// Dir is the server's directory; Prosody's data is in "data" below it.
func (s *XMPPServer) Dir() string { return s.s.dir }

// loopback is the address of a port on 127.0.0.1.
func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// streamsAnswer checks that the server speaks XMPP: stream features for
// clients, a stream with an id for components (XEP-0114 section 3).
func streamsAnswer(limit time.Duration, domain, c2s string, components map[string]componentPorts) error {
	if err := streamAnswers(limit, c2s, openStream("jabber:client", domain), "</stream:features>"); err != nil {
		return fmt.Errorf("clients' port: %w", err)
	}
	for name, ports := range components {
		if err := streamAnswers(limit, ports.plain, openStream("jabber:component:accept", name), "id="); err != nil {
			return fmt.Errorf("port of component %s: %w", name, err)
		}
	}
	return nil
}

func streamAnswers(limit time.Duration, addr, open, want string) error {
	conn, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))
	if _, err := conn.Write([]byte(open)); err != nil {
		return err
	}
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(want)) {
		n, err := conn.Read(buf)
		if n == 0 && err != nil {
			return err
		}
		got = append(got, buf[:n]...)
		if bytes.Contains(got, []byte("<stream:error")) {
			return errors.New(string(got))
		}
	}
	_, err = conn.Write([]byte("</stream:stream>"))
	return err
}

// render writes a template to a file of the server's directory.
func (s *server) render(name, file string, data any) error {
	tmpl, err := template.ParseFS(templates, "templates/"+name)
	if err != nil {
		return err
	}
	var b strings.Builder
	if err := tmpl.Execute(&b, data); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, file), []byte(b.String()), 0o644)
}

// orDefault returns the option's value, or the default when it was left out.
func orDefault(given, otherwise []string) []string {
	if len(given) == 0 {
		return otherwise
	}
	return given
}

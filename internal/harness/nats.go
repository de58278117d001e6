//go:build linux

package harness

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// natsServer is where Debian puts it.
const natsServer = "/usr/sbin/nats-server"

// NATSOptions say how a nats-server differs from a plain one with JetStream.
type NATSOptions struct {
	NoJetStream bool
	// Username and Password are asked for when they are not empty.
	Username, Password string
	// Extra is put at the end of the configuration.
	Extra string
}

// NATSServer is a running nats-server. Its methods fail the test it was made for.
type NATSServer struct {
	// Port is where it listens on 127.0.0.1; it survives Stop and Start.
	Port int

	t testing.TB
	s *server
}

// NATS starts a nats-server for one test.
func NATS(t testing.TB, o NATSOptions) *NATSServer {
	t.Helper()
	s, ports := startServer(t, "nats", 1, func(s *server, ports []int) error { return prepareNATS(s, ports[0], o) })
	return &NATSServer{Port: ports[0], t: t, s: s}
}

// NATSDown reserves a port and prepares a nats-server on it, but does not start it.
func NATSDown(t testing.TB, o NATSOptions) *NATSServer {
	t.Helper()
	n := NATS(t, o)
	n.Kill()
	return n
}

// URL is where clients connect.
func (n *NATSServer) URL() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.Port) }

// Stop ends the server cleanly.
func (n *NATSServer) Stop() { n.t.Helper(); n.must("stop", n.s.stop()) }

// Start starts a stopped or killed server on the same port with its data.
func (n *NATSServer) Start() { n.t.Helper(); n.must("start", n.s.start()) }

// Kill ends the server as kill -9 does.
func (n *NATSServer) Kill() { n.t.Helper(); n.must("kill", n.s.kill()) }

// Pause freezes the server: connections stay open, nothing is answered.
func (n *NATSServer) Pause() { n.t.Helper(); n.must("pause", n.s.freeze(true)) }

// Resume lets a paused server go on.
func (n *NATSServer) Resume() { n.t.Helper(); n.must("resume", n.s.freeze(false)) }

func (n *NATSServer) must(verb string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s nats-server: %v\n%s", verb, err, n.s.tail())
	}
}

func prepareNATS(s *server, port int, o NATSOptions) error {
	if _, err := os.Stat(natsServer); err != nil {
		return fmt.Errorf("%w (run internal/harness/install.sh)", err)
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "host: 127.0.0.1\nport: %d\n", port)
	if !o.NoJetStream {
		fmt.Fprintf(&conf, "jetstream { store_dir: %q, max_mem: 64MB, max_file: 4GB }\n", filepath.Join(s.dir, "data"))
	}
	if o.Username != "" {
		fmt.Fprintf(&conf, "authorization { user: %q, password: %q }\n", o.Username, o.Password)
	}
	conf.WriteString(o.Extra)
	file := filepath.Join(s.dir, "nats.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		return err
	}
	s.args = []string{natsServer, "-c", file}
	s.env = baseEnv(s.dir)
	s.ready = func(limit time.Duration) error {
		// The server speaks first; it listens when JetStream has recovered.
		conn, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), limit)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(limit))
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil && !strings.HasPrefix(line, "INFO ") {
			err = fmt.Errorf("it says %q", line)
		}
		return err
	}
	return nil
}

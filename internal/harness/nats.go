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

// The files of a server with TLS.
const (
	natsCA          = "ca.pem"
	natsCertificate = "server.pem"
)

// NATSOptions say how a nats-server differs from a plain one with JetStream.
type NATSOptions struct {
	// Old runs the nats-server of Debian 12, 2.9.10, which lacks what the outbox needs.
	Old         bool
	NoJetStream bool
	// Username and Password are asked for when they are not empty.
	Username, Password string
	TLS                bool // only TLS is spoken, with a certificate that CAFile vouches for
	// Extra is put at the end of the configuration.
	Extra string
}

// NATSServer is a running nats-server. Its methods fail the test it was made for.
type NATSServer struct {
	// Port is where it listens on 127.0.0.1; it survives Stop and Start.
	Port int
	// CAFile is the authority's certificate, with NATSOptions.TLS.
	CAFile string

	t testing.TB
	s *server
}

// NATS starts a nats-server for one test.
func NATS(t testing.TB, o NATSOptions) *NATSServer {
	t.Helper()
	s, ports := startServer(t, "nats", 1, func(s *server, ports []int) error { return prepareNATS(s, ports[0], o) })
	return &NATSServer{Port: ports[0], CAFile: filepath.Join(s.dir, natsCA), t: t, s: s}
}

// NATSCluster starts three servers that keep JetStream's data together; of o only Old
// counts. They need some seconds to elect a leader; NATSCluster does not wait for that.
func NATSCluster(t testing.TB, o NATSOptions) [3]*NATSServer {
	t.Helper()
	var all [3]*NATSServer
	ports, release, err := freePorts(2 * len(all))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	routes := ports[len(all):]
	var urls []string
	for _, p := range routes {
		urls = append(urls, fmt.Sprintf("nats-route://127.0.0.1:%d", p))
	}
	for i := range all {
		o := NATSOptions{Old: o.Old, Extra: fmt.Sprintf("server_name: n%d\ncluster { name: harness, listen: \"127.0.0.1:%d\", routes: [%s] }\n",
			i, routes[i], strings.Join(urls, ", "))}
		s, _ := startServer(t, "nats", 0, func(s *server, _ []int) error { return prepareNATS(s, ports[i], o) })
		all[i] = &NATSServer{Port: ports[i], t: t, s: s}
	}
	return all
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

// Save restarts the servers, one or a whole cluster, and remembers what is on their disks
// then. powerCut kills them and starts them with that again, as if nothing had reached the
// disks since. It can be limited to some streams.
func Save(servers ...*NATSServer) (powerCut func(streams ...string)) {
	each := func(do func(n *NATSServer)) {
		for _, n := range servers {
			n.t.Helper()
			do(n)
		}
	}
	saved := servers[0].t.TempDir()
	each((*NATSServer).Stop)
	each(func(n *NATSServer) {
		n.must("copy the data of", os.CopyFS(filepath.Join(saved, filepath.Base(n.s.dir)), os.DirFS(n.data())))
	})
	each((*NATSServer).Start)
	return func(streams ...string) {
		parts := []string{"."}
		if len(streams) > 0 {
			parts = nil
		}
		for _, s := range streams {
			parts = append(parts, filepath.Join("jetstream", "$G", "streams", s))
		}
		each((*NATSServer).Kill)
		each(func(n *NATSServer) {
			for _, part := range parts {
				n.must("remove data of", os.RemoveAll(filepath.Join(n.data(), part)))
				n.must("put back data of", os.CopyFS(filepath.Join(n.data(), part), os.DirFS(filepath.Join(saved, filepath.Base(n.s.dir), part))))
			}
		})
		each((*NATSServer).Start)
	}
}

// data is where JetStream keeps its files.
func (n *NATSServer) data() string { return filepath.Join(n.s.dir, "data") }

func (n *NATSServer) must(verb string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s nats-server: %v\n%s", verb, err, n.s.tail())
	}
}

func prepareNATS(s *server, port int, o NATSOptions) error {
	program := oldNATSServer
	var err error
	if o.Old {
		_, err = os.Stat(program)
	} else {
		program, err = currentNATSServer()
	}
	if err != nil {
		return fmt.Errorf("%w (run internal/harness/install.sh)", err)
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "host: 127.0.0.1\nport: %d\n", port)
	if !o.NoJetStream {
		fmt.Fprintf(&conf, "jetstream { store_dir: %q, max_mem: 64MB, max_file: 4GB }\n", (&NATSServer{s: s}).data())
	}
	if o.Username != "" {
		fmt.Fprintf(&conf, "authorization { user: %q, password: %q }\n", o.Username, o.Password)
	}
	if o.TLS {
		pem := filepath.Join(s.dir, natsCertificate)
		if err := writeCertificate(pem, filepath.Join(s.dir, natsCA), []string{"localhost"}); err != nil {
			return err
		}
		fmt.Fprintf(&conf, "tls { cert_file: %q, key_file: %q }\n", pem, pem)
	}
	conf.WriteString(o.Extra)
	file := filepath.Join(s.dir, "nats.conf")
	if err := os.WriteFile(file, []byte(conf.String()), 0o600); err != nil {
		return err
	}
	s.args = []string{program, "-c", file}
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

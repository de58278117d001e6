//go:build linux

package harness

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbitMQScript starts the broker; the wrapper of the same name in /usr/sbin
// insists on the user rabbitmq.
const rabbitMQScript = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// Broker is a running RabbitMQ. Its methods fail the test it was made for.
type Broker struct {
	// Host and Port are where it speaks AMQP; they survive Stop and Start.
	Host string
	Port int
	// Username, Password and VHost are those of a new broker.
	Username, Password, VHost string
	// TLSAddr is where a broker of RabbitMQWithTLS speaks AMQP over TLS. CAFile is its
	// authority, CertFile its certificate with the key, by which the user localhost can log in.
	TLSAddr, CAFile, CertFile string

	t testing.TB
	s *server
}

// RabbitMQ starts a broker for one test; that takes 5-6 s on an idle machine.
// Tests that do not stop or pause it take SharedRabbitMQ.
func RabbitMQ(t testing.TB) *Broker {
	t.Helper()
	s, ports := startServer(t, "rabbitmq", rabbitMQPorts, prepareRabbitMQ)
	return newBroker(t, s, ports)
}

// RabbitMQWithTLS starts a broker that speaks TLS as well, asks its clients for certificates,
// and lets them log in by these (SASL EXTERNAL).
func RabbitMQWithTLS(t testing.TB) *Broker {
	t.Helper()
	s, ports := startServer(t, "rabbitmq", rabbitMQPorts+1, func(s *server, ports []int) error {
		if err := prepareRabbitMQ(s, ports); err != nil {
			return err
		}
		cert, ca := filepath.Join(s.dir, "server.pem"), filepath.Join(s.dir, "ca.pem")
		if err := writeCertificate(cert, ca, []string{"localhost"}); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(s.dir, "enabled_plugins"), []byte("[rabbitmq_auth_mechanism_ssl].\n"), 0o644); err != nil {
			return err
		}
		return appendFile(filepath.Join(s.dir, "rabbitmq.conf"), fmt.Sprintf("listeners.ssl.1 = 127.0.0.1:%d\nssl_options.cacertfile = %s\n"+
			"ssl_options.certfile = %s\nssl_options.keyfile = %s\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"+
			"auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n", ports[rabbitMQPorts], ca, cert, cert))
	})
	// The listener for TLS opens after the other one.
	await(t, "the broker's port for TLS", func() bool {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[rabbitMQPorts])))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
	b := newBroker(t, s, ports)
	b.TLSAddr = net.JoinHostPort("localhost", strconv.Itoa(ports[rabbitMQPorts]))
	b.CAFile, b.CertFile = filepath.Join(s.dir, "ca.pem"), filepath.Join(s.dir, "server.pem")
	return b
}

// RabbitMQCluster starts a cluster of two nodes. The second can be stopped or killed without
// harm to the first.
func RabbitMQCluster(t testing.TB) (first, second *Broker) {
	t.Helper()
	cookie := rand.Text()
	node := func(i, epmd int) (*Broker, int) {
		s, ports := startServer(t, "rabbitmq", rabbitMQPorts, func(s *server, ports []int) error {
			if epmd != 0 {
				ports[2] = epmd
			}
			if err := prepareRabbitMQ(s, ports); err != nil {
				return err
			}
			name := fmt.Sprintf("harness%d@localhost", i)
			s.env = append(s.env, "RABBITMQ_NODENAME="+name)
			s.logs = []string{"output.log", "log/" + name + ".log"}
			if err := os.WriteFile(filepath.Join(s.dir, "home", ".erlang.cookie"), []byte(cookie), 0o400); err != nil {
				return err
			}
			return appendFile(filepath.Join(s.dir, "rabbitmq.conf"), "cluster_formation.peer_discovery_backend = classic_config\n"+
				"cluster_formation.classic_config.nodes.1 = harness1@localhost\ncluster_formation.classic_config.nodes.2 = harness2@localhost\n"+
				"cluster_formation.randomized_startup_delay_range.min = 0\ncluster_formation.randomized_startup_delay_range.max = 0\n")
		})
		return newBroker(t, s, ports), ports[2]
	}
	first, epmd := node(1, 0)
	second, _ = node(2, epmd)
	return first, second
}

func appendFile(name, text string) error {
	file, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

var sharedRabbitMQ struct {
	once  sync.Once
	s     *server
	ports []int
	err   error
}

// SharedRabbitMQ returns the one broker that all tests of the test binary share,
// starting it for the first. It ends with the test binary. Tests must use
// exchanges and queues of their own and leave the broker itself alone.
func SharedRabbitMQ(t testing.TB) *Broker {
	t.Helper()
	r := &sharedRabbitMQ
	r.once.Do(func() {
		r.s, r.ports, _, r.err = launchServer("rabbitmq", rabbitMQPorts, prepareRabbitMQ)
	})
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.s.tail())
		}
	})
	return newBroker(t, r.s, r.ports)
}

func newBroker(t testing.TB, s *server, ports []int) *Broker {
	return &Broker{Host: "127.0.0.1", Port: ports[0], Username: "guest", Password: "guest", VHost: "/", t: t, s: s}
}

// URL is the broker's amqp URI.
func (b *Broker) URL() string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword(b.Username, b.Password), Host: b.Addr(), Path: b.VHost}
	return u.String()
}

// Addr is the broker's host:port.
func (b *Broker) Addr() string { return net.JoinHostPort(b.Host, strconv.Itoa(b.Port)) }

// Stop ends the broker cleanly; durable queues and persistent messages remain.
func (b *Broker) Stop() { b.t.Helper(); b.must("stop", b.s.stop()) }

// Start starts a stopped or killed broker on the same port with its data.
func (b *Broker) Start() { b.t.Helper(); b.must("start", b.s.start()) }

// Kill ends the broker as kill -9 does.
func (b *Broker) Kill() { b.t.Helper(); b.must("kill", b.s.kill()) }

// Pause freezes the broker: connections stay open, nothing is answered.
func (b *Broker) Pause() { b.t.Helper(); b.must("pause", b.s.freeze(true)) }

// Resume lets a paused broker go on.
func (b *Broker) Resume() { b.t.Helper(); b.must("resume", b.s.freeze(false)) }

func (b *Broker) must(verb string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%s rabbitmq: %v\n%s", verb, err, b.s.tail())
	}
}

// Dial opens a connection that is closed with the test.
func (b *Broker) Dial() *amqp.Connection {
	b.t.Helper()
	conn, err := amqp.Dial(b.URL())
	if err != nil {
		b.t.Fatalf("connect to rabbitmq: %v", err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// The broker's ports: AMQP, Erlang distribution, and an epmd of its own.
const rabbitMQPorts = 3

func prepareRabbitMQ(s *server, ports []int) error {
	if _, err := os.Stat(rabbitMQScript); err != nil {
		return fmt.Errorf("%w (run internal/harness/install.sh)", err)
	}
	// 100 % of the machine is no limit: a test machine's full memory or disk
	// must not block publishers in the middle of a test.
	files := map[string]string{
		"rabbitmq.conf":   "vm_memory_high_watermark.relative = 1.0\ndisk_free_limit.absolute = 1MB\nlog.file.level = info\n",
		"enabled_plugins": "[].\n",
		"rabbitmq-env":    "",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, name := range []string{"home", "mnesia", "log"} {
		if err := os.Mkdir(filepath.Join(s.dir, name), 0o755); err != nil {
			return err
		}
	}
	s.args = []string{rabbitMQScript}
	s.env = append(baseEnv(s.dir),
		// The script then becomes the Erlang machine instead of waiting for it
		// as a shell that would catch our signals.
		"RUNNING_UNDER_SYSTEMD=true",
		"RABBITMQ_NODENAME=harness@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		"RABBITMQ_NODE_PORT="+strconv.Itoa(ports[0]),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(ports[1]),
		"ERL_EPMD_PORT="+strconv.Itoa(ports[2]),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_MNESIA_BASE="+filepath.Join(s.dir, "mnesia"),
		"RABBITMQ_LOG_BASE="+filepath.Join(s.dir, "log"),
		"RABBITMQ_PID_FILE="+filepath.Join(s.dir, "pid"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(s.dir, "rabbitmq"),
		"RABBITMQ_CONF_ENV_FILE="+filepath.Join(s.dir, "rabbitmq-env"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(s.dir, "enabled_plugins"),
	)
	s.logs = []string{"output.log", "log/harness@localhost.log"}
	uri := fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", ports[0])
	s.ready = func(limit time.Duration) error {
		// Listening is not yet ready: only connection.open-ok says that the
		// virtual host is up.
		conn, err := amqp.DialConfig(uri, amqp.Config{Dial: amqp.DefaultDial(limit)})
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return nil
}

// baseEnv is the environment of every server: nothing of the developer's
// own but the search path, and a home that is thrown away.
func baseEnv(dir string) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"LANG=C.UTF-8",
		"HOME=" + filepath.Join(dir, "home"),
		"TMPDIR=" + dir,
	}
}

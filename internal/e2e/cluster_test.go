package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventpusher/internal/harness"
	"eventpusher/internal/xmppserver"
	"eventpusher/pusher/outbox"
)

// cluster is two instances of the program that share an outbox in NATS.
type cluster struct {
	t       *testing.T
	server  *xmppserver.Server
	nats    *harness.NATSServer
	sink    *harness.Sink
	program string
	nodes   [2]*node
}

// node is one of the instances; it can be started again after it has ended.
type node struct {
	*process
	c      *cluster
	config string
}

// adminLine is where an instance says what address its admin listener has.
var adminLine = regexp.MustCompile(`msg="admin listening" address=(\S+)`)

func newCluster(t *testing.T) *cluster {
	t.Helper()
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	sink := harness.HTTPSink(t)
	c := prepareCluster(t, server.Addr(), fmt.Sprintf(`
[[modules.mod_event_pusher.http.handlers]]
name = "sink"

[outgoing_pools.http.http_pool.connection]
host = %q
`, sink.URL()))
	c.server, c.sink = server, sink
	return c
}

// prepareCluster writes the configurations of two instances for a server; backends is
// the part of them that says what they publish to.
func prepareCluster(t *testing.T, address, backends string) *cluster {
	t.Helper()
	c := &cluster{t: t, nats: harness.NATS(t, harness.NATSOptions{}), program: build(t)}
	for i := range c.nodes {
		dir := t.TempDir()
		n := &node{c: c, config: filepath.Join(dir, "config.toml")}
		toml := fmt.Sprintf(`
[component]
address = %q
name = "events.localhost"
secret = "secret"
reconnect_min = "20ms"
reconnect_max = "100ms"

[general]
hosts = ["localhost"]

[admin]
listen = "127.0.0.1:0"
%s
[outbox]
engine = "nats"
path = %q

[outbox.nats]
url = %q
takeover = "5s"
`, address, backends, filepath.Join(dir, "outbox"), c.nats.URL())
		if err := os.WriteFile(n.config, []byte(toml), 0o600); err != nil {
			t.Fatal(err)
		}
		c.nodes[i] = n
	}
	return c
}

// start runs the program.
func (n *node) start() { n.process = run(n.c.t, n.c.program, n.config) }

// get asks the admin listener; nothing is there before the program listens.
func (n *node) get(path string) (status int, body string) {
	admin := ""
	if m := adminLine.FindStringSubmatch(n.process.log.String()); m != nil {
		admin = m[1]
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}, Timeout: limit}
	if admin == "" {
		return 0, ""
	}
	resp, err := client.Get("http://" + admin + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, strings.TrimSpace(string(data))
}

// ready waits until /readyz answers with something that begins so.
func (n *node) ready(says string) {
	n.c.t.Helper()
	await(n.c.t, "an instance to say "+says, func() bool {
		status, body := n.get("/readyz")
		return status == http.StatusOK && strings.HasPrefix(body, says)
	})
}

// has waits until the instance delivers so many partitions.
func (n *node) has(partitions int) {
	n.c.t.Helper()
	await(n.c.t, fmt.Sprint(partitions, " partitions"), func() bool {
		_, body := n.get("/api/status")
		var s struct{ Cluster outbox.Standing }
		return json.Unmarshal([]byte(body), &s) == nil && s.Cluster.Partitions == partitions
	})
}

// command runs a command of the program with the configuration of an instance.
func (n *node) command(words ...string) string {
	n.c.t.Helper()
	name := words[:min(2, len(words))]
	cmd := exec.Command(n.c.program, append(append(name[:len(name):len(name)], "-config", n.config), words[len(name):]...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		n.c.t.Fatalf("%v: %v\n%s", words, err, &out)
	}
	return out.String()
}

// accept waits for the link of whoever holds it now.
func (c *cluster) accept() *xmppserver.Session {
	c.t.Helper()
	s, err := c.server.Accept(contextFor(c.t, limit))
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// load sends n messages of a round, beginning with number from, at a steady rate.
func (c *cluster) load(s *xmppserver.Session, round, from, n int) {
	c.t.Helper()
	const rate = 400 // a second
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		if err := s.Send(numbered(round, from+i)); err != nil {
			c.t.Fatalf("round %d: %v", round, err)
		}
	}
}

// received counts what the sink has got, in the order of the first arrivals.
func (c *cluster) received() (got tally, order [][2]int) {
	got = tally{}
	for _, r := range c.sink.Requests() {
		text := r.Form.Get("message")
		before := len(got)
		got.add(c.t, text)
		if len(got) > before {
			var key [2]int
			fmt.Sscan(text, &key[0], &key[1])
			order = append(order, key)
		}
	}
	return got, order
}

// all waits until so many messages of a round have come.
func (c *cluster) all(round, n int) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("all %d messages of round %d", n, round), func() bool {
		got, _ := c.received()
		for i := 1; i <= n; i++ {
			if !got.has(round, i) {
				return false
			}
		}
		return true
	})
}

// TestCluster lets two instances share link and deliveries, and ends either of
// them in every way under load.
//
// A message that was sent to an instance which is killed before it could accept
// it is gone: the feed of this test keeps none. What may be missing is the end of
// a conversation, of what was sent since the last look at the sink, and nothing else.
func TestCluster(t *testing.T) {
	c := newCluster(t)
	a, b := c.nodes[0], c.nodes[1]
	a.start()
	session := c.accept()
	a.ready("ready")
	b.start()
	b.ready("standby: ")
	a.has(8)
	b.has(8)

	t.Run("both deliver", func(t *testing.T) {
		c.load(session, 1, 1, 200)
		c.all(1, 200)
	})
	t.Run("the standby is killed", func(t *testing.T) {
		c.load(session, 2, 1, 200)
		b.end(syscall.SIGKILL)
		c.load(session, 2, 201, 200)
		c.all(2, 400)
		a.has(16)
		b.start()
		b.ready("standby: ")
		a.has(8)
	})
	const seen3, sent3 = 200, 400
	t.Run("the leader is killed", func(t *testing.T) {
		c.load(session, 3, 1, seen3)
		c.all(3, seen3)
		c.load(session, 3, seen3+1, sent3-seen3)
		a.end(syscall.SIGKILL)
		died := time.Now()
		session = c.accept()
		t.Logf("the link has moved after %v", time.Since(died))
		b.ready("ready")
		c.load(session, 4, 1, 100)
		c.all(4, 100)
		b.has(16)
		a.start()
		a.ready("standby: ")
	})
	t.Run("the leader stops in order", func(t *testing.T) {
		a.has(8)
		c.load(session, 5, 1, 200)
		c.all(5, 200) // what is in the intake at the end is a matter of other tests
		if code := b.end(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
		left := time.Now()
		session = c.accept() // at once
		t.Logf("the link has moved after %v", time.Since(left))
		a.ready("ready")
		c.load(session, 6, 1, 100)
		c.all(6, 100)
	})

	got, order := c.received()
	gone := make(map[[2]int]bool) // conversations that ended early
	for n := seen3 + 1; n <= sent3; n++ {
		conversation := [2]int{n % 7, n % 11}
		switch {
		case !got.has(3, n):
			gone[conversation] = true
		case gone[conversation]:
			t.Errorf("message %d came although one before it in its conversation did not", n)
		}
	}
	t.Logf("of %d messages that nobody had looked for the kill has cost %d conversations their end", sent3-seen3, len(gone))
	before := make(map[[3]int]int)
	for _, key := range order {
		conversation := [3]int{key[0], key[1] % 7, key[1] % 11}
		if key[1] < before[conversation] {
			t.Errorf("message %d of round %d came after %d of the same conversation", key[1], key[0], before[conversation])
		}
		before[conversation] = key[1]
	}
	for round := 1; round <= 6; round++ {
		if again := got.repeats(round); again > redelivered {
			t.Errorf("%d messages of round %d came again, more than %d", again, round, redelivered)
		} else {
			t.Logf("round %d: %d again", round, again)
		}
	}
}

// TestClusterDeadLetters finds a dead letter through every instance and, when
// none runs, through NATS.
func TestClusterDeadLetters(t *testing.T) {
	c := newCluster(t)
	a, b := c.nodes[0], c.nodes[1]
	if out := a.command("check"); !strings.Contains(out, "is fine") {
		t.Errorf("check: %s", out)
	}
	a.start()
	session := c.accept()
	b.start()
	b.ready("standby: ")
	a.has(8)
	c.sink.Answer(http.StatusBadRequest)
	c.load(session, 1, 1, 1)
	await(t, "a dead letter", func() bool { return strings.Contains(b.command("dlq", "list"), "permanent") })
	if out := a.command("dlq", "list"); !strings.Contains(out, "permanent") {
		t.Errorf("the other instance says %s", out)
	}
	c.sink.Answer(http.StatusOK)
	if out := b.command("dlq", "replay", "-all"); !strings.Contains(out, "1 dead letter replayed") {
		t.Errorf("replay: %s", out)
	}
	if got := c.sink.Wait(2)[1].Form.Get("message"); got != "1 1" {
		t.Errorf("replayed %q", got)
	}
	c.sink.Answer(http.StatusBadRequest)
	c.load(session, 1, 2, 1)
	await(t, "a dead letter", func() bool { return strings.Contains(a.command("dlq", "list"), "permanent") })
	for _, n := range c.nodes {
		if code := n.end(syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	if out := a.command("dlq", "list", "-json"); !strings.Contains(out, `"body":"1 2"`) {
		t.Errorf("list while nobody runs: %s", out)
	}
	if out := b.command("dlq", "replay", "-backend", "sink"); !strings.Contains(out, "1 dead letter replayed") {
		t.Errorf("replay while nobody runs: %s", out)
	}
	c.sink.Answer(http.StatusOK)
	b.start()
	if got := c.sink.Wait(4)[3].Form.Get("message"); got != "1 2" {
		t.Errorf("replayed %q after the start", got)
	}
}

// TestClusterMove gives what waits for a backend that nobody has configured any more to
// another one, by a command at either instance, while both run.
func TestClusterMove(t *testing.T) {
	const messages = 40
	c := newCluster(t)
	edit := func(old, now string) {
		for _, n := range c.nodes {
			text, err := os.ReadFile(n.config)
			if err == nil {
				err = os.WriteFile(n.config, bytes.ReplaceAll(text, []byte(old), []byte(now)), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	edit(c.sink.URL(), "http://127.0.0.1:1") // nobody is there
	c.nodes[0].start()
	session := c.accept()
	c.nodes[1].start()
	for _, n := range c.nodes {
		n.has(8)
	}
	c.load(session, 1, 1, messages)
	c.waiting("backends", messages)
	for _, n := range c.nodes {
		n.end(syscall.SIGTERM)
	}
	edit("http://127.0.0.1:1", c.sink.URL())
	edit(`name = "sink"`, `name = "renamed"`)
	for _, n := range c.nodes {
		n.start()
	}
	session = c.accept()
	for _, n := range c.nodes {
		n.has(8)
	}
	c.waiting("unconfigured", messages)
	if out := c.nodes[1].command("outbox", "move", "sink", "renamed"); !strings.Contains(out, "from sink to renamed") {
		t.Errorf("move: %s", out)
	}
	c.all(1, messages)
	c.load(session, 2, 1, messages)
	c.all(2, messages)
	c.waiting("backends", 0)
}

// waiting waits until so many events wait in both instances for the backends of that class.
func (c *cluster) waiting(class string, events int) {
	c.t.Helper()
	await(c.t, fmt.Sprint(events, " events to wait"), func() bool {
		sum := 0
		for _, n := range c.nodes {
			_, body := n.get("/api/status")
			var s struct {
				Pusher map[string][]struct {
					Waiting  int `json:"waiting"`
					InFlight int `json:"in_flight"`
				}
			}
			if json.Unmarshal([]byte(body), &s) != nil {
				return false
			}
			for _, b := range s.Pusher[class] {
				sum += b.Waiting + b.InFlight
			}
		}
		return sum == events
	})
}

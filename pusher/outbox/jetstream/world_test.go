package jetstream_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// world is what the losers live in: a feed that keeps everything, sinks that remember what
// they got, and ways to the NATS servers that can be cut.
type world struct {
	t       *testing.T
	feed    net.Listener
	sink    *httptest.Server
	nodes   []*loserNode
	backend []string
	delay   time.Duration

	rate  int          // events a second
	sent  atomic.Int64 // events that the feed has, 1 to sent
	quiet atomic.Bool  // no new events

	failing atomic.Bool // one key in five fails at the first backend

	mu        sync.Mutex
	links     map[string]time.Time // by the instance's name, since when
	paused    map[string]bool
	linkSince time.Time     // of the newest link; zero: none yet
	overlap   time.Duration // longest of two links of running instances
	got       map[string]*receipts
}

// receipts are what one backend has got.
type receipts struct {
	times map[int]int    // deliveries by event
	last  map[string]int // newest event by key
	late  []string       // first deliveries that came after a later one of their key
	again int
	at    time.Time // of the last first delivery
}

const keys = 97

// newWorld starts feed and sinks; losers are added with add.
func newWorld(t *testing.T, rate int, delay time.Duration, backends ...string) *world {
	t.Helper()
	feed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, feed: feed, backend: backends, rate: rate, delay: delay, links: make(map[string]time.Time), paused: make(map[string]bool), got: make(map[string]*receipts),
	}
	for _, b := range backends {
		w.got[b] = &receipts{times: make(map[int]int), last: make(map[string]int)}
	}
	w.sink = httptest.NewServer(http.HandlerFunc(w.receive))
	var serving sync.WaitGroup
	stop := make(chan struct{})
	serving.Go(func() { w.produce(stop) })
	serving.Go(func() {
		for {
			conn, err := feed.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { w.serve(conn, stop) })
		}
	})
	t.Cleanup(func() {
		close(stop)
		feed.Close()
		w.sink.Close()
		serving.Wait()
	})
	return w
}

func (w *world) produce(stop chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if !w.quiet.Load() {
				w.sent.Add(int64(w.rate / 100))
			}
		}
	}
}

// serve is one link: it sends what the instance does not have yet.
func (w *world) serve(conn net.Conn, stop chan struct{}) {
	defer conn.Close()
	var name string
	var next int
	if _, err := fmt.Fscanln(conn, &name, &next); err != nil {
		return
	}
	w.linked(name)
	defer w.unlinked(name)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn) // until it is closed
	}()
	out := bufio.NewWriter(conn)
	for {
		for next < int(w.sent.Load()) {
			next++
			fmt.Fprintf(out, "%d k%d\n", next, next*31%keys)
		}
		if out.Flush() != nil {
			return
		}
		select {
		case <-stop:
			conn.Close()
			<-gone
			return
		case <-gone:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *world) linked(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.links[name], w.linkSince = now, now
}

func (w *world) unlinked(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for other, since := range w.links {
		if other != name && !w.paused[name] && since.After(w.links[name]) { // the newer one has it
			w.overlap = max(w.overlap, time.Since(since))
		}
	}
	delete(w.links, name)
}

// fails reports whether a delivery fails for now.
func (w *world) fails(backend, key string) bool {
	h := fnv.New32a()
	_, _ = io.WriteString(h, key)
	return backend == w.backend[0] && w.failing.Load() && h.Sum32()%5 == 0
}

// receive is a sink.
func (w *world) receive(rw http.ResponseWriter, r *http.Request) {
	backend, key := strings.TrimPrefix(r.URL.Path, "/"), r.URL.Query().Get("key")
	var n int
	fmt.Sscan(r.URL.Query().Get("id"), &n)
	if w.delay > 0 {
		<-time.After(w.delay)
	}
	if w.fails(backend, key) {
		rw.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.got[backend]
	if got.times[n]++; got.times[n] > 1 {
		got.again++
		return
	}
	got.at = time.Now()
	if n < got.last[key] {
		got.late = append(got.late, fmt.Sprintf("%s: %d after %d", key, n, got.last[key]))
	}
	got.last[key] = max(got.last[key], n)
}

// counts returns how many events a backend has got, and how many more than once.
func (w *world) counts(backend string) (different, again int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.got[backend].times), w.got[backend].again
}

// loserNode is one instance.
type loserNode struct {
	w    *world
	l    loser
	way  []*proxy
	cmd  *exec.Cmd
	log  *os.File
	over chan error
}

// add prepares an instance that reaches the servers through ways of its own.
func (w *world) add(l loser, servers ...string) *loserNode {
	w.t.Helper()
	n := &loserNode{w: w}
	var urls []string
	for _, s := range servers {
		p := newProxy(w.t, strings.TrimPrefix(s, "nats://"))
		n.way = append(n.way, p)
		urls = append(urls, "nats://"+p.addr())
	}
	l.Prefix, l.Instance, l.Backends = "TEST", fmt.Sprint("i", len(w.nodes)), w.backend
	l.URL, l.Feed, l.Sink = strings.Join(urls, ","), w.feed.Addr().String(), w.sink.URL
	if l.Lanes == 0 {
		l.Lanes = 64
	}
	n.l = l
	w.nodes = append(w.nodes, n)
	w.t.Cleanup(n.kill)
	return n
}

func (n *loserNode) start() {
	n.w.t.Helper()
	text, err := json.Marshal(&n.l)
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.cmd = exec.Command("/proc/self/exe")
	n.cmd.Env = append(os.Environ(), loserEnv+"="+string(text), "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0")
	n.log, err = os.CreateTemp(n.w.t.TempDir(), "loser")
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.cmd.Stderr = n.log
	if err := n.cmd.Start(); err != nil {
		n.w.t.Fatal(err)
	}
	over, cmd := make(chan error, 1), n.cmd
	n.over = over
	go func() { over <- cmd.Wait() }()
}

func (n *loserNode) signal(s syscall.Signal) {
	if n.cmd != nil {
		_ = n.cmd.Process.Signal(s) // it may have ended
	}
}

// pause stops the process for a while.
func (n *loserNode) pause(d time.Duration) {
	n.mark(true)
	n.signal(syscall.SIGSTOP)
	<-time.After(d)
	n.signal(syscall.SIGCONT)
	n.mark(false)
}

func (n *loserNode) mark(paused bool) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.paused[n.l.Instance] = paused
	if !paused && !n.w.links[n.l.Instance].IsZero() && time.Since(n.w.linkSince) > 0 {
		// What counts is from now on: a stopped process cannot close its link.
		for other := range n.w.links {
			if other != n.l.Instance && n.w.links[other].After(n.w.links[n.l.Instance]) {
				n.w.links[other] = time.Now()
			}
		}
	}
}

func (n *loserNode) kill() {
	if n.cmd == nil {
		return
	}
	n.signal(syscall.SIGKILL)
	<-n.over
	n.ended()
}

// stop ends the instance in order.
func (n *loserNode) stop() {
	n.w.t.Helper()
	n.signal(syscall.SIGTERM)
	select {
	case err := <-n.over:
		if err != nil {
			n.w.t.Logf("%s ends with %v\n%s", n.l.Instance, err, n.output())
		}
		n.ended()
	case <-time.After(limit):
		n.w.t.Fatalf("%s does not end\n%s", n.l.Instance, n.output())
	}
}

func (n *loserNode) ended() { n.cmd = nil; n.log.Close() }

func (n *loserNode) output() string {
	b, _ := os.ReadFile(n.log.Name())
	return string(b[max(len(b)-4000, 0):])
}

// proxy is a way to a server that can be cut.
type proxy struct {
	l      net.Listener
	target string
	cut    atomic.Bool
	lose   atomic.Pointer[string] // before an answer with this text passes, the way is cut
	mu     sync.Mutex
	conns  map[net.Conn]bool
	over   sync.WaitGroup
}

func newProxy(t *testing.T, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l, target: target, conns: make(map[net.Conn]bool)}
	p.over.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.over.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.setCut(true)
		p.over.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	up, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer up.Close()
	p.mu.Lock()
	if p.cut.Load() {
		p.mu.Unlock()
		return
	}
	p.conns[c], p.conns[up] = true, true
	p.mu.Unlock()
	done := make(chan struct{})
	go func() { _, _ = io.Copy(up, c); up.Close(); c.Close(); close(done) }()
	_, _ = io.Copy(&answers{p, c}, up)
	c.Close()
	up.Close()
	<-done
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	delete(p.conns, up)
}

// answers are what comes back on a way.
type answers struct {
	p *proxy
	c net.Conn
}

func (a *answers) Write(b []byte) (int, error) {
	if lose := a.p.lose.Load(); lose != nil && bytes.Contains(b, []byte(*lose)) {
		a.p.setCut(true)
		return 0, net.ErrClosed
	}
	return a.c.Write(b)
}

// setCut cuts the way, or opens it again.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut.Store(cut)
	for c := range p.conns {
		if cut {
			c.Close()
		}
	}
}

// chance returns a random time between two.
func chance(from, to time.Duration) time.Duration { return from + rand.N(to-from) }

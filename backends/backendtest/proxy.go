package backendtest

import (
	"net"
	"sync"
	"testing"
)

// Proxy stands between a backend and its service and plays a service that is
// down or hangs. Safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	tasks    sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	down    bool
	pass    chan struct{} // closed while bytes pass
	stalled chan struct{} // closed when a client's bytes are held back
	closed  bool
}

// StartProxy returns a proxy for the service at target that passes everything.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, target: target, conns: map[net.Conn]bool{}, pass: make(chan struct{})}
	close(p.pass)
	p.tasks.Go(p.accept)
	t.Cleanup(p.Close)
	return p
}

// Address is where it listens.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Down resets all connections, and every new one at once.
func (p *Proxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	p.cutAll()
}

// Hang holds back all bytes from now on; connections stay open and can be made.
// The channel is closed when a client's bytes are being held back.
func (p *Proxy) Hang() (stalled <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pass, p.stalled = make(chan struct{}), make(chan struct{})
	return p.stalled
}

// Resume ends Down and Hang.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
	p.letPass()
}

// Close ends all connections and the proxy.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.letPass()
	p.cutAll()
	p.mu.Unlock()
	p.listener.Close()
	p.tasks.Wait()
}

func (p *Proxy) letPass() {
	select {
	case <-p.pass:
	default:
		close(p.pass)
	}
}

func (p *Proxy) cutAll() {
	for c := range p.conns {
		reset(c)
	}
}

// reset closes a connection so that the other side notices at once.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.tasks.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	if !p.add(client) {
		return
	}
	defer p.drop(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	if !p.add(server) {
		return
	}
	defer p.drop(server)
	var back sync.WaitGroup
	back.Go(func() { p.copy(client, server, false) })
	p.copy(server, client, true)
	back.Wait()
}

// add registers a connection, or resets it while the service is down.
func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down || p.closed {
		reset(c)
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

// copy moves bytes until either side ends, then ends both.
func (p *Proxy) copy(dst, src net.Conn, fromClient bool) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			p.wait(fromClient)
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait holds the caller's bytes back while the proxy hangs.
func (p *Proxy) wait(fromClient bool) {
	p.mu.Lock()
	pass := p.pass
	select {
	case <-pass:
	default:
		if fromClient && p.stalled != nil {
			close(p.stalled)
			p.stalled = nil
		}
	}
	p.mu.Unlock()
	<-pass
}

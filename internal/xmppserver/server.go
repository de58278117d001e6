// Package xmppserver is the server's side of XEP-0114 in one process: it accepts
// a component, checks its handshake and then sends it whatever its owner says.
//
// The demo, the tests and the benchmarks attach to it. It is no chat server: it
// has no users and no routing. It listens on the loopback interface only.
package xmppserver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
)

// ErrClosed says that the server or the session has ended.
var ErrClosed = errors.New("xmppserver: closed")

// Options say which component the server takes and how it behaves.
type Options struct {
	Component string   // domain of the component; any other is refused with host-unknown
	Secret    string   // shared secret of the handshake
	Hosts     []string // served domains; pings to them are answered
	// NoPongs leaves pings to the owner, who receives them like any other stanza.
	NoPongs bool
	// TLS makes the listener speak direct TLS.
	TLS *tls.Config
	// Fault, if set, is asked how to treat each connection, counted from 1.
	Fault func(connection int) Fault
}

// Fault is a way to misbehave towards one connection; the zero value behaves.
type Fault struct {
	Silent      bool   // read, and never say a word
	Raw         string // say this at once and nothing else, and keep the connection open
	NoStreamID  bool   // a stream header without id
	OtherID     bool   // check the handshake against an id that was not sent
	StreamError string // refuse with this condition of RFC 6120 section 4.9.3 instead of <handshake/>
	Drop        bool   // close the connection instead of sending <handshake/>
	Deaf        bool   // read nothing after the handshake, so that the component's writes stall
	Prologue    string // sent in place of the XML declaration before the stream header
	Answer      string // sent in place of <handshake/>
	Glue        string // XML written in the same segment as <handshake/>
	Farewell    string // XML sent between the component's </stream:stream> and our own
	Segment     int    // write in pieces of so many bytes; 0 writes at once
}

// Server listens for components. Its methods are safe for concurrent use.
type Server struct {
	options  Options
	listener net.Listener
	sessions chan *Session
	closed   chan struct{}
	wait     sync.WaitGroup

	mu        sync.Mutex
	conns     map[net.Conn]struct{}
	connected *Session // the one live session; a second is a conflict
	accepted  int
	ended     bool
}

// New listens on a free port of 127.0.0.1 and accepts connections until Close.
func New(o Options) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := NewUnlistened(o)
	s.listener = listener
	s.wait.Add(1)
	go s.accept()
	return s, nil
}

// NewUnlistened returns a server without a listener, for connections that the
// owner hands to Attach, such as the ends of a net.Pipe.
func NewUnlistened(o Options) *Server {
	return &Server{
		options:  o,
		sessions: make(chan *Session, 16),
		closed:   make(chan struct{}),
		conns:    make(map[net.Conn]struct{}),
	}
}

// Addr returns host:port of the listener, empty without one.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Accept returns the next component that completed its handshake.
// It returns ErrClosed after Close, or the context's error.
func (s *Server) Accept(ctx context.Context) (*Session, error) {
	select {
	case session := <-s.sessions:
		return session, nil
	case <-s.closed:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Connections returns how many connections were accepted so far.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Close stops listening, drops all connections and waits for their goroutines.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	s.ended = true
	close(s.closed)
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	var err error
	if s.listener != nil {
		err = s.listener.Close()
	}
	s.wait.Wait()
	return err
}

// Attach serves one connection in the background; the server owns it from now on.
func (s *Server) Attach(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		conn.Close()
		return
	}
	if s.options.TLS != nil {
		conn = tls.Server(conn, s.options.TLS)
	}
	s.accepted++
	var fault Fault
	if s.options.Fault != nil {
		fault = s.options.Fault(s.accepted)
	}
	s.conns[conn] = struct{}{}
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		session := newSession(conn, fault)
		session.release = func() { s.release(session) }
		s.serve(session)
	}()
}

func (s *Server) accept() {
	defer s.wait.Done()
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.Attach(conn)
	}
}

// serve runs one connection from its stream header to its end.
func (s *Server) serve(session *Session) {
	defer func() {
		s.release(session)
		s.mu.Lock()
		delete(s.conns, session.conn)
		s.mu.Unlock()
		session.end()
	}()
	if !s.handshake(session) {
		return
	}
	select {
	case s.sessions <- session:
	case <-s.closed:
		return
	}
	if session.fault.Deaf {
		select {
		case <-s.closed:
		case <-session.dropped:
		}
		return
	}
	session.read(s.pong)
}

// release ends the session's claim, if it has it.
func (s *Server) release(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected == session {
		s.connected = nil
	}
}

// claim makes session the one that is connected, and reports whether it could.
func (s *Server) claim(session *Session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.connected != nil {
		return false
	}
	s.connected = session
	return true
}

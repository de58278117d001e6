// Package admin is the HTTP listener for operators and machines: health,
// readiness, metrics and the live page.
//
// On a loopback address without a token, every process of the machine may read. The package
// checks that a browser was not tricked into asking (Host and Origin). On any other address
// all but the two probes and the empty page demand a bearer token. What changes something, or
// shows what users wrote, demands the token on every address.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/config"
	"eventpusher/pusher/trace"
)

// The limits of a connection; connections.go has those of all together. Scrapes and probes take milliseconds; whoever needs
// longer is broken or hostile.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 60 * time.Second
	maxHeaderBytes    = 16 << 10
	stopTimeout       = 5 * time.Second
)

// Options are what the process shows through the listener.
type Options struct {
	// Gatherer is the source of /metrics; required.
	Gatherer prometheus.Gatherer
	// Registerer takes the listener's own metrics; nil leaves them out.
	Registerer prometheus.Registerer
	// Ready returns the reasons why the process cannot take events, none when it
	// can. It is called by several requests at once and must not block.
	// A reason is one line without secrets. nil means always ready.
	Ready func() []string
	// State is what /readyz answers when there is no such reason, one line without
	// secrets; it is called like Ready. nil means "ready".
	State func() string
	// Status returns what /api/status and the page show; it is marshalled as JSON
	// and must hold no secrets. It is called by several requests at once and must
	// not block. nil leaves the status out.
	Status func() any
	// Events and Letters are what the live page shows beside the status; without both there
	// is only the status.
	Events  *trace.Recorder
	Letters Letters
	// API are further paths, each with the handler that answers all methods. They may
	// change things: they demand the token wherever the server listens, and refuse
	// everything where there is none.
	API map[string]http.Handler
	// Log takes the server's own complaints; nil discards them.
	Log *slog.Logger
}

// Server is the admin listener: New, then Listen, then Run, once each.
type Server struct {
	cfg      config.Admin
	o        Options
	listener net.Listener
	loopback bool // of the address that was bound

	connections *connections
	trying      chan struct{} // holds one while an expression is tried
	ending      chan struct{} // closed when the server stops
}

// New checks cfg. The error says what is wrong with [admin].
func New(cfg config.Admin, o Options) (*Server, error) {
	host, port, err := splitListen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, fmt.Errorf("admin: listen = %q: %q is no port; give a number from 0 to 65535", cfg.Listen, port)
	}
	// What a name stands for is known when it is bound; an address can be judged now.
	if ip := net.ParseIP(host); cfg.Token == "" && (host == "" || ip != nil && !ip.IsLoopback()) {
		return nil, tokenRequired(cfg.Listen)
	}
	if o.Gatherer == nil {
		return nil, errors.New("admin: no metrics to serve: Options.Gatherer is nil")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, o: o, connections: newConnections(o.Log), trying: make(chan struct{}, 1), ending: make(chan struct{})}
	if o.Registerer != nil {
		if err := o.Registerer.Register(s.connections.closed); err != nil {
			return nil, fmt.Errorf("admin: register metrics: %w", err)
		}
	}
	return s, nil
}

func splitListen(listen string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(listen)
	if err != nil {
		return "", "", fmt.Errorf(`admin: listen = %q is not host:port; write for example "127.0.0.1:9090"`, listen)
	}
	return host, port, nil
}

func tokenRequired(listen string) error {
	return fmt.Errorf("admin: listen = %q can be reached from other machines and needs a token; set token or token_file in [admin], or listen on 127.0.0.1", listen)
}

// Listen binds the address, so that a taken port is an error at start.
func (s *Server) Listen() error {
	ln, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return explainListen(s.cfg.Listen, err)
	}
	addr, ok := ln.Addr().(*net.TCPAddr)
	s.loopback = ok && addr.IP.IsLoopback()
	if !s.loopback && s.cfg.Token == "" {
		return errors.Join(tokenRequired(s.cfg.Listen), ln.Close())
	}
	s.listener = ln
	return nil
}

func explainListen(listen string, err error) error {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("admin: %s is taken by another process; stop that or set another listen in [admin]", listen)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("admin: this user may not listen on %s; take a port of 1024 or above in [admin] listen", listen)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("admin: this machine has no address for %s; [admin] listen takes one of its own or 127.0.0.1", listen)
	case errors.As(err, &dns):
		return fmt.Errorf("admin: the host of listen = %q cannot be resolved; write an address such as 127.0.0.1", listen)
	}
	return fmt.Errorf("admin: listen on %s: %w", listen, err)
}

// Addr returns the bound address, nil before Listen.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Run serves until ctx ends, gives running requests a few seconds, and returns
// nil. It listens first if Listen was not called.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	srv := &http.Server{
		Handler:           s.handler(),
		ConnState:         s.connections.changed,
		ConnContext:       remember,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.o.Log.Handler(), slog.LevelWarn),
		// OPTIONS * goes through the guard like everything else.
		DisableGeneralOptionsHandler: true,
	}
	srv.RegisterOnShutdown(func() { close(s.ending) }) // streams would go on for ever
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin: serve on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		s.o.Log.Warn("admin requests cut off at stop", "err", err)
		_ = srv.Close() // what is left is of no use to anybody
	}
	<-served
	return nil
}

// Package component attaches to an XMPP server as an external component
// (XEP-0114) and turns what the server sends into stanzas that can be trusted.
//
// A Link keeps one connection: it dials, negotiates with mellium, reads the stream,
// answers IQs, sends requests and reconnects. Package stanza decodes, package trust decides
// which stanzas are facts, package eventfeed keeps the sequence of the event-feed.
package component

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	xmppjid "mellium.im/xmpp/jid"

	"eventpusher/component/eventfeed"
	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/jid"
	"eventpusher/internal/tlsconfig"
)

// Options is what a Link needs beside its configuration; all of it may be left out.
type Options struct {
	// Sink takes what is heard; default: Discard.
	Sink Sink
	// Silent leaves the modules of the event-feed without an answer: they say that they
	// are there, send nothing, and keep everything for the program that answers.
	Silent bool
	// IQ answers requests beside disco, ping and version. No two may be for the same.
	IQ []IQHandler
	// Passed is told of each message or presence that does not count, and why, by the
	// goroutine that reads the stream. It must not keep the stanza. Default: nobody is.
	Passed  func(s *stanza.Stanza, f trust.Feed, why string)
	Metrics *Metrics
	Log     *slog.Logger
	Now     func() time.Time // stamps what is received; default time.Now
	Version string           // what jabber:iq:version says
}

// Link is the connection to the XMPP server. One Run runs at a time; the other
// methods may be called by any goroutine at any time.
type Link struct {
	cfg         config.Component
	address     xmppjid.JID
	pingTo      string
	tls         *tls.Config // nil: plain TCP
	serverName  string
	dial        func(ctx context.Context, address string) (net.Conn, error)
	sink        Sink
	metrics     *Metrics
	log         *slog.Logger
	now         func() time.Time
	judge       *trust.Judge
	sources     *eventfeed.Sources
	responder   *responder
	checker     *checker
	requests    *requests
	subscribers *subscribers
	backoff     *backoff
	failures    *failureLog

	mu     sync.Mutex
	state  State
	since  time.Time
	failed *LinkError
	next   *trust.Served      // what the next connection serves; nil: what this one does
	renew  context.CancelFunc // ends the connection; nil before the first
}

// State is what a Link is doing.
type State string

// The states.
const (
	Stopped    State = "stopped"    // Run is not running
	Connecting State = "connecting" // dialling or shaking hands
	Connected  State = "connected"  // stanzas come in
	Waiting    State = "waiting"    // pausing before the next attempt
)

// Status is a snapshot of a Link without secrets and content of stanzas.
type Status struct {
	State   State     `json:"state"`
	Since   time.Time `json:"since"`
	Address string    `json:"address"`
	Name    string    `json:"name"`
	// LastError says why the link was down the last time, empty if it never was.
	LastError       string             `json:"last_error,omitempty"`
	LastErrorReason Reason             `json:"last_error_reason,omitempty"`
	Hosts           []trust.HostStatus `json:"hosts"`
	// Sources lists the sources of the event-feed by name.
	Sources []eventfeed.Status `json:"sources,omitempty"`
	// Alerts lists the feeds that should be there and are not.
	Alerts []Alert `json:"alerts,omitempty"`
}

// New returns a Link for the served hosts; it connects to nothing.
// Zero values in cfg mean the defaults that config.Component documents, except in
// Forwarders and MUCHosts, which say who is trusted: an empty list is nobody.
func New(cfg config.Component, hosts []string, o Options) (*Link, error) {
	withDefaults(&cfg)
	if len(hosts) == 0 {
		return nil, errors.New("general.hosts is empty: list the domains that the XMPP server serves")
	}
	address, err := xmppjid.Parse(cfg.Name)
	if err != nil || address.Localpart() != "" || address.Resourcepart() != "" {
		return nil, fmt.Errorf("component.name %q is no domain: set it to the component's, such as events.example.org", cfg.Name)
	}
	// As parsed, it would have lost its A-labels, and the server knows it in one form only.
	name, err := jid.FoldDomain(cfg.Name)
	if err != nil {
		return nil, fmt.Errorf("component.name %q is no domain: %w", cfg.Name, err)
	}
	if _, _, err := net.SplitHostPort(cfg.Address); err != nil {
		return nil, fmt.Errorf("component.address %q is not host:port: %w", cfg.Address, err)
	}
	if o.Sink == nil {
		o.Sink = Discard{}
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if len(jid.Named(hosts)) == 0 {
		return nil, errors.New("general.hosts has wildcards only: list one domain by its name as well, which the link can ask whether it is there")
	}
	l := &Link{
		cfg: cfg, address: xmppjid.NewUnsafe("", string(name), "").JID, pingTo: jid.Named(hosts)[0], dial: dialTCP,
		sink: o.Sink, metrics: o.Metrics, log: o.Log, now: o.Now,
		judge: trust.New(trust.Options{
			Component: cfg.Name, Forwarders: cfg.Forwarders, Hosts: hosts, MUCHosts: cfg.MUCHosts, Feeds: cfg.Authority, Passed: o.Passed,
			Metrics: o.Metrics.trust, Log: o.Log,
		}),
		checker:  newChecker(cfg.Name),
		requests: newRequests(), subscribers: newSubscribers(),
		backoff:  newBackoff(cfg.ReconnectMin, cfg.ReconnectMax),
		failures: &failureLog{to: o.Log},
		state:    Stopped, since: time.Now(),
	}
	if l.responder, err = newResponder(cfg.Name, o.Version, o.IQ, l.checker, o.Metrics); err != nil {
		return nil, err
	}
	l.sources = eventfeed.New(eventfeed.Options{
		Component: l.responder.name, Judge: l.judge, Sink: o.Sink, Silent: o.Silent, RequireToken: cfg.FeedToken == "required",
		Metrics: o.Metrics.feed, Log: o.Log,
	})
	if cfg.TLS != nil {
		l.serverName = hostOf(cfg.Address)
		if l.tls, err = tlsconfig.Client(cfg.TLS, l.serverName); err != nil {
			return nil, fmt.Errorf("component.tls: %w", err)
		}
		if cfg.TLS.ServerName != "" {
			l.serverName = cfg.TLS.ServerName
		}
	}
	return l, nil
}

func withDefaults(c *config.Component) {
	duration := func(d *time.Duration, otherwise time.Duration) {
		if *d <= 0 {
			*d = otherwise
		}
	}
	duration(&c.HandshakeTimeout, 10*time.Second)
	duration(&c.PingInterval, 30*time.Second)
	duration(&c.PingTimeout, 30*time.Second)
	duration(&c.ReconnectMin, 500*time.Millisecond)
	duration(&c.ReconnectMax, 5*time.Second)
	c.ReconnectMax = max(c.ReconnectMax, c.ReconnectMin)
	if c.Address == "" {
		c.Address = "localhost:5347"
	}
	// Zero limits mean the framer's own defaults, which are the documented ones.
}

// Serve changes which hosts are served and trusted. A link that is up is set up anew, in
// order, so that the server grants its privileges again and the modules of the event-feed introduce
// themselves. What they report meanwhile comes afterwards; what other feeds report meanwhile is lost.
// One of the hosts has a name without a wildcard. It is safe for concurrent use.
func (l *Link) Serve(s trust.Served) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = &s
	if l.renew != nil {
		l.renew()
	}
}

// renewed serves what Serve was given, if that was called. No connection is up.
func (l *Link) renewed(ctx context.Context) (connection context.Context, cancel context.CancelFunc) {
	l.mu.Lock()
	defer l.mu.Unlock()
	connection, cancel = context.WithCancel(ctx)
	l.renew = cancel
	if l.next != nil {
		l.judge.Serve(*l.next)
		l.sources.Serve()
		l.pingTo, l.next = jid.Named(l.next.Hosts)[0], nil
	}
	return connection, cancel
}

// Run connects, serves and reconnects until ctx ends; it then ends the stream in
// order, waits for a method of the Sink that is running, and returns nil. The old connection is closed before a new one is opened:
// ejabberd would share the stanzas out between two.
func (l *Link) Run(ctx context.Context) error {
	defer l.setState(Stopped)
	for ctx.Err() == nil {
		l.setState(Connecting)
		connection, cancel := l.renewed(ctx)
		lived, err := l.connect(connection)
		again := connection.Err() != nil
		cancel()
		if ctx.Err() != nil {
			break
		}
		if again {
			continue
		}
		pause := l.backoff.next(err, lived)
		l.fail(err, pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// connect runs one connection from the dial to its end, and says how long it was
// established: zero only if it never was.
func (l *Link) connect(ctx context.Context) (lived time.Duration, failed *LinkError) {
	fail := func(err error) *LinkError {
		if !errors.As(err, &failed) { // the context's error, which Run looks at first
			failed = &LinkError{Reason: Closed, Text: err.Error(), Err: err}
		}
		return failed
	}
	raw, err := l.open(ctx)
	if err != nil {
		return 0, fail(err)
	}
	defer raw.Close()
	a := l.newAttachment(raw)
	if err := a.handshake(ctx); err != nil {
		return 0, fail(err)
	}
	l.judge.Reconnected(l.now())
	l.metrics.connects.WithLabelValues("connected").Inc()
	l.metrics.connected.Set(1)
	l.setState(Connected)
	l.log.Info("component: attached to the XMPP server", "address", l.cfg.Address, "name", l.cfg.Name, "tls", l.tls != nil)
	established := time.Now()
	l.requests.attach(a.out)
	err = a.serve(ctx)
	l.requests.detach()
	l.metrics.connected.Set(0)
	l.setState(Connecting)
	return max(time.Since(established), 1), fail(err)
}

// fail notes why the link is down.
func (l *Link) fail(err *LinkError, pause time.Duration) {
	l.metrics.connects.WithLabelValues(string(err.Reason)).Inc()
	l.mu.Lock()
	l.failed, l.state, l.since = err, Waiting, time.Now()
	l.mu.Unlock()
	l.failures.log(err, pause)
}

func (l *Link) setState(s State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, l.since = s, time.Now()
}

// Connected reports whether the handshake is done and the stream alive.
func (l *Link) Connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state == Connected
}

// Status returns what the link is doing and how each host is heard.
func (l *Link) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{State: l.state, Since: l.since, Address: l.cfg.Address, Name: l.cfg.Name, Hosts: l.judge.Status(), Sources: l.sources.Status(), Alerts: l.alerts(time.Now())}
	if l.failed != nil {
		s.LastError, s.LastErrorReason = l.failed.Text, l.failed.Reason
	}
	return s
}

// Kept says that these positions are on disk: the sources of the event-feed need not keep
// what is up to there. It may be called by any goroutine, and never blocks.
func (l *Link) Kept(positions []eventfeed.Position) { l.sources.Kept(positions) }

// Refused says that what the Sink has accepted of a source of the event-feed, and has not
// kept until now, is given up. It may be called by any goroutine, and never blocks.
func (l *Link) Refused(source string) { l.sources.Refused(source) }

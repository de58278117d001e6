// Package component attaches to an XMPP server as an external component
// (XEP-0114) and turns what the server sends into stanzas that can be trusted.
//
// A Link keeps one connection: it dials, negotiates with mellium, frames and
// decodes stanzas on a fast path, answers IQs, sends requests and reconnects. Package
// trust decides which stanzas are facts.
package component

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	xmppjid "mellium.im/xmpp/jid"

	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/jid"
	"eventpusher/internal/tlsconfig"
)

// Options is what a Link needs beside its configuration; all of it may be left out.
type Options struct {
	// Handler takes each fact, one after another in the order of the stream, from
	// the goroutine that reads the socket: while it blocks, nothing is read. The
	// Fact is valid until it returns; its strings may be kept.
	Handler func(*trust.Fact)
	// Attached is called after each completed handshake, the first one too, by the
	// same goroutine as Handler and before it gets a stanza of that connection:
	// what was sent since the last one of the connection before is lost.
	Attached func()

	// Fed takes the event-feed's facts as Handler does those of the others, and accepted
	// is to be called once with nil when what becomes of them, and at as the position of
	// its source, are on disk, or else with why they are not. It may be called by any
	// goroutine, in the order of the calls of Fed and Undecodable, except that what is refused at
	// once may be so before the earlier ones are settled. Whoever refuses one without being
	// asked must refuse all later ones that he has taken: a position stands for all
	// before it. Without f only the position is to be kept.
	// Default: Handler, and accepted at once.
	Fed func(f *trust.Fact, at Position, accepted func(error))
	// Undecodable takes what cannot be decoded, in the same order. accepted is nil where
	// nobody wants to know. Default: left out, and accepted at once.
	Undecodable func(u Undecodable, accepted func(error))
	// Committed returns the position of a source on disk, ok is false where there is
	// none. It may be called by any goroutine and must not block.
	Committed func(source string) (epoch string, seq uint64, ok bool)
	// Told reports whether everything had been told of the source's sessions at its
	// position on disk: a snapshot had ended since the last loss. It may be called by any
	// goroutine and must not block. Default: it had not.
	Told func(source string) bool
	// Silent leaves the modules of the event-feed without an answer: they say that they
	// are there, send nothing, and keep everything for whoever answers.
	Silent bool
	// Resumed is called when a source of the event-feed goes on, by the same goroutine
	// as Fed and before what follows: complete says that nothing was missed since what was
	// handed over last, by this process or by one before it. Not complete are also a
	// loss, and events that come again because they were refused.
	Resumed func(source string, complete bool)
	// Overtaken is called just before Resumed, which says complete then, when another
	// process has taken events of the source since this one did, and has told all there
	// was to tell of its sessions: what this one remembers of them is out of date, and would
	// be told twice.
	Overtaken func(source string)

	// Settled is called, like Handler, when the server has said all it knows about
	// who is online since the connection was set up: nothing told by then of a session
	// that was online before means that it has ended. users are the bare JIDs that
	// this holds for; nil means every session of the host. Both may come, in this order.
	Settled func(host jid.JID, users []jid.JID)
	// IQ answers requests beside disco, ping and version. No two may be for the same.
	IQ      []IQHandler
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
	handler     func(*trust.Fact)
	attached    func()
	settled     func(host jid.JID, users []jid.JID)
	metrics     *Metrics
	log         *slog.Logger
	now         func() time.Time
	judge       *trust.Judge
	sources     *sources
	responder   *responder
	checker     *checker
	requests    *requests
	subscribers *subscribers
	backoff     *backoff
	warnings    *limitedLog
	failures    *failureLog

	mu     sync.Mutex
	state  State
	since  time.Time
	failed *LinkError
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
	Sources []SourceStatus `json:"sources,omitempty"`
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
	if o.Handler == nil {
		o.Handler = func(*trust.Fact) {}
	}
	if o.Attached == nil {
		o.Attached = func() {}
	}
	o.feedDefaults()
	if o.Settled == nil {
		o.Settled = func(jid.JID, []jid.JID) {}
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
	l := &Link{
		cfg: cfg, address: xmppjid.NewUnsafe("", string(name), "").JID, pingTo: hosts[0], dial: dialTCP,
		handler: o.Handler, attached: o.Attached, settled: o.Settled, metrics: o.Metrics, log: o.Log, now: o.Now,
		judge: trust.New(trust.Options{
			Component: cfg.Name, Forwarders: cfg.Forwarders, Hosts: hosts, MUCHosts: cfg.MUCHosts, Feeds: cfg.Feeds, Metrics: o.Metrics.trust, Log: o.Log,
		}),
		checker:  newChecker(cfg.Name),
		requests: newRequests(), subscribers: newSubscribers(),
		backoff:  newBackoff(cfg.ReconnectMin, cfg.ReconnectMax),
		warnings: &limitedLog{to: o.Log, every: warnEvery},
		failures: &failureLog{to: o.Log},
		state:    Stopped, since: time.Now(),
	}
	if l.responder, err = newResponder(cfg.Name, o.Version, o.IQ, l.checker, o.Metrics); err != nil {
		return nil, err
	}
	l.sources = newSources(&o, l.judge, string(l.responder.name))
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

// feedDefaults stand for an owner who keeps nothing on disk.
func (o *Options) feedDefaults() {
	if o.Fed == nil {
		o.Fed = func(f *trust.Fact, _ Position, accepted func(error)) {
			if f != nil {
				o.Handler(f)
			}
			accepted(nil)
		}
	}
	if o.Undecodable == nil {
		o.Undecodable = func(_ Undecodable, accepted func(error)) {
			if accepted != nil {
				accepted(nil)
			}
		}
	}
	if o.Told == nil {
		o.Told = func(string) bool { return false }
	}
	if o.Committed == nil {
		o.Committed = func(string) (string, uint64, bool) { return "", 0, false }
	}
	if o.Overtaken == nil {
		o.Overtaken = func(string) {}
	}
	if o.Resumed == nil {
		o.Resumed = func(string, bool) {}
	}
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

// Run connects, serves and reconnects until ctx ends; it then ends the stream in
// order, waits for a Handler that is running, and returns nil. The old connection is closed before a new one is opened:
// ejabberd would share the stanzas out between two.
func (l *Link) Run(ctx context.Context) error {
	defer l.setState(Stopped)
	for ctx.Err() == nil {
		l.setState(Connecting)
		lived, err := l.connect(ctx)
		if ctx.Err() != nil {
			break
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
	l.judge.Reconnected()
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
	s := Status{State: l.state, Since: l.since, Address: l.cfg.Address, Name: l.cfg.Name, Hosts: l.judge.Status(), Sources: l.sources.status()}
	if l.failed != nil {
		s.LastError, s.LastErrorReason = l.failed.Text, l.failed.Reason
	}
	return s
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}

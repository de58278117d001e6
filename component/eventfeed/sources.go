// Package eventfeed is the component's half of the event-feed: it takes what the feed
// modules of a server send, in sequence and nothing twice, and tells them what is kept.
// docs/feed-protocol.md is the protocol, and the only reason to change this package.
//
// Package trust has a table of the terms.
package eventfeed

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// maxSources is how many sources are remembered. A server in a cluster that changes its
// name at each start makes a new one each time.
const maxSources = 256

// What cannot be decoded goes to the dead letters whole this often at most: so many at
// once, and then one in so long. Of more, events of the event-feed, which must be
// recorded to be acknowledged, leave briefBytes, and other stanzas only their count.
// One user can send any number of them.
const (
	undecodableBurst = 30
	undecodableEvery = 10 * time.Second
	briefBytes       = 1 << 10
)

// Options are the parts that Sources works with.
type Options struct {
	Component jid.JID // our name
	Judge     *trust.Judge
	Sink      Sink
	// Silent leaves the modules without an answer: they say that they are there, send
	// nothing, and keep everything for the program that answers.
	Silent bool
	// RequireToken refuses modules that do not repeat tokens.
	RequireToken bool
	Metrics      *Metrics
	Log          *slog.Logger
}

// Sources are all sources of the event-feed. The goroutine that reads the stream calls
// Take and Damaged. Kept and Refused may be called by any goroutine and never block; Run
// tells the modules.
type Sources struct {
	options Options
	judge   *trust.Judge
	sink    Sink
	name    jid.JID
	metrics *Metrics
	log     *slog.Logger
	letters *rate.Limiter // of undecodable stanzas
	wake    chan struct{} // Run has something to do

	mu       sync.Mutex
	send     func([]byte) bool // nil: not connected
	attached time.Time         // when, zero while not connected
	byName   map[string]*source
	proven   map[jid.JID]bool // hosts that were heard with tokens
}

// New returns Sources that know of none yet. The judge asks them whether they are silent.
func New(o Options) *Sources {
	s := &Sources{
		options: o, judge: o.Judge, sink: o.Sink, name: o.Component, metrics: o.Metrics, log: o.Log,
		letters: rate.NewLimiter(rate.Every(undecodableEvery), undecodableBurst),
		wake:    make(chan struct{}, 1),
		byName:  make(map[string]*source), proven: make(map[jid.JID]bool),
	}
	if !o.Silent {
		s.judge.Silent(s.silent)
	}
	return s
}

// Attached says how sources are told things from now on. send takes a stanza and returns
// false if there is no room for it; it never blocks.
func (s *Sources) Attached(send func([]byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send, s.attached = send, time.Now()
}

// Serve says that more hosts are served from the next connection on. What the sources have told of
// their sessions was left out, so each of them is asked for a snapshot.
func (s *Sources) Serve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.byName {
		src.unheard = true
	}
}

// Detached says that there is no connection any more.
func (s *Sources) Detached() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send, s.attached = nil, time.Time{}
	for _, src := range s.byName {
		src.connection = connection{}
	}
}

// Take deals with a message that has an element of the feed.
func (s *Sources) Take(env *stanza.Envelope, now time.Time) { s.take(env, nil, "", now) }

// Damaged deals with a message or presence that is refused; env holds what could be
// read of it, b its beginning.
func (s *Sources) Damaged(env *stanza.Envelope, b []byte, reason string, now time.Time) {
	if env.Feed != nil && env.Feed.Element != stanza.FeedOther {
		s.take(env, b, reason, now)
		return
	}
	s.unreadable(env.Outer.From)
	if s.letters.AllowN(now, 1) {
		s.sink.Bury(undecodable(env, Position{}, b, reason, now))
	}
}

// unreadable notes that a stanza of a host, or the element of a source in it, could not
// be read: perhaps it was an event whose number will be missing.
func (s *Sources) unreadable(host jid.JID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.byName {
		if src.reachable() && (src.host == host || slices.Contains(src.hello.Hosts, host)) {
			src.gap.unread = true
		}
	}
}

// take deals with an element of the feed; reason says what is wrong with the message
// behind it, if anything.
func (s *Sources) take(env *stanza.Envelope, b []byte, reason string, now time.Time) {
	f, host := env.Feed, env.Outer.From
	if !s.judge.Module(env, s.announced(f, host), now) {
		if f.Element == stanza.FeedHello && host.Local() == "" && host.IsBare() && env.Outer.Type != "error" {
			s.metrics.unserved.Inc() // of a host; users can say anything
		}
		return
	}
	v := malformed
	switch f.Element {
	case stanza.FeedHello:
		if v = s.hello(f, host, now); v == accepted {
			return
		}
	case stanza.FeedEvent:
		v = s.event(env, b, reason, now)
	case stanza.FeedLost:
		v = s.lost(f, host)
	case stanza.FeedOther:
		s.unreadable(host)
	}
	s.metrics.events[v].Inc()
	switch v {
	case unexpected, malformed:
		s.judge.Warn(now, "", "component: skipped an element of the event-feed", "result", verdictNames[v], "host", host, "source", f.Source)
	case unproven:
		s.judge.Complain(now, "", "component: refused an element of the event-feed without a token",
			"another component of the server may be speaking in the host's name; "+
				"if its feed module was set back to an older version, install the current one, or restart eventpusher with [component] feed_token = \"optional\"",
			"host", host, "source", f.Source)
	case surplus:
		s.judge.Complain(now, "", "component: there are too many sources of the event-feed at once, another one is not heard",
			"another component of the server may be making sources up; let only the server's modules speak in the host's name",
			"host", host, "source", f.Source, "most", maxSources)
	}
}

// announced reports whether the source has said that the host is one of its own, or
// proves by a token that the element is its own. A source may have hosts that are not
// served here; their events fill places in the sequence all the same. Only a forwarder
// can introduce a source.
func (s *Sources) announced(f *stanza.Feed, host jid.JID) bool {
	if f.Element != stanza.FeedEvent && f.Element != stanza.FeedLost {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.byName[f.Source]
	return src != nil && (src.answered && slices.Contains(src.hello.Hosts, host) || src.knows(f.Token))
}

// hello takes a source's introduction, and accepts it if it counts. From then on nothing of
// the source counts until it was told what is kept, unless it repeats tokens. Its hosts count
// when the source has proven that it can hear us.
func (s *Sources) hello(f *stanza.Feed, host jid.JID, now time.Time) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !f.Hello.Token && (s.options.RequireToken || s.proven[host]) {
		return unproven
	}
	src := s.source(f.Source)
	if src == nil {
		return surplus
	}
	var kept Position
	if src.idle() { // else it is this process that has taken the last events
		kept = s.kept(f.Source)
	}
	g, repeated := src.greet(f, host, kept, now)
	if src.again >= 3 {
		s.judge.Complain(now, src.name, "component: a feed module repeats its introduction, so our answers do not reach it",
			"see whether the name of the component that the module is configured with is ours, and the server's log", "source", src.name, "host", host)
	}
	if s.options.Silent && !repeated {
		s.introduce(src, now) // it will not be heard
	}
	if g.told && (!repeated || g.continuity == Overtaken) {
		s.sink.Resumed(src.name, g.continuity)
	}
	s.say(src, time.Now())
	return accepted
}

// introduce logs a source that has come and lets its hosts count. s.mu is held.
func (s *Sources) introduce(src *source, now time.Time) {
	src.proven = true
	s.log.Info("component: a source of the event-feed is there", "source", src.name, "host", string(src.host),
		"server", trust.Shortened(src.hello.Server), "kept", src.hello.Next-src.hello.First, "continuity", src.greeting.continuity.String())
	if unserved := s.judge.Announced(src.hello.Hosts, now); len(unserved) > 0 {
		s.judge.Complain(now, src.name, "component: the source has hosts that are not served here, their events are left out",
			"list them in general.hosts, or rooms' in component.muc_hosts, if they are to count", "source", src.name, "hosts", unserved)
	}
}

// source returns the source of that name, a new one if need be, in place of one of which
// nothing has come on this connection if there are too many: the one that was not heard
// for the longest time. It returns nil if there is none such. s.mu is held.
func (s *Sources) source(name string) *source {
	if src := s.byName[name]; src != nil {
		return src
	}
	if len(s.byName) >= maxSources {
		var oldest *source
		for _, src := range s.byName {
			live := src.answered && !src.quiet
			if !live && src.idle() && (oldest == nil || src.heard.Before(oldest.heard)) {
				oldest = src
			}
		}
		if oldest == nil {
			return nil
		}
		delete(s.byName, oldest.name)
	}
	src := &source{name: strings.Clone(name)}
	s.byName[src.name] = src
	return src
}

// Kept says that these positions are on disk.
func (s *Sources) Kept(positions []Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range positions {
		src := s.byName[at.Source]
		if src == nil {
			continue
		}
		src.settle(at)
		s.settled(src)
	}
}

// Refused says that what was accepted of a source and is not kept yet is given up.
func (s *Sources) Refused(source string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if src := s.byName[source]; src != nil {
		src.pending, src.before = Position{}, Position{}
		s.refused(src)
	}
}

// refused makes the source send again what was not accepted. s.mu is held.
func (s *Sources) refused(src *source) {
	if !src.refused {
		s.log.Debug("component: events are not kept, the source will be asked for them again", "source", src.name)
	}
	s.metrics.refused.Inc()
	src.refused, src.owed, src.askAt = true, true, time.Now().Add(askPause)
	src.void()
	s.settled(src)
}

// settled says what is due, at once or after a moment. s.mu is held.
func (s *Sources) settled(src *source) {
	if src.owed && src.idle() || src.unacked() >= ackEvents {
		s.say(src, time.Now())
	} else if src.due() {
		s.nudge()
	}
}

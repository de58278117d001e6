package component

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

// sources is our half of the event-feed: it takes what the feed modules send, in
// sequence and nothing twice, and tells them what is kept (docs/feed-protocol.md).
//
// The goroutine that reads the socket calls take and damaged; what is kept is learned
// from whoever keeps it; run tells the modules.
type sources struct {
	options  *Options
	judge    *trust.Judge
	name     string
	metrics  *Metrics
	log      *slog.Logger
	warnings *limitedLog   // of the reading goroutine
	letters  *rate.Limiter // of undecodable stanzas
	wake     chan struct{} // run has something to do

	mu     sync.Mutex
	out    *outbound // nil: not connected
	byName map[string]*source
}

func newSources(o *Options, judge *trust.Judge, name string) *sources {
	return &sources{
		options: o, judge: judge, name: name, metrics: o.Metrics, log: o.Log,
		warnings: &limitedLog{to: o.Log, every: warnEvery},
		letters:  rate.NewLimiter(rate.Every(undecodableEvery), undecodableBurst),
		wake:     make(chan struct{}, 1),
		byName:   make(map[string]*source),
	}
}

// attached makes out the connection by which sources are told things.
func (s *sources) attached(out *outbound) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = out
}

// detached says that there is no connection any more.
func (s *sources) detached() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = nil
	for _, src := range s.byName {
		src.disconnected()
	}
}

// take deals with a message that has an element of the feed.
func (s *sources) take(env *stanza.Envelope, now time.Time) {
	s.element(env, nil, "", now)
}

// damaged deals with a message or presence that is refused; env holds what could be
// read of it, b its beginning.
func (s *sources) damaged(env *stanza.Envelope, b []byte, reason string, now time.Time) {
	if env.Feed != nil && env.Feed.Element != stanza.FeedOther {
		s.element(env, b, reason, now)
		return
	}
	if s.letters.AllowN(now, 1) {
		s.undecodable(env, nil, b, reason, now, nil)
	}
}

// element deals with an element of the feed; reason says what is wrong with the message
// behind it, if anything.
func (s *sources) element(env *stanza.Envelope, b []byte, reason string, now time.Time) {
	f, host := env.Feed, env.Outer.From
	if !s.judge.Module(env, !s.judge.Forwards(host) && s.announced(f, host)) {
		return
	}
	v := malformed
	switch f.Element {
	case stanza.FeedHello:
		s.hello(f, host, now)
		return
	case stanza.FeedEvent:
		v = s.event(env, b, reason, now)
	case stanza.FeedLost:
		v = s.lost(f, now)
	}
	s.metrics.feedEvents[v].Inc()
	if v == unexpected || v == malformed {
		s.warnings.log("component: skipped an element of the event-feed", slog.String("result", verdictNames[v]),
			slog.String("host", string(host)), slog.String("source", f.Source))
	}
}

// announced reports whether the source has said that the host is one of its own. A
// source may have hosts that are not served here; their events fill places in the
// sequence all the same. Only a forwarder can introduce a source.
func (s *sources) announced(f *stanza.Feed, host jid.JID) bool {
	if f.Element != stanza.FeedEvent && f.Element != stanza.FeedLost {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	src := s.byName[f.Source]
	return src != nil && src.answered && slices.Contains(src.hello.Hosts, host)
}

// hello takes a source's introduction. From then on nothing of it counts until it was
// told what is kept.
func (s *sources) hello(f *stanza.Feed, host jid.JID, now time.Time) {
	s.mu.Lock()
	src := s.source(f.Source)
	var kept *Position
	if src.pending == 0 { // else it is this process that has taken the last events
		if epoch, seq, ok := s.options.Committed(f.Source); ok {
			kept = &Position{Source: f.Source, Epoch: epoch, Seq: seq}
		}
	}
	repeated, complete, overtaken := src.greet(f, host, kept, s.options.Told(f.Source), now)
	s.mu.Unlock()
	if overtaken {
		s.options.Overtaken(src.name)
	}
	unserved := s.judge.Announced(f.Hello.Hosts)
	if !repeated || overtaken {
		s.log.Info("component: a source of the event-feed is there", "source", f.Source, "host", string(host),
			"server", shortened(f.Hello.Server), "kept", f.Hello.Next-f.Hello.First, "complete", complete)
		if len(unserved) > 0 {
			s.log.Info("component: the source has hosts that are not served here, their events are left out",
				"source", f.Source, "hosts", unserved, "remedy", "list them under general.hosts or component.muc_hosts if they are to count")
		}
		s.options.Resumed(src.name, complete)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.say(src, time.Now())
}

// source returns the source of that name, a new one if need be, in place of the one that
// was not heard for the longest time if there are too many. s.mu is held.
func (s *sources) source(name string) *source {
	if src := s.byName[name]; src != nil {
		return src
	}
	if len(s.byName) >= maxSources {
		var oldest *source
		for _, src := range s.byName {
			if src.pending == 0 && (oldest == nil || src.heard.Before(oldest.heard)) {
				oldest = src
			}
		}
		if oldest != nil {
			delete(s.byName, oldest.name)
		}
	}
	src := &source{name: strings.Clone(name)}
	s.byName[src.name] = src
	return src
}

// event takes one event and hands it over if it is the next one.
func (s *sources) event(env *stanza.Envelope, b []byte, reason string, now time.Time) verdict {
	f := env.Feed
	src, v, untold := s.advance(f, f.Seq, f.Seq, false)
	if v != accepted {
		return v
	}
	if untold {
		s.options.Resumed(src.name, false)
	}
	at := Position{Source: src.name, Epoch: f.Epoch, Seq: f.Seq}
	kept := func(err error) { s.settled(src, at, err) }
	if reason == "" {
		fact, v := s.judge.Report(env, now)
		switch v {
		case trust.Trusted:
			s.options.Fed(fact, at, kept)
			return accepted
		case trust.Untranslatable:
			reason, b = "an event without what its kind needs", []byte(env.Outer.Raw)
		}
	}
	if reason == "" || !s.judge.Serves(env.Outer.From) {
		s.options.Fed(nil, at, kept)
		return unwanted
	}
	if len(b) > briefBytes && !s.letters.AllowN(now, 1) {
		b = b[:briefBytes]
	}
	place := at // its address is taken, and at is to stay in the closure of the usual case
	s.undecodable(env, &place, b, reason, now, kept)
	return unreadable
}

// lost takes note of events that the module has given up.
func (s *sources) lost(f *stanza.Feed, now time.Time) verdict {
	src, v, _ := s.advance(f, f.From, f.To, true)
	if v != accepted {
		return v
	}
	s.log.Warn("component: the server has given up events before they could be taken",
		"source", f.Source, "from", f.From, "to", f.To)
	s.options.Resumed(src.name, false)
	at := Position{Source: src.name, Epoch: f.Epoch, Seq: f.To}
	s.options.Fed(nil, at, func(err error) { s.settled(src, at, err) })
	return accepted
}

// advance moves a source's sequence on over from..to if that is what comes next. The
// caller then hands it over, after saying that something was missed if untold is set.
func (s *sources) advance(f *stanza.Feed, from, to uint64, lost bool) (src *source, v verdict, untold bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src = s.byName[f.Source]
	v = src.place(f.Epoch, from, to, lost)
	switch v {
	case accepted:
	case duplicated:
		src.duplicate++
		return src, v, false
	case missing:
		if !src.gap {
			src.gap, src.owed = true, true
			s.say(src, time.Now())
		}
		return src, v, false
	default:
		return src, v, false
	}
	if lost {
		n := to - from + 1
		if !src.fresh {
			n = to - src.received
		}
		src.holes++
		src.lost += n
		src.wantSnapshot = true
		s.metrics.feedHoles.Inc()
		s.metrics.feedLost.Add(float64(n))
		s.nudge()
	} else if f.Kind == stanza.SnapshotEnd && f.ID == src.snapshot {
		src.snapshot = ""
	}
	untold, src.untold = src.untold, false
	src.received, src.fresh, src.gap, src.quiet = max(src.received, to), false, false, false
	src.pending++
	return src, v, untold
}

// settled is told that what was handed over is kept, or why it is not. It is called
// by any goroutine and never blocks.
func (s *sources) settled(src *source, at Position, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src.pending--
	if err == nil {
		src.committed = at
	} else {
		if !src.refused {
			s.log.Debug("component: events are not kept, the source will be asked for them again", "source", src.name, "err", err)
		}
		s.metrics.feedRefused.Inc()
		src.refused, src.owed, src.askAt = true, true, time.Now().Add(askPause)
	}
	if src.owed && src.pending == 0 || src.unacked() >= ackEvents {
		s.say(src, time.Now())
	} else if src.due() {
		s.nudge()
	}
}

// undecodable hands over what cannot be decoded.
func (s *sources) undecodable(env *stanza.Envelope, at *Position, b []byte, reason string, now time.Time, kept func(error)) {
	outer := &env.Outer
	u := Undecodable{
		At: at, From: outer.From, To: outer.To, Element: outer.Kind.String(), Reason: reason,
		Bytes: b[:min(len(b), MaxUndecodable)], Received: now,
	}
	if at != nil {
		u.User = env.Feed.User
	}
	s.options.Undecodable(u, kept)
}

// shortened bounds what somebody else says about himself.
func shortened(text string) string {
	const most = 200
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// Package translator says what happened: it turns the stanzas that a server
// forwards into events by the rules of MongooseIM's mod_event_pusher.
//
// It is pure. It does no I/O, reads no clock but the one it is given, and logs
// nothing; what it remembers is the presence table and, for feeds that mark no
// direction, which copies it has seen lately, and for the event-feed, what it has
// told lately.
//
// A message of a user on a served host is an event when the user sent it (in),
// and a second one if it goes to a local domain (out). A message of anybody else
// is an event when it reaches a local user (out). The copies that a server makes
// of one message beside these give nothing.
package translator

import (
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// DefaultMaxResources is how many available resources of one user are kept
// unless Options says otherwise.
const DefaultMaxResources = 20

// Options say which addresses are local.
type Options struct {
	// Hosts are the served domains, MUCHosts their conference domains.
	// Both are local domains in MongooseIM's sense.
	Hosts, MUCHosts []string
	// ToUsersOnly says that a message on its way to a local room, or to a served host itself,
	// makes no out event (MongooseIM 6.9).
	ToUsersOnly bool
	// Component is the domain of the component itself.
	Component string
	// Now is the clock for stanzas without a time of receipt; nil means time.Now.
	Now func() time.Time
	// MaxResources bounds the available resources kept of one bare JID where the feed
	// misses the end of sessions (service_log, and privilege on ejabberd); below one means
	// DefaultMaxResources. Ghosts would otherwise collect without end; the oldest give way.
	// Other feeds miss none: of theirs 1000 are kept, and those of the event-feed are
	// bounded by the server.
	MaxResources int
	// MaxStale is how long a session counts that was available before a gap in the
	// feed (Gap, Resume) and has not been confirmed since, by the time of the
	// stanzas; zero or less means DefaultMaxStale. Then the session is dropped without
	// an event.
	MaxStale time.Duration
}

// Translator turns stanzas into events.
// It is not safe for concurrent use, except for Stats: the order of stanzas, gaps
// and snapshots is what it judges by.
type Translator struct {
	hosts     *hosts
	component string
	usersOnly bool
	now       func() time.Time
	sessions  *sessions
	copies    *copies
	ids       identifier
	decoder   *stanza.Decoder // of messages in wrappers; nil until there was one
	counters  counters
	skipped   Reason // of the last stanza that made no event
}

// Serve changes the served domains and their conference domains. Sessions on hosts that are not served any
// more are forgotten without an event. It belongs to the goroutine that calls Translate.
func (t *Translator) Serve(hosts, mucHosts []string) {
	before := t.hosts
	t.hosts = newHosts(hosts, mucHosts, t.component)
	kept := make(map[*host]*host) // by the new one
	for name, was := range before.known {
		h := t.hosts.find(name)
		if h == nil || was.rooms != h.rooms {
			continue
		}
		if kept[h] == nil {
			kept[h] = was
		}
		t.hosts.known[name] = kept[h]
	}
	t.sessions.drop(func(domain string, _ *session) bool {
		h := t.hosts.find(domain)
		return h == nil || h.rooms
	}, nil)
	t.counters.table(t.sessions)
}

// New returns a translator that knows of no session yet.
func New(o Options) *Translator {
	t := &Translator{
		hosts:     newHosts(o.Hosts, o.MUCHosts, o.Component),
		component: string(jid.Prepare(o.Component)),
		usersOnly: o.ToUsersOnly,
		now:       o.Now,
		copies:    newCopies(),
	}
	if t.now == nil {
		t.now = time.Now
	}
	limit := o.MaxResources
	if limit < 1 {
		limit = DefaultMaxResources
	}
	maxStale := o.MaxStale
	if maxStale <= 0 {
		maxStale = DefaultMaxStale
	}
	t.sessions = newSessions(limit, maxStale)
	return t
}

// Translate appends the events that s stands for to dst: none, one, or for a
// message from one local address to another two, in before out. The end of a
// snapshot can stand for as many as there were sessions.
//
// An event of the event-feed has the id that its source, epoch and seq give it, so
// it is the same when the source sends it again, to this process or to the next one.
//
// The events share the memory of s.Raw. Translate believes s: who may report
// what has been decided before.
func (t *Translator) Translate(s *trust.Fact, dst []event.Event) []event.Event {
	t.counters.stanzas.Add(1)
	received := s.Received
	if received.IsZero() {
		received = t.now()
	}
	first := len(dst)
	reason := SkippedType
	switch {
	case s.Feed == trust.EventFeed:
		dst, reason = t.report(s, received, dst)
	case s.Kind == stanza.Message:
		dst, reason = t.message(s, s.Copy, received, dst)
	case s.Kind == stanza.Presence:
		dst, reason = t.presence(s, received, dst)
	}
	t.sessions.sweep(received)
	t.noteTable()
	if len(dst) == first {
		t.counters.skipped[reason].Add(1)
		t.skipped = reason
		return dst
	}
	t.counters.events.Add(int64(len(dst) - first))
	if s.Feed == trust.EventFeed {
		t.ids.assignReported(&s.Report, dst[first:])
	} else {
		t.ids.assign(s, received, dst[first:])
	}
	return dst
}

// noteTable counts what has changed in the table.
func (t *Translator) noteTable() {
	if t.sessions.changed {
		t.sessions.changed = false
		t.counters.table(t.sessions)
	}
}

// base returns what all events of a stanza have in common.
func base(s *trust.Fact, received time.Time) event.Event {
	return event.Event{
		From:     s.From,
		StanzaID: s.ID,
		Time:     received,
		Host:     string(s.Host),
		Dialect:  s.Feed.String(),
		Packet:   s.Raw,
	}
}

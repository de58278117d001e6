package component

import (
	"log/slog"
	"strings"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// Feeds decides which stanzas are facts: who may forward what, which dialect a
// stanza belongs to, and which dialect counts.
//
// A stanza is evidence only as far as its sender is trusted: on every server a
// plain user can send the component a forged <forwarded/>, privileges or presence.
// One goroutine classifies; Status may be called by any.
type Feeds struct {
	name       jid.JID
	forwarders map[jid.JID]bool
	hosts      map[jid.JID]bool
	mucHosts   map[jid.JID]bool
	granted    map[jid.JID]bool // hosts that granted presence (XEP-0356) on this connection
	grants     grants
	authority  *authorities
	metrics    *Metrics
	log        *slog.Logger
}

// NewFeeds returns the classifier for the component of that name. forwarders are
// the domains whose wrappers are opened; without any nobody's are, since a default
// would trust whom the caller did not name. mucHosts are taken as given too. feeds
// are the dialects to accept, by default whatever is heard, the best one first.
// A nil m counts nowhere, a nil log is silent.
func NewFeeds(name string, forwarders, hosts, mucHosts, feeds []string, m *Metrics, log *slog.Logger) *Feeds {
	if m == nil {
		m = NewMetrics(nil)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	served := make([]jid.JID, len(hosts))
	for i, h := range hosts {
		served[i] = jid.Prepare(h)
	}
	f := &Feeds{
		name: jid.Prepare(name), forwarders: domains(forwarders), hosts: domains(hosts), mucHosts: domains(mucHosts),
		granted: make(map[jid.JID]bool), authority: newAuthorities(served, feeds, log), metrics: m, log: log,
	}
	f.grants.reset()
	return f
}

func domains(names []string) map[jid.JID]bool {
	set := make(map[jid.JID]bool, len(names))
	for _, n := range names {
		set[jid.Prepare(n)] = true
	}
	return set
}

// Reconnected forgets the privileges: servers grant them again on every connection.
func (f *Feeds) Reconnected() {
	clear(f.granted)
	f.grants.reset()
}

// Status says how each host is heard.
func (f *Feeds) Status() []HostFeeds {
	hosts := f.authority.snapshot()
	f.grants.fill(hosts)
	return hosts
}

// Classify returns the stanza that env reports as a fact, with its Dialect, Copy,
// Host and Received filled in, or nil if it is no fact; either way it is counted.
// The result points into env.
func (f *Feeds) Classify(env *stanza.Envelope, now time.Time) *stanza.Stanza {
	outer := &env.Outer
	switch {
	case jid.JID(outer.To.Domain()) != f.name:
		return f.drop(stanza.Direct, misaddressed)
	case env.Feed != nil:
		// What the feed says is a fact only in its place in the sequence; see sources.
		return f.drop(stanza.EventFeed, ignored)
	}
	if env.Privilege != nil {
		f.privileges(env)
		return nil
	}
	s, d, t := outer, stanza.Direct, trusted
	var host, subject jid.JID // who reports it, and the served host it is about
	switch {
	case env.Forward != stanza.NotForwarded:
		s = &env.Inner
		d, t = f.forwarded(env)
		host = outer.From
		subject = f.subject(host, s)
	case outer.Type == "error":
		t = errorStanza
	case f.privileged(outer):
		d = stanza.Privilege
		s.Copy = stanza.UnknownCopy
		host = jid.JID(outer.From.Domain())
		subject = host
	default:
		t = f.direct(outer)
		s.Copy = stanza.SentCopy
		host = jid.JID(outer.From.Domain())
		subject = host
	}
	if t == trusted && !f.authority.admit(subject, classOf(s), d) {
		t = notAuthoritative
	}
	f.metrics.count(d, t)
	if t != trusted {
		return nil
	}
	s.Dialect, s.Host, s.Received = d, host, now
	return s
}

func (f *Feeds) drop(d stanza.Dialect, t trust) *stanza.Stanza {
	f.metrics.count(d, t)
	return nil
}

// forwarded judges a stanza that holds <forwarded/> (XEP-0297) and says at which
// moment the inner one was copied.
//
// A wrapper is opened only if its sender is exactly a forwarder, a bare domain,
// and only one level deep; whatever a user forwards to us tells nothing.
func (f *Feeds) forwarded(env *stanza.Envelope) (stanza.Dialect, trust) {
	outer, inner := &env.Outer, &env.Inner
	if !f.forwarders[outer.From] || outer.Kind != stanza.Message {
		return stanza.Direct, untrustedForward
	}
	d, copied, keep := f.target(outer.To)
	switch {
	case d == 0:
		return stanza.Direct, misaddressed
	case outer.Type == "error": // a wrapper that came back; nothing in it happened
		return d, errorStanza
	case env.Forward != stanza.ForwardedOne:
		return d, untranslatable
	case jid.JID(inner.To.Domain()) == f.name && inner.Flags.Has(stanza.HasForwarded):
		return d, nestedForward
	case !f.local(inner.From) && !f.local(inner.To):
		return d, foreign
	case copied == stanza.SentCopy && jid.JID(inner.From.Domain()) != outer.From:
		// Only the sender's own host sees what is sent.
		return d, foreign
	case !keep:
		return d, ignored
	}
	if copied == stanza.UnknownCopy && f.hosts[outer.From] && jid.JID(inner.From.Domain()) != outer.From {
		copied = stanza.ReceivedCopy // of another host's user this one can only see the arrival
	}
	inner.Copy = copied
	return d, trusted
}

// target reads the wrapper's address: ejabberd's mod_service_log writes to the
// component itself, the rules for Prosody's mod_firewall, which cannot mark
// anything else, to one address for each moment.
// Joins of rooms (muc@) are no event; keep is false for them.
func (f *Feeds) target(to jid.JID) (d stanza.Dialect, copied stanza.Copy, keep bool) {
	if !to.IsBare() {
		return 0, 0, false
	}
	switch to.Local() {
	case "":
		return stanza.ServiceLog, stanza.UnknownCopy, true
	case "out", "presence":
		return stanza.Firewall, stanza.SentCopy, true
	case "in":
		return stanza.Firewall, stanza.ReceivedCopy, true
	case "muc":
		return stanza.Firewall, stanza.SentCopy, false
	}
	return 0, 0, false
}

// local reports whether the address is on a served host or one of the conference hosts.
func (f *Feeds) local(j jid.JID) bool {
	domain := jid.JID(j.Domain())
	return f.hosts[domain] || f.mucHosts[domain]
}

// subject returns the served host that a forwarded stanza is about: the
// forwarder's own, or for a forwarder beside the hosts (a conference service, a
// relay) that of the sender or else of the recipient.
func (f *Feeds) subject(forwarder jid.JID, inner *stanza.Stanza) jid.JID {
	if f.hosts[forwarder] {
		return forwarder
	}
	for _, j := range [...]jid.JID{inner.From, inner.To} {
		if domain := jid.JID(j.Domain()); f.hosts[domain] {
			return domain
		}
	}
	return forwarder
}

// direct judges a stanza that was sent to the component itself. Only those of
// the users of served hosts count.
func (f *Feeds) direct(s *stanza.Stanza) trust {
	switch {
	case !f.hosts[jid.JID(s.From.Domain())]:
		return foreign
	case s.From.Local() == "": // the server itself
		return ignored
	}
	return trusted
}

// privileges takes note of an advertisement of XEP-0356. Only a served host that
// is also a forwarder can grant, in a message from its bare domain.
func (f *Feeds) privileges(env *stanza.Envelope) {
	outer := &env.Outer
	switch {
	case outer.Kind != stanza.Message || !f.forwarders[outer.From] || !f.hosts[outer.From] || outer.To != f.name:
		f.metrics.count(stanza.Privilege, untrustedPriv)
		return
	case outer.Type == "error":
		f.metrics.count(stanza.Privilege, errorStanza)
		return
	}
	f.metrics.count(stanza.Privilege, trusted)
	grant := grantsPresence(env.Privilege)
	if grant != f.granted[outer.From] {
		f.log.Info("component: the host's privileges changed", "host", string(outer.From), "presence", grant)
	}
	host := jid.JID(strings.Clone(string(outer.From))) // kept, unlike the stanza
	f.granted[host] = grant
	f.grants.privilege(host, env.Privilege)
}

// privileged reports whether s is what a server sends under the presence
// privilege (XEP-0356 section 7): the presence of one of its sessions to our bare
// domain. A user can direct a presence of the same shape at us, but only his own.
func (f *Feeds) privileged(s *stanza.Stanza) bool {
	return s.Kind == stanza.Presence && (s.Type == "" || s.Type == "unavailable") &&
		s.To == f.name && s.From.Local() != "" && s.From.Resource() != "" &&
		f.granted[jid.JID(s.From.Domain())]
}

// grantsPresence reports whether the presence of all the host's sessions comes
// with it: type managed_entity, or roster, which includes it (XEP-0356 section 7).
func grantsPresence(p *stanza.Privileges) bool {
	for _, perm := range p.Permissions {
		if perm.Access == "presence" && (perm.Type == "managed_entity" || perm.Type == "roster") {
			return true
		}
	}
	return false
}

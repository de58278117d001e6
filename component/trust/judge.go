package trust

import (
	"log/slog"
	"strings"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
)

// Judge decides which stanzas are facts: who may forward what, by which feed a stanza
// came, and which feed counts.
//
// A stanza is evidence only as far as its sender is trusted: on every server a
// plain user can send the component a forged <forwarded/>, privileges or presence.
// One goroutine judges; Status, Warn and Complaints may be called by any.
type Judge struct {
	name       jid.JID
	forwarders jid.Domains
	hosts      jid.Domains
	mucHosts   jid.Domains
	granted    map[jid.JID]bool // hosts that granted presence (XEP-0356) on this connection
	grants     grants
	authority  *authorities
	told       *told
	metrics    *Metrics
	log        *slog.Logger
	fact       Fact // what was returned last
	warnings
}

// Options say whom to trust.
type Options struct {
	// Component is the name of the component.
	Component string
	// Forwarders are the domains whose wrappers are opened. Without any no wrapper is:
	// a default would trust a domain that the caller did not name.
	Forwarders []string
	// Hosts are the served domains, MUCHosts their conference domains.
	Hosts, MUCHosts []string
	Feeds           Choice
	Metrics         *Metrics     // nil counts nowhere
	Log             *slog.Logger // nil is silent
}

// New returns a Judge that has heard nothing yet.
func New(o Options) *Judge {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	j := &Judge{
		name: jid.Prepare(o.Component), forwarders: jid.NewDomains(o.Forwarders...),
		hosts: jid.NewDomains(o.Hosts...), mucHosts: jid.NewDomains(o.MUCHosts...),
		granted: make(map[jid.JID]bool), authority: newAuthorities(&o), told: newTold(), metrics: o.Metrics, log: o.Log,
		warnings: warnings{log: o.Log},
	}
	j.grants.reset()
	j.warnings.forget()
	return j
}

// Reconnected begins a connection. Privileges are forgotten, since servers grant them
// again on every connection, and feeds have to be heard anew.
func (j *Judge) Reconnected(now time.Time) {
	j.authority.connected(now)
	clear(j.granted)
	j.grants.reset()
	j.warnings.forget() // each connection is complained of anew
}

// Status says how each host is heard.
func (j *Judge) Status() []HostStatus {
	hosts := j.authority.snapshot()
	j.grants.fill(hosts)
	return hosts
}

// Authority returns the feed that counts for a class of facts of a host, 0 if there is
// none. It belongs to the goroutine that judges.
func (j *Judge) Authority(host jid.JID, c Class) Feed { return j.authority.of(host, c) }

// TellsMessages reports whether a feed that tells of all messages of a host's users counts
// for it. It belongs to the goroutine that judges.
func (j *Judge) TellsMessages(host jid.JID) bool {
	f := j.authority.of(host, Messages)
	return f != 0 && f.reports(Messages) && f != Direct
}

// Hosts returns the served hosts.
func (j *Judge) Hosts() jid.Domains { return j.hosts }

// Stanza returns the fact that env reports, or nil if it reports none; either way it is
// counted. An element of the event-feed is not a fact here: see Report. The fact is
// valid until the next call.
func (j *Judge) Stanza(env *stanza.Envelope, now time.Time) *Fact {
	outer := &env.Outer
	switch {
	case jid.JID(outer.To.Domain()) != j.name:
		j.metrics.count(Direct, misaddressed)
		return nil
	case env.Feed != nil:
		j.metrics.count(EventFeed, ignored)
		return nil
	case env.Privilege != nil:
		j.privileges(env, now)
		return nil
	}
	s, feed, v := outer, Direct, Trusted
	copied := SentCopy
	host := jid.JID(outer.From.Domain()) // that reports it
	subject := host                      // the served host that it is about
	switch {
	case env.Forward != stanza.NotForwarded:
		s, host = &env.Inner, outer.From
		feed, copied, v = j.forwarded(env)
		subject = j.subject(host, s)
	case outer.Type == "error":
		v = errorStanza
	case j.privileged(outer):
		feed, copied = Privilege, UnknownCopy
	default:
		v = j.direct(outer)
	}
	if v == Trusted && !j.authority.admit(subject, class(s), feed, now) {
		v = notAuthoritative
	}
	j.metrics.count(feed, v)
	if v != Trusted {
		j.complain(v, feed, outer.From, now)
		return nil
	}
	j.fact = Fact{Stanza: *s, Feed: feed, Copy: copied, Host: host, Received: now}
	if s.Kind == stanza.Message {
		j.told.add(s, now)
	}
	return &j.fact
}

// forwarded judges a stanza that holds <forwarded/> (XEP-0297) and says at which
// moment the inner one was copied.
//
// A wrapper is opened only if its sender is exactly a forwarder, a bare domain,
// and only one level deep; whatever a user forwards to us tells nothing.
func (j *Judge) forwarded(env *stanza.Envelope) (Feed, Copy, Verdict) {
	outer, inner := &env.Outer, &env.Inner
	if !j.forwarders.Has(outer.From) || outer.Kind != stanza.Message {
		return Direct, 0, untrustedForward
	}
	feed, copied, keep := target(outer.To)
	sender := jid.JID(inner.From.Domain())
	switch {
	case feed == 0:
		return Direct, 0, misaddressed
	case outer.Type == "error": // a wrapper that came back; nothing in it happened
		return feed, 0, errorStanza
	case env.Forward != stanza.ForwardedOne:
		return feed, 0, Untranslatable
	case jid.JID(inner.To.Domain()) == j.name && inner.Flags.Has(stanza.HasForwarded):
		return feed, 0, nestedForward
	case !j.local(inner.From) && !j.local(inner.To):
		return feed, 0, foreign
	case copied == SentCopy && sender != outer.From:
		// Only the sender's own host sees what is sent.
		return feed, 0, foreign
	case !keep:
		return feed, 0, ignored
	}
	if copied == UnknownCopy && j.hosts.Has(outer.From) && sender != outer.From {
		copied = ReceivedCopy // of another host's user this one can only see the arrival
	}
	return feed, copied, Trusted
}

// target reads the wrapper's address: ejabberd's mod_service_log writes to the
// component itself, the rules for Prosody's mod_firewall, which cannot mark
// anything else, to one address for each moment.
// Joins of rooms (muc@) are no event; keep is false for them.
func target(to jid.JID) (feed Feed, copied Copy, keep bool) {
	if !to.IsBare() {
		return 0, 0, false
	}
	switch to.Local() {
	case "":
		return ServiceLog, UnknownCopy, true
	case "out", "presence":
		return Firewall, SentCopy, true
	case "in":
		return Firewall, ReceivedCopy, true
	case "muc":
		return Firewall, SentCopy, false
	}
	return 0, 0, false
}

// local reports whether the address is on a served host or one of the conference hosts.
func (j *Judge) local(address jid.JID) bool { return j.hosts.Of(address) || j.mucHosts.Of(address) }

// subject returns the served host that a forwarded stanza is about: the
// forwarder's own, or for a forwarder beside the hosts (a conference service, a
// relay) that of the sender or else of the recipient.
func (j *Judge) subject(forwarder jid.JID, inner *stanza.Stanza) jid.JID {
	if j.hosts.Has(forwarder) {
		return forwarder
	}
	for _, address := range [...]jid.JID{inner.From, inner.To} {
		if j.hosts.Of(address) {
			return jid.JID(address.Domain())
		}
	}
	return forwarder
}

// direct judges a stanza that was sent to the component itself. Only those of
// the users of served hosts count.
func (j *Judge) direct(s *stanza.Stanza) Verdict {
	switch {
	case !j.hosts.Of(s.From):
		return foreign
	case s.From.Local() == "": // the server itself
		return ignored
	}
	return Trusted
}

// privileges takes note of an advertisement of XEP-0356. Only a served host that
// is also a forwarder can grant, in a message from its bare domain.
func (j *Judge) privileges(env *stanza.Envelope, now time.Time) {
	outer := &env.Outer
	switch {
	case outer.Kind != stanza.Message || !j.forwarders.Has(outer.From) || !j.hosts.Has(outer.From) || outer.To != j.name:
		j.metrics.count(Privilege, untrustedPriv)
		j.complain(untrustedPriv, Privilege, outer.From, now)
		return
	case outer.Type == "error":
		j.metrics.count(Privilege, errorStanza)
		return
	}
	j.metrics.count(Privilege, Trusted)
	grant := grantsPresence(env.Privilege)
	if grant != j.granted[outer.From] {
		j.log.Info("component: the host's privileges changed", "host", string(outer.From), "presence", grant)
	}
	host := jid.JID(strings.Clone(string(outer.From))) // kept, unlike the stanza
	j.granted[host] = grant
	j.grants.privilege(j.hosts.Configured(host), env.Privilege)
}

// Granted reports whether the host has granted the presence of its sessions on this
// connection (XEP-0356). It belongs to the goroutine that judges.
func (j *Judge) Granted(host jid.JID) bool { return j.granted[host] }

// privileged reports whether s is what a server sends under the presence
// privilege (XEP-0356 section 7): the presence of one of its sessions to our bare
// domain. A user can direct a presence of the same shape at us, but only his own.
func (j *Judge) privileged(s *stanza.Stanza) bool {
	return s.Kind == stanza.Presence && (s.Type == "" || s.Type == "unavailable") &&
		s.To == j.name && s.From.Local() != "" && s.From.Resource() != "" &&
		j.granted[jid.JID(s.From.Domain())]
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

package trust

import (
	"log/slog"
	"slices"
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
	told       *told
	metrics    *Metrics
	log        *slog.Logger
	fact       Fact // what was returned last
	*authorities
	warnings
	passed func(s *stanza.Stanza, f Feed, why string)
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
	// Feeds returns the name of the feed that counts for a class, as config.Component.Authority
	// does. Without it, or with an empty name, the best one that is heard counts.
	Feeds func(class string) string
	// Passed is told of each message or presence that does not count, and why; nil: nobody
	// wants to know. It must not keep the stanza.
	Passed  func(s *stanza.Stanza, f Feed, why string)
	Metrics *Metrics     // nil counts nowhere
	Log     *slog.Logger // nil is silent
}

// New returns a Judge that has heard nothing yet.
func New(o Options) *Judge {
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Passed == nil {
		o.Passed = func(*stanza.Stanza, Feed, string) {}
	}
	j := &Judge{
		name: jid.Prepare(o.Component), forwarders: jid.NewDomains(), hosts: jid.NewDomains(), mucHosts: jid.NewDomains(),
		authorities: newAuthorities(&o), told: newTold(), metrics: o.Metrics, log: o.Log, warnings: warnings{log: o.Log}, passed: o.Passed,
	}
	j.forget()
	j.Serve(Served{o.Hosts, o.MUCHosts, o.Forwarders})
	return j
}

// Reconnected begins a connection. Feeds have to be heard anew, and warnings are given anew.
func (j *Judge) Reconnected(now time.Time) {
	j.connected(now)
	j.forget()
}

// Served says which hosts are served and trusted. See Options.
type Served struct{ Hosts, MUCHosts, Forwarders []string }

// sets returns the hosts, conference hosts and forwarders of a component. No wildcard stands for the
// component, and none among the hosts for a conference host.
func (s *Served) sets(component string) (hosts, mucHosts, forwarders []string) {
	return jid.Except(s.Hosts, append(slices.Clone(s.MUCHosts), component)...), jid.Except(s.MUCHosts, component), jid.Except(s.Forwarders, component)
}

// Serve changes which hosts are served and trusted. It is called while nothing is judged. Of hosts that
// stay, what was heard holds.
func (j *Judge) Serve(s Served) {
	hosts, mucHosts, forwarders := s.sets(string(j.name))
	j.forwarders.Replace(forwarders...)
	j.hosts.Replace(hosts...)
	j.mucHosts.Replace(mucHosts...)
	j.authorities.serve(j.hosts)
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
	if v == Trusted && !j.admit(subject, class(s), feed, now) {
		v = notAuthoritative
	}
	j.metrics.count(feed, v)
	if v != Trusted {
		j.complain(v, feed, outer.From, now)
		j.passed(s, feed, v.why())
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

// privileged reports whether s is what a server sends under the presence
// privilege (XEP-0356 section 7): the presence of one of its sessions to our bare
// domain. A user can direct a presence of the same shape at us, but only his own.
func (j *Judge) privileged(s *stanza.Stanza) bool {
	return s.Kind == stanza.Presence && (s.Type == "" || s.Type == "unavailable") &&
		s.To == j.name && s.From.Local() != "" && s.From.Resource() != "" &&
		j.Granted(jid.JID(s.From.Domain()))
}

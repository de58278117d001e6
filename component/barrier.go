package component

import (
	"encoding/xml"
	"strings"

	"mellium.im/xmpp/version"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// prosody is how Prosody calls itself in jabber:iq:version, whatever an operator
// has configured as its name for people.
const prosody = "Prosody"

// barrier is a question to a server whose reply shows that everything the server
// had to say before it has been said.
//
// That takes a server that deals with the stanzas of one stream one after another
// and writes the answers of one before it looks at the next. Prosody does: of 320
// answers to probes none came after the reply to an IQ sent behind the probes.
// ejabberd does not: sessions are processes of their own, and 281 of 320 came after it.
// So what a reply proves depends on who gives it, and the question is jabber:iq:version.
type barrier struct {
	host jid.JID
	// snapshot: a presence as only Prosody's privilege snapshot has them came
	// before the reply.
	snapshot bool
}

// ask sends the question. The reply is dealt with by the goroutine that reads the
// stream, in its place between the stanzas; whether it is a result does not
// matter for that. False means that the question was not sent.
func (l *Link) ask(host jid.JID, then func(software string)) bool {
	p := newPending(string(host), l.judge.Hosts())
	p.then = func(a answer) { then(softwareOf(a.reply.Raw)) }
	iq, err := l.compose(Request{To: string(host), Type: Get, Payload: []byte("<query xmlns='" + version.NS + "'/>")}, p.id)
	if err != nil || l.requests.open(p) == nil {
		return false
	}
	if l.requests.enqueue(iq) != nil {
		l.requests.forget(p)
		return false
	}
	return true
}

// softwareOf returns the name in a reply of jabber:iq:version (XEP-0092), empty if
// it gives none.
func softwareOf(reply []byte) string {
	var iq struct {
		Query struct {
			Name string `xml:"name"`
		} `xml:"jabber:iq:version query"`
	}
	if xml.Unmarshal(reply, &iq) != nil {
		return ""
	}
	return strings.TrimSpace(iq.Query.Name)
}

// observe looks at what trust made of a stanza, nil if it is no fact, for what
// reconciliation and the status need to know. The reading goroutine calls it.
func (a *attachment) observe(fact *trust.Fact) {
	switch {
	case fact == nil:
		if a.env.Privilege != nil {
			a.advertised()
		} else {
			a.link.judge.Delegations(&a.env.Outer, a.env.Forward)
		}
	case fact.Kind != stanza.Presence:
	case fact.Feed == trust.Privilege:
		if b := a.barriers[fact.Host]; b != nil && fact.Flags.Has(stanza.HasDelay) && fact.DelayFrom == fact.Host {
			b.snapshot = true
		}
	case fact.Feed == trust.Direct:
		if p, fresh := a.link.subscribers.heard(fact); fresh {
			select {
			case a.fresh <- p:
			default: // it is probed after the next reconnection
			}
		}
	}
}

// advertised begins the barrier behind a snapshot, if the privileges that were
// granted come with one: urn:xmpp:privilege:2 says so, ejabberd's :1 has none.
func (a *attachment) advertised() {
	outer, l := &a.env.Outer, a.link
	if a.env.Privilege.Version != 2 || outer.Type == "error" || !l.judge.Granted(outer.From) {
		return
	}
	b := &barrier{host: jid.JID(strings.Clone(string(outer.From)))}
	a.barriers[b.host] = b
	if !l.ask(b.host, func(software string) { a.snapshotEnded(b, software) }) {
		l.log.Warn("component: the end of the presence snapshot cannot be found out, sessions that have ended meanwhile stay unverified", "host", string(b.host))
	}
}

// snapshotEnded takes the reply behind a snapshot. Newer versions of ejabberd
// speak :2 as well and send none, so the word of the protocol is not enough for
// calling people offline.
func (a *attachment) snapshotEnded(b *barrier, software string) {
	if a.barriers[b.host] != b { // the host advertised once more
		return
	}
	delete(a.barriers, b.host)
	l := a.link
	switch {
	case software != prosody && !b.snapshot:
		l.log.Info("component: this server is not known to send a complete presence snapshot, sessions that have ended meanwhile stay unverified",
			"host", string(b.host), "software", software)
	case l.judge.Authority(b.host, trust.Presence) != trust.Privilege:
		l.log.Debug("component: another feed reports the presence of this host, its snapshot is not counted", "host", string(b.host))
	default:
		l.sink.Settled(b.host, nil)
	}
}

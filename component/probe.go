package component

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// A component that presence is sent to because it has subscribed it learns nothing
// after a reconnection until it asks (RFC 6121 section 4.3): each user is probed, 200
// a second, and asks for an answer are put behind every few of them.
const (
	probeStep  = 20
	probePause = 100 * time.Millisecond
	// freshQueue is how many new users wait for their probe; a login storm may exceed it.
	freshQueue = 4096
	// maxSubscribers bounds the users that are remembered; those beyond are not
	// probed, and their sessions stay unverified after a reconnection.
	maxSubscribers = 50_000
)

// probe asks for the presence of a user.
type probe struct {
	user, ours jid.JID // bare; ours is the address that the user's presence went to
}

// subscriber is a user whose presence comes by the dialect direct.
type subscriber struct {
	ours jid.JID
	// asked: a probe was sent on this connection, or is about to be; known: it is one of
	// those who were remembered when the connection was set up.
	asked, known bool
	// confirmed: a probe was answered, so that this user's silence means something.
	// A presence that a user directs at the component looks like that of one who is
	// subscribed, but his server does not answer probes.
	confirmed bool
}

// subscribers remembers them over reconnections. The reading goroutine owns it; between
// two connections, the one that connects.
type subscribers struct {
	users map[jid.JID]subscriber
	full  bool // somebody found no room
}

func newSubscribers() *subscribers { return &subscribers{users: make(map[jid.JID]subscriber)} }

// heard takes note of a presence and returns a probe if it is a new user's.
func (s *subscribers) heard(p *trust.Fact) (probe, bool) {
	user := p.From.Bare()
	known, ok := s.users[user]
	switch {
	case p.Type == "unsubscribed": // the user has cancelled our subscription
		delete(s.users, user)
	case p.Type != "" || p.From.IsBare() || p.Flags&(stanza.HasMUC|stanza.HasMUCUser) != 0:
	case !ok && len(s.users) >= maxSubscribers:
		s.full = true
	case !ok:
		// Kept for long, so not in the memory of the stanza.
		key := jid.JID(strings.Clone(string(user)))
		ours := jid.JID(strings.Clone(string(p.To.Bare())))
		s.users[key] = subscriber{ours: ours, asked: true}
		return probe{key, ours}, true
	case ok && !known.confirmed && known.asked && isAnswer(p):
		known.confirmed = true
		s.users[user] = known
	}
	return probe{}, false
}

// isAnswer reports whether p is stamped as servers do with answers to probes: in the
// name of the host (Prosody) or of the session (ejabberd).
func isAnswer(p *trust.Fact) bool {
	return p.Flags.Has(stanza.HasDelay) && (p.DelayFrom == p.From || string(p.DelayFrom) == p.From.Domain())
}

// round returns whom to probe on a new connection, host by host. direct says whether
// the dialect counts for a host's presence.
func (s *subscribers) round(direct func(host jid.JID) bool) []probe {
	var list []probe
	for user, known := range s.users {
		known.asked = direct(jid.JID(user.Domain()))
		known.known = known.asked
		s.users[user] = known
		if known.asked {
			list = append(list, probe{user, known.ours})
		}
	}
	slices.SortFunc(list, func(a, b probe) int {
		return cmp.Or(strings.Compare(a.user.Domain(), b.user.Domain()), strings.Compare(string(a.user), string(b.user)))
	})
	return list
}

// complete reports whether the silence of every user of a host who was probed in the round
// means something.
func (s *subscribers) complete(host jid.JID) bool {
	for user, known := range s.users {
		if known.known && !known.confirmed && user.Domain() == string(host) {
			return false
		}
	}
	return !s.full
}

// probe sends the round, then probes whoever is heard for the first time, until done
// is closed.
func (a *attachment) probe(round []probe, done <-chan struct{}) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	sent := true // all probes for the present host
	for {
		var step []probe
		host := jid.JID("")
		last := false
		if len(round) > 0 {
			host = jid.JID(round[0].user.Domain())
			n := 1
			for n < min(probeStep, len(round)) && round[n].user.Domain() == string(host) {
				n++
			}
			step, round = round[:n], round[n:]
			last = len(round) == 0 || round[0].user.Domain() != string(host)
		} else {
			select {
			case <-done:
				return
			case p := <-a.fresh:
				step = []probe{p}
			}
		}
		all := a.step(host, step, last && sent)
		sent = last || sent && all
		pause.Reset(probePause)
		select {
		case <-done:
			return
		case <-pause.C:
		}
	}
}

// step sends a few probes and, where host is set, asks the host for the end of the
// answers; last says that these are the last ones of the host, and that none was left out.
// It reports whether all could be sent.
func (a *attachment) step(host jid.JID, step []probe, last bool) bool {
	for _, p := range step {
		b := appendEscaped([]byte("<presence type='probe' from='"), string(p.ours))
		b = appendEscaped(append(b, "' to='"...), string(p.user))
		if a.link.Send(append(b, "'/>"...)) != nil {
			return false // unverified until the next reconnection
		}
	}
	return host == "" || a.link.ask(host, func(software string) { a.probed(host, step, last, software) })
}

// probed takes the reply behind a few probes: whoever is subscribed and has not
// answered for a session has no such session any more. Behind the last ones, that
// may be true of the whole host.
func (a *attachment) probed(host jid.JID, step []probe, last bool, software string) {
	l := a.link
	if software != prosody || l.judge.Authority(host, trust.Presence) != trust.Direct {
		return
	}
	var users []jid.JID
	for _, p := range step {
		if l.subscribers.users[p.user].confirmed {
			users = append(users, p.user)
		}
	}
	if len(users) > 0 {
		l.sink.Settled(host, users)
	}
	if last && l.subscribers.complete(host) {
		l.sink.Settled(host, nil)
	}
}

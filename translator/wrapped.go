package translator

import (
	"eventpusher/component/stanza"
	"eventpusher/component/trust"
)

// opened returns what s says: the groupchat message that a room of ours sends a subscriber
// by MUC/Sub, in place of its wrapper, or s itself. False says that nobody has written
// anything: the room tells a subscriber of a subject, of affiliations or the like.
//
// Only a room on a conference host is believed, in its bare name, and only about its
// own occupants: any user can send a wrapper. What the sender and type of a message in
// its wrapper are goes to from and kind.
func (t *Translator) opened(s *trust.Fact, from *address, kind *string) (*trust.Fact, bool) {
	if !from.named || from.session || from.host == nil || !from.host.rooms || !s.IsSubscription() {
		return s, true
	}
	if t.decoder == nil {
		t.decoder = stanza.NewDecoder(stanza.Limits{})
	}
	var env stanza.Envelope
	if !t.decoder.Subscribed(&s.Stanza, &env) || env.Outer.Type != groupchat ||
		env.Outer.From.Bare() != from.bare || env.Outer.From.IsBare() {
		return nil, false
	}
	inner := *s
	inner.Stanza = env.Outer
	inner.To = s.To
	*from, *kind = t.hosts.resolve(inner.From), groupchat
	return &inner, true
}

// serverMade reports whether a message that bears a user's bare JID is the server's: carbons
// (XEP-0280), results of the archive (XEP-0313), what the user has published (XEP-0163).
func serverMade(s *trust.Fact) bool {
	return s.Flags&(stanza.HasCarbon|stanza.HasMAMResult|stanza.HasPubsub) != 0 && !s.HasBody
}

package demo

import (
	"fmt"

	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
)

// The users of the demo and their room.
const (
	host     = "example.org"
	alice    = "alice@example.org/phone"
	aliceWeb = "alice@example.org/web"
	bob      = "bob@example.org/laptop"
	carol    = "carol@example.org"
	room     = "tea@conference.example.org"
)

// script is one round of the chat: what each act makes ejabberd's
// mod_service_log copy to the component. A local message is copied when it is
// sent and when it is received; a room copies to each occupant.
// It ends as it began, so that it can repeat.
func script(round int) [][]string {
	id := func(n int) string { return fmt.Sprintf("demo-%d-%d", round, n) }
	both := func(from, to, id, body string) []string {
		copied := message("chat", from, to, id, body)
		return []string{copied, copied}
	}
	return [][]string{
		{presence(alice, "available")},
		{presence(bob, "available")},
		both(alice, bob, id(1), "Good morning! Is the kettle on?"),
		both(bob, alice, id(2), "Nearly. Milk & sugar < 2 spoons?"),
		{presence(aliceWeb, "available")},
		{forgery()},
		{
			message("groupchat", alice, room, id(3), "Tea is ready, everyone"),
			message("groupchat", room+"/alice", alice, id(3), "Tea is ready, everyone"),
			message("groupchat", room+"/alice", bob, id(3), "Tea is ready, everyone"),
		},
		{message("chat", bob, carol, id(4), "There is tea for you when you wake up")},
		{presence(aliceWeb, "unavailable")},
		{presence(alice, "unavailable")},
		{presence(bob, "unavailable")},
	}
}

// presence is a session's undirected presence; the server addresses its copy to
// the sender's own bare JID.
func presence(from, state string) string {
	kind := ""
	if state != "available" {
		kind = " type='" + state + "'"
	}
	return forwarded(host, fmt.Sprintf("<presence xmlns='jabber:client' from='%s' to='%s'%s/>", from, jid.JID(from).Bare(), kind))
}

func message(kind, from, to, id, body string) string {
	return forwarded(host, fmt.Sprintf("<message xmlns='jabber:client' type='%s' from='%s' to='%s' id='%s'><body>%s</body></message>",
		kind, from, to, id, xmppserver.Escape(body)))
}

// forgery is what a user can send to have an event published in another's name.
// No line of the output may come of it.
func forgery() string {
	return forwarded("mallory@example.org/x", fmt.Sprintf("<message xmlns='jabber:client' type='chat' from='%s' to='%s'><body>Give Mallory my biscuits</body></message>", alice, bob))
}

// forwarded wraps a stanza as XEP-0297 has it.
func forwarded(from, stanza string) string {
	return "<message from='" + from + "' to='" + component + "'><forwarded xmlns='urn:xmpp:forward:0'>" + stanza + "</forwarded></message>"
}

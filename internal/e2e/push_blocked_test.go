package e2e

import (
	"testing"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/harness"
)

// pushBlocked: a sender whom the user blocks (XEP-0191), by the account, the session, or the
// room (its address, the host, the occupant), notifies no device of the user's, whether the
// user is away or has a session without presence. Before and afterwards the sender does.
func pushBlocked(t *testing.T, w *pushWorld, bob *harness.Client, say func(to, text string)) {
	const room = "blocked@muc.localhost"
	alice := w.login("alice", "phone")
	alice.IQ("set", "", pushEnable("virtual.localhost", "blocking", "service", "fcm", "device_id", "blocking"))
	push := func(text, sender string, badge int) pushtest.MongoosePushRequest {
		return request("v3", "blocking", "service", "fcm", "alert", alert(text, badge, sender))
	}
	leave(alice)
	bob.Join(room, "Bobby")
	bob.MembersOnly(room, true)
	bob.Affiliate(room, "alice@localhost member")
	speak := func(id, text string) {
		bob.Sendf("<message to='%s' type='groupchat' id='%s'>%s</message>", room, id, body(text))
		bob.WaitFor("<message", id, "blocked@muc")
	}
	change := func(verb string, jids ...string) {
		c := w.server.Login(t, "alice", "settings")
		items := ""
		for _, jid := range jids {
			items += "<item jid='" + jid + "'/>"
		}
		c.IQ("set", "", "<"+verb+" xmlns='urn:xmpp:blocking'>"+items+"</"+verb+">")
		leave(c)
	}
	say("alice@localhost", "before")
	speak("blocked-1", "before, in the room")
	w.expect("before", push("before", "bob@localhost", 1), push("before, in the room", room+"/Bobby", 1))

	for _, jids := range [][]string{{"bob@localhost", room}, {"bob@localhost", "muc.localhost"}, {"bob@localhost/desk", room + "/Bobby"}} {
		change("block", jids...)
		say("alice@localhost", "blocked")
		say("alice@localhost/gone", "blocked, to a session that has ended")
		speak("blocked-2", "blocked, in the room")
		there := w.server.Login(t, "alice", "quiet") // a session without presence
		say("alice@localhost", "blocked, to a session without presence")
		say("alice@localhost/quiet", "blocked, to this session")
		leave(there)
		change("unblock", jids...)
	}
	// What was blocked is not counted as unread either.
	say("alice@localhost", "after")
	speak("blocked-3", "after, in the room")
	w.expect("after", push("after", "bob@localhost", 2), push("after, in the room", room+"/Bobby", 2))
	bob.Leave(room, "Bobby")
}

package e2e

import (
	"testing"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/harness"
)

// pushMissed: what bob says in a room for members only reaches the devices of its members
// who are away, once each, and nobody else's.
func pushMissed(t *testing.T, w *pushWorld, bob *harness.Client, say func(to, text string)) {
	const room = "missed@muc.localhost"
	for _, user := range []string{"alice", "carol", "erin"} {
		c := w.login(user, "phone")
		c.IQ("set", "", pushEnable("virtual.localhost", user, "service", "fcm", "device_id", user))
		if user != "erin" { // who stays, outside the room
			leave(c)
		}
	}
	push := func(user, text, sender string, badge int) pushtest.MongoosePushRequest {
		return request("v3", user, "service", "fcm", "alert", alert(text, badge, sender))
	}
	speak := func(id, content string) {
		bob.Sendf("<message to='%s' type='groupchat' id='%s'>%s</message>", room, id, content)
		bob.WaitFor("<message", id, "missed@muc")
	}
	bob.Join(room, "Bobby")
	bob.MembersOnly(room, true)
	bob.Affiliate(room, "alice@localhost member", "erin@localhost member") // and carol is none
	speak("missed-1", body("said in the room"))
	w.expect("a member who is away", push("alice", "said in the room", room+"/Bobby", 1))

	speak("missed-2", "<composing xmlns='http://jabber.org/protocol/chatstates'/>")
	bob.Sendf("<message to='%s' type='groupchat'><subject>Tea</subject></message>", room)
	bob.WaitFor("<message", "<subject>Tea</subject>", "missed@muc")
	alice := w.server.Login(t, "alice", "desk")
	alice.Presence()
	alice.Join(room, "Ally") // gets the history
	alice.Leave(room, "Ally")
	leave(alice)
	bob.MembersOnly(room, false)
	speak("missed-3", body("said in an open room"))
	bob.MembersOnly(room, true)
	speak("missed-4", body("the last"))
	say("alice@localhost", "to alice")
	say("carol@localhost", "to carol")
	w.expect("nothing between", push("alice", "the last", room+"/Bobby", 1), push("alice", "to alice", "bob@localhost", 1), push("carol", "to carol", "bob@localhost", 1))
	bob.Leave(room, "Bobby")
}

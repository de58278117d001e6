package e2e

import (
	"strings"
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/harness"
)

const (
	nsMuted = "tigase:push:filter:muted:0"
	nsRooms = "tigase:push:filter:groupchat:0"
)

// pushRules: what clients of Tigase's filters send through a real server keeps back what
// the user does not want to be told, at this registration and no other.
func pushRules(t *testing.T, w *pushWorld, bob *harness.Client, say func(to, text string)) {
	const room, other = "rules@muc.localhost", "rules-other@muc.localhost"
	alice := w.login("alice", "rules")
	info := "<query xmlns='http://jabber.org/protocol/disco#info'/>"
	await(t, "the filters in the account's disco#info", func() bool {
		answer := alice.IQ("get", alice.BareJID(), info)
		return strings.Contains(answer, nsMuted) && strings.Contains(answer, nsRooms)
	})
	alice.IQ("set", "", "<disable xmlns='urn:xmpp:push:0' jid='virtual.localhost'/>")
	enable := func(device, rules string) string {
		return strings.Replace(pushEnable("virtual.localhost", device, "service", "fcm", "device_id", device), "</enable>", rules+"</enable>", 1)
	}
	muted := func(until time.Time) string {
		return "<muted xmlns='" + nsMuted + "'><item jid='bob@localhost' until='" + until.UTC().Format(time.RFC3339) + "'/></muted>"
	}
	now := time.Now()
	alice.IQ("set", "", enable("all", muted(now.Add(-time.Minute))))
	alice.IQ("set", "", enable("muted", muted(now.Add(time.Hour))))
	alice.IQ("set", "", enable("contacts", "<ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>"))
	alice.IQ("set", "", "<query xmlns='jabber:iq:roster'><item jid='dave@localhost'><group>Friends</group></item></query>")
	alice.IQ("set", "", enable("mentions", "<groupchat xmlns='"+nsRooms+"'><room jid='"+room+"' allow='mentioned' nick='Ally'/></groupchat>"))
	if answer := alice.Ask("set", "", enable("all", "<muted xmlns='"+nsMuted+"'><item jid='bob@localhost' until='soon'/></muted>")); !strings.Contains(answer, "bad-request") || !strings.Contains(answer, "until of a muted conversation") {
		t.Errorf("a time that is none was answered by %s", answer)
	}
	leave(alice)
	dave := w.server.Login(t, "dave", "rules")
	push := func(device, text, sender string, badge int) pushtest.MongoosePushRequest {
		return request("v3", device, "service", "fcm", "alert", alert(text, badge, sender))
	}
	say("alice@localhost", "from bob himself")
	w.expect("at the devices where bob is not muted", push("all", "from bob himself", "bob@localhost", 1), push("mentions", "from bob himself", "bob@localhost", 1))

	dave.Sendf("<message to='alice@localhost' type='chat' id='rules-1'>%s</message>", body("from a contact"))
	var all []pushtest.MongoosePushRequest
	for _, device := range []string{"all", "muted", "mentions", "contacts"} {
		all = append(all, push(device, "from a contact", "dave@localhost", 1))
	}
	w.expect("what a contact has written", all...)
	leave(dave)

	speak := func(room, text string) {
		bob.Sendf("<message to='%s' type='groupchat' id='%s'>%s</message>", room, strings.ReplaceAll(text, " ", "-"), body(text))
		bob.WaitFor("<message", text, "from", room)
	}
	for _, one := range []string{room, other} {
		bob.Join(one, "Bobby")
		bob.MembersOnly(one, true)
		bob.Affiliate(one, "alice@localhost member")
	}
	speak(room, "Alliance and no mention")
	speak(other, "ally in another room")
	speak(room, "tea, ally?")
	at := func(room string) string { return room + "/Bobby" }
	w.expect("what was said in the rooms",
		push("all", "Alliance and no mention", at(room), 1), push("all", "ally in another room", at(other), 1), push("all", "tea, ally?", at(room), 2),
		push("muted", "Alliance and no mention", at(room), 1), push("muted", "ally in another room", at(other), 1), push("muted", "tea, ally?", at(room), 2),
		push("contacts", "Alliance and no mention", at(room), 1), push("contacts", "ally in another room", at(other), 1), push("contacts", "tea, ally?", at(room), 2),
		push("mentions", "tea, ally?", at(room), 2))
	for outcome, least := range map[string]int{"muted": 1, "not_mentioned": 1, "room_unwanted": 1, "unknown_sender": 1} {
		if n := w.occurred(outcome); n < least {
			t.Errorf("%s: %d times", outcome, n)
		}
	}
	for _, one := range []string{room, other} {
		bob.Leave(one, "Bobby")
	}
	alice = w.login("alice", "rules")
	alice.IQ("set", "", "<disable xmlns='urn:xmpp:push:0' jid='virtual.localhost'/>")
	leave(alice)
}

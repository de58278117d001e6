package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/control"
	"eventpusher/internal/harness"
)

// TestPushCases has the cases of MongooseIM's own push suites that need a server:
// push_SUITE and push_integration_SUITE.
func TestPushCases(t *testing.T) {
	for _, f := range pushServers {
		t.Run(f.name, func(t *testing.T) {
			server := f.start(t)
			dave := server.Login(t, "dave", "d")
			if listsPush(dave) { // push_notifications_not_listed_disco_when_not_available
				t.Error("push is announced before anybody serves it")
			}
			bob := server.Login(t, "bob", "desk")
			bob.Presence()
			say := speaker(bob)
			t.Run("default plugin, v3", func(t *testing.T) {
				w := startPush(t, server, "", "v3", "")
				t.Run("toggling", func(t *testing.T) { pushToggling(t, w) })
				pushOptions(t, w, say)
				pushOnlineOrNot(t, w, say)
				pushHosts(t, w)
				pushErrors(t, w, say)
				pushUnacked(t, w, bob, say, false)
				pushPubSub(t, w, say, f.noNode)
				pushExplain(t, w, say)
				pushMissed(t, w, bob, say)
				pushRules(t, w, bob, say)
				pushBlocked(t, w, bob, say)
			})
			t.Run("accounts that end", func(t *testing.T) { pushAccounts(t, server, say) })
			t.Run("enhanced plugin, v2", func(t *testing.T) {
				w := startPush(t, server, `plugin_module = "mod_event_pusher_push_plugin_enhanced"
when = 'not (event.body startsWith "hush")'`, "v2", "")
				pushUnacked(t, w, bob, say, true)
				pushCondition(t, w, say)
			})
		})
	}
}

// speaker sends chat messages to bare JIDs.
func speaker(c *harness.Client) func(to, text string) {
	n := 0
	return func(to, text string) {
		n++
		c.Sendf("<message to='%s' type='chat' id='say%d'>%s</message>", to, n, body(text))
		c.Ping()
	}
}

// pushToggling asks what MongooseIM's clients ask (push_SUITE, toggling).
func pushToggling(t *testing.T, w *pushWorld) {
	alice := w.login("alice", "toggle")
	const push, form = " xmlns='urn:xmpp:push:0'", "http://jabber.org/protocol/pubsub#publish-options"
	for name, request := range map[string]string{
		"enable without jid and node":   "<enable" + push + "/>",
		"enable without node":           "<enable" + push + " jid='pubsub.localhost'/>",
		"enable without jid":            "<enable" + push + " node='n'/>",
		"enable an empty jid":           "<enable" + push + " jid='' node='n'/>",
		"enable an empty node":          "<enable" + push + " jid='pubsub.localhost' node=''/>",
		"a field without a value":       "<enable" + push + " jid='pubsub.localhost' node='n'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>" + form + "</value></field><field var='a'/></x></enable>",
		"another form":                  "<enable" + push + " jid='pubsub.localhost' node='n'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>x</value></field></x></enable>",
		"disable without jid":           "<disable" + push + "/>",
		"disable an empty jid":          "<disable" + push + " jid=''/>",
		"disable an empty jid, a node":  "<disable" + push + " jid='' node='n'/>",
		"disable an empty node":         "<disable" + push + " jid='pubsub.localhost' node=''/>",
		"something else of the sort":    "<toggle" + push + " jid='pubsub.localhost' node='n'/>",
		"enable in a form for a server": "<enable" + push + " jid='pubsub.localhost' node='n'><x xmlns='jabber:x:data' type='result'/></enable>",
	} {
		if answer := alice.Ask("set", "", request); !strings.Contains(answer, "bad-request") {
			t.Errorf("%s: %s", name, answer)
		}
	}
	if answer := alice.Ask("get", "", "<enable"+push+" jid='pubsub.localhost' node='n'/>"); !strings.Contains(answer, "not-allowed") {
		t.Errorf("a get: %s", answer)
	}
	for _, request := range []string{ // to each there is a result
		"<enable" + push + " jid='pubsub.localhost' node='alice@localhost/n'/>",
		"<enable" + push + " jid='pubsub.localhost' node='alice@localhost/n'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>" + form + "</value></field></x></enable>",
		pushEnable("pubsub.localhost", "alice@localhost/n", "secret1", "token1", "secret2", "token2"),
		"<disable" + push + " jid='nothing.localhost'/>",
		"<disable" + push + " jid='nothing.localhost' node='x'/>",
		"<disable" + push + " jid='pubsub.localhost' node='alice@localhost/n'/>",
		"<disable" + push + " jid='pubsub.localhost'/>",
	} {
		alice.IQ("set", "", request)
	}
	alice.IQ("set", alice.BareJID(), pushEnable("pubsub.localhost", "alice@localhost/n")) // to the account, and to the server
	alice.IQ("set", "localhost", "<disable"+push+" jid='pubsub.localhost' node='alice@localhost/n'/>")
	leave(alice)
}

// pushOptions registers a device for each of a client's choices; one message shows
// what becomes of all (push_integration_SUITE, pm_msg_notifications).
func pushOptions(t *testing.T, w *pushWorld, say func(to, text string)) {
	alice := w.login("alice", "options")
	const sender = "bob@localhost"
	data := func(text string) map[string]any {
		return map[string]any{"last-message-body": text, "last-message-sender": sender, "message-count": 1}
	}
	const text = "OH, HAI!"
	var want []pushtest.MongoosePushRequest
	for _, service := range []string{"apns", "fcm"} {
		for _, c := range []struct {
			name    string
			options []string
			members []any
		}{
			{"plain", nil, []any{"alert", alert(text, 1, sender)}},
			{"high", []string{"priority", "high"}, []any{"priority", "high", "alert", alert(text, 1, sender)}},
			{"highsilent", []string{"silent", "true", "priority", "high"}, []any{"priority", "high", "data", data(text)}},
			{"silent", []string{"silent", "true"}, []any{"data", data(text)}},
			{"notsilent", []string{"silent", "1"}, []any{"alert", alert(text, 1, sender)}},
			{"click", []string{"click_action", "myactivity", "sound", "default"}, []any{"alert", alert(text, 1, sender, "click_action", "myactivity", "sound", "default")}},
			{"mutable", []string{"mutable_content", "true", "topic", "some_topic", "mode", "dev", "time_to_live", "60"},
				[]any{"mutable_content", "true", "topic", "some_topic", "mode", "dev", "time_to_live", "60", "alert", alert(text, 1, sender)}},
			{"others", []string{"tags", "internal", "secret", "s3cret"}, []any{"alert", alert(text, 1, sender)}},
		} {
			device := service + "-" + c.name
			alice.IQ("set", "", pushEnable("virtual.localhost", device, append([]string{"service", service, "device_id", device}, c.options...)...))
			want = append(want, request("v3", device, append([]any{"service", service}, c.members...)...))
		}
	}
	leave(alice)
	say("alice@localhost", text)
	w.expect("one push for each registration", want...)

	alice = w.login("alice", "options")
	alice.IQ("set", "", "<disable xmlns='urn:xmpp:push:0' jid='virtual.localhost'/>")
	leave(alice)
}

// pushOnlineOrNot: who is online is not notified, nor who has not registered or not any
// more; what was unread counts until the user is back (push_SUITE; push_integration_SUITE,
// inbox cases).
func pushOnlineOrNot(t *testing.T, w *pushWorld, say func(to, text string)) {
	// Of a message to who is offline there are two events: that it was sent, and that
	// it was stored.
	before := w.occurred("not_enabled")
	say("erin@localhost", "to nobody's device")
	await(t, "erin, who has no device", func() bool { return w.occurred("not_enabled") == before+2 })

	enable := func(c *harness.Client) {
		c.IQ("set", "", pushEnable("virtual.localhost", "n", "service", "fcm", "device_id", "dev"))
	}
	alice := w.login("alice", "phone")
	enable(alice)
	say("alice@localhost", "while she is online")
	alice.WaitFor("<message", "while she is online")
	alice.Send("<presence type='unavailable'/>") // and the stream stays open
	alice.Ping()
	say("alice@localhost", "one")
	say("alice@localhost", "two")
	plain := func(text string, badge int) pushtest.MongoosePushRequest {
		return request("v3", "dev", "service", "fcm", "alert", alert(text, badge, "bob@localhost"))
	}
	w.expect("unavailable", plain("one", 1), plain("two", 2))
	alice.Presence()
	alice.Send("<presence type='unavailable'/>")
	alice.Ping()
	say("alice@localhost", "three")
	w.expect("unavailable once more, after having been there", plain("three", 1))

	alice.IQ("set", "", "<disable xmlns='urn:xmpp:push:0' jid='virtual.localhost' node='n'/>")
	// A session without presence may be one that is about to come: it is there until the
	// server stores the message.
	before = w.occurred("not_enabled")
	say("alice@localhost", "after disabling")
	await(t, "a message after disabling", func() bool { return w.occurred("not_enabled") == before+1 })
	leave(alice)
}

// pushHosts: @HOST@ is the recipient's host, and no other's.
func pushHosts(t *testing.T, w *pushWorld) {
	alice := w.login("alice@"+otherHost, "phone")
	alice.IQ("set", "", pushEnable("virtual."+otherHost, "n", "service", "fcm", "device_id", "elsewhere"))
	leave(alice)
	bob := w.server.Login(t, "bob@"+otherHost, "desk")
	bob.Presence()
	say := speaker(bob)
	say("alice@"+otherHost, "over there")
	w.expect("the other host", request("v3", "elsewhere", "service", "fcm", "alert", alert("over there", 1, "bob@"+otherHost)))

	alice = w.login("alice@"+otherHost, "phone")
	alice.IQ("set", "", "<disable xmlns='urn:xmpp:push:0' jid='virtual."+otherHost+"'/>")
	// The virtual service of another host is a service like any other, which is not there.
	if answer := alice.Ask("set", "", pushEnable("virtual.localhost", "n", "service", "fcm", "device_id", "wrong")); !strings.Contains(answer, "remote-server-timeout") {
		t.Errorf("the virtual service of another host: %s", answer)
	}
	leave(alice)
	say("alice@"+otherHost, "to the virtual service of another host")
	w.expect("nothing at MongoosePush")
}

// pushErrors: a MongoosePush in trouble is asked again, and the registration stays; a
// device that is gone ends it.
func pushErrors(t *testing.T, w *pushWorld, say func(to, text string)) {
	alice := w.login("alice", "phone")
	alice.IQ("set", "", pushEnable("virtual.localhost", "n", "service", "fcm", "device_id", "ill"))
	leave(alice)
	plain := func(text string, badge int) pushtest.MongoosePushRequest {
		return request("v3", "ill", "service", "fcm", "alert", alert(text, badge, "bob@localhost"))
	}
	for i, status := range []int{http.StatusServiceUnavailable, http.StatusInternalServerError} {
		w.gateway.Script("ill", pushtest.Answer{Status: status})
		text := fmt.Sprint("after ", status)
		say("alice@localhost", text)
		w.expect(text, plain(text, i+1))
	}
	if n := w.occurred("failed"); n != 2 {
		t.Errorf("%d failed attempts", n)
	}
	refused := w.occurred("refused")
	w.gateway.Script("ill", pushtest.Answer{Status: http.StatusBadRequest})
	say("alice@localhost", "refused for good")
	await(t, "a refusal", func() bool { return w.occurred("refused") == refused+1 })
	gone := w.occurred("disabled")
	w.gateway.Script("ill", pushtest.Answer{Status: http.StatusGone})
	say("alice@localhost", "to a device that is gone")
	await(t, "the end of the registration", func() bool { return w.occurred("disabled") == gone+1 })
	w.expect("nothing more")
}

// pushUnacked: alice's phone vanishes with stream management on. The default plugin
// notifies of what it has not acknowledged when the session ends, the enhanced one at
// once, and the device concerned alone; nobody is notified of a message twice
// (push_integration_SUITE, sm_unack cases).
func pushUnacked(t *testing.T, w *pushWorld, bob *harness.Client, say func(to, text string), enhanced bool) {
	api := "v3"
	if enhanced {
		api = "v2"
	}
	room := fmt.Sprintf("unacked-%t@muc.localhost", enhanced)
	alice := w.server.Login(t, "alice", "phone")
	alice.EnableSM()
	alice.Presence()
	await(t, "delegation", func() bool { return listsPush(alice) })
	alice.IQ("set", "", pushEnable("virtual.localhost", "phone", "service", "fcm", "device_id", "phone"))
	tablet := w.server.Login(t, "alice", "tablet")
	tablet.IQ("set", "", pushEnable("virtual.localhost", "tablet", "service", "apns", "device_id", "tablet"))
	leave(tablet)
	bob.Join(room, "Bobby")
	alice.Join(room, "Ally")
	say("alice@localhost", "msg-0")
	alice.WaitFor("<message", "msg-0")
	alice.Ping()
	alice.HoldAcks()
	say("alice@localhost", "msg-1")
	bob.Sendf("<message to='%s' type='groupchat' id='g%t'>%s</message>", room, enhanced, body("msg-2"))
	alice.WaitFor("<message", "msg-1")
	alice.WaitFor("<message", "msg-2")
	alice.Drop()

	push := func(device, service, text, sender string, badge int) pushtest.MongoosePushRequest {
		return request(api, device, "service", service, "alert", alert(text, badge, sender))
	}
	pm := func(device, service string) pushtest.MongoosePushRequest {
		return push(device, service, "msg-1", "bob@localhost", 1)
	}
	if enhanced {
		w.expect("unacknowledged", pm("phone", "fcm"), push("phone", "fcm", "msg-2", room+"/Bobby", 1))
		w.expect("the session's end", pm("tablet", "apns")) // the phone knows of it
	} else {
		w.expect("the session's end", pm("phone", "fcm"), pm("tablet", "apns"))
	}
	bob.Leave(room, "Bobby")
	say("alice@localhost", "msg-3")
	w.expect("the last", push("phone", "fcm", "msg-3", "bob@localhost", 2), push("tablet", "apns", "msg-3", "bob@localhost", 2))

	alice = w.login("alice", "phone")
	alice.IQ("set", "", "<disable xmlns='urn:xmpp:push:0' jid='virtual.localhost'/>")
	leave(alice)
}

// pushPubSub publishes at a node of the server's own pubsub service, to which carol has
// subscribed. Nobody but alice can register it.
func pushPubSub(t *testing.T, w *pushWorld, say func(to, text string), noNode string) {
	const service, node = "pubsub.localhost", "alice@localhost/phone"
	carol := w.server.Login(t, "carol", "c")
	carol.Presence()
	carol.IQ("set", service, "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='"+node+"'/><configure>"+
		"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#node_config</value></field>"+
		"<field var='pubsub#publish_model'><value>open</value></field></x></configure></pubsub>")
	carol.IQ("set", service, "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='"+node+"' jid='carol@localhost'/></pubsub>")
	dave := w.login("dave", "phone")
	if answer := dave.Ask("set", "", pushEnable(service, node)); !strings.Contains(answer, "forbidden") || !strings.Contains(answer, "dave@localhost/") {
		t.Errorf("a node of somebody else: %s", answer)
	}
	leave(dave)
	alice := w.login("alice", "phone")
	alice.IQ("set", "", pushEnable(service, node))
	leave(alice)
	pushed := w.occurred("pushed")
	say("alice@localhost", "by pubsub")
	carol.WaitFor("<message", "pubsub#event", node, "urn:xmpp:push:0", "urn:xmpp:push:summary", "last-message-body", "by pubsub", "bob@localhost")
	await(t, "the result", func() bool { return w.occurred("pushed") == pushed+1 })

	before := w.occurred(noNode)
	carol.IQ("set", service, "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='"+node+"'/></pubsub>")
	say("alice@localhost", "to a node that was deleted")
	await(t, "the answer about a node that was deleted", func() bool { return w.occurred(noNode) == before+1 })
	if noNode == "disabled" {
		none := w.occurred("not_enabled")
		say("alice@localhost", "to nobody")
		await(t, "nothing registered", func() bool { return w.occurred("not_enabled") > none })
	}
	carol.CloseStream()
}

// pushCondition: what the operator's condition withholds notifies nobody, and it is said
// why. The two events of a message, that it was sent and stored, are both withheld.
func pushCondition(t *testing.T, w *pushWorld, say func(to, text string)) {
	phone := w.login("alice", "condition")
	phone.IQ("set", "", pushEnable("virtual.localhost", "n", "service", "fcm", "device_id", "choosy"))
	leave(phone)
	say("alice@localhost", "hush, hush")
	await(t, "what is withheld", func() bool { return w.occurred("when") == 2 })
	say("alice@localhost", "aloud")
	w.expect("what is not", request("v2", "choosy", "service", "fcm", "alert", alert("aloud", 1, "bob@localhost")))
}

// pushExplain asks the running instance why, and has it remove a registration.
func pushExplain(t *testing.T, w *pushWorld, say func(to, text string)) {
	const mallory = "mallory@localhost"
	phone := w.login("mallory", "phone")
	phone.IQ("set", "", pushEnable("virtual.localhost", "n", "service", "fcm", "device_id", "explained"))
	say(mallory, "while she is there")
	leave(phone)
	say(mallory, "when she has gone")
	w.expect("one push", request("v3", "explained", "service", "fcm", "alert", alert("when she has gone", 1, "bob@localhost")))
	c, err := control.Dial(t.Context(), w.dir)
	if err != nil {
		t.Fatal(err)
	}
	var e push.Explanation
	var outcomes []string
	await(t, "the outcome of the push", func() bool {
		if e, err = c.Explain(t.Context(), mallory); err != nil {
			t.Fatal(err)
		}
		outcomes = nil
		for _, d := range e.Decisions {
			outcomes = append(outcomes, d.Outcome)
		}
		return slices.Contains(outcomes, "pushed")
	})
	registered := []push.Registered{{Service: "virtual.localhost", Node: "n", Options: []string{"service", "device_id"}, By: push.ByGateway}}
	if diff := cmp.Diff(registered, e.Registrations); diff != "" {
		t.Error(diff)
	}
	if outcomes[0] != "online" || e.Feeds["message"] != "event-feed" {
		t.Errorf("%+v", e)
	}
	if n, err := c.Remove(t.Context(), mallory, "", ""); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	say(mallory, "and nobody is told")
	await(t, "nothing registered", func() bool {
		e, err := c.Explain(t.Context(), mallory)
		return err == nil && slices.ContainsFunc(e.Decisions, func(d journal.Decision) bool { return d.Outcome == "not_enabled" })
	})
}

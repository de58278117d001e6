package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"eventpusher/backends/push"
	"eventpusher/backends/push/journal"
	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/control"
	"eventpusher/internal/harness"
	"eventpusher/internal/jid"
)

// pushAccounts removes accounts by the server's own command: their registrations and
// devices go with them, also if eventpusher is away meanwhile and whatever a filter and a condition keep,
// and those of others and of a new account of the name stay.
func pushAccounts(t *testing.T, server *harness.XMPPServer, say func(to, text string)) {
	google := pushtest.StartFCM(t, time.Hour)
	w := startPush(t, server, `when = 'event.kind in ["chat", "stored"]'`, "v3", fmt.Sprintf(`
[[push.app]]
name = "chat"
[push.app.fcm]
credentials = %q
url = %q
cacertfile = %q
[[filter]]
name = "messages only"
keep = 'event.kind in ["chat", "stored"]'
`, google.ServiceAccount(t).Reveal(), google.URL, google.CAFile))
	// settle gives a user a registration and a device.
	settle := func(user string) *harness.Client {
		t.Helper()
		c := w.login(user, "phone")
		c.IQ("set", "", pushEnable("virtual.localhost", "n", "service", "fcm", "device_id", user))
		registerDevice(t, c, "kind", "fcm", "token", user)
		return c
	}
	devices := func(c *harness.Client) int {
		t.Helper()
		return strings.Count(c.IQ("set", "events.localhost", "<command xmlns='http://jabber.org/protocol/commands' node='list-devices'/>"), "<item>")
	}
	explain := func(user string) push.Explanation {
		t.Helper()
		c, err := control.Dial(t.Context(), w.dir)
		if err != nil {
			t.Fatal(err)
		}
		e, err := c.Explain(t.Context(), jid.JID(user+"@localhost"))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	removed := func(what string) {
		t.Helper()
		await(t, what, func() bool {
			return slices.ContainsFunc(explain("zoe").Decisions, func(d journal.Decision) bool { return d.Outcome == "account_removed" })
		})
		if e := explain("zoe"); len(e.Registrations) != 0 {
			t.Errorf("%s: left are %+v", what, e.Registrations)
		}
	}

	server.Register("zoe")
	server.Register("yan")
	leave(settle("yan"))
	zoe := settle("zoe")
	server.Unregister("zoe")
	zoe.WaitEnd()
	removed("the end of an account")

	// The next owner of the name begins with nothing.
	server.Register("zoe")
	zoe = w.login("zoe", "phone")
	if n := devices(zoe); n != 0 {
		t.Errorf("the new account has %d devices of the old one", n)
	}
	zoe.CloseStream()
	zoe = settle("zoe")
	if n := devices(zoe); n != 1 {
		t.Errorf("the new account has %d devices", n)
	}
	leave(zoe)

	w.stop()
	server.Unregister("zoe")
	server.Register("zoe")
	w.restart()
	removed("the end of an account while nobody listened")
	zoe = w.login("zoe", "phone")
	if n := devices(zoe); n != 0 {
		t.Errorf("the new account has %d devices of the old one", n)
	}
	zoe.CloseStream()
	leave(settle("zoe"))
	for _, user := range []string{"yan", "zoe"} {
		say(user+"@localhost", "are you there, "+user)
		w.expect("a push to "+user, request("v3", user, "service", "fcm", "alert", alert("are you there, "+user, 1, "bob@localhost")))
		c := w.login(user, "phone")
		if n := devices(c); n != 1 {
			t.Errorf("%s has %d devices", user, n)
		}
		c.CloseStream()
	}
}

package push

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/send/xmpp"
	"eventpusher/backends/push/store"
	"eventpusher/internal/jid"
)

// field is one publish-option of an enable request.
func formField(name, value string) string {
	return "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>" +
		"<field var='" + name + "'><value>" + value + "</value></field></x>"
}

// TestBounds: what a plain user may register. docs/push-apps.md has the table.
func TestBounds(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	f.o.Served = jid.NewDomains("example.org", "home.example")
	register := func(pubsub, node, form string) string {
		payload := `<enable xmlns='urn:xmpp:push:0' jid='` + pubsub + `' node='` + node + `'>` + form + `</enable>`
		err := f.register(t, "bob@example.org/phone", []byte(payload), f.now)
		var refusal *xmpp.Refusal
		if errors.As(err, &refusal) {
			return refusal.Condition
		}
		if err != nil {
			t.Fatal(err)
		}
		return "taken"
	}
	for i := range maxAtDomain {
		if got := register(fmt.Sprintf("push%d.example.net", i), "n", ""); got != "taken" {
			t.Fatalf("%d: %s", i, got)
		}
	}
	for name, c := range map[string]struct{ pubsub, node, form, want string }{
		"one more at a domain":          {"more.example.net", "n", "", "resource-constraint"},
		"one of them again":             {"push3.example.net", "n", formField("a", "b"), "taken"},
		"at another domain":             {"push.example.com", "n", "", "taken"},
		"at the operator's":             {"pubsub.example.org", "n", formField("device_id", strings.Repeat("x", 3*maxOptions)), "taken"},
		"a large form":                  {"push.example.com", "n", formField("a", strings.Repeat("x", maxOptions)), "not-acceptable"},
		"a form as large as may be":     {"push.example.com", "n", formField("a", strings.Repeat("x", maxOptions-1)), "taken"},
		"a long node":                   {"push.example.com", strings.Repeat("n", 251), "", "bad-request"},
		"a node of somebody's account":  {"alice@example.org", "n", "", "forbidden"},
		"a node of the own account":     {"bob@example.org", "n", "", "taken"},
		"an account elsewhere":          {"alice@example.com", "n", "", "taken"},
		"more rules than anybody needs": {"push.example.com", "n", "<muted xmlns='tigase:push:filter:muted:0'>" + strings.Repeat("<item jid='a@b'/>", 257) + "</muted>", "not-acceptable"},
		"as many as may be":             {"push.example.com", "n", "<muted xmlns='tigase:push:filter:muted:0'>" + strings.Repeat("<item jid='a@b'/>", 256) + "</muted>", "taken"},
		"encryption by MongoosePush":    {"pubsub.example.org", "n", "<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm'>AAECAwQFBgcICQoLDA0ODw==</encrypt>", "feature-not-implemented"},
		"a node at a pubsub service":    {"pubsub.home.example", "n", "", "forbidden"},
		"a node of that name":           {"pubsub.home.example", "bob@example.org", "", "forbidden"},
		"somebody else's node":          {"pubsub.home.example", "alice@example.org/phone", "", "forbidden"},
		"the own node":                  {"pubsub.home.example", "bob@example.org/phone", "", "taken"},
		"a node, by a localpart":        {"x@pubsub.home.example", "n", "", "forbidden"},
		"a push service":                {"push.home.example", "n", "", "taken"},
		"a pubsub service elsewhere":    {"pubsub.example.net", "n", "", "resource-constraint"},
		"a service that is silent":      {"silent.home.example", "n", "", "remote-server-timeout"},
	} {
		if got := register(c.pubsub, c.node, c.form); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestLargeMessage: however long a message is, what it makes of IQs to one domain is bounded.
func TestLargeMessage(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	sent := 0
	f.network.answer = func(_ jid.JID, payload string) error { sent += len(payload); return nil }
	for i := range store.MaxPerUser {
		payload := fmt.Sprintf(`<enable xmlns='urn:xmpp:push:0' jid='push%d.example.net' node='%d'>%s</enable>`, i, i, formField("a", strings.Repeat("x", maxOptions-1)))
		_ = f.register(t, "bob@example.org/phone", []byte(payload), f.now) // refused when there are enough
	}
	e := f.message("1")
	e.Body = strings.Repeat("x", 15<<10)
	if err := f.publish(t, e); err != nil {
		t.Fatal(err)
	}
	if n := len(f.network.take()); n != maxAtDomain || sent > maxAtDomain*(decide.MaxBody+maxOptions+1<<10) {
		t.Errorf("%d IQs of %d bytes", n, sent)
	}
}

// TestOddCondition: what a service calls its error reaches neither log nor dead letter if it
// is none of the standards'.
func TestOddCondition(t *testing.T) {
	for condition, want := range map[string]string{
		"forbidden": "forbidden", strings.Repeat("x", 100<<10): "undefined-condition", "two\nlines": "undefined-condition", "": "",
	} {
		f := newFixture(t, asMongooseIM)
		f.network.answer = func(jid.JID, string) error { return &xmpp.Refusal{Type: "cancel", Condition: condition} }
		err := xmpp.New(f.network).Send(t.Context(), notify.Target{Kind: notify.XMPP, Address: "push.example.net", Node: "n"}, notify.Notification{})
		var refusal *xmpp.Refusal
		if !errors.As(err, &refusal) || refusal.Condition != want || len(err.Error()) > 200 {
			t.Errorf("%.20q becomes %.200v", condition, err)
		}
	}
}

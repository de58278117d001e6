package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/harness"
)

// pushFlavours are the servers that delegate registrations to the component.
var pushFlavours = []struct {
	name  string
	start func(t *testing.T) *harness.XMPPServer
}{
	{"prosody", func(t *testing.T) *harness.XMPPServer {
		return harness.Prosody(t, harness.ProsodyOptions{
			EventFeed: true, DelegatePush: true, Components: []string{"events.localhost", outside}, MUC: "muc.localhost", Users: users,
		})
	}},
	{"ejabberd", func(t *testing.T) *harness.XMPPServer {
		return harness.Ejabberd(t, harness.EjabberdOptions{
			EventFeed: true, DelegatePush: true, Components: []string{"events.localhost", outside}, MUC: "muc.localhost", Users: users,
		})
	}},
}

// pushConfig is push, with MongoosePush behind the virtual host.
func pushConfig(gateway *pushtest.MongoosePush) string {
	return fmt.Sprintf(`
[modules.mod_event_pusher.push]
virtual_pubsub_hosts = ["virtual.@HOST@"]

[modules.mod_push_service_mongoosepush]
pool_name = "mongoose_push_http"

[outgoing_pools.http.mongoose_push_http.connection]
host = %q
tls.cacertfile = %q
`, gateway.URL, gateway.CAFile)
}

// pushEnable is what a client sends.
func pushEnable(pubsub, node string, options ...string) string {
	form := ""
	if len(options) > 0 {
		form = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field>"
		for i := 0; i < len(options); i += 2 {
			form += "<field var='" + options[i] + "'><value>" + options[i+1] + "</value></field>"
		}
		form += "</x>"
	}
	return "<enable xmlns='urn:xmpp:push:0' jid='" + pubsub + "' node='" + node + "'>" + form + "</enable>"
}

// TestPush registers at real servers, goes offline, and looks at what reaches
// MongoosePush, as the scripted session of MongooseIM did (U01, U04).
func TestPush(t *testing.T) {
	for _, f := range pushFlavours {
		t.Run(f.name, func(t *testing.T) {
			server := f.start(t)
			gateway := pushtest.StartMongoosePush(t)
			w := newWorld(t, server.ComponentAddr(server.Component), pushConfig(gateway))
			alice, bob := server.Login(t, "alice", "res1"), server.Login(t, "bob", "desk")
			alice.Presence()
			bob.Presence()
			await(t, "delegation", func() bool {
				return strings.Contains(alice.IQ("get", "localhost", "<query xmlns='http://jabber.org/protocol/disco#info'/>"), "urn:xmpp:push:0")
			})
			alice.IQ("set", "", pushEnable("virtual.localhost", "punode", "service", "apns", "device_id", "tok/1 a", "topic", "app.topic"))
			for _, wrong := range []string{"<enable xmlns='urn:xmpp:push:0' jid='virtual.localhost'/>", pushEnable("virtual.localhost", "")} {
				if answer := alice.Ask("set", "", wrong); !strings.Contains(answer, "bad-request") {
					t.Errorf("%s was answered by %s", wrong, answer)
				}
			}
			if answer := bob.Ask("set", "alice@localhost", pushEnable("virtual.localhost", "mine")); !strings.Contains(answer, "type='error'") && !strings.Contains(answer, `type="error"`) {
				t.Errorf("bob could register for alice: %s", answer)
			}

			n := 0
			say := func(text string) {
				n++
				bob.Sendf("<message to='alice@localhost' type='chat' id='p%d'>%s</message>", n, body(text))
			}
			push := func(text string, badge int) pushtest.MongoosePushRequest {
				return pushtest.MongoosePushRequest{
					Path: "/v3/notification/tok%2F1%20a", DeviceID: "tok/1 a",
					Body: object("service", "apns", "topic", "app.topic", "alert", map[string]any{"badge": badge, "body": text, "title": "bob@localhost", "tag": "bob@localhost"}),
				}
			}
			expect := func(what string, want ...pushtest.MongoosePushRequest) {
				t.Helper()
				await(t, what, func() bool { return len(gateway.Requests()) >= len(want) })
				got := gateway.Requests()
				for i := range got {
					got[i].Body = canonicalJSON(t, []byte(got[i].Body))
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			say("while alice is online")
			bob.Ping()
			alice.CloseStream()
			offline := func() {
				t.Helper()
				await(t, "alice's end", func() bool {
					return slices.ContainsFunc(w.consumer.All(), func(d amqp.Delivery) bool {
						return d.RoutingKey == "alice@localhost" && strings.Contains(string(d.Body), "false")
					})
				})
			}
			offline()
			bob.Send("<message to='alice@localhost' type='chat' id='typing'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
			say("U04 wake up 😀")
			say("again")
			expect("notifications", push("U04 wake up 😀", 1), push("again", 2))

			occurred := func(what string) bool {
				_, metrics := w.get("/metrics")
				return strings.Contains(metrics, `eventpusher_backend_occurrences_total{backend="push",what="`+what+`"}`)
			}
			gateway.Script("tok/1 a", pushtest.Answer{Status: http.StatusGone})
			say("nobody there")
			await(t, "the end of the registration", func() bool { return occurred("disabled") })
			say("not registered any more")
			await(t, "a message for nobody", func() bool { return occurred("not_enabled") })
			expect("a device that is gone", push("U04 wake up 😀", 1), push("again", 2))

			// A push service of the network is asked by an IQ of the component.
			service := server.AttachComponent(t, outside)
			carol := server.Login(t, "carol", "c")
			carol.Presence()
			attribute := regexp.MustCompile(`\bid=['"]([^'"]+)`)
			enable := func(c *harness.Client, element string) {
				c.Sendf("<iq type='set' id='enable'>%s</iq>", element)
				question := service.WaitFor("<iq", "disco#info", "events.localhost")
				service.Sendf("<iq type='result' id='%s' from='%s' to='events.localhost'><query xmlns='http://jabber.org/protocol/disco#info'>"+
					"<identity category='pubsub' type='push'/></query></iq>", attribute.FindStringSubmatch(question)[1], outside)
				c.WaitFor("<iq", "enable", "result")
			}
			enable(carol, pushEnable(outside, "node-1", "secret", "s3cret"))
			carol.CloseStream()
			bob.Sendf("<message to='carol@localhost' type='chat' id='c1'>%s</message>", body("to a pubsub node"))
			iq := service.WaitFor("<iq", "node-1", "s3cret", "to a pubsub node", "urn:xmpp:push:summary")
			if !strings.Contains(iq, "from='events.localhost'") && !strings.Contains(iq, `from="events.localhost"`) {
				t.Errorf("sent by another: %s", iq)
			}
			// A text that grows when it is written as XML would cost us the stream.
			service.Sendf("<iq type='result' id='%s' from='%s' to='events.localhost'/>", attribute.FindStringSubmatch(iq)[1], outside)
			bob.Send("<message to='carol@localhost' type='chat' id='c2'><body>long " + strings.Repeat("'", 200_000) + "</body></message>")
			if iq := service.WaitFor("<iq", "node-1", ">long ", "…</value>"); len(iq) > 64<<10 {
				t.Errorf("%d bytes were published", len(iq))
			}

			// A client can have encrypted what the service must not read.
			dave := server.Login(t, "dave", "d")
			dave.Presence()
			await(t, "encryption in the account's disco#info", func() bool {
				return strings.Contains(dave.IQ("get", dave.BareJID(), "<query xmlns='http://jabber.org/protocol/disco#info'/>"), "tigase:push:encrypt:aes-128-gcm")
			})
			enable(dave, strings.Replace(pushEnable(outside, "node-2", "secret", "s3cret"), "</enable>", encryptElement+"</enable>", 1))
			dave.CloseStream()
			bob.Sendf("<message to='dave@localhost' type='chat' id='d1'>%s</message>", body("what only dave may read"))
			if sealed := unsealed(t, service.WaitFor("<iq", "node-2", "s3cret", "<encrypted")); sealed != `{"unread":1,"sender":"bob@localhost","type":"chat","message":"what only dave may read"}` {
				t.Errorf("encrypted: %s", sealed)
			}
		})
	}
}

// encryptKey is a client's, and encryptElement what it sends with enable.
const (
	encryptKey     = "AAECAwQFBgcICQoLDA0ODw=="
	encryptElement = "<encrypt xmlns='tigase:push:encrypt:0' alg='aes-128-gcm'>" + encryptKey + "</encrypt>"
)

// unsealed decrypts the notification in an IQ, which has to have no form.
func unsealed(t *testing.T, iq string) string {
	t.Helper()
	if strings.Contains(iq, "urn:xmpp:push:summary") {
		t.Errorf("not only what is encrypted: %s", iq)
	}
	element := regexp.MustCompile(`<encrypted [^>]*>([^<]*)<`).FindStringSubmatch(iq)
	iv := regexp.MustCompile(`<encrypted [^>]*iv=['"]([^'"]+)`).FindStringSubmatch(iq)
	if element == nil || iv == nil {
		t.Fatalf("nothing is encrypted in %s", iq)
	}
	return pushtest.Unseal(t, encryptKey, iv[1], element[1])
}

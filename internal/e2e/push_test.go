package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// mongoosePush plays MongoosePush: it keeps the requests and answers as told.
type mongoosePush struct {
	*httptest.Server
	mu       sync.Mutex
	requests []string
	status   int
}

func startMongoosePush(t *testing.T) *mongoosePush {
	m := &mongoosePush{status: http.StatusOK}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		sorted, _ := json.Marshal(body)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.requests = append(m.requests, fmt.Sprintf("%s %s %s %s", r.Method, r.URL.EscapedPath(), r.Header.Get("Content-Type"), sorted))
		w.WriteHeader(m.status)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *mongoosePush) answer(status int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = status
}

func (m *mongoosePush) got() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.requests...)
}

// startPush adds push, with MongoosePush behind the virtual host, to a world.
func startPush(t *testing.T, server *harness.XMPPServer, gateway *mongoosePush) *world {
	t.Helper()
	w := prepareWorld(t)
	w.more = fmt.Sprintf(`
[modules.mod_event_pusher.push]
virtual_pubsub_hosts = ["virtual.@HOST@"]

[modules.mod_push_service_mongoosepush]
pool_name = "mongoose_push_http"

[outgoing_pools.http.mongoose_push_http.connection]
host = "http://%s"
`, gateway.Listener.Addr().(*net.TCPAddr).String())
	w.start(server.ComponentAddr(server.Component), "")
	await(t, "readiness", w.ready)
	return w
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
			gateway := startMongoosePush(t)
			w := startPush(t, server, gateway)
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
			push := func(text string, badge int) string {
				return fmt.Sprintf(`POST /v3/notification/tok%%2F1%%20a application/json {"alert":{"badge":%d,"body":%q,"tag":"bob@localhost","title":"bob@localhost"},"service":"apns","topic":"app.topic"}`, badge, text)
			}
			expect := func(what string, want ...string) {
				t.Helper()
				await(t, what, func() bool { return len(gateway.got()) >= len(want) })
				if diff := cmp.Diff(want, gateway.got()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", what, diff)
				}
			}
			say("while alice is online")
			alice.CloseStream()
			w.wait2(t, "alice@localhost/res1")
			bob.Send("<message to='alice@localhost' type='chat' id='typing'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
			say("U04 wake up 😀")
			say("again")
			expect("notifications", push("U04 wake up 😀", 1), push("again", 2))

			gateway.answer(http.StatusGone)
			say("nobody there")
			expect("a device that is gone", push("U04 wake up 😀", 1), push("again", 2), push("nobody there", 3))
			await(t, "the end of the registration", func() bool {
				_, metrics := w.get("/metrics")
				return strings.Contains(metrics, `name="disabled"`) || strings.Contains(metrics, `count="disabled"`) || strings.Contains(metrics, "disabled\"} 1")
			})
			gateway.answer(http.StatusOK)
			say("not registered any more")
			alice = server.Login(t, "alice", "res1")
			alice.IQ("set", "", pushEnable("pubsub."+outside, "node-1", "secret", "s3cret"))
			service := server.AttachComponent(t, outside)
			alice.CloseStream()
			await(t, "alice's end", func() bool {
				n++
				bob.Sendf("<message to='alice@localhost' type='chat' id='p%d'>%s</message>", n, body("to a pubsub node"))
				return strings.Contains(service.Received(), "to a pubsub node")
			})
			if len(gateway.got()) != 3 {
				t.Errorf("the gateway got %q", gateway.got()[3:])
			}
		})
	}
}

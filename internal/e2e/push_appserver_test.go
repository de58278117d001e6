package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/webpush"
	"eventpusher/internal/harness"
)

// publishers are the servers whose own modules publish at the component.
var publishers = []struct {
	name  string
	start func(t *testing.T) *harness.XMPPServer
}{
	{"prosody", func(t *testing.T) *harness.XMPPServer {
		return harness.Prosody(t, harness.ProsodyOptions{
			Components: []string{"events.localhost", outside}, Users: users, Modules: []string{"cloud_notify", "version"},
			Config: "push_notification_with_body = true\npush_notification_with_sender = true\npush_max_errors = 1\n",
		})
	}},
	{"ejabberd", func(t *testing.T) *harness.XMPPServer {
		return harness.Ejabberd(t, harness.EjabberdOptions{
			Components: []string{"events.localhost", outside}, Users: users,
			Modules: "  mod_push:\n    include_body: true\n    include_sender: true\n",
		})
	}},
}

const (
	adminToken = "adm1n-t0ken"
	apnsToken  = "c0ffee00c0ffee00"
	pushTopic  = "org.example.chat"
)

// providers are the stand-ins of all providers, and the application that uses them.
type providers struct {
	apns *pushtest.APNs
	fcm  *pushtest.FCM
	web  *pushtest.WebPush
	toml string
}

func startProviders(t *testing.T) *providers {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p8 := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	private, err := webpush.GenerateVAPIDKey()
	if err != nil {
		t.Fatal(err)
	}
	vapid, err := webpush.NewVAPID(private, "mailto:push@example.org")
	if err != nil {
		t.Fatal(err)
	}
	p := &providers{
		apns: pushtest.StartAPNs(t, pushtest.APNsAccount{KeyID: "ABC123DEFG", TeamID: "DEF123GHIJ", Key: &key.PublicKey, Topics: []string{pushTopic}}),
		fcm:  pushtest.StartFCM(t, time.Hour),
		web:  pushtest.StartWebPush(t, vapid.PublicKey()),
	}
	p.toml = fmt.Sprintf(`
[modules.mod_event_pusher.push]
[push]
burst = 50
[[push.app]]
name = "chat"
[push.app.apns]
key = %q
key_id = "ABC123DEFG"
team_id = "DEF123GHIJ"
topics = [%q]
url = %q
cacertfile = %q
[push.app.fcm]
credentials = %q
url = %q
cacertfile = %q
[push.app.webpush]
vapid_key = %q
subject = "mailto:push@example.org"
allow = ["127.0.0.1"]
cacertfile = %q
`, p8, pushTopic, p.apns.URL, p.apns.CAFile, p.fcm.ServiceAccount(t).Reveal(), p.fcm.URL, p.fcm.CAFile, private.Reveal(), p.web.CAFile)
	return p
}

// appServer is the program as an app server, which can be killed.
type appServer struct {
	*process
	t               *testing.T
	program, config string
	admin           string
}

func startAppServer(t *testing.T, server *harness.XMPPServer, p *providers) *appServer {
	t.Helper()
	dir := t.TempDir()
	a := &appServer{t: t, program: build(t), config: filepath.Join(dir, "config.toml")}
	toml := fmt.Sprintf(`
[component]
address = %q
name = "events.localhost"
secret = "secret"
[general]
hosts = ["localhost"]
[admin]
listen = "127.0.0.1:0"
token = %q
[outbox]
path = %q
`, server.ComponentAddr("events.localhost"), adminToken, filepath.Join(dir, "outbox")) + p.toml
	if err := os.WriteFile(a.config, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	a.restart()
	return a
}

// restart runs the program, again after a kill, until it is ready.
func (a *appServer) restart() {
	a.t.Helper()
	a.process = run(a.t, a.program, a.config)
	a.says("admin listening")
	a.admin = "http://" + adminAddress.FindStringSubmatch(a.log.String())[1]
	await(a.t, "readiness", func() bool { status, _ := a.ask("GET", "/readyz", ""); return status == http.StatusOK })
}

// ask sends a request to the admin listener.
func (a *appServer) ask(method, path, body string) (status int, answer string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.admin+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: limit}
	resp, err := client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// counter returns the value of a metric's series, 0 where there is none.
func (a *appServer) counter(series string) int {
	a.t.Helper()
	_, metrics := a.ask("GET", "/metrics", "")
	match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\d+)$`).FindStringSubmatch(metrics)
	if match == nil {
		return 0
	}
	n, err := strconv.Atoi(match[1])
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

func (a *appServer) publishes() int { return a.counter(`eventpusher_iqs_total{kind="publish"}`) }

func (a *appServer) occurred(what string) int {
	return a.counter(`eventpusher_backend_occurrences_total{backend="push",what="` + what + `"}`)
}

// submit is a command with its form.
func submit(node string, fields ...string) string {
	form := "<x xmlns='jabber:x:data' type='submit'>"
	for i := 0; i < len(fields); i += 2 {
		form += "<field var='" + fields[i] + "'><value>" + fields[i+1] + "</value></field>"
	}
	return "<command xmlns='http://jabber.org/protocol/commands' node='" + node + "' action='execute'>" + form + "</x></command>"
}

// device is what a registration answers.
type device struct{ node, secret string }

func valueOf(t *testing.T, answer, field string) string {
	t.Helper()
	match := regexp.MustCompile(`var=['"]` + field + `['"][^>]*><value>([^<]+)<`).FindStringSubmatch(answer)
	if match == nil {
		t.Fatalf("no %s in %s", field, answer)
	}
	return match[1]
}

func registerDevice(t *testing.T, c *harness.Client, fields ...string) device {
	t.Helper()
	answer := c.IQ("set", "events.localhost", submit("register-device", fields...))
	if jid := valueOf(t, answer, "jid"); jid != "events.localhost" {
		t.Errorf("registered at %s", jid)
	}
	return device{valueOf(t, answer, "node"), valueOf(t, answer, "secret")}
}

// publishIQ is what any server may send.
func publishIQ(node, secret, body string) string {
	return "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='" + node + "'><item><notification xmlns='urn:xmpp:push:0'>" +
		"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:push:summary</value></field><field var='last-message-body'><value>" + body +
		"</value></field></x></notification></item></publish><publish-options><x xmlns='jabber:x:data' type='submit'>" +
		"<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='secret'><value>" + secret +
		"</value></field></x></publish-options></pubsub>"
}

// forgetful reports whether the client's server is Prosody 13.0, whose mod_cloud_notify
// fails to read the errors that it is answered with, and so never ends a registration.
func forgetful(c *harness.Client) bool {
	return strings.Contains(c.Ask("get", "localhost", "<query xmlns='jabber:iq:version'/>"), ">13.0.")
}

// TestAppServer registers devices by ad-hoc commands, enables push in the way of each
// server's own module, and looks at what reaches the providers.
func TestAppServer(t *testing.T) {
	for _, f := range publishers {
		t.Run(f.name, func(t *testing.T) {
			server := f.start(t)
			p := startProviders(t)
			a := startAppServer(t, server, p)
			alice, bob := server.Login(t, "alice", "phone"), server.Login(t, "bob", "desk")
			alice.Presence()
			bob.Presence()

			info := alice.IQ("get", "events.localhost", "<query xmlns='http://jabber.org/protocol/disco#info'/>")
			items := alice.IQ("get", "events.localhost", "<query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/>")
			form := alice.IQ("set", "events.localhost", "<command xmlns='http://jabber.org/protocol/commands' node='register-device'/>")
			for text, parts := range map[string][]string{
				info: {"push", "pubsub", "http://jabber.org/protocol/commands"}, items: {"register-device", "unregister-device", "list-devices"},
				form: {"executing", "apns", "fcm", "webpush", "chat", "token", "endpoint"},
			} {
				for _, part := range parts {
					if !strings.Contains(text, part) {
						t.Errorf("no %s in %s", part, text)
					}
				}
			}
			if answer := alice.Ask("set", "events.localhost", submit("register-device", "kind", "apns", "token", "not hex")); !strings.Contains(answer, "bad-request") {
				t.Errorf("a token that is none: %s", answer)
			}
			if answer := alice.Ask("set", "events.localhost", submit("register-device", "kind", "webpush", "endpoint", "https://10.0.0.1/x", "p256dh", "x", "auth", "y")); !strings.Contains(answer, "bad-request") {
				t.Errorf("an endpoint inside: %s", answer)
			}
			subscription := p.web.Subscribe(t, "/alice")
			iphone := registerDevice(t, alice, "kind", "apns", "app", "chat", "token", apnsToken)
			android := registerDevice(t, alice, "kind", "fcm", "token", "alices-android")
			browser := registerDevice(t, alice, "kind", "webpush", "endpoint", subscription.Address.Reveal(), "p256dh", subscription.P256DH, "auth", subscription.Auth.Reveal())
			if again := registerDevice(t, alice, "kind", "fcm", "token", "alices-android"); again.node != android.node || again.secret == android.secret {
				t.Errorf("registered again as %v, was %v", again, android)
			} else {
				android = again
			}
			// ejabberd ends all registrations of a session together, so that each device
			// has its own, as in life.
			alice.CloseStream()
			for i, d := range []device{iphone, android, browser} {
				session := server.Login(t, "alice", fmt.Sprint("device", i))
				session.IQ("set", "", pushEnable("events.localhost", d.node, "secret", d.secret))
				session.CloseStream()
			}

			n := 0
			say := func(text string) {
				n++
				bob.Sendf("<message to='alice@localhost' type='chat' id='a%d'>%s</message>", n, body(text))
			}
			expect := func(text string, apple, google, web int) {
				t.Helper()
				await(t, "notifications of "+text, func() bool {
					return len(p.apns.Requests()) >= apple && len(p.fcm.Requests()) >= google && len(p.web.Requests()) >= web
				})
				for who, last := range map[string]string{
					"apns": p.apns.Requests()[apple-1].Payload, "fcm": p.fcm.Requests()[google-1].Message, "webpush": p.web.Requests()[web-1].Plaintext,
				} {
					var any map[string]any
					if json.Unmarshal([]byte(last), &any) != nil || !strings.Contains(last, text) && who != "apns" || !strings.Contains(last, "bob@localhost") {
						t.Errorf("%s was told %s", who, last)
					}
				}
			}
			say("U first 😀")
			expect("U first 😀", 1, 1, 1)
			if got := p.apns.Requests()[0]; got.Token != apnsToken || got.Header.Get("Apns-Push-Type") != "alert" || !strings.Contains(got.Payload, "U first 😀") {
				t.Errorf("Apple got %+v", got)
			}

			// Other servers may publish as well, if they know the secret.
			elsewhere := server.AttachComponent(t, outside)
			for _, tc := range []struct{ node, secret, want string }{
				{iphone.node, iphone.secret, "result"}, {iphone.node, browser.secret, "forbidden"}, {iphone.node, "", "forbidden"}, {"nobody", iphone.secret, "item-not-found"},
			} {
				elsewhere.Sendf("<iq type='set' from='%s' to='events.localhost' id='%s'>%s</iq>", outside, "p-"+tc.want+tc.secret, publishIQ(tc.node, tc.secret, "from elsewhere"))
				elsewhere.WaitFor("<iq", "p-"+tc.want+tc.secret, tc.want)
			}
			if answer := bob.Ask("set", "events.localhost", publishIQ(iphone.node, iphone.secret, "from a session")); !strings.Contains(answer, "forbidden") {
				t.Errorf("a session could publish: %s", answer)
			}
			await(t, "what another server published", func() bool { return len(p.apns.Requests()) == 2 })

			// What was accepted is delivered, whatever happens in between.
			attempted := make(chan struct{})
			p.apns.Script(apnsToken, pushtest.Answer{Before: func() { close(attempted) }, Status: http.StatusServiceUnavailable})
			say("before the crash")
			<-attempted
			await(t, "the others", func() bool { return len(p.fcm.Requests()) == 2 && len(p.web.Requests()) == 2 })
			a.end(syscall.SIGKILL)
			a.restart()
			// What was delivered just before may come again, and beside it.
			await(t, "delivery after the crash", func() bool {
				return slices.ContainsFunc(p.apns.Requests(), func(r pushtest.APNsRequest) bool { return strings.Contains(r.Payload, "before the crash") })
			})
			await(t, "the end of what comes again", func() bool { return a.counter(`eventpusher_waiting_events{backend="push"}`) == 0 })

			// A device that is gone is removed, and the server learns of it the next time.
			p.apns.Script(apnsToken, pushtest.Answer{Status: http.StatusGone, Body: fmt.Sprintf(`{"reason":"Unregistered","timestamp":%d}`, time.Now().Add(time.Hour).UnixMilli())})
			say("to a dead token")
			await(t, "the end of the device", func() bool { return a.occurred("device_dead") == 1 })
			before := a.publishes()
			say("the server is told")
			await(t, "three publishes", func() bool { return a.publishes() == before+3 })
			await(t, "the others", func() bool { return a.occurred("pushed") >= 4 })
			if forgetful(bob) {
				before, asked := a.publishes(), len(p.apns.Requests())
				say("the server publishes for it all the same")
				await(t, "three publishes and two notifications", func() bool { return a.publishes() == before+3 && a.occurred("pushed") >= 6 })
				if n := len(p.apns.Requests()); n != asked {
					t.Errorf("Apple was asked %d times about a device that is gone", n-asked)
				}
			} else {
				// Its next messages may cross our answer.
				await(t, "the server to publish for the living devices only", func() bool {
					before := a.publishes()
					say("the server knows")
					await(t, "two publishes", func() bool { return a.publishes() >= before+2 })
					bob.Ask("get", "events.localhost", "<ping xmlns='urn:xmpp:ping'/>") // comes behind a third
					return a.publishes() == before+2
				})
			}

			if f.name != "prosody" { // the rest does not depend on the server
				return
			}
			status, answer := a.ask("POST", "/api/push/devices", `{"user": "carol@localhost", "kind": "fcm", "app": "chat", "token": "carols"}`)
			var made struct{ JID, Node, Secret string }
			if err := json.Unmarshal([]byte(answer), &made); err != nil || status != http.StatusCreated || made.JID != "events.localhost" {
				t.Fatalf("POST: %d %s", status, answer)
			}
			if _, list := a.ask("GET", "/api/push/devices?user=carol@localhost", ""); !strings.Contains(list, made.Node) || strings.Contains(list, "carols") {
				t.Errorf("GET: %s", list)
			}
			told := len(p.fcm.Requests())
			elsewhere.Sendf("<iq type='set' from='%s' to='events.localhost' id='http'>%s</iq>", outside, publishIQ(made.Node, made.Secret, "by HTTP"))
			elsewhere.WaitFor("<iq", "http", "result")
			await(t, "carol's device", func() bool { return len(p.fcm.Requests()) > told })
			if status, _ := a.ask("DELETE", "/api/push/devices?node="+made.Node, ""); status != http.StatusNoContent {
				t.Errorf("DELETE: %d", status)
			}
			if status, _ := a.ask("DELETE", "/api/push/devices?node="+made.Node, ""); status != http.StatusNotFound {
				t.Errorf("DELETE again: %d", status)
			}
		})
	}
}

// TestAppServerEncrypted: what Prosody's mod_cloud_notify_encrypted encrypts for a client
// reaches the devices as it is, and nothing else does.
func TestAppServerEncrypted(t *testing.T) {
	if _, err := os.Stat("/usr/lib/prosody/modules/mod_cloud_notify_encrypted"); err != nil {
		t.Skip("prosody-modules here has no mod_cloud_notify_encrypted: ", err)
	}
	server := harness.Prosody(t, harness.ProsodyOptions{
		Components: []string{"events.localhost", outside}, Users: users, Modules: []string{"cloud_notify", "cloud_notify_encrypted"},
	})
	p := startProviders(t)
	startAppServer(t, server, p)
	alice, bob := server.Login(t, "alice", "phone"), server.Login(t, "bob", "desk")
	alice.Presence()
	bob.Presence()
	iphone := registerDevice(t, alice, "kind", "apns", "token", apnsToken)
	android := registerDevice(t, alice, "kind", "fcm", "token", "alices-android")
	for _, d := range []device{iphone, android} {
		alice.IQ("set", "", strings.Replace(pushEnable("events.localhost", d.node, "secret", d.secret), "</enable>", encryptElement+"</enable>", 1))
	}
	alice.CloseStream()
	bob.Sendf("<message to='alice@localhost' type='chat' id='e1'>%s</message>", body("what only alice may read"))
	await(t, "the notifications", func() bool { return len(p.apns.Requests()) > 0 && len(p.fcm.Requests()) > 0 })
	type fields struct{ Encrypted, IV, Account string }
	var google struct{ Data fields }
	var apple fields
	for text, into := range map[string]any{p.apns.Requests()[0].Payload: &apple, p.fcm.Requests()[0].Message: &google} {
		if err := json.Unmarshal([]byte(text), into); err != nil || strings.Contains(text, "bob@localhost") || strings.Contains(text, "only alice") {
			t.Errorf("%v: %s", err, text)
		}
	}
	for _, got := range []fields{apple, google.Data} {
		var told struct{ Sender, Type, Message string }
		if err := json.Unmarshal([]byte(pushtest.Unseal(t, encryptKey, got.IV, got.Encrypted)), &told); err != nil {
			t.Fatal(err)
		}
		if told.Sender != "bob@localhost" || told.Type != "chat" || told.Message != "what only alice may read" || got.Account != "alice@localhost" {
			t.Errorf("%+v: %+v", got, told)
		}
	}
}

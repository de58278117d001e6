package xmppside

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/notify"
	"eventpusher/backends/push/pushtest"
	"eventpusher/backends/push/send/webpush"
	"eventpusher/backends/push/store"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const bob = jid.JID("bob@localhost")

var clock = time.Unix(1_700_000_000, 0).UTC()

// fixture is Devices with one application that has FCM and Web Push.
type fixture struct {
	*Devices
	store   store.Devices
	web     *pushtest.WebPush
	refused []string // what Options.Refused was told
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	private, err := webpush.GenerateVAPIDKey()
	if err != nil {
		t.Fatal(err)
	}
	fcm, web := pushtest.StartFCM(t, time.Hour), pushtest.StartWebPush(t, "")
	apps, err := devices.NewApps([]config.PushApp{{
		Name: "chat", FCM: &config.PushFCM{Credentials: fcm.ServiceAccount(t)},
		WebPush: &config.PushWebPush{VAPIDKey: private, Subject: "mailto:push@example.org", Allow: []string{"127.0.0.1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	kept, err := store.OpenDevices(filepath.Join(t.TempDir(), store.DevicesFile), 3, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kept.Close() })
	f := &fixture{store: kept, web: web}
	f.Devices = NewDevices(DevicesOptions{
		Own: "events.localhost", Apps: apps, Store: kept, Now: func() time.Time { return clock },
		Served: jid.NewDomains("localhost"), Rooms: jid.NewDomains("conference.localhost"),
		Refused: func(_ context.Context, publisher jid.JID, node string, why error) {
			f.refused = append(f.refused, string(publisher)+" "+node+": "+why.Error())
		},
	})
	return f
}

func (f *fixture) register(t testing.TB, owner jid.JID, token string) store.Credentials {
	t.Helper()
	c, err := f.registry.Register(context.Background(), devices.Request{Owner: owner, Kind: "fcm", Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// accept takes an IQ as the program does.
func (f *fixture) accept(from jid.JID, iq []byte) (event.Event, error) {
	p, err := readPublish(from, iq)
	if err != nil {
		return event.Event{}, err
	}
	return f.Devices.accept(context.Background(), p)
}

func outcomeOf(err error) string {
	var e *component.StanzaError
	switch {
	case err == nil:
		return "taken"
	case errors.As(err, &e):
		return e.Type + " " + e.Condition
	}
	return err.Error()
}

// TestCaptured takes what Prosody's mod_cloud_notify and ejabberd's mod_push have
// really sent, in several configurations.
func TestCaptured(t *testing.T) {
	f := newFixture(t)
	c := f.register(t, bob, "token")
	for name, want := range map[string][]string{
		"prosody": {"localhost: New Message!", "localhost: (silent)"},
		"ejabberd": {
			"localhost: New message", "localhost: (silent)", "auth forbidden", "auth forbidden", "auth forbidden",
			"alice@localhost/r1: hello offline one", "alice@localhost/r1: hello offline two", "alice@localhost/r1: (encrypted)",
			"alice@localhost/r1: six", "auth forbidden", "auth forbidden", "auth forbidden",
		},
	} {
		t.Run(name, func(t *testing.T) {
			captured, err := os.ReadFile(filepath.Join("testdata", name+".xml"))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for iq := range strings.Lines(string(captured)) {
				iq = regexp.MustCompile(`node='[^']*'`).ReplaceAllString(iq, "node='"+c.Node+"'")
				iq = regexp.MustCompile(`<value>(tok|s3)</value>`).ReplaceAllString(iq, "<value>"+c.Secret+"</value>")
				e, err := f.accept("localhost", []byte(iq))
				if err != nil {
					got = append(got, outcomeOf(err))
					continue
				}
				summary, err := devices.ReadSummary(e.Packet)
				if err != nil || len(e.ID) != 32 || e.User != bob || e.To != jid.JID("events.localhost/"+c.Node) || e.Kind != event.Notification {
					t.Errorf("%+v: %v", e, err)
				}
				if e.Packet != summary.Packet() {
					t.Errorf("%s is read as %v", e.Packet, summary)
				}
				text := e.Body
				if summary.Silent() {
					text += "(silent)"
				}
				got = append(got, string(e.From)+": "+text)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestCapturedEncrypted takes what Prosody's mod_cloud_notify_encrypted has really sent, and
// decrypts what a device gets of it, as the client does.
func TestCapturedEncrypted(t *testing.T) {
	f := newFixture(t)
	c := f.register(t, bob, "token")
	captured, err := os.ReadFile(filepath.Join("testdata", "prosody-encrypted.xml"))
	if err != nil {
		t.Fatal(err)
	}
	type told struct {
		Sender, Type, Message, SID string
		Media                      []string
		Call                       bool
	}
	var got []told
	for iq := range strings.Lines(string(captured)) {
		iq = strings.NewReplacer("node='node-1'", "node='"+c.Node+"'", "<value>s3</value>", "<value>"+c.Secret+"</value>").Replace(iq)
		e, err := f.accept("localhost", []byte(iq))
		if err != nil {
			t.Fatal(err)
		}
		s, err := devices.ReadSummary(e.Packet)
		if err != nil || e.Body != "" || e.From != "localhost" {
			t.Errorf("%+v: %v", e, err)
		}
		one := told{Call: s.Call()}
		if err := json.Unmarshal([]byte(pushtest.Unseal(t, "AAECAwQFBgcICQoLDA0ODw==", notify.Value(s, notify.KeyIV), notify.Value(s, notify.KeyEncrypted))), &one); err != nil {
			t.Fatal(err)
		}
		got = append(got, one)
	}
	want := []told{
		{Sender: "bob@localhost", Type: "chat", Message: "Wherefore art thou, Romeo?"},
		{Sender: "bob@localhost/desk", Type: "call", SID: "ca3c", Media: []string{"audio"}, Call: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// request is a publish as MongooseIM writes it.
func request(node, secret, items string) string {
	return "<iq type='set' id='1'>" + payload(node, secret, items) + "</iq>"
}

func payload(node, secret, items string) string {
	return "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='" + node + "'>" + items + "</publish><publish-options>" +
		"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='secret'><value>" +
		secret + "</value></field></x></publish-options></pubsub>"
}

const oneItem = "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'><field var='last-message-body'><value> hi &lt;you&gt; </value></field></x></notification></item>"

func TestAccept(t *testing.T) {
	f := newFixture(t)
	c, other := f.register(t, bob, "token"), f.register(t, bob, "other")
	for name, tc := range map[string]struct {
		from jid.JID
		iq   string
		want string
	}{
		"from a server":     {"example.org", request(c.Node, c.Secret, oneItem), "taken"},
		"from an account":   {"alice@example.org", request(c.Node, c.Secret, oneItem), "taken"},
		"from a session":    {"alice@example.org/desk", request(c.Node, c.Secret, oneItem), "auth forbidden"},
		"another's secret":  {"example.org", request(c.Node, other.Secret, oneItem), "auth forbidden"},
		"no secret":         {"example.org", request(c.Node, "", oneItem), "auth forbidden"},
		"an unknown node":   {"example.org", request("0123", c.Secret, oneItem), "cancel item-not-found"},
		"no item":           {"example.org", request(c.Node, c.Secret, ""), "modify bad-request"},
		"two items":         {"example.org", request(c.Node, c.Secret, oneItem+oneItem), "modify bad-request"},
		"another payload":   {"example.org", request(c.Node, c.Secret, "<item><entry xmlns='urn:x'/></item>"), "modify bad-request"},
		"another operation": {"example.org", "<iq><pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='x'/></pubsub></iq>", "cancel feature-not-implemented"},
		"no XML":            {"example.org", "<iq><pubsub", "modify bad-request"},
	} {
		if _, err := f.accept(tc.from, []byte(tc.iq)); outcomeOf(err) != tc.want {
			t.Errorf("%s: %s, want %s", name, outcomeOf(err), tc.want)
		}
	}
	secret := "example.org " + c.Node + ": " + store.ErrSecret.Error()
	refused := []string{secret, secret, "example.org 0123: " + store.ErrUnknown.Error()}
	slices.Sort(f.refused)
	slices.Sort(refused)
	if diff := cmp.Diff(refused, f.refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	e, err := f.accept("example.org", []byte(request(c.Node, c.Secret, oneItem)))
	want := event.Event{
		ID: e.ID, Kind: event.Notification, Type: "normal", From: "example.org", To: jid.JID("events.localhost/" + c.Node), User: bob, Body: "hi <you>", HasBody: true,
		Time: clock, Host: "example.org", Dialect: "push",
		Packet: "<notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>" +
			"<field var='last-message-body'><value>hi &lt;you&gt;</value></field></x></notification>",
	}
	if diff := cmp.Diff(want, e); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if again, _ := f.accept("example.org", []byte(request(c.Node, c.Secret, oneItem))); again.ID == e.ID || again.Key() == e.Key() {
		t.Error("two notifications are one")
	}
}

// TestSenderIsNamedForPeople: devices are told the account, and in a room the nick; filters
// see the session.
func TestSenderIsNamedForPeople(t *testing.T) {
	f := newFixture(t)
	c := f.register(t, bob, "token")
	for sender, want := range map[jid.JID]jid.JID{
		"alice@localhost/pc": "alice@localhost", "alice@localhost": "alice@localhost", "tea@conference.localhost/Alice": "tea@conference.localhost/Alice",
	} {
		item := "<item><notification xmlns='urn:xmpp:push:0'><x xmlns='jabber:x:data' type='submit'><field var='last-message-sender'><value>" + string(sender) + "</value></field></x></notification></item>"
		e, err := f.accept("localhost", []byte(request(c.Node, c.Secret, item)))
		if err != nil {
			t.Fatal(err)
		}
		told, err := devices.ReadSummary(e.Packet)
		if err != nil || told.Sender() != want || e.From != sender {
			t.Errorf("%s: told %s, from %s, %v", sender, told.Sender(), e.From, err)
		}
	}
}

func FuzzAccept(f *testing.F) {
	fix := newFixture(f)
	c := fix.register(f, bob, "token")
	f.Add(request(c.Node, c.Secret, oneItem))
	f.Add(request(c.Node, c.Secret, "<item><notification xmlns='urn:xmpp:push:0'/></item>"))
	f.Add("<iq><pubsub xmlns='http://jabber.org/protocol/pubsub'/></iq>")
	f.Fuzz(func(t *testing.T, iq string) {
		e, err := fix.accept("example.org", []byte(iq))
		if err != nil {
			if outcomeOf(err) == "wait resource-constraint" {
				t.Errorf("a fault of the request is taken for ours: %v", err)
			}
			return
		}
		if e.To.Resource() != c.Node {
			t.Errorf("for %s", e.To)
		}
		if _, err := devices.ReadSummary(e.Packet); err != nil {
			t.Errorf("%q: %v", e.Packet, err)
		}
	})
}

func commandIQ(node, attributes string, form string) []byte {
	return []byte("<iq type='set' id='1'><command xmlns='http://jabber.org/protocol/commands' node='" + node + "' " + attributes + ">" + form + "</command></iq>")
}

func formOf(fields ...string) string {
	s := "<x xmlns='jabber:x:data' type='submit'>"
	for i := 0; i < len(fields); i += 2 {
		s += "<field var='" + fields[i] + "'><value>" + fields[i+1] + "</value></field>"
	}
	return s + "</x>"
}

func TestCommands(t *testing.T) {
	f := newFixture(t)
	do := func(from jid.JID, iq []byte) string {
		t.Helper()
		payload, err := f.command(t.Context(), from, iq)
		if err != nil {
			return outcomeOf(err)
		}
		var any struct{ XMLName xml.Name }
		if err := xml.Unmarshal(payload, &any); err != nil {
			t.Errorf("%s: %v", payload, err)
		}
		return string(payload)
	}
	const session = bob + "/phone"
	form := do(session, commandIQ("register-device", "", ""))
	for _, part := range []string{"status='executing'", "<value>fcm</value>", "<value>webpush</value>", "<value>chat</value>", "var='p256dh'"} {
		if !strings.Contains(form, part) {
			t.Errorf("no %s in %s", part, form)
		}
	}
	if strings.Contains(form, "<value>apns<") {
		t.Errorf("a provider that is not configured is offered: %s", form)
	}
	done := do(session, commandIQ("register-device", "sessionid='s-1' action='complete'", formOf("kind", "fcm", "app", "chat", "token", "t0k")))
	match := regexp.MustCompile(`^<command xmlns='http://jabber.org/protocol/commands' node='register-device' sessionid='s-1' status='completed'><x xmlns='jabber:x:data' type='result'>` +
		`<field var='jid'><value>events.localhost</value></field><field var='node'><value>([0-9a-f]{64})</value></field><field var='secret'><value>([^<]{32})</value></field></x></command>$`).FindStringSubmatch(done)
	if match == nil {
		t.Fatalf("registered: %s", done)
	}
	node, secret := match[1], match[2]
	if d, err := f.registry.Verify(t.Context(), node, secret); err != nil || d.Owner != bob {
		t.Errorf("%+v, %v", d, err)
	}
	list := do(session, commandIQ("list-devices", "", ""))
	if !strings.Contains(list, node) || strings.Contains(list, secret) || strings.Contains(list, "t0k<") {
		t.Errorf("list: %s", list)
	}
	if list := do("alice@localhost/x", commandIQ("list-devices", "", "")); strings.Contains(list, node) {
		t.Errorf("alice sees bob's: %s", list)
	}
	for name, tc := range map[string]struct {
		from jid.JID
		iq   []byte
		want string
	}{
		"a stranger":            {"eve@elsewhere.org/x", commandIQ("list-devices", "", ""), "auth forbidden"},
		"a server":              {"localhost", commandIQ("list-devices", "", ""), "auth forbidden"},
		"an unknown command":    {session, commandIQ("shutdown", "", ""), "cancel item-not-found"},
		"an unknown action":     {session, commandIQ("register-device", "action='frobnicate'", formOf("kind", "fcm", "token", "x")), "modify bad-request"},
		"back":                  {session, commandIQ("register-device", "action='prev'", ""), "modify bad-request"},
		"a session that is not": {session, commandIQ("register-device", "sessionid='"+strings.Repeat("x", 129)+"'", ""), "modify bad-request"},
		"no XML":                {session, []byte("<iq>"), "modify bad-request"},
		"no token":              {session, commandIQ("register-device", "", formOf("kind", "fcm")), "modify bad-request"},
		"another's device":      {"alice@localhost/x", commandIQ("unregister-device", "", formOf("node", node)), "cancel item-not-found"},
	} {
		if got := do(tc.from, tc.iq); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	for _, iq := range [][]byte{commandIQ("register-device", "action='cancel'", ""), commandIQ("register-device", "", "<x xmlns='jabber:x:data' type='cancel'/>")} {
		if got := do(session, iq); !strings.Contains(got, "status='canceled'") {
			t.Errorf("cancelled: %s", got)
		}
	}
	if got := do(session, commandIQ("unregister-device", "", "")); !strings.Contains(got, "executing") || !strings.Contains(got, "required") {
		t.Errorf("the form to unregister: %s", got)
	}
	if got := do(session, commandIQ("unregister-device", "", formOf("node", node))); !strings.Contains(got, "completed") {
		t.Errorf("unregistered: %s", got)
	}
	for _, token := range []string{"1", "2", "3"} {
		f.register(t, bob, token)
	}
	if got := do(session, commandIQ("register-device", "", formOf("kind", "fcm", "token", "4"))); got != "cancel not-allowed" {
		t.Errorf("one too many: %s", got)
	}
	for _, text := range []string{string(f.items()), string(commandInfo("register-device"))} {
		if !strings.Contains(text, "register-device") || !strings.Contains(text, "Register a device") {
			t.Errorf("disco: %s", text)
		}
	}
}

// TestStoreFails: while the store cannot be read, whoever asks is told to try again, and
// nobody that his device is gone.
func TestStoreFails(t *testing.T) {
	f := newFixture(t)
	c := f.register(t, bob, "token")
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.accept("localhost", []byte(request(c.Node, c.Secret, oneItem))); outcomeOf(err) != "wait resource-constraint" {
		t.Errorf("a publish: %v", err)
	}
	for command, form := range map[string]string{
		"register-device": formOf("kind", "fcm", "token", "x"), "unregister-device": formOf("node", c.Node), "list-devices": "",
	} {
		if _, err := f.command(t.Context(), bob+"/phone", commandIQ(command, "", form)); outcomeOf(err) != "wait resource-constraint" {
			t.Errorf("%s: %v", command, err)
		}
	}
	for _, ask := range []*http.Request{
		httptest.NewRequestWithContext(t.Context(), "GET", Path+"?user=bob@localhost", nil),
		httptest.NewRequestWithContext(t.Context(), "DELETE", Path+"?user=bob@localhost", nil),
		httptest.NewRequestWithContext(t.Context(), "DELETE", Path+"?node="+c.Node, nil),
	} {
		w := httptest.NewRecorder()
		if f.ServeHTTP(w, ask); w.Code != http.StatusServiceUnavailable {
			t.Errorf("%s %s: %d", ask.Method, ask.URL, w.Code)
		}
	}
}

func TestHTTP(t *testing.T) {
	f := newFixture(t)
	ask := func(method, path, kind, body string) (int, string) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const form = "application/json"
	status, answer := ask("POST", Path, form+"; charset=utf-8", `{"user": "Bob@localhost", "kind": "fcm", "token": "t0k"}`)
	var made struct{ JID, Node, Secret string }
	if err := json.Unmarshal([]byte(answer), &made); err != nil || status != http.StatusCreated || made.JID != "events.localhost" {
		t.Fatalf("%d %s", status, answer)
	}
	if d, err := f.registry.Verify(t.Context(), made.Node, made.Secret); err != nil || d.Owner != bob {
		t.Errorf("%+v, %v", d, err)
	}
	subscription := f.web.Subscribe(t, "/x")
	web, err := json.Marshal(map[string]string{"kind": "webpush", "endpoint": subscription.Address.Reveal(), "p256dh": subscription.P256DH, "auth": subscription.Auth.Reveal()})
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := ask("POST", Path, form, string(web)); status != http.StatusCreated {
		t.Errorf("without user: %d %s", status, answer)
	}
	inside := strings.Replace(string(web), "127.0.0.1", "10.0.0.1", 1)
	badKey := strings.Replace(string(web), subscription.P256DH, "AAAA", 1)
	for _, token := range []string{"2", "3"} {
		f.register(t, bob, token)
	}
	for name, tc := range map[string]struct {
		method, path, kind, body string
		status                   int
		want                     string
	}{
		"a form of a web page":    {"POST", Path, "text/plain", `{}`, http.StatusUnsupportedMediaType, "Content-Type"},
		"no JSON":                 {"POST", Path, form, `kind=fcm`, http.StatusBadRequest, "JSON"},
		"an unknown field":        {"POST", Path, form, `{"knid": "fcm"}`, http.StatusBadRequest, "fields"},
		"too long":                {"POST", Path, form, `{"token": "` + strings.Repeat("x", maxBody) + `"}`, http.StatusBadRequest, "JSON"},
		"no kind":                 {"POST", Path, form, `{"token": "x"}`, http.StatusBadRequest, `"field":"kind"`},
		"an endpoint inside":      {"POST", Path, form, inside, http.StatusBadRequest, `"field":"endpoint"`},
		"a subscription's key":    {"POST", Path, form, badKey, http.StatusBadRequest, `{"error":"p256dh or auth is not the key of a Web Push subscription, in base64url","field":"p256dh"}`},
		"a session":               {"POST", Path, form, `{"user": "bob@localhost/x", "kind": "fcm", "token": "x"}`, http.StatusBadRequest, `"field":"user"`},
		"one too many":            {"POST", Path, form, `{"user": "bob@localhost", "kind": "fcm", "token": "more"}`, http.StatusConflict, "as many"},
		"another method":          {"PUT", Path, form, "", http.StatusMethodNotAllowed, "only"},
		"list":                    {"GET", Path + "?user=bob@localhost", "", "", http.StatusOK, made.Node},
		"list of nobody":          {"GET", Path + "?user=nobody@localhost", "", "", http.StatusOK, `{"devices":[]}`},
		"list of all":             {"GET", Path, "", "", http.StatusBadRequest, `"user is missing"`},
		"delete nothing":          {"DELETE", Path, "", "", http.StatusBadRequest, `"node or user must be given, and not both"`},
		"delete both":             {"DELETE", Path + "?node=x&user=bob@localhost", "", "", http.StatusBadRequest, "not both"},
		"delete an unknown one":   {"DELETE", Path + "?node=x", "", "", http.StatusNotFound, "no such"},
		"delete another's, maybe": {"DELETE", Path + "?user=nobody@localhost", "", "", http.StatusOK, `{"removed":0}`},
	} {
		status, answer := ask(tc.method, tc.path, tc.kind, tc.body)
		if status != tc.status || !strings.Contains(answer, tc.want) || strings.Contains(answer, "t0k") || strings.Contains(answer, made.Secret) {
			t.Errorf("%s: %d %s, want %d and %s", name, status, answer, tc.status, tc.want)
		}
	}
	if status, _ := ask("DELETE", Path+"?node="+made.Node, "", ""); status != http.StatusNoContent {
		t.Errorf("delete: %d", status)
	}
	if _, answer := ask("DELETE", Path+"?user=bob@localhost", "", ""); answer != "{\"removed\":2}\n" {
		t.Errorf("delete the rest: %s", answer)
	}
}

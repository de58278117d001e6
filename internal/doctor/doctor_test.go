//go:build linux

package doctor_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"eventpusher/backends/push/store"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/app"
	"eventpusher/internal/control"
	"eventpusher/internal/doctor"
	"eventpusher/internal/finding"
	"eventpusher/internal/harness"
	"eventpusher/internal/xmppserver"
	"eventpusher/pusher/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wantLines checks that each line, a level, a subject and a part of the rest, stands for a
// finding, and that all failures are expected.
func wantLines(t *testing.T, got []finding.Finding, want ...string) {
	t.Helper()
	met := make([]bool, len(got))
	for _, line := range want {
		level, rest, _ := strings.Cut(line, " ")
		subject, part, _ := strings.Cut(rest, " ")
		found := false
		for i, f := range got {
			if string(f.Level) == level && f.Subject == subject && strings.Contains(f.Text+"; "+f.Remedy, part) {
				met[i], found = true, true
			}
		}
		if !found {
			t.Errorf("no finding: %s", line)
		}
	}
	for i, f := range got {
		if f.Level == finding.Fail && !met[i] {
			t.Errorf("not expected: %s", f)
		}
		if strings.Contains(f.String(), "hunter2") {
			t.Errorf("a secret is shown: %s", f)
		}
	}
	if t.Failed() {
		for _, f := range got {
			t.Log(f)
		}
	}
}

// configure returns a configuration with an http sink.
func configure(t *testing.T, address, secret, sink, hosts, more string) *config.Config {
	t.Helper()
	toml := fmt.Sprintf(`
[component]
address = %q
name = "events.localhost"
secret = %q
[general]
hosts = [%s]
[outbox]
path = %q
[modules.mod_event_pusher.http]
[[modules.mod_event_pusher.http.handlers]]
name = "hook"
path = "hunter2"
[outgoing_pools.http.http_pool.connection]
host = %q
%s`, address, secret, hosts, filepath.Join(t.TempDir(), "outbox"), sink, more)
	cfg, problems := config.Parse([]byte(toml), nil, "")
	if cfg == nil {
		t.Fatal(problems)
	}
	return cfg
}

const pushSection = "[modules.mod_event_pusher.push]\n"

// pushDown is push whose database and gateway are down.
const pushDown = `
[modules.mod_event_pusher.push]
backend = "rdbms"
virtual_pubsub_hosts = ["virtual.@HOST@"]
[modules.mod_push_service_mongoosepush]
pool_name = "mongoose"
[outgoing_pools.http.mongoose.connection]
host = "http://127.0.0.1:2"
[outgoing_pools.rdbms.default.connection]
driver = "pgsql"
host = "127.0.0.1"
port = 1
database = "d"
username = "u"
password = "hunter2"
`

// sink takes events by http and counts requests.
func sink(t *testing.T) (string, *atomic.Int64) {
	t.Helper()
	requests := new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	t.Cleanup(s.Close)
	return s.URL, requests
}

// examine runs an examination without an instance and measures it.
func examine(t *testing.T, cfg *config.Config) []finding.Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), doctor.Limit)
	defer cancel()
	got := doctor.Alone(ctx, cfg, "test", func(ctx context.Context) (doctor.Lister, func() error, error) {
		return app.OpenLetters(ctx, cfg.Outbox, 0)
	}, func() (store.Registrations, error) { return app.InspectRegistrations(cfg) })
	if ctx.Err() != nil {
		t.Error("it has taken too long")
	}
	return got
}

func TestProsody(t *testing.T) {
	server := harness.Prosody(t, harness.ProsodyOptions{Privilege: true, DelegatePush: true, Modules: []string{"version"}})
	alice := server.Login(t, "alice", "r")
	alice.Presence()
	address := server.ComponentAddr(server.Component)
	url, requests := sink(t)

	cfg := configure(t, address, server.Secret, url, `"localhost", "nowhere.localhost"`, pushSection)
	wantLines(t, examine(t, cfg),
		"OK instance none runs", "OK outbox there is none", "OK server attached", "OK server to ourselves and back",
		"OK localhost is served by Prosody ", "FAIL nowhere.localhost does not serve this host",
		"WARN localhost heard: privilege; counted: presence by privilege, offline by privilege; nothing about message in 2s",
		"OK localhost privileges granted: message outgoing, presence managed_entity, roster get; namespaces delegated: urn:xmpp:push:0",
		"OK localhost users register for push at their server", "WARN localhost the feed privilege does not tell", "OK push no registrations;",
		"WARN nowhere.localhost can register for push; let it do so: Prosody", "WARN nowhere.localhost no feed was heard that could tell",
		"WARN nowhere.localhost no feed was heard in 2s; mod_event_feed greets at once: if it is loaded, see whether its option (Prosody event_feed_component, ejabberd component) is events.localhost; if the host's users are active, set a feed up", "OK hook takes connections")
	if _, err := os.Stat(cfg.Outbox.Path); err == nil {
		t.Error("an outbox was made")
	}

	wantLines(t, examine(t, configure(t, address, "hunter2", "http://127.0.0.1:1", `"localhost"`, pushDown)),
		"FAIL server does not accept the secret", "FAIL hook refused",
		"FAIL push http://127.0.0.1:2 cannot be reached", "FAIL push the registrations cannot be read: database of outgoing_pools.rdbms.default")

	// A running instance answers for itself: over its own link, beside which there is
	// no other.
	cfg = configure(t, address, server.Secret, url, `"localhost"`, pushSection)
	a, err := app.New(cfg, app.Options{Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(harness.WaitLimit); a.Status().Component.State != "connected"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not connected: %+v", a.Status())
		}
	}
	client, err := control.Dial(t.Context(), cfg.Outbox.Path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, err := client.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantLines(t, got, "OK instance runs since", "OK outbox are free", "OK outbox no dead letters", "OK hook 0 events to deliver, 0 parked, breaker closed",
			"OK server attached", "OK server to ourselves and back", "OK localhost is served by Prosody", "OK hook takes connections",
			"OK localhost users register for push at their server", "OK push 0 registrations")
	}
	seesPush(t, alice)
	if n := strings.Count(server.Log(), "External component successfully authenticated"); n != 2 {
		t.Errorf("%d connections of components, want one of the first examination and one of the instance", n)
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("the sink had %d requests", n)
	}
}

// seesPush checks that a client finds push where XEP-0357 tells it to look for it, and
// at its server.
func seesPush(t *testing.T, client *harness.Client) {
	t.Helper()
	for _, at := range []string{client.BareJID(), "localhost"} {
		if got := client.Ask("get", at, "<query xmlns='http://jabber.org/protocol/disco#info'/>"); !strings.Contains(got, "urn:xmpp:push:0") {
			t.Errorf("%s does not list push: %s", at, got)
		}
	}
}

// Prosody that was answered without push never asks again.
func TestPushAddedLater(t *testing.T) {
	server := harness.Prosody(t, harness.ProsodyOptions{DelegatePush: true})
	address := server.ComponentAddr(server.Component)
	url, _ := sink(t)
	wantLines(t, examine(t, configure(t, address, server.Secret, url, `"localhost"`, "")), "OK localhost namespaces delegated: urn:xmpp:push:0")
	wantLines(t, examine(t, configure(t, address, server.Secret, url, `"localhost"`, pushSection)), "WARN localhost clients do not see push at localhost; restart the server")
}

func TestEjabberd(t *testing.T) {
	server := harness.Ejabberd(t, harness.EjabberdOptions{ServiceLog: true, DelegatePush: true, Modules: "  mod_version: {}"})
	url, _ := sink(t)
	alice := server.Login(t, "alice", "r")
	ctx, stop := context.WithCancel(t.Context())
	chatting := make(chan struct{})
	go func() { // until the feed is heard
		defer close(chatting)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				alice.Send("<message to='bob@localhost' type='chat'><body>hi</body></message>")
			}
		}
	}()
	got := examine(t, configure(t, server.ComponentAddr(server.Component), server.Secret, url, `"localhost"`, pushSection))
	stop()
	<-chatting
	wantLines(t, got, "OK server attached", "OK server to ourselves and back", "OK localhost is served by ejabberd ",
		"OK localhost heard: service_log; counted: message by service_log; nothing about presence, offline", "OK localhost privileges granted: none; namespaces delegated: urn:xmpp:push:0",
		"OK localhost users register for push at their server, which delegates urn:xmpp:push:0 to us", "WARN localhost the feed service_log does not tell; such messages are not pushed; load mod_event_feed")
}

// answer gives an empty result to whatever components ask.
func answer(server *xmppserver.Server, done chan<- struct{}) {
	defer close(done)
	for {
		session, err := server.Accept(context.Background())
		if err != nil {
			return
		}
		for {
			q, err := session.Receive(context.Background())
			if err != nil {
				break
			}
			_ = session.Send("<iq type='result' id='" + q.ID + "' from='" + q.To + "' to='" + q.From + "'/>") // it may have gone
		}
	}
}

// What is found in the outbox, and that nothing is attached while another process has it.
func TestOutbox(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	answering := make(chan struct{})
	go answer(server, answering)
	defer func() {
		server.Close()
		<-answering
	}()
	url, _ := sink(t)
	cfg := configure(t, server.Addr(), "secret", url, `"localhost"`, "")
	box, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: cfg.Outbox.Path})
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, examine(t, cfg), "FAIL outbox is in use by process "+fmt.Sprint(os.Getpid()), "WARN server not attached", "OK hook takes connections")
	if n := server.Connections(); n != 0 {
		t.Errorf("%d connections beside the process that has the outbox", n)
	}

	for _, name := range []string{"hook", "old"} {
		r, err := box.Reader(name, func() {})
		if err != nil {
			t.Fatal(err)
		}
		var to outbox.Subscribers
		if to.Add(r.Number()); name == "old" {
			err = box.Append(outbox.Pack{Entries: []outbox.Entry{{Event: &event.Event{ID: "w", Kind: event.Chat, Time: time.Now()}, Subscribers: to}}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := box.Bury(outbox.DeadLetter{Backend: "hook", Reason: "permanent", Event: &event.Event{ID: "e", Kind: event.Chat, Time: time.Now()}, Accepted: time.Now(), Died: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if err := box.Close(); err != nil {
		t.Fatal(err)
	}
	wantLines(t, examine(t, cfg), "OK outbox stopped in order", "OK hook 0 events to deliver", "WARN old outbox move old NEW", "WARN outbox 1 dead letter;",
		"OK server attached", "WARN localhost no feed")
	// It can be opened afterwards, and nothing in it has changed.
	i, err := outbox.Inspect(cfg.Outbox.Path, time.Second)
	if err != nil || len(i.Backends) != 2 || !i.Clean {
		t.Fatalf("%+v, %v", i, err)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}

	if err := os.WriteFile(filepath.Join(cfg.Outbox.Path, "state.db"), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLines(t, examine(t, cfg), "FAIL outbox is damaged")
	cfg.Outbox.MaxSize = 1 << 60
	wantLines(t, []finding.Finding{doctor.Disk(cfg.Outbox)}, "WARN outbox max_size allows")
}

// An event-feed that introduces itself is heard, and nothing of what it keeps for the
// instance is acknowledged.
func TestEventFeedKeepsItsEvents(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	url, _ := sink(t)
	const feed = " xmlns='urn:eventpusher:feed:1' source='s' epoch='e' "
	told := make(chan string, 1000)
	served := make(chan struct{})
	go func() {
		defer close(served)
		session, err := server.Accept(context.Background())
		if err != nil {
			return
		}
		_ = session.Send("<message from='localhost' to='events.localhost'><hello" + feed + "first='1' next='2' hosts='localhost'/></message>")
		for {
			q, err := session.Receive(context.Background())
			switch {
			case err != nil:
				close(told)
				return
			case q.Name == "iq":
				_ = session.Send("<iq type='result' id='" + q.ID + "' from='" + q.To + "' to='" + q.From + "'/>")
			default:
				told <- q.Inner
			}
		}
	}()
	wantLines(t, examine(t, configure(t, server.Addr(), "secret", url, `"localhost"`, "")), "OK server attached", "OK localhost heard: event-feed")
	server.Close()
	<-served
	if said, any := <-told; any {
		t.Errorf("the module was told %s", said)
	}
}

// A user whose request is delegated while an examination goes on is told to try again. A
// host whose forwards are not taken is told nothing of push.
func TestRequestsDuringAnExamination(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	url, _ := sink(t)
	const enable = "<delegation xmlns='urn:xmpp:delegation:1'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='set' id='i' from='alice@localhost/x'>" +
		"<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='n'/></iq></forwarded></delegation>"
	const node = "<query xmlns='http://jabber.org/protocol/disco#info' node='urn:xmpp:delegation:1::urn:xmpp:push:0'/>"
	answers := make(map[string]string)
	served := make(chan struct{})
	go func() {
		defer close(served)
		session, err := server.Accept(context.Background())
		if err != nil {
			return
		}
		for _, from := range []string{"localhost", "other.localhost", "localhost.example"} {
			_ = session.Send("<iq type='get' id='node' from='" + from + "' to='events.localhost'>" + node + "</iq>")
			_ = session.Send("<iq type='set' id='enable' from='" + from + "' to='events.localhost'>" + enable + "</iq>")
		}
		for {
			q, err := session.Receive(context.Background())
			switch {
			case err != nil:
				return
			case q.Type == "get":
				_ = session.Send("<iq type='result' id='" + q.ID + "' from='" + q.To + "' to='" + q.From + "'/>")
			default:
				answers[q.ID+" "+q.To] = q.Type + " " + q.Inner
			}
		}
	}()
	cfg := configure(t, server.Addr(), "secret", url, `"localhost", "other.localhost"`, pushSection)
	cfg.Component.Forwarders = []string{"localhost"}
	wantLines(t, examine(t, cfg), "OK server attached", "WARN other.localhost its users are refused; add it to [component] forwarders", "OK localhost namespaces delegated: none; offered to us: urn:xmpp:push:0",
		"OK localhost users register for push at their server, which delegates urn:xmpp:push:0 as soon as")
	server.Close()
	<-served
	for of, want := range map[string]string{
		"node localhost":           "result <query xmlns='http://jabber.org/protocol/disco#info' node='urn:xmpp:delegation:1::urn:xmpp:push:0'><feature var='urn:xmpp:push:0'/></query>",
		"node other.localhost":     "error <error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
		"node localhost.example":   "error <error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
		"enable localhost.example": "error <error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
		"enable localhost": "result <delegation xmlns='urn:xmpp:delegation:1'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='error' id='i' from='alice@localhost' to='alice@localhost/x'>" +
			"<error type='wait'><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq></forwarded></delegation>",
	} {
		if got := answers[of]; got != want {
			t.Errorf("%s: %s\nwant %s", of, got, want)
		}
	}
}

// A server that takes the connection and says nothing, and a sink that does the same.
func TestSilence(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now()
	wantLines(t, examine(t, configure(t, l.Addr().String(), "hunter2", "https://"+l.Addr().String(), `"localhost"`, "")),
		"FAIL server did not answer the handshake", "FAIL hook no answer in time")
	if took := time.Since(began); took > doctor.Limit {
		t.Errorf("took %v", took)
	}
}

// An outbox that several instances share is looked at, and nothing is attached: the
// link may be another instance's.
func TestSharedOutbox(t *testing.T) {
	nats := harness.NATS(t, harness.NATSOptions{})
	url, _ := sink(t)
	cfg := configure(t, "127.0.0.1:1", "secret", url, `"localhost"`, fmt.Sprintf("[outbox.nats]\nurl = %q\n", nats.URL()))
	cfg.Outbox.Engine = "nats"
	wantLines(t, examine(t, cfg), "FAIL outbox", "WARN server not attached")
	a, err := app.New(cfg, app.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	for a.Status().Cluster == nil || a.Status().Cluster.Partitions == 0 {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	wantLines(t, examine(t, cfg), "OK outbox NATS keeps it under EVENTPUSHER", "OK outbox no dead letters", "WARN server not attached")
	nats.Kill()
	wantLines(t, examine(t, cfg), "FAIL outbox NATS cannot be reached", "WARN server not attached")
}

// An instance with another outbox, as when doctor is called in another directory, shows
// by its admin listener; its connection is left alone.
func TestInstanceElsewhere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	url, _ := sink(t)
	got := examine(t, configure(t, server.Addr(), "secret", url, `"localhost"`, fmt.Sprintf("[admin]\nlisten = %q\n", l.Addr())))
	wantLines(t, got, "WARN server not attached")
	if n := server.Connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

//go:build linux

package pagetest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"eventpusher/config"
	"eventpusher/internal/app"
	"eventpusher/internal/harness"
	"eventpusher/internal/xmppserver"
)

const (
	host      = "example.org"
	component = "events.example.org"
	token     = "s3cret-t0ken"
	// patience is how long a test waits for what must come.
	patience = time.Minute
)

// world is an XMPP server, eventpusher with its page, and a receiver.
type world struct {
	t       *testing.T
	sink    *harness.Sink
	session *xmppserver.Session
	page    string // its address
	stop    func() // ends eventpusher
}

// newWorld starts eventpusher. settings go into [admin].
func newWorld(t *testing.T, settings string) *world {
	t.Helper()
	w := &world{t: t, sink: harness.HTTPSink(t)}
	server, err := xmppserver.New(xmppserver.Options{Component: component, Secret: "secret", Hosts: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	cfg, problems := config.Parse(fmt.Appendf(nil, `
[component]
address = %q
name = %q
secret = "secret"
[general]
hosts = [%q]
[outbox]
path = %q
[admin]
listen = "127.0.0.1:0"
%s
[[modules.mod_event_pusher.http.handlers]]
name = "crm"
pool_name = "receiver"
path = "/events"
[[modules.mod_event_pusher.http.handlers]]
name = "archive"
pool_name = "receiver"
path = "/archive"
when = 'event.body != "refused"'
[outgoing_pools.http.receiver.connection]
host = %q
[[filter]]
name = "no bots"
keep = 'not (event.from startsWith "bot@")'
metadata = { sessions = "event.session_count" }
`, server.Addr(), component, host, t.TempDir(), settings, w.sink.URL()), nil, "")
	if cfg == nil {
		t.Fatal(problems)
	}
	a, err := app.New(cfg, app.Options{Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		end()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	w.page = "http://" + a.AdminAddr().String() + "/"
	accepting, enough := context.WithTimeout(ctx, patience)
	defer enough()
	if w.session, err = server.Accept(accepting); err != nil {
		t.Fatal(err)
	}
	return w
}

// say has a user send a message.
func (w *world) say(from, id, body string) {
	w.t.Helper()
	w.send(from, fmt.Sprintf("<message xmlns='jabber:client' type='chat' from='%s@%s/phone' to='bob@%s' id='%s'><body>%s</body></message>",
		from, host, host, xmppserver.Escape(id), xmppserver.Escape(body)))
}

// online has a user come online.
func (w *world) online(user string) {
	w.t.Helper()
	w.send(user, fmt.Sprintf("<presence xmlns='jabber:client' from='%[1]s@%[2]s/phone' to='%[1]s@%[2]s'/>", user, host))
}

func (w *world) send(user, stanza string) {
	w.t.Helper()
	if err := w.session.Send(fmt.Sprintf("<message from='%s' to='%s'><forwarded xmlns='urn:xmpp:forward:0'>%s</forwarded></message>", host, component, stanza)); err != nil {
		w.t.Fatalf("what %s sends: %v", user, err)
	}
}

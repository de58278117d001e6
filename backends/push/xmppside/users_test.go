package xmppside

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"eventpusher/backends/push"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
)

// asking is a link with what users ask of it, and the session by which they do.
type asking struct {
	t       *testing.T
	ctx     context.Context
	session *xmppserver.Session
}

func newAsking(t *testing.T, handlers []component.IQHandler) *asking {
	t.Helper()
	server, err := xmppserver.New(xmppserver.Options{Component: feedComponent, Secret: "secret", Hosts: []string{feedHost}})
	if err != nil {
		t.Fatal(err)
	}
	link, err := component.New(config.Component{Address: server.Addr(), Name: feedComponent, Secret: "secret", Forwarders: []string{feedHost}},
		[]string{feedHost}, component.Options{IQ: handlers})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	linked := make(chan error, 1)
	go func() { linked <- link.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-linked; err != nil {
			t.Error(err)
		}
		server.Close()
	})
	a := &asking{t: t, ctx: ctx}
	if a.session, err = server.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *asking) send(from, payload string) {
	a.t.Helper()
	if err := a.session.Send("<iq type='set' id='outer' from='" + from + "' to='" + feedComponent + "'>" + payload + "</iq>"); err != nil {
		a.t.Fatal(err)
	}
}

func (a *asking) answer() xmppserver.Stanza {
	a.t.Helper()
	s, err := a.session.Receive(a.ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func delegatedBy(ns, from, payload string) string {
	return "<delegation xmlns='" + ns + "'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='set' id='i' from='" + from + "'>" + payload + "</iq></forwarded></delegation>"
}

// largeForm is a form of so many bytes and as many fields as there is room for.
func largeForm(bytes int) string {
	const field = "<field><value/></field>"
	return "<x xmlns='jabber:x:data' type='submit'>" + strings.Repeat(field, bytes/len(field)) + "</x>"
}

// TestLargeRequests: a request above the bound is refused by its size, in each way that one
// can come, and what waits at the bound takes little memory.
func TestLargeRequests(t *testing.T) {
	hosts := jid.NewDomains(feedHost)
	u := NewUsers(UsersOptions{Push: push.New(push.Options{}), Hosts: hosts, Served: hosts})
	d := NewDevices(DevicesOptions{Own: feedComponent, Served: hosts})
	a := newAsking(t, append(u.Handlers(), d.Handlers()...))
	enable := func(size int) string {
		return "<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='n'>" + largeForm(size) + "</enable>"
	}
	command := func(size int) string {
		return "<command xmlns='http://jabber.org/protocol/commands' node='list-devices'>" + largeForm(size) + "</command>"
	}
	const refused = "<error type='modify'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	for i := range 40 {
		from := fmt.Sprintf("user%d@example.org/x", i)
		for _, payload := range []string{enable(maxRequest), command(maxRequest)} {
			a.send(from, payload)
			if got := a.answer(); got.Type != "error" || got.Inner != refused {
				t.Fatalf("%s %.300s", got.Type, got.Inner)
			}
		}
		for _, ns := range []string{Delegation1, Delegation2} {
			a.send(feedHost, delegatedBy(ns, from, enable(maxRequest)))
			if got := a.answer(); got.Type != "result" || !strings.Contains(got.Inner, "type='error' id='i'") || !strings.Contains(got.Inner, refused) {
				t.Fatalf("%s %.500s", got.Type, got.Inner)
			}
		}
	}

	before := heap()
	for i := 0; u.requests.held()+d.answers.held() < userLimits.bytes+commandLimits.bytes-4*maxRequest; i++ {
		if i > 10000 {
			t.Fatalf("%d bytes wait", u.requests.held()+d.answers.held())
		}
		a.send(feedHost, delegatedBy(Delegation2, fmt.Sprintf("user%d@example.org/x", i), enable(maxRequest-500)))
		a.send(fmt.Sprintf("user%d@example.org/x", i), command(maxRequest-500))
		a.session.Send("<iq type='get' id='p' from='bob@example.org/x' to='" + feedComponent + "'><ping xmlns='urn:xmpp:ping'/></iq>")
		for a.answer().ID != "p" {
		}
	}
	if grown := int64(heap()) - int64(before); grown > int64(3*(userLimits.bytes+commandLimits.bytes)/2) {
		t.Errorf("what waits takes %d MiB", grown>>20)
	}
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestUsersAreMany: when too many requests wait, a server is told so within its
// delegation, since ejabberd passes nothing else on to its user; and a session in an error.
func TestUsersAreMany(t *testing.T) {
	hosts := jid.NewDomains(feedHost)
	u := NewUsers(UsersOptions{Push: push.New(push.Options{}), Hosts: hosts, Served: hosts})
	u.requests = newTurns(turnLimits{})
	a := newAsking(t, u.Handlers())
	const enable = "<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='n'/>"
	ask := func(from, payload string) xmppserver.Stanza {
		t.Helper()
		a.send(from, payload)
		return a.answer()
	}
	const busy = "<error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	for _, ns := range []string{Delegation1, Delegation2} {
		got := ask(feedHost, delegatedBy(ns, "alice@example.org/x", enable))
		want := "<delegation xmlns='" + ns + "'><forwarded xmlns='urn:xmpp:forward:0'>" +
			"<iq xmlns='jabber:client' type='error' id='i' from='alice@example.org' to='alice@example.org/x'>" + busy + "</iq></forwarded></delegation>"
		if got.Type != "result" || got.Inner != want {
			t.Errorf("%s: %s %s", ns, got.Type, got.Inner)
		}
		// A server speaks for its own users.
		if got := ask(feedHost, delegatedBy(ns, "alice@example.net/x", enable)); got.Type != "error" || !strings.Contains(got.Inner, "<forbidden ") {
			t.Errorf("%s: %s %s", ns, got.Type, got.Inner)
		}
	}
	if got := ask("alice@example.org/x", enable); got.Type != "error" || got.Inner != busy {
		t.Errorf("by a session: %s %s", got.Type, got.Inner)
	}
}

// TestDeadResolver: the names that one user gives cost that user time, and no other.
func TestDeadResolver(t *testing.T) {
	asked := make(chan struct{}, 1000)
	answering := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	defer func() { net.DefaultResolver = answering }()
	f := newFixture(t)
	a := newAsking(t, f.Handlers())
	f.o.Served = jid.NewDomains(feedHost)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	subscription := f.web.Subscribe(t, "/x")
	for i := range 100 {
		a.send("alice@example.org/x", string(commandOf("register-device", formOf("kind", "webpush", "endpoint", fmt.Sprintf("https://%d.example.net/", i),
			"p256dh", subscription.P256DH, "auth", subscription.Auth.Reveal()))))
	}
	for range 100 - 1 - commandLimits.each { // one is under way
		if got := a.answer(); got.To != "alice@example.org/x" || !strings.Contains(got.Inner, "<resource-constraint ") {
			t.Fatalf("to %s: %s %s", got.To, got.Type, got.Inner)
		}
	}
	<-asked
	for i := range 32 {
		a.send(fmt.Sprintf("user%d@example.org/x", i), string(commandOf("list-devices", "")))
	}
	for answered := 0; answered < 32; {
		got := a.answer()
		if got.Type == "result" {
			answered++
		} else if !strings.HasPrefix(got.To, "alice") {
			t.Fatalf("to %s: %s %s", got.To, got.Type, got.Inner)
		}
	}
	if !f.answers.busy() {
		t.Error("the others have waited until the names were looked up")
	}
}

func commandOf(node, form string) string {
	return "<command xmlns='http://jabber.org/protocol/commands' node='" + node + "'>" + form + "</command>"
}

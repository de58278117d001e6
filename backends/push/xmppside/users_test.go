package xmppside

import (
	"context"
	"strings"
	"testing"
	"time"

	"eventpusher/backends/push"
	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
)

// TestUsersAreMany: when too many requests wait, a server is told so within its
// delegation, since ejabberd passes nothing else on to its user; and a session in an error.
func TestUsersAreMany(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: feedComponent, Secret: "secret", Hosts: []string{feedHost}})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	hosts := jid.NewDomains(feedHost)
	u := NewUsers(UsersOptions{Push: push.New(push.Options{}), Hosts: hosts, Served: hosts})
	u.requests = newTurns(1, 0)
	link, err := component.New(config.Component{Address: server.Addr(), Name: feedComponent, Secret: "secret", Forwarders: []string{feedHost}},
		[]string{feedHost}, component.Options{IQ: u.Handlers()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	linked := make(chan error, 1)
	go func() { linked <- link.Run(ctx) }()
	defer func() {
		stop()
		if err := <-linked; err != nil {
			t.Error(err)
		}
	}()
	session, err := server.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const enable = "<enable xmlns='urn:xmpp:push:0' jid='push.example.org' node='n'/>"
	ask := func(from, payload string) xmppserver.Stanza {
		t.Helper()
		if err := session.Send("<iq type='set' id='outer' from='" + from + "' to='" + feedComponent + "'>" + payload + "</iq>"); err != nil {
			t.Fatal(err)
		}
		s, err := session.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const busy = "<error type='wait'><resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	for _, ns := range []string{Delegation1, Delegation2} {
		delegated := func(from string) string {
			return "<delegation xmlns='" + ns + "'><forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='set' id='i' from='" + from + "'>" + enable + "</iq></forwarded></delegation>"
		}
		got := ask(feedHost, delegated("alice@example.org/x"))
		want := "<delegation xmlns='" + ns + "'><forwarded xmlns='urn:xmpp:forward:0'>" +
			"<iq xmlns='jabber:client' type='error' id='i' from='alice@example.org' to='alice@example.org/x'>" + busy + "</iq></forwarded></delegation>"
		if got.Type != "result" || got.Inner != want {
			t.Errorf("%s: %s %s", ns, got.Type, got.Inner)
		}
		// A server speaks for its own users.
		if got := ask(feedHost, delegated("alice@example.net/x")); got.Type != "error" || !strings.Contains(got.Inner, "<forbidden ") {
			t.Errorf("%s: %s %s", ns, got.Type, got.Inner)
		}
	}
	if got := ask("alice@example.org/x", enable); got.Type != "error" || got.Inner != busy {
		t.Errorf("by a session: %s %s", got.Type, got.Inner)
	}
}

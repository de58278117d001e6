package component

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
)

// newSettling returns a link that runs, whose facts are the presences and what is
// settled, in order.
func newSettling(t *testing.T, address string) *watched {
	t.Helper()
	w := newWatched(t, testConfig(address), nil)
	w.handler = func(s *trust.Fact) { w.facts <- string(s.From) + " " + s.Feed.String() }
	w.settled = func(host jid.JID, users []jid.JID) {
		if users == nil {
			w.facts <- "settled " + string(host)
		} else {
			w.facts <- fmt.Sprint("settled ", host, " ", users)
		}
	}
	return w
}

func advertisement(version int) string {
	return fmt.Sprintf("<message from='example.org' to='events.example.org'><privilege xmlns='urn:xmpp:privilege:%d'><perm access='presence' type='managed_entity'/><perm access='roster' type='none'/></privilege></message>", version)
}

// current is a presence as a server repeats it, stamped by that address.
func current(from, by string) string {
	return "<presence from='" + from + "' to='events.example.org'><delay xmlns='urn:xmpp:delay' from='" + by + "' stamp='2026-11-22T05:45:46Z'/></presence>"
}

const live = "<presence from='bob@example.org/live' to='events.example.org'/>"

// versionOf answers the question that was received.
func versionOf(q xmppserver.Stanza, name string) string {
	return "<iq type='result' from='" + q.To + "' to='" + q.From + "' id='" + q.ID + "'><query xmlns='jabber:iq:version'><name>" + name + "</name><version>1</version></query></iq>"
}

func TestSnapshotBarrier(t *testing.T) {
	for _, tc := range []struct {
		name     string
		snapshot string
		answer   func(q xmppserver.Stanza) string
		behind   []string // facts behind the snapshot's
	}{
		{"Prosody", live, func(q xmppserver.Stanza) string { return versionOf(q, "Prosody") }, []string{"bob@example.org/live privilege", "settled example.org"}},
		{"Prosody under another name", live + current("alice@example.org/r1", "example.org"), func(q xmppserver.Stanza) string {
			return "<iq type='error' from='example.org' to='events.example.org' id='" + q.ID + "'/>"
		}, []string{"bob@example.org/live privilege", "alice@example.org/r1 privilege", "settled example.org"}},
		{"a server that sends none", live + current("alice@example.org/r1", "alice@example.org/r1"), func(q xmppserver.Stanza) string { return versionOf(q, "ejabberd") },
			[]string{"bob@example.org/live privilege", "alice@example.org/r1 privilege"}},
		{"somebody else answers", live, func(q xmppserver.Stanza) string {
			return strings.Replace(versionOf(q, "Prosody"), "from='example.org'", "from='mallory@example.org/x'", 1)
		}, []string{"bob@example.org/live privilege"}},
		{"presence comes by another feed", live +
			"<message from='example.org' to='events.example.org'><forwarded xmlns='urn:xmpp:forward:0'><presence xmlns='jabber:client' from='carol@example.org/r'/></forwarded></message>",
			func(q xmppserver.Stanza) string { return versionOf(q, "Prosody") }, []string{"bob@example.org/live privilege", "carol@example.org/r service_log"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := startServer(t, serverOptions())
			w := newSettling(t, server.Addr()).start()
			session := accept(t, server)
			send(t, session, advertisement(2)+tc.snapshot)
			q := receive(t, session)
			want := xmppserver.Stanza{Name: "iq", Type: "get", ID: q.ID, From: testName, To: testHost, Inner: "<query xmlns='jabber:iq:version'/>"}
			if diff := cmp.Diff(want, q); diff != "" {
				t.Fatalf("question (-want +got):\n%s", diff)
			}
			send(t, session, tc.answer(q)+logged("end"))
			for _, fact := range tc.behind {
				w.wantFact(fact)
			}
			w.wantFact("alice@example.org/r1 service_log") // logged
			w.end()
		})
	}
}

// Only what a granting host says with urn:xmpp:privilege:2 begins a barrier. The ping
// that follows shows that no question was sent before its answer.
func TestNoSnapshotBarrier(t *testing.T) {
	server := startServer(t, serverOptions())
	w := newSettling(t, server.Addr()).start()
	session := accept(t, server)
	for _, silent := range []string{
		advertisement(1),
		strings.Replace(advertisement(2), "from='example.org'", "from='alice@example.org'", 1),
		strings.Replace(advertisement(2), "from='example.org'", "from='example.org' type='error'", 1),
		strings.Replace(advertisement(2), "managed_entity", "none", 1),
	} {
		send(t, session, silent+"<iq type='get' id='p' from='bob@example.org/r' to='events.example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
		if got := receive(t, session); got.Type != "result" || got.ID != "p" {
			t.Errorf("after %s\n%+v", silent, got)
		}
	}
	w.end()
}

func TestGrantsInTheStatus(t *testing.T) {
	server := startServer(t, serverOptions())
	w := newSettling(t, server.Addr()).start()
	session := accept(t, server)
	send(t, session, advertisement(1)+
		"<message from='example.org' to='events.example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='urn:xmpp:push:0'/></delegation></message>"+
		"<message from='mallory@example.org/x' to='events.example.org'><delegation xmlns='urn:xmpp:delegation:2'><delegated namespace='urn:evil'/></delegation></message>"+
		logged("end"))
	w.wantFact("mallory@example.org/x direct")
	w.wantFact("alice@example.org/r1 service_log")
	got := w.Status().Hosts
	want := []trust.HostStatus{{Host: testHost, Authority: map[trust.Class]string{trust.Messages: "service_log"}, Heard: []string{"service_log", "direct"},
		Privileges: []string{"presence managed_entity"}, Delegated: []string{"urn:xmpp:push:0"}}}
	if since := got[0].Since[trust.Messages]; time.Since(since) > time.Hour || len(got[0].Since) != 1 {
		t.Errorf("since when the feed counts: %v", got[0].Since)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(trust.HostStatus{}, "Since")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// They are granted anew on each connection.
	session.Drop()
	accept(t, server)
	w.ready()
	if got := w.Status().Hosts[0]; got.Privileges != nil || got.Delegated != nil {
		t.Errorf("after a reconnection: %+v", got)
	}
	w.end()
}

// TestSubscribersAreProbed goes through two reconnections on fake time: whoever has
// answered a probe once is settled by silence, whoever has not is not.
func TestSubscribersAreProbed(t *testing.T) {
	for _, tc := range []struct {
		software string
		settled  bool
	}{{"Prosody", true}, {"ejabberd", false}} {
		t.Run(tc.software, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := xmppserver.NewUnlistened(serverOptions())
				defer server.Close()
				w := newSettling(t, "127.0.0.1:1")
				w.inMemory(server)
				w.start()
				session := accept(t, server)
				wantProbe := func(user, ours string) {
					t.Helper()
					want := xmppserver.Stanza{Name: "presence", Type: "probe", From: ours, To: user}
					if diff := cmp.Diff(want, receive(t, session)); diff != "" {
						t.Errorf("probe (-want +got):\n%s", diff)
					}
				}
				// alice is subscribed by a node of ours, bob directs his presence at us.
				send(t, session, "<presence from='alice@example.org/r1' to='watch@events.example.org'/>")
				wantProbe("alice@example.org", "watch@events.example.org")
				send(t, session, strings.Replace(current("alice@example.org/r1", "example.org"), "to='", "to='watch@", 1)+
					"<presence from='bob@example.org/r1' to='events.example.org'/>")
				wantProbe("bob@example.org", testName)
				send(t, session, "<presence from='bob@example.org/r1' to='events.example.org'><show>away</show></presence>"+
					"<presence from='carol@example.org/r1' to='events.example.org'/>")
				wantProbe("carol@example.org", testName)
				// carol cancels the subscription, and joins what she takes for a room.
				send(t, session, "<presence from='carol@example.org' to='events.example.org' type='unsubscribed'/>"+
					"<presence from='dave@example.org/r1' to='room@events.example.org/d'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
				for _, fact := range []string{"alice@example.org/r1 direct", "alice@example.org/r1 direct", "bob@example.org/r1 direct", "bob@example.org/r1 direct",
					"carol@example.org/r1 direct", "carol@example.org direct", "dave@example.org/r1 direct"} {
					w.wantFact(fact)
				}
				for range 2 {
					session.Drop()
					session = accept(t, server)
					wantProbe("alice@example.org", "watch@events.example.org")
					wantProbe("bob@example.org", testName)
					send(t, session, versionOf(receive(t, session), tc.software)+live)
					if tc.settled {
						w.wantFact("settled example.org [alice@example.org]")
					}
					w.wantFact("bob@example.org/live direct")
				}
				w.end()
			})
		})
	}
}

// The round is paced, and each step of it settles its own users.
func TestProbesArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const users = 5*probeStep + 1
		server := xmppserver.NewUnlistened(serverOptions())
		defer server.Close()
		w := newSettling(t, "127.0.0.1:1")
		w.inMemory(server)
		w.judge.Stanza(&stanza.Envelope{Outer: stanza.Stanza{Kind: stanza.Presence, From: "u@example.org/r", To: testName}}, time.Now())
		for i := range users {
			w.subscribers.users[jid.JID(fmt.Sprintf("u%03d@example.org", i))] = subscriber{ours: testName, confirmed: true}
		}
		w.start()
		session := accept(t, server)
		began := time.Now()
		probes := 0
		for probes < users {
			switch got := receive(t, session); got.Name {
			case "presence":
				probes++
			default:
				if probes%probeStep != 0 {
					t.Errorf("asked after %d probes", probes)
				}
				if took, least := time.Since(began), time.Duration(probes/probeStep-1)*probePause; took < least {
					t.Errorf("%d probes in %v", probes, took)
				}
				send(t, session, versionOf(got, "Prosody"))
				if fact := <-w.facts; strings.Count(fact, "@example.org") != probeStep {
					t.Errorf("settled at once: %s", fact)
				}
			}
		}
		send(t, session, versionOf(receive(t, session), "Prosody"))
		w.wantFact("settled example.org [u100@example.org]")
		w.wantFact("settled example.org") // all are subscribed and were asked
		w.end()
	})
}

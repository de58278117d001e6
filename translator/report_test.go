package translator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

func TestMessagesOfTheEventFeed(t *testing.T) {
	const remote = "x@remote.example/q"
	msg := func(from, to, kind string) draft { return message(0, 0, from, to, kind) }
	for _, tc := range []struct {
		name       string
		fact, user string
		message    draft
		reason     Reason // of nothing
		want       []string
	}{
		{"sent to a local user", "message-sent", alice, msg(alice, bob, "chat"), 0, []string{
			`in chat alice@localhost/r1 -> bob@localhost/r1 user=alice@localhost content "hi" count=0 id=m1`,
			`out chat alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"sent to a remote user", "message-sent", alice, msg(alice, remote, ""), 0, []string{
			`in normal alice@localhost/r1 -> x@remote.example/q user=alice@localhost content "hi" count=0 id=m1`,
		}},
		{"sent to a room", "message-sent", alice, msg(alice, room, "groupchat"), 0, []string{
			`in groupchat alice@localhost/r1 -> ` + room + ` user=alice@localhost room=` + room + ` content "hi" count=0 id=m1`,
			`out groupchat alice@localhost/r1 -> ` + room + ` user=` + room + ` room=` + room + ` content "hi" count=0 id=m1`,
		}},
		{"sent to nobody", "message-sent", alice, msg(alice, "", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> alice@localhost user=alice@localhost content "hi" count=0 id=m1`,
			`out chat alice@localhost/r1 -> alice@localhost user=alice@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"sent on another host of the source", "message-sent", "eve@other.example/r", msg("eve@other.example/r", bob, "chat"), 0, []string{
			`in chat eve@other.example/r -> bob@localhost/r1 user=eve@other.example content "hi" count=0 id=m1 unverified`,
			`out chat eve@other.example/r -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"sent to a host that says nothing of sessions", "message-sent", alice, msg(alice, "eve@other.example", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> eve@other.example user=alice@localhost content "hi" count=0 id=m1`,
			`out chat alice@localhost/r1 -> eve@other.example user=eve@other.example content "hi" count=0 id=m1 unverified`,
		}},
		{"sent by the server's API, in a user's name", "message-sent", "alice@localhost", msg("alice@localhost", bob, "chat"), 0, []string{
			`in chat alice@localhost -> bob@localhost/r1 user=alice@localhost content "hi" count=0 id=m1`,
			`out chat alice@localhost -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"a carbon as sent", "message-sent", "alice@localhost", msg("alice@localhost", alice, "chat").noBody().flags(stanza.HasCarbon), SkippedServerMade, nil},
		{"sent by somebody else", "message-sent", remote, msg(remote, bob, "chat"), SkippedForeign, nil},
		{"sent with an error", "message-sent", alice, msg(alice, bob, "error"), SkippedType, nil},
		{"sent to us, with another's inside", "message-sent", alice, msg(alice, "events.localhost", "").flags(stanza.HasForwarded), SkippedForwarded, nil},

		{"received from a remote user", "message-received", "bob@localhost", msg(remote, "bob@localhost", "chat"), 0, []string{
			`out chat x@remote.example/q -> bob@localhost user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"received from a room", "message-received", bob, msg(room+"/al", bob, "groupchat"), 0, []string{
			`out groupchat ` + room + `/al -> bob@localhost/r1 user=bob@localhost room=` + room + ` content "hi" count=0 id=m1 nobody there`,
		}},
		{"received in the name of a local user, from a gateway", "message-received", bob, msg("alice@localhost/gateway", bob, "chat"), 0, []string{
			`out chat alice@localhost/gateway -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"received in the bare name of a local user", "message-received", "bob@localhost", msg("alice@localhost", "bob@localhost", ""), 0, []string{
			`out normal alice@localhost -> bob@localhost user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"received from the server itself", "message-received", "bob@localhost", msg("localhost", "bob@localhost", "chat"), 0, []string{
			`out chat localhost -> bob@localhost user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"a carbon as received", "message-received", bob, msg("bob@localhost", bob, "chat").noBody().flags(stanza.HasCarbon), SkippedServerMade, nil},
		{"what a contact has published", "message-received", bob, msg("alice@localhost", bob, "headline").noBody().flags(stanza.HasPubsub), SkippedServerMade, nil},
		{"received in the name of a local user by nobody of ours", "message-received", remote, msg(alice, remote, "chat"), SkippedForeign, nil},
		{"received by nobody of ours", "message-received", remote, msg(remote, remote, "chat"), SkippedForeign, nil},
		{"received from a room's archive", "message-received", bob, msg(room, bob, "").noBody().flags(stanza.HasMAMResult), SkippedArchive, nil},

		{"stored", "message-offline", "bob@localhost", msg(alice, bob, "chat"), 0, []string{
			`stored chat alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"stored, without to", "message-offline", "bob@localhost", msg("bob@localhost/x", "", "chat"), 0, []string{
			`stored chat bob@localhost/x -> bob@localhost user=bob@localhost content "hi" count=0 id=m1 nobody there`,
		}},
		{"stored from a room", "message-offline", "bob@localhost", msg(room+"/al", "bob@localhost", "groupchat"), 0, []string{
			`stored groupchat ` + room + `/al -> bob@localhost user=bob@localhost room=` + room + ` content "hi" count=0 id=m1 nobody there`,
		}},
		{"stored for nobody of ours", "message-offline", "x@remote.example", msg(alice, remote, "chat"), SkippedForeign, nil},
		{"stored of an unknown type", "message-offline", "bob@localhost", msg(alice, bob, "bogus"), SkippedType, nil},

		{"unacknowledged", "message-unacked", bob, msg(alice, "bob@localhost", ""), 0, []string{
			`unack normal alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1`,
		}},
		{"an unacknowledged carbon", "message-unacked", bob, msg("bob@localhost", bob, "chat").noBody().flags(stanza.HasCarbon), 0, []string{
			`unack chat bob@localhost -> bob@localhost/r1 user=bob@localhost other count=0 id=m1`,
		}},
		{"an unacknowledged error", "message-unacked", bob, msg(alice, bob, "error"), SkippedType, nil},
		{"unacknowledged, without a message", "message-unacked", bob, draft{s: trust.Fact{Host: "localhost"}}, SkippedType, nil},

		{"failed", "message-failed", bob, msg(alice, bob, "chat"), SkippedFact, nil},
		{"in a room", "room-message", "x@remote.example", msg(remote, room, "groupchat"), SkippedFact, nil},
		{"a join", "room-join", alice, draft{}, SkippedFact, nil},
		{"a part", "room-part", alice, draft{}, SkippedFact, nil},
		{"bound", "session-start", alice, draft{}, SkippedFact, nil},
		{"not bound", "session-end", alice, draft{}, SkippedFact, nil},
		{"hibernating", "hibernate", alice, draft{}, SkippedFact, nil},
		{"back", "resumed", alice, draft{}, SkippedFact, nil},
		{"a snapshot begins", "snapshot-start", "", draft{}, SkippedFact, nil},
		{"a snapshot ends", "snapshot-end", "", draft{}, SkippedFact, nil},
		{"known from a snapshot", "snapshot", alice, draft{}, SkippedUnchanged, nil},
		{"an update of somebody who is no session", "presence", "alice@localhost", draft{}, SkippedForeign, nil},
		{"news", "news", alice, msg(alice, bob, "chat"), SkippedUnknownFact, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			st.play(whole...)
			before := st.tr.Stats()
			events := st.tr.Translate(st.modules["1"].forward(tc.fact, tc.user, tc.message), nil)
			want(t, showAll(events), tc.want...)
			if len(tc.want) == 0 && st.tr.Stats().Skipped[tc.reason] != before.Skipped[tc.reason]+1 {
				t.Errorf("not counted as %v: %+v", tc.reason, st.tr.Stats())
			}
		})
	}
}

// TestStrangers: that the sender is no contact is said of what is routed to the recipient.
func TestStrangers(t *testing.T) {
	const remote = "x@remote.example/q"
	for _, tc := range []struct {
		name       string
		fact, user string
		message    draft
		want       []string
	}{
		{"sent to a local user", "message-sent", alice, message(0, 0, alice, bob, "chat"), []string{
			`in chat alice@localhost/r1 -> bob@localhost/r1 user=alice@localhost content "hi" count=0 id=m1`,
			`out chat alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 nobody there stranger`,
		}},
		{"received", "message-received", "bob@localhost", message(0, 0, remote, "bob@localhost", "chat"), []string{
			`out chat x@remote.example/q -> bob@localhost user=bob@localhost content "hi" count=0 id=m1 nobody there stranger`,
		}},
		{"stored", "message-offline", "bob@localhost", message(0, 0, alice, bob, "chat"), []string{
			`stored chat alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 nobody there stranger`,
		}},
		{"unacknowledged", "message-unacked", bob, message(0, 0, alice, bob, "chat"), []string{
			`unack chat alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 stranger`,
		}},
		{"in a room", "message-received", bob, message(0, 0, room+"/al", bob, "groupchat"), []string{
			`out groupchat ` + room + `/al -> bob@localhost/r1 user=bob@localhost room=` + room + ` content "hi" count=0 id=m1 nobody there`,
		}},
		{"to nobody of ours", "message-sent", alice, message(0, 0, alice, room, "chat"), []string{
			`in chat alice@localhost/r1 -> ` + room + ` user=alice@localhost content "hi" count=0 id=m1`,
			`out chat alice@localhost/r1 -> ` + room + ` user=` + room + ` content "hi" count=0 id=m1`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			st.play(whole...)
			f := st.modules["1"].forward(tc.fact, tc.user, tc.message)
			f.Report.Stranger = true
			want(t, showAll(st.tr.Translate(f, nil)), tc.want...)
		})
	}
}

// TestMessagesOfAnotherServer: where the sender's own server reports that it was sent, that
// it is received elsewhere is no news.
func TestMessagesOfAnotherServer(t *testing.T) {
	received := func(st *stage, source string) []string {
		d := message(0, 0, "eve@other.example/r", bob, "chat")
		return showAll(st.tr.Translate(st.modules[source].forward("message-received", bob, d), nil))
	}
	of := func(m *module, host jid.JID) *trust.Fact {
		f := m.report("presence", "eve@"+string(host)+"/r", 0)
		f.Host = host
		return f
	}
	const out = `out chat eve@other.example/r -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1`
	for _, tc := range []struct {
		name  string
		heard func(*stage)
		told  bool
	}{
		{"nothing is known of the sender's server", func(*stage) {}, true},
		{"another host of the same server", func(st *stage) { st.tr.Translate(of(st.modules["1"], "other.example"), nil) }, true},
		{"another source", func(st *stage) { st.tr.Translate(of(st.modules["2"], "other.example"), nil) }, false},
		{"another node of the same server", func(st *stage) {
			st.tr.Translate(of(st.modules["1"], "other.example"), nil)
			st.tr.Translate(of(st.modules["2"], "other.example"), nil)
		}, true},
		{"another feed", func(st *stage) {
			play(st.tr, presence(trust.Firewall, "eve@other.example/r", "", "").host("other.example"))
		}, false},
		{"a feed that tells of presence alone", func(st *stage) {
			play(st.tr, presence(trust.Privilege, "eve@other.example/r", "events.localhost", "").host("other.example"))
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			tc.heard(st)
			got := received(st, "1")
			if told := len(got) == 1 && strings.HasPrefix(got[0], out); told != tc.told || !told && len(got) > 0 {
				t.Errorf("%q", got)
			}
		})
	}
}

// All that an event of another kind says, once in full.
func TestStoredAndUnacknowledged(t *testing.T) {
	st := newStage()
	st.play(whole...)
	d := message(0, 0, alice, "bob@localhost", "chat").flags(stanza.HasEncrypted)
	for fact, kind := range map[string]event.Kind{"message-offline": event.Stored, "message-unacked": event.Unack} {
		s := st.modules["1"].forward(fact, bob, d)
		s.Report.At = start.Add(-time.Minute)
		e := st.tr.Translate(s, nil)[0]
		full := event.Event{
			ID: e.ID, Kind: kind, Type: "chat", From: alice, To: bob, User: "bob@localhost", Body: "hi", HasBody: true,
			Class: event.Content, Encrypted: true, StanzaID: "m1", Time: start.Add(-time.Minute),
			Host: "localhost", Dialect: "event-feed", Packet: s.Raw,
		}
		if kind == event.Stored {
			full.To, full.RecipientOffline = "bob@localhost", true
		}
		if diff := cmp.Diff(full, e); diff != "" {
			t.Errorf("%s (-want +got):\n%s", fact, diff)
		}
	}
}

func TestWhoIsThere(t *testing.T) {
	const toBob = "chat a/1 b"
	for _, tc := range []struct {
		name       string
		script     []string
		nobody     bool
		unverified bool
	}{
		{"nobody", whole, true, false},
		{"somebody else", append(whole, "session-start c/1", "online c/1"), true, false},
		{"available", append(whole, "session-start b/1", "online b/1"), false, false},
		{"bound and nothing else", append(whole, "session-start b/1"), false, false},
		{"no longer available", append(whole, "session-start b/1", "online b/1", "offline b/1"), false, false},
		{"hibernating", append(whole, "session-start b/1", "online b/1", "hibernate b/1"), false, false},
		{"one of two is left", append(whole, "session-start b/1", "session-start b/2", "session-end b/1"), false, false},
		{"gone", append(whole, "session-start b/1", "online b/1", "offline b/1", "session-end b/1"), true, false},
		{"in the snapshot", []string{"resume", "snapshot-start s", "bound b/1", "snapshot-end s"}, false, false},
		{"not in the snapshot", []string{"resume", "snapshot-start s", "bound c/1", "snapshot-end s"}, true, false},
		{"before the snapshot", []string{"resume"}, false, true},
		{"in the middle of the snapshot", []string{"resume", "snapshot-start s"}, false, true},
		{"after a loss", append(whole, "lost"), false, true},
		{"after a loss and a snapshot", append(whole, "lost", "snapshot-start s", "snapshot-end s"), true, false},
		{"the link is up, the source not yet", append(whole, "gap"), false, true},
		{"the source is there again", append(whole, "gap", "resume"), true, false},
		{"another source has not been heard out", append(whole, "2:resume"), false, true},
		{"another source has lost something", append(whole, "2:resume", "2:snapshot-start s", "2:snapshot-end s", "2:lost"), false, true},
		{"all sources know", append(whole, "2:resume", "2:snapshot-start s", "2:snapshot-end s"), true, false},
		{"bound at another source", append(whole, "2:resume", "2:snapshot-start s", "2:bound b/1", "2:snapshot-end s"), false, false},
		{"another source has been away for a day", append(whole, "2:resume", "gap", "resume", "+24h", "presence c/1", "presence c/1"), true, false},
		{"a source comes back after its sessions were given up", append(whole, "session-start c/1", "2:resume", "2:snapshot-start s", "2:snapshot-end s", "gap", "2:resume", "+24h", "2:presence c/2", "2:presence c/2", "resume"), false, true},
		{"all sources have been away for a day", append(whole, "gap", "+24h", "service_log online c/1", "service_log online c/1"), false, true},
		{"a source that nobody announced", []string{"snapshot-start s", "snapshot-end s"}, true, false},
		{"statuses come by another feed since", append(whole, "service_log online c/1"), false, true},
		{"known from another feed, too", append([]string{"service_log online b/1"}, append(whole, "online c/1")...), true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			st.play(tc.script...)
			events := st.do(toBob)
			if len(events) != 2 {
				t.Fatalf("%d events", len(events))
			}
			if in := events[0]; in.RecipientOffline {
				t.Error("the sender's event says that nobody is there")
			}
			if out := events[1]; out.RecipientOffline != tc.nobody || out.Unverified != tc.unverified {
				t.Errorf("nobody there: %t, unverified: %t; want %t, %t", out.RecipientOffline, out.Unverified, tc.nobody, tc.unverified)
			}
			// When it is sent again the table may be ahead of it.
			for _, e := range st.do("again 1") {
				if e.RecipientOffline || e.Direction == event.Out && !e.Unverified {
					t.Errorf("sent again: %s", show(&e))
				}
			}
		})
	}
}

func TestTimeOfReports(t *testing.T) {
	for _, tc := range []struct {
		name      string
		at        time.Time
		plausible bool
	}{
		{"now", start, true},
		{"none", time.Time{}, false},
		{"while we were away", start.Add(-reportKept), true},
		{"too long ago", start.Add(-reportKept - 1), false},
		{"a clock that is ahead", start.Add(clockAhead), true},
		{"in the future", start.Add(clockAhead + 1), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			m := st.modules["1"]
			wanted := start
			if tc.plausible {
				wanted = tc.at
			}
			status := m.report("online", "bob@localhost/1", 0)
			sent := m.forward("message-sent", alice, message(0, 0, alice, bob, "chat"))
			for _, s := range []*trust.Fact{status, sent} {
				s.Report.At = tc.at
				for _, e := range st.tr.Translate(s, nil) {
					if !e.Time.Equal(wanted) {
						t.Errorf("time %v, want %v", e.Time, wanted)
					}
				}
			}
		})
	}
}

// The ids of reports depend on the place in the feed and on nothing else.
func TestIDsOfReports(t *testing.T) {
	sent := func(m *module, n int) *trust.Fact {
		m.sent = make([]trust.Fact, n-1)
		return m.forward("message-sent", alice, message(0, 0, alice, bob, "chat"))
	}
	ids := func(s *trust.Fact) []string {
		var ids []string
		for _, e := range newTranslator().Translate(s, nil) {
			ids = append(ids, e.ID)
		}
		return ids
	}
	first := ids(sent(&module{source: "s", epoch: "e"}, 7))
	if len(first) != 2 || first[0] == first[1] || len(first[0]) != 32 || len(first[1]) != 32 {
		t.Fatalf("ids %q", first)
	}
	later := sent(&module{source: "s", epoch: "e"}, 7)
	later.Received = start.Add(time.Hour)
	if diff := cmp.Diff(first, ids(later)); diff != "" {
		t.Errorf("another id later:\n%s", diff)
	}
	seen := map[string]string{first[0]: "the first", first[1]: "the first"}
	for name, s := range map[string]*trust.Fact{
		"seq":                  sent(&module{source: "s", epoch: "e"}, 8),
		"epoch":                sent(&module{source: "s", epoch: "f"}, 7),
		"source":               sent(&module{source: "r", epoch: "e"}, 7),
		"border between names": sent(&module{source: "se", epoch: ""}, 7),
	} {
		for _, id := range ids(s) {
			if other := seen[id]; other != "" {
				t.Errorf("another %s, the same id as %s", name, other)
			}
			seen[id] = name
		}
	}
}

// However many events a report makes, each has an id of its own.
func TestIDsOfManyEvents(t *testing.T) {
	const sessions = 1001
	for _, n := range []int{1, 2, 3, sessions} {
		st := newStage()
		st.play("resume")
		for i := range n {
			st.play(fmt.Sprintf("online a/%d", i))
		}
		st.play("lost", "snapshot-start s")
		events := st.do("snapshot-end s")
		ids := map[string]bool{}
		for _, e := range events {
			ids[e.ID] = len(e.ID) == 32
		}
		if len(events) != n || len(ids) != n || ids[""] {
			t.Errorf("%d events with %d ids, want %d", len(events), len(ids), n)
		}
	}
}

// The presence of an end that nobody sent is made up, whatever the resource is.
func TestMadeUpPresence(t *testing.T) {
	st := newStage()
	st.play(whole...)
	st.do("online a/r&'<é>")
	st.do("lost")
	st.do("snapshot-start s")
	e := st.do("snapshot-end s")[0]
	const packet = `<presence xmlns='jabber:client' from='alice@localhost/r&amp;&#39;&lt;é&gt;' type='unavailable'/>`
	if e.Packet != packet || e.Online || e.Type != "offline" || !e.Reconciled || e.Host != "localhost" || e.Dialect != "event-feed" ||
		e.From != "alice@localhost/r&'<é>" || e.User != "alice@localhost" || e.StanzaID != "" || !e.Time.Equal(start) {
		t.Errorf("%+v", e)
	}
}

package component

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/eventfeed"
	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/config"
)

// begun returns a link whose source s1 has introduced itself in epoch e1, nothing of
// which is kept anywhere.
func begun(t *testing.T, k *keeper) (*fedLink, *feedModule) {
	t.Helper()
	l := newFedLink(t, k, nil)
	m := l.module("s1", "e1")
	m.hello(1, 1, "")
	m.wantHears("resume s1", "snapshot s1")
	k.want("resumed s1 missed")
	return l, m
}

func TestFeedHelloWithoutAnythingKept(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.send(1, 3)
	k.want(fed(m, 1, 3)...)
	m.acked(3)
	if got := l.feedEvents("accepted"); got != 3 {
		t.Errorf("%v events are counted", got)
	}
	l.end()
}

func TestFeedResumesBehindWhatIsKept(t *testing.T) {
	k := newKeeper(t)
	k.at["s1"] = place("s1", "e1", 12)
	l := newFedLink(t, k, nil)
	m := l.module("s1", "e1")
	m.hello(8, 20, "")
	m.wantHears("resume s1 e1 12", "snapshot s1")
	m.send(13, 14)
	m.acked(14)
	k.want(append([]string{"resumed s1 missed"}, fed(m, 13, 14)...)...)
	l.end()
}

func TestFeedAcknowledgesOnlyWhatIsKept(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	k.set(true, nil)
	m.send(1, 350)
	k.want(fed(m, 1, 350)...)
	k.commit(99)
	m.acked(99) // when, see TestFeedAckTimes
	k.commit(100)
	m.acked(199)
	k.commit(151)
	m.acked(350)
	l.end()
}

func TestFeedDropsDuplicates(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.send(1, 3)
	m.send(2, 4)
	k.want(append(fed(m, 1, 3), fed(m, 4, 4)...)...)
	m.acked(4)
	if got := l.feedEvents("duplicate"); got != 2 {
		t.Errorf("%v duplicates are counted", got)
	}
	if s := l.Status().Sources; len(s) != 1 || s[0].Duplicates != 2 {
		t.Errorf("status %+v", s)
	}
	l.end()
}

func TestFeedAsksForWhatIsMissing(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	k.set(true, nil)
	m.send(1, 2)
	m.send(4, 9)
	k.want(fed(m, 1, 2)...)
	l.awaitEvents("gap", 6)
	// Not before all is settled: 1 and 2 would come twice.
	k.commit(1)
	m.wantHears("ack s1 e1 1")
	k.set(false, nil)
	k.commit(1)
	m.awaits("resume s1 e1 2")
	m.send(3, 9)
	k.want(fed(m, 3, 9)...)
	m.acked(9)
	if got := l.counter("eventpusher_feed_resumes_total"); got != 2 {
		t.Errorf("%v resumes, want 2", got)
	}
	l.end()
}

func TestFeedLost(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.send(1, 2)
	m.lost(3, 7)
	m.send(8, 8)
	k.want(append(append(fed(m, 1, 2), "resumed s1 missed", "position s1 e1 7"), fed(m, 8, 8)...)...)
	m.awaits("ack s1 e1 8", "snapshot s1")
	if holes, lost := l.counter("eventpusher_feed_holes_total"), l.counter("eventpusher_feed_lost_events_total"); holes != 1 || lost != 5 {
		t.Errorf("%v holes of %v events", holes, lost)
	}
	m.lost(2, 8) // again, when it has been taken
	m.lost(8, 12)
	m.lost(15, 16)
	k.want("resumed s1 missed", "position s1 e1 12")
	l.awaitEvents("gap", 1) // 13 and 14 are missing
	if lost := l.counter("eventpusher_feed_lost_events_total"); lost != 9 {
		t.Errorf("%v events lost, want 9", lost)
	}
	l.end()
}

// What is lost before the oldest event that the module has is announced behind a resume
// that names nothing.
func TestFeedLostAtTheBeginning(t *testing.T) {
	k := newKeeper(t)
	l := newFedLink(t, k, nil)
	m := l.module("s1", "e1")
	m.hello(8, 20, "")
	m.wantHears("resume s1", "snapshot s1")
	m.lost(1, 7)
	m.send(8, 8)
	k.want(append([]string{"resumed s1 missed", "resumed s1 missed", "position s1 e1 7"}, fed(m, 8, 8)...)...)
	if lost := l.counter("eventpusher_feed_lost_events_total"); lost != 7 {
		t.Errorf("%v events lost, want 7", lost)
	}
	l.end()
}

// TestFeedEpochs lets the server come back in another epoch.
func TestFeedEpochs(t *testing.T) {
	for _, tc := range []struct {
		name, hello string
		first, next int
		epoch       string
		resume      string
		complete    bool
		unknown     float64
	}{
		{"clean", "prev-epoch='e1' prev-last='3' clean='true'", 1, 4, "e2", "resume s1 e1 3", true, 0},
		{"unclean, but all of it is kept", "prev-epoch='e1' prev-last='3' clean='false'", 1, 4, "e2", "resume s1 e1 3", true, 0},
		{"unclean", "prev-epoch='e1' prev-last='4' clean='false'", 1, 4, "e2", "resume s1 e1 3", false, 1},
		{"unclean, last number unknown", "prev-epoch='e1'", 1, 4, "e2", "resume s1 e1 3", false, 1},
		{"knows of nothing before", "", 1, 4, "e2", "resume s1 e1 3", false, 1},
		{"another one in between", "prev-epoch='e1b' prev-last='1' clean='true'", 1, 4, "e2", "resume s1 e1 3", false, 1},
		{"the same, goes on", "", 4, 6, "e1", "resume s1 e1 3", true, 0},
		{"the same, with more than we need", "", 1, 6, "e1", "resume s1 e1 3", true, 0},
		{"the same, but something is gone", "", 5, 6, "e1", "resume s1 e1 3", false, 0},
		{"the same, set back", "", 1, 2, "e1", "resume s1", false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newKeeper(t)
			l, m := begun(t, k)
			m.send(1, 2)
			m.endSnapshot(3)
			m.acked(3)
			k.want(append(fed(m, 1, 2), fmt.Sprintf("fed s1 e1 3: %d  ", stanza.SnapshotEnd))...)
			m.session.Drop()
			m = l.module("s1", tc.epoch)
			for range 2 { // repeated until it is answered
				m.hello(tc.first, tc.next, tc.hello)
			}
			for range 2 {
				m.wantHears(tc.resume)
				if !tc.complete {
					m.wantHears("snapshot s1")
				}
			}
			k.want("resumed s1 " + continuity(tc.complete))
			if got := l.counter("eventpusher_feed_unknown_losses_total"); got != tc.unknown {
				t.Errorf("%v unknown losses, want %v", got, tc.unknown)
			}
			l.end()
		})
	}
}

// TestFeedEpochsOfAnEmptyOutbox lets a server that was set back, and was told that nothing
// of it is kept, begin another epoch: that is a loss only if it had something.
func TestFeedEpochsOfAnEmptyOutbox(t *testing.T) {
	for _, tc := range []struct {
		name    string
		first   int
		unknown float64
	}{{"it had nothing", 7, 0}, {"it had some", 5, 1}} {
		t.Run(tc.name, func(t *testing.T) {
			k := newKeeper(t)
			l := newFedLink(t, k, nil)
			m := l.module("s1", "e1")
			m.hello(tc.first, 7, "")
			m.wantHears("resume s1", "snapshot s1")
			m.epoch = "e2"
			m.hello(1, 1, "prev-epoch='e1' clean='false'")
			m.wantHears("resume s1", "snapshot s1")
			m.send(1, 2)
			m.acked(2)
			if got := l.counter("eventpusher_feed_unknown_losses_total"); got != tc.unknown {
				t.Errorf("%v unknown losses, want %v", got, tc.unknown)
			}
			l.end()
		})
	}
}

// TestFeedBegins lets a process begin where another one has come to: it misses nothing
// only if that one had told of all sessions.
func TestFeedBegins(t *testing.T) {
	for _, tc := range []struct {
		name     string
		at       eventfeed.Position
		whole    bool
		first    int
		resume   string
		complete bool
	}{
		{"where the other ended", place("s1", "e1", 3), true, 1, "resume s1 e1 3", true},
		{"but it had not told of all", place("s1", "e1", 3), false, 1, "resume s1 e1 3", false},
		{"but events are gone", place("s1", "e1", 3), true, 5, "resume s1 e1 3", false},
		{"in another epoch", place("s1", "e0", 3), true, 1, "resume s1 e0 3", false},
		{"knowing nothing", eventfeed.Position{}, true, 1, "resume s1", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newKeeper(t)
			k.complete = tc.whole
			if tc.at.Source != "" {
				k.at["s1"] = tc.at
			}
			l := newFedLink(t, k, nil)
			m := l.module("s1", "e1")
			m.hello(tc.first, 7, "")
			m.wantHears(tc.resume, "snapshot s1") // this process knows of no session
			k.want("resumed s1 " + continuity(tc.complete))
			l.end()
		})
	}
}

// TestFeedOtherProcess: what another process has taken since is missed here, and what this
// one remembers of sessions is out of date if that one has told all there was to tell.
func TestFeedOtherProcess(t *testing.T) {
	for name, c := range map[string]struct {
		refused, whole bool
		want           []string
	}{
		"all was told":                  {false, true, []string{"resumed s1 overtaken"}},
		"not all was told":              {false, false, []string{"resumed s1 missed"}},
		"it took what was refused here": {true, true, []string{"resumed s1 overtaken"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t)
			l, m := begun(t, k)
			m.send(1, 2)
			m.endSnapshot(3)
			m.acked(3)
			k.want(append(fed(m, 1, 2), fmt.Sprintf("fed s1 e1 3: %d  ", stanza.SnapshotEnd))...)
			if c.refused {
				k.set(false, errors.New("another instance has taken over"))
				m.send(4, 5)
				k.want(fed(m, 4, 4)...)
				k.set(false, nil)
			}
			m.session.Drop()
			k.mu.Lock()
			k.at["s1"], k.complete = place("s1", "e1", 5), c.whole
			k.mu.Unlock()
			m = l.module("s1", "e1")
			m.hello(1, 7, "")
			m.wantHears("resume s1 e1 5", "snapshot s1")
			k.want(c.want...)
			m.send(6, 6)
			k.want(fed(m, 6, 6)...)
			l.end()
		})
	}
}

func TestFeedRefusedCommit(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.endSnapshot(1)
	m.acked(1)
	k.set(true, nil)
	m.send(2, 4)
	k.want(append([]string{fmt.Sprintf("fed s1 e1 1: %d  ", stanza.SnapshotEnd)}, fed(m, 2, 4)...)...)
	k.set(false, errFull)
	m.send(5, 8) // the first is refused at once, while others wait
	k.want(fed(m, 5, 5)...)
	k.set(false, nil)
	k.commit(2)
	k.refuse()
	// Behind the last one that is kept, some time later, and with all that follows.
	m.awaits("resume s1 e1 3")
	m.wantHears("snapshot s1")
	m.send(4, 8)
	k.want(append([]string{"resumed s1 missed"}, fed(m, 4, 8)...)...)
	m.acked(8)
	if n, turned := l.counter("eventpusher_feed_refused_total"), l.feedEvents("turned_away"); n != 2 || turned != 3 {
		t.Errorf("%v refused, %v turned away; want 2 and 3", n, turned)
	}
	l.end()
}

func TestFeedReconnectsWithPendingCommits(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.endSnapshot(1)
	m.acked(1)
	k.set(true, nil)
	m.send(2, 5)
	k.want(append([]string{fmt.Sprintf("fed s1 e1 1: %d  ", stanza.SnapshotEnd)}, fed(m, 2, 5)...)...)
	m.session.Drop()
	m = l.module("s1", "e1")
	m.hello(2, 6, "")
	k.want("resumed s1 complete")
	m.send(2, 2) // before it was answered
	l.awaitEvents("unexpected", 1)
	k.commit(3)
	k.set(false, nil)
	k.commit(1)
	m.wantHears("resume s1 e1 5")
	m.send(6, 6)
	k.want(fed(m, 6, 6)...)
	m.acked(6)
	l.end()
}

// If other hosts are served the link is set up anew, nothing is lost or comes twice, and the module
// is asked for the sessions that were left out before.
func TestFeedServesMoreHosts(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.endSnapshot(1)
	m.acked(1)
	k.set(true, nil)
	m.send(2, 4)
	k.want(append([]string{fmt.Sprintf("fed s1 e1 1: %d  ", stanza.SnapshotEnd)}, fed(m, 2, 4)...)...)
	l.Serve(trust.Served{Hosts: []string{testHost, "more.example.org"}, MUCHosts: []string{"conference.example.org"}, Forwarders: []string{testHost, "more.example.org"}})
	m = l.module("s1", "e1")
	m.say(fmt.Sprintf("<hello%s first='2' next='5' hosts='%s more.example.org' server='Test 1'/>", m.names(), testHost))
	k.want("resumed s1 missed")
	k.commit(2)
	k.set(false, nil)
	k.commit(1)
	m.wantHears("resume s1 e1 4", "snapshot s1")
	send(t, m.session, "<message from='more.example.org' to='"+testName+"'>"+strings.ReplaceAll(m.sent(5), "alice@example.org", "alice@more.example.org")+"</message>")
	k.want(strings.ReplaceAll(fed(m, 5, 5)[0], "alice@example.org", "alice@more.example.org"))
	m.acked(5)
	// The server may have refused the new connection as long as it had not missed the old one.
	if s := l.Status(); len(s.Hosts) != 2 || s.Hosts[1].Host != "more.example.org" {
		t.Errorf("status %+v", s)
	}
	l.end()
}

// TestFeedSnapshotIsAskedForAgain as long as it has not come to its end.
func TestFeedSnapshotIsAskedForAgain(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.say(strings.Replace(m.event(1, "snapshot-start", ""), "/>", " id='"+m.id+"'/>", 1))
	m.acked(1)
	first := m.id
	m.session.Drop()
	m = l.module("s1", "e1")
	m.hello(2, 2, "")
	m.wantHears("resume s1 e1 1", "snapshot s1")
	if m.id == first {
		t.Error("two snapshots have one id")
	}
	m.lost(2, 3)
	m.awaits("ack s1 e1 3", "snapshot s1")
	m.endSnapshot(4)
	m.acked(4)
	m.hello(5, 5, "") // the module was reloaded
	m.wantHears("resume s1 e1 4")
	m.send(5, 5)
	m.acked(5)
	if got := l.counter("eventpusher_feed_snapshots_total"); got != 3 {
		t.Errorf("asked %v times, want 3", got)
	}
	l.end()
}

func TestFeedTwoSources(t *testing.T) {
	k := newKeeper(t)
	k.at["s2"] = place("s2", "x", 7)
	l, m := begun(t, k)
	other := &feedModule{t: t, session: m.session, source: "s2", epoch: "x"}
	other.hello(5, 20, "")
	m.wantHears("resume s2 x 7", "snapshot s2")
	k.want("resumed s2 missed")
	k.set(true, nil)
	for n := range 3 {
		m.send(1+n, 1+n)
		other.send(8+n, 8+n)
	}
	k.want(fed(m, 1, 1)[0], fed(other, 8, 8)[0], fed(m, 2, 2)[0], fed(other, 9, 9)[0], fed(m, 3, 3)[0], fed(other, 10, 10)[0])
	k.commit(4)
	m.awaits("ack s1 e1 2", "ack s2 x 9")
	var got []eventfeed.Status
	for _, s := range l.Status().Sources {
		if s.Connected == nil {
			t.Errorf("%s is not connected", s.Name)
		}
		s.Connected = nil
		got = append(got, s)
	}
	if diff := cmp.Diff([]eventfeed.Status{
		{Name: "s1", Host: testHost, Server: "Test 1", Epoch: "e1", Received: 3, Committed: 2},
		{Name: "s2", Host: testHost, Server: "Test 1", Epoch: "x", Received: 10, Committed: 9},
	}, got); diff != "" {
		t.Error(diff)
	}
	m.session.Drop()
	accept(t, l.server)
	if s := l.Status().Sources; s[0].Connected != nil {
		t.Error("connected, although it has not said so on this connection")
	}
	k.commit(2)
	l.end()
}

// TestFeedRecordsWhatCannotBeRead and acknowledges it, whatever is wrong with it.
func TestFeedRecordsWhatCannotBeRead(t *testing.T) {
	k := newKeeper(t)
	l := newFedLink(t, k, func(c *config.Component) { c.MaxStanzaSize, c.MaxDepth = 8<<10, 10 })
	m := l.module("s1", "e1")
	m.hello(1, 1, "")
	k.want("resumed s1 missed")
	const open = "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='alice@example.org/r1'>"
	const closed = "</message></forwarded>"
	var want []string
	for i, c := range []struct{ inner, reason string }{
		{open + "<body>" + strings.Repeat("x", 10<<10) + "</body>" + closed, "too large: [component] max_stanza_size is the bound"},
		{open + "<body>" + strings.Repeat("x", 200<<10) + "</body>" + closed, "too large: [component] max_stanza_size is the bound"},
		{open + strings.Repeat("<x>", 20) + strings.Repeat("</x>", 20) + closed, "too deep: [component] max_depth is the bound"},
		{open + "<!-- -->" + closed, "restricted XML at byte N of N"},
		{open + "<body>&nbsp;</body>" + closed, "invalid reference at byte N of N"},
		{open + "<body>\x01</body>" + closed, "illegal character at byte N of N"},
		{open + "<body>\xC5</body>" + closed, "invalid UTF-8 at byte N of N"},
		{open + "<p:x/>" + closed, "namespace violation at byte N of N"},
		{open + "<x a='' a=''/>" + closed, "duplicate attribute at byte N of N"},
		{"", "an event without what its kind needs"},
		{"<forwarded xmlns='urn:xmpp:forward:0'/>", "an event without what its kind needs"},
		{"<forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client'/></forwarded>", "an event without what its kind needs"},
		{"<forwarded xmlns='urn:xmpp:forward:0'><presence xmlns='jabber:client'/></forwarded>", "an event without what its kind needs"},
		{open + closed + open + closed, "an event without what its kind needs"},
	} {
		m.say(m.event(i+1, "message-sent", "alice@example.org/r1") + c.inner)
		want = append(want, fmt.Sprintf("undecodable s1 e1 %d alice@example.org/r1: %s", i+1, c.reason))
	}
	n := len(want) + 1
	m.say(m.event(n, "message-sent", "") + open + closed) // about nobody
	want = append(want, fmt.Sprintf("undecodable s1 e1 %d : an event without what its kind needs", n))
	m.send(n+1, n+1)
	k.want(append(want, fed(m, n+1, n+1)...)...)
	m.awaits("resume s1", "snapshot s1", fmt.Sprint("ack s1 e1 ", n+1))
	if got := l.feedEvents("undecodable"); got != float64(n) {
		t.Errorf("%v are counted, want %d", got, n)
	}
	l.end()
}

// TestFeedOfMissedMessages: a room's host speaks for its own rooms, and says who has
// missed something.
func TestFeedOfMissedMessages(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	const host = "conference.example.org"
	missed := func(seq int, members, inner string) {
		t.Helper()
		event := fmt.Sprintf("<event%s seq='%d' kind='room-missed' room='tea@%s' nick='Ally' members='%s' t='1732253277.123'/>", m.names(), seq, host, members)
		send(t, m.session, "<message from='"+host+"' to='"+testName+"'>"+event+inner+"</message>")
	}
	from := func(room string) string {
		return "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='" + room + "/Ally' to='" + room + "' type='groupchat'><body>Tea?</body></message></forwarded>"
	}
	missed(1, "bob@example.org", from("tea@"+host))
	missed(2, "bob@example.org", from("tea@elsewhere.example"))
	missed(3, "bob@example.org", from("alice@example.org"))
	missed(4, "", from("tea@"+host))
	missed(5, "example.org", from("tea@"+host))
	missed(6, strings.Repeat("bob@example.org ", 1001), from("tea@"+host))
	missed(7, "bob@example.org", "")
	missed(8, "bob@example.org", "<forwarded xmlns='urn:xmpp:forward:0'><presence xmlns='jabber:client' from='tea@"+host+"/Ally'/></forwarded>")
	want := []string{
		fmt.Sprintf("fed s1 e1 1: %d tea@%s/Ally Tea?", stanza.RoomMissed, host),
		"position s1 e1 2", "position s1 e1 3",
	}
	for seq := 4; seq <= 8; seq++ {
		want = append(want, fmt.Sprintf("undecodable s1 e1 %d : an event without what its kind needs", seq))
	}
	k.want(want...)
	m.acked(8)
	l.end()
}

// TestFeedPlaces takes events that make nothing happen, for the sake of their numbers.
func TestFeedPlaces(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.say(m.event(1, "message-edited", "alice@example.org/r1"))
	m.say(m.event(2, "session-start", "alice@elsewhere.example/r1"))
	m.say(m.event(3, "online", "alice@example.org/r1") + "<forwarded xmlns='urn:xmpp:forward:0'><presence xmlns='jabber:client' from='eve@elsewhere.example/r1'/></forwarded>")
	m.acked(3)
	k.want("position s1 e1 1", "position s1 e1 2", "position s1 e1 3")
	// The copy of what a user tries to make us believe.
	m.say(m.event(4, "message-sent", "mallory@example.org/x") + "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='mallory@example.org/x' to='" + testName + "'>" +
		m.event(4, "offline", "alice@example.org/r1") + "<forwarded xmlns='urn:xmpp:forward:0'/></message></forwarded>")
	m.acked(4)
	k.want("position s1 e1 4")
	m.say(m.event(5, "session-start", "alice@example.org/r1"))
	m.say(m.event(6, "online", "alice@example.org/r1") + "<forwarded xmlns='urn:xmpp:forward:0'><presence xmlns='jabber:client'/></forwarded>")
	m.say(m.event(7, "snapshot", "alice@example.org/r1"))
	var want []string
	for i, fact := range []stanza.ReportKind{stanza.SessionStart, stanza.SessionOnline, stanza.SnapshotSession} {
		want = append(want, fmt.Sprintf("fed s1 e1 %d: %d alice@example.org/r1 ", 5+i, fact))
	}
	k.want(want...)
	m.acked(7)
	if got := l.feedEvents("ignored"); got != 4 {
		t.Errorf("%v are counted, want 4", got)
	}
	l.end()
}

// TestFeedOfHostsThatAreNotServed keeps a server from being stuck on them.
func TestFeedOfHostsThatAreNotServed(t *testing.T) {
	k := newKeeper(t)
	l := newFedLink(t, k, nil)
	m := l.module("s1", "e1")
	elsewhere := func(element string) {
		send(t, m.session, "<message from='second.example' to='"+testName+"'>"+element+"</message>")
	}
	elsewhere(fmt.Sprintf("<hello%s first='1' next='1' hosts='second.example'/>", m.names()))
	elsewhere(m.sent(1))
	m.say(fmt.Sprintf("<hello%s first='1' next='1' hosts='%s second.example'/>", m.names(), testHost))
	m.wantHears("resume s1", "snapshot s1")
	m.send(1, 1)
	elsewhere(m.sent(2))
	elsewhere(strings.Replace(m.sent(3), "<body>", "<!-- damaged --><body>", 1))
	m.send(4, 4)
	k.want("resumed s1 missed", fed(m, 1, 1)[0], "position s1 e1 2", "position s1 e1 3", fed(m, 4, 4)[0])
	m.acked(4)
	if got := l.counter("eventpusher_stanzas_total", "direct", "untrusted_feed"); got != 2 {
		t.Errorf("%v are counted as forged before the host was announced, want 2", got)
	}
	l.end()
}

// TestFeedIsTheAuthority as soon as a source has spoken for the host.
func TestFeedIsTheAuthority(t *testing.T) {
	for _, tc := range []struct {
		name  string
		feeds []string
		want  []string
	}{
		{"best heard", nil, []string{"fact service_log one", "resumed s1 missed", "fact service_log two", "fed s1 e1 1: 1 alice@example.org/r1 m1"}},
		{"listed", []string{"event-feed", "direct"}, []string{"resumed s1 missed", "fed s1 e1 1: 1 alice@example.org/r1 m1"}},
		{"not listed", []string{"service_log"}, []string{"fact service_log one", "resumed s1 missed", "fact service_log two", "position s1 e1 1", "fact service_log three"}},
		{"for another class", []string{"service_log", "event-feed:offline"}, []string{"fact service_log one", "resumed s1 missed", "fact service_log two", "position s1 e1 1", "fact service_log three"}},
		{"for this class", []string{"service_log", "event-feed:message"}, []string{"resumed s1 missed", "fed s1 e1 1: 1 alice@example.org/r1 m1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newKeeper(t)
			l := newFedLink(t, k, func(c *config.Component) { c.Feeds = tc.feeds })
			m := l.module("s1", "e1")
			send(t, m.session, logged("one"))
			m.hello(1, 1, "")
			send(t, m.session, logged("two"))
			m.wantHears("resume s1", "snapshot s1")
			m.send(1, 1)
			send(t, m.session, logged("three"))
			m.acked(1)
			l.end()
			k.want(tc.want...)
		})
	}
}

// TestFeedAccountRemoved: the end of an account counts whatever feed has the other facts,
// if it is of one account of the host that tells it.
func TestFeedAccountRemoved(t *testing.T) {
	for name, feeds := range map[string][]string{"best heard": nil, "other feeds": {"service_log", "direct:presence", "direct:offline"}} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper(t)
			l := newFedLink(t, k, func(c *config.Component) { c.Feeds = feeds })
			m := l.module("s1", "e1")
			m.hello(1, 1, "")
			m.wantHears("resume s1", "snapshot s1")
			for i, user := range []string{"alice@example.org", "alice@example.org/r1", "alice@elsewhere.example", "example.org", "Alice@Example.org"} {
				m.say(m.event(i+1, "account-removed", user))
			}
			m.acked(5)
			const needs = "an event without what its kind needs"
			k.want("resumed s1 missed",
				fmt.Sprintf("fed s1 e1 1: %d alice@example.org ", stanza.AccountRemoved),
				"undecodable s1 e1 2 alice@example.org/r1: "+needs,
				"position s1 e1 3",
				"undecodable s1 e1 4 example.org: "+needs,
				fmt.Sprintf("fed s1 e1 5: %d alice@example.org ", stanza.AccountRemoved))
			l.end()
		})
	}
}

// TestFeedForged sends what a user, a room or another server could send.
func TestFeedForged(t *testing.T) {
	k := newKeeper(t)
	l, m := begun(t, k)
	m.send(1, 2)
	k.want(fed(m, 1, 2)...)
	m.acked(2)
	forged := 0
	for _, from := range []string{"mallory@example.org/x", "mallory@example.org", "example.org/x", "evil.example", "x.example.org", "tea@conference.example.org", "tea@conference.example.org/mallory", ""} {
		for _, element := range []string{
			m.sent(3), m.event(3, "offline", "alice@example.org/r1"), fmt.Sprintf("<lost%s from='3' to='90'/>", m.names()),
			fmt.Sprintf("<hello%s first='1' next='1' hosts='%s evil.example'/>", m.names(), testHost),
			strings.Replace(m.sent(3), "e1", "e2", 1), "<event" + " xmlns='" + eventfeed.NS + "'/>",
			"<ack" + m.names() + " seq='2'/>", "<resume" + m.names() + "/>",
			m.sent(3) + "<body>look</body>", m.sent(3) + "<privilege xmlns='urn:xmpp:privilege:2'/>",
			m.event(3, "message-sent", "alice@example.org/r1") + "<!-- damaged -->",
		} {
			attribute := " from='" + from + "'"
			if from == "" {
				attribute = ""
			}
			send(t, m.session, "<message"+attribute+" to='"+testName+"'>"+element+"</message>")
			forged++
		}
	}
	// From the host, but not to us, or sent back, or no message at all.
	for _, outer := range []string{
		"<message from='example.org' to='x@" + testName + "'>%s</message>",
		"<message from='example.org' to='" + testName + "/x'>%s</message>",
	} {
		send(t, m.session, fmt.Sprintf(outer, m.sent(3)))
		forged++
	}
	send(t, m.session, "<message from='example.org' to='"+testName+"' type='error'>"+m.sent(3)+"</message>")
	send(t, m.session, "<message from='example.org' to='elsewhere.example.org'>"+m.sent(3)+"</message>")
	send(t, m.session, "<presence from='example.org' to='"+testName+"'>"+m.sent(3)+"</presence>")
	send(t, m.session, "<presence from='mallory@example.org/x' to='"+testName+"'>"+m.sent(3)+"</presence>")
	send(t, m.session, "<message from='example.org' to='"+testName+"'><body/>"+m.event(3, "offline", "alice@example.org/r1")+"</message>")
	m.say("<goodbye" + m.names() + "/>")
	m.send(3, 3)
	k.want(fed(m, 3, 3)...)
	m.acked(3)
	if got := l.counter("eventpusher_stanzas_total", "direct", "untrusted_feed"); got != float64(forged)+1 {
		t.Errorf("%v are counted as forged, want %d", got, forged+1)
	}
	if got := l.counter("eventpusher_stanzas_total", "event-feed", "error"); got != 1 {
		t.Errorf("%v came back, want 1", got)
	}
	if got := l.feedEvents("malformed"); got != 1 {
		t.Errorf("%v are malformed, want 1", got)
	}
	if s := l.Status().Sources; len(s) != 1 || s[0].Epoch != "e1" || s[0].Received != 3 {
		t.Errorf("%+v", s)
	}
	l.end()
}

// TestUndecodableStanzasAreRecorded lets a flood come of what no feed has numbered.
func TestUndecodableStanzasAreRecorded(t *testing.T) {
	k := newKeeper(t)
	l := newFedLink(t, k, func(c *config.Component) { c.MaxDepth = 5 })
	session := accept(t, l.server)
	deep := "<message from='mallory@example.org/x' to='" + testName + "'>" + strings.Repeat("<x>", 9) + strings.Repeat("</x>", 9) + "</message>"
	const burst, flood = 30, 60 // as eventfeed bounds it
	send(t, session, strings.Repeat(deep, flood)+"<iq from='example.org' type='get'>"+strings.Repeat("<x>", 9)+strings.Repeat("</x>", 9)+"</iq>"+logged("alive"))
	var want []string
	for range burst {
		want = append(want, fmt.Sprintf("undecodable message mallory@example.org/x>%s: too deep: [component] max_depth is the bound, %d bytes", testName, len(deep)))
	}
	k.want(append(want, "fact service_log alive")...)
	if got := l.counter("eventpusher_bad_stanzas_total", "too deep"); got != flood+1 {
		t.Errorf("%v are counted, want %d", got, flood+1)
	}
	l.end()
}

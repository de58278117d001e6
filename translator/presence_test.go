package translator

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

func TestUndirectedPresence(t *testing.T) {
	const us = "events.localhost"
	on := func(d trust.Feed, to string) draft { return presence(d, alice, to, "") }
	for _, tc := range []struct {
		name   string
		draft  draft
		reason Reason // of nothing
		want   string
	}{
		{"firewall", on(trust.Firewall, ""), 0, `online alice@localhost/r1 user=alice@localhost count=1`},
		{"firewall, to the own bare JID", on(trust.Firewall, "alice@localhost"), 0, `online alice@localhost/r1 user=alice@localhost count=1`},
		{"firewall, to another own resource", on(trust.Firewall, "alice@localhost/r2"), 0, `online alice@localhost/r1 user=alice@localhost count=1`},
		{"firewall, directed", on(trust.Firewall, "bob@localhost"), SkippedDirected, ""},
		{"firewall, to a room", on(trust.Firewall, room+"/al"), SkippedDirected, ""},
		{"firewall, receive copy", on(trust.Firewall, "").copied(trust.ReceivedCopy), SkippedDirected, ""},
		{"firewall of another host", on(trust.Firewall, "").host("other.example"), SkippedDirected, ""},

		{"service_log", on(trust.ServiceLog, "alice@localhost"), 0, `online alice@localhost/r1 user=alice@localhost count=1 unverified`},
		{"service_log, without to", on(trust.ServiceLog, ""), 0, `online alice@localhost/r1 user=alice@localhost count=1 unverified`},
		{"service_log, self copy", on(trust.ServiceLog, alice), SkippedDirected, ""},
		{"service_log, copy to another own resource", on(trust.ServiceLog, "alice@localhost/r2"), SkippedDirected, ""},
		{"service_log, a contact's copy", on(trust.ServiceLog, bob), SkippedDirected, ""},
		{"service_log, directed", on(trust.ServiceLog, "bob@localhost"), SkippedDirected, ""},
		{"service_log, a join", on(trust.ServiceLog, room+"/al").flags(stanza.HasMUC), SkippedDirected, ""},
		{"service_log of another host", on(trust.ServiceLog, "alice@localhost").host("other.example"), SkippedDirected, ""},

		{"privilege", on(trust.Privilege, us), 0, `online alice@localhost/r1 user=alice@localhost count=1 unverified`},
		{"privilege, snapshot", on(trust.Privilege, us).delay("localhost"), 0, `online alice@localhost/r1 user=alice@localhost count=1 unverified reconciled`},
		{"privilege, to a node", on(trust.Privilege, "x@"+us), SkippedDirected, ""},

		{"direct", on(trust.Direct, us), 0, `online alice@localhost/r1 user=alice@localhost count=1`},
		{"direct, to a node", on(trust.Direct, "watch@"+us+"/x"), 0, `online alice@localhost/r1 user=alice@localhost count=1`},
		{"direct, answer to a probe", on(trust.Direct, us).delay(alice), 0, `online alice@localhost/r1 user=alice@localhost count=1 reconciled`},
		{"direct, delayed by somebody else", on(trust.Direct, us).delay("gateway.example"), 0, `online alice@localhost/r1 user=alice@localhost count=1`},
		{"direct, to somebody else", on(trust.Direct, "bob@localhost"), SkippedDirected, ""},

		{"a dialect that reports statuses otherwise", on(trust.EventFeed, ""), SkippedUnknownFact, ""},
		{"direct, a join", on(trust.Direct, "x@"+us+"/al").flags(stanza.HasMUC), SkippedDirected, ""},
		{"direct, a room's word", on(trust.Direct, us).flags(stanza.HasMUCUser), SkippedDirected, ""},
		{"firewall, a join", on(trust.Firewall, room+"/al").flags(stanza.HasMUC), SkippedDirected, ""},
		{"bare from", presence(trust.Firewall, "alice@localhost", "", ""), SkippedForeign, ""},
		{"empty resource", presence(trust.Firewall, "alice@localhost/", "", ""), SkippedForeign, ""},
		{"remote user", presence(trust.Firewall, "x@remote.example/q", "", ""), SkippedForeign, ""},
		{"occupant", presence(trust.Firewall, room+"/al", "", ""), SkippedForeign, ""},
		{"server", presence(trust.Firewall, "localhost/x", "", ""), SkippedForeign, ""},
		{"no localpart", presence(trust.Firewall, "@localhost/x", "", ""), SkippedForeign, ""},
		{"subscribe", presence(trust.Firewall, alice, "", "subscribe"), SkippedType, ""},
		{"subscribed", presence(trust.Firewall, alice, "", "subscribed"), SkippedType, ""},
		{"unsubscribe", presence(trust.Firewall, alice, "", "unsubscribe"), SkippedType, ""},
		{"unsubscribed", presence(trust.Firewall, alice, "", "unsubscribed"), SkippedType, ""},
		{"probe", presence(trust.Direct, alice, us, "probe"), SkippedType, ""},
		{"error", presence(trust.Firewall, alice, "", "error"), SkippedType, ""},
		{"unknown type", presence(trust.Firewall, alice, "", "available"), SkippedType, ""},
		{"no stanza at all", draft{}, SkippedType, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTranslator()
			got := play(tr, tc.draft)
			if tc.want != "" {
				want(t, got, tc.want)
				return
			}
			want(t, got)
			if tr.Stats().Skipped[tc.reason] != 1 {
				t.Errorf("not counted as %v: %+v", tc.reason, tr.Stats())
			}
		})
	}
}

func TestStatusOfSessions(t *testing.T) {
	r1 := func(kind string) draft { return presence(trust.Firewall, alice, "", kind) }
	r2 := func(kind string) draft { return presence(trust.Firewall, "alice@localhost/r2", "", kind) }
	const gone = "unavailable"
	for _, tc := range []struct {
		name   string
		drafts []draft
		want   []string
	}{
		{"updates make nothing", []draft{r1(""), r1(""), r1("")}, []string{
			`online alice@localhost/r1 user=alice@localhost count=1`,
		}},
		{"per resource", []draft{r1(""), r2(""), r1(gone), r2(gone)}, []string{
			`online alice@localhost/r1 user=alice@localhost count=1`,
			`online alice@localhost/r2 user=alice@localhost count=2`,
			`offline alice@localhost/r1 user=alice@localhost count=1`,
			`offline alice@localhost/r2 user=alice@localhost count=0`,
		}},
		{"again and again", []draft{r1(""), r1(gone), r1(""), r1(gone)}, []string{
			`online alice@localhost/r1 user=alice@localhost count=1`,
			`offline alice@localhost/r1 user=alice@localhost count=0`,
			`online alice@localhost/r1 user=alice@localhost count=1`,
			`offline alice@localhost/r1 user=alice@localhost count=0`,
		}},
		{"unavailable once", []draft{r1(""), r1(gone), r1(gone), r1(gone)}, []string{
			`online alice@localhost/r1 user=alice@localhost count=1`,
			`offline alice@localhost/r1 user=alice@localhost count=0`,
		}},
		{"unavailable of a session from before the start", []draft{r2(""), r1(gone), r1(gone)}, []string{
			`online alice@localhost/r2 user=alice@localhost count=1`,
			`offline alice@localhost/r1 user=alice@localhost count=1`,
		}},
		{"the case of a resource counts", []draft{r1(""), presence(trust.Firewall, "alice@localhost/R1", "", "")}, []string{
			`online alice@localhost/r1 user=alice@localhost count=1`,
			`online alice@localhost/R1 user=alice@localhost count=2`,
		}},
		{"a message sees the count of its user", []draft{r1(""), r2(""), message(trust.Firewall, trust.SentCopy, alice, bob, "chat")}, []string{
			`online alice@localhost/r1 user=alice@localhost count=1`,
			`online alice@localhost/r2 user=alice@localhost count=2`,
			`in chat alice@localhost/r1 -> bob@localhost/r1 user=alice@localhost content "hi" count=2 id=m1`,
			`out chat alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1`,
		}},
		{"where only subscribers are known, none is in doubt", []draft{
			presence(trust.Direct, alice, "events.localhost", ""), message(trust.Firewall, trust.SentCopy, alice, bob, "chat"),
		}, []string{
			`online alice@localhost/r1 user=alice@localhost count=1`,
			`in chat alice@localhost/r1 -> bob@localhost/r1 user=alice@localhost content "hi" count=1 id=m1`,
			`out chat alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"hosts differ in what they tell", []draft{
			r1(""), message(trust.Firewall, trust.SentCopy, alice, "eve@other.example", "chat"),
		}, []string{
			`online alice@localhost/r1 user=alice@localhost count=1`,
			`in chat alice@localhost/r1 -> eve@other.example user=alice@localhost content "hi" count=1 id=m1`,
			`out chat alice@localhost/r1 -> eve@other.example user=eve@other.example content "hi" count=0 id=m1 unverified`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { want(t, play(newTranslator(), tc.drafts...), tc.want...) })
	}
}

// What a user adds to a presence for everybody changes nothing: nobody can stay
// online by a child element.
func TestChildrenOfRoomsDoNotHideStatuses(t *testing.T) {
	for _, tc := range []struct {
		dialect trust.Feed
		to      string
		suffix  string
	}{
		{trust.Firewall, "", ""},
		{trust.ServiceLog, "alice@localhost", " unverified"},
		{trust.Privilege, "events.localhost", " unverified"},
	} {
		for name, flag := range map[string]stanza.Flags{"muc": stanza.HasMUC, "muc#user": stanza.HasMUCUser} {
			t.Run(tc.dialect.String()+", "+name, func(t *testing.T) {
				got := play(newTranslator(), presence(tc.dialect, alice, tc.to, "").flags(flag), presence(tc.dialect, alice, tc.to, "unavailable").flags(flag))
				want(t, got,
					`online alice@localhost/r1 user=alice@localhost count=1`+tc.suffix,
					`offline alice@localhost/r1 user=alice@localhost count=0`+tc.suffix)
			})
		}
	}
}

func TestStatusEvent(t *testing.T) {
	s := presence(trust.Firewall, alice, "", "").id("p1").fact()
	e := newTranslator().Translate(s, nil)[0]
	if e.Kind != event.UserStatus || !e.Online || e.To != "" || e.Direction != event.NoDirection || e.HasBody ||
		e.Packet != s.Raw || e.Host != "localhost" || e.Dialect != "firewall" || e.StanzaID != "p1" || !e.Time.Equal(start) {
		t.Errorf("%+v", e)
	}
}

func TestGhostsGiveWay(t *testing.T) {
	tr := New(Options{Hosts: []string{"localhost"}, MaxResources: 3})
	r := func(i int, kind string) draft {
		return presence(trust.ServiceLog, fmt.Sprintf("alice@localhost/r%d", i), "alice@localhost", kind)
	}
	for i := range 5 {
		play(tr, r(i, ""))
	}
	s := tr.Stats()
	if s.Ghosts != 2 || s.Resources != 3 || s.Users != 1 {
		t.Errorf("%d ghosts, %d resources, %d users; want 2, 3, 1", s.Ghosts, s.Resources, s.Users)
	}
	// The oldest have gone, and a word from one of them is heard.
	want(t, play(tr, r(4, ""), r(0, "")), `online alice@localhost/r0 user=alice@localhost count=3 unverified`)
	want(t, play(tr, r(2, "unavailable")), `offline alice@localhost/r2 user=alice@localhost count=3 unverified`)
	if got := tr.Stats(); got.Resources != 3 || got.Ghosts != 3 {
		t.Errorf("%d resources, %d ghosts, want 3 and 3", got.Resources, got.Ghosts)
	}
	for _, i := range []int{0, 3, 4} {
		play(tr, r(i, "unavailable"))
	}
	if got := tr.Stats(); got.Users != 0 || got.Resources != 0 {
		t.Errorf("%d users, %d resources left", got.Users, got.Resources)
	}
}

// What was told of an earlier session does not silence a later one that gave way.
func TestGhostOfAnEndedSession(t *testing.T) {
	tr := New(Options{Hosts: []string{"localhost"}, MaxResources: 1})
	r1 := func(kind string) draft { return presence(trust.ServiceLog, alice, "alice@localhost", kind) }
	play(tr, r1(""), r1("unavailable"), r1(""), presence(trust.ServiceLog, "alice@localhost/r2", "alice@localhost", ""))
	want(t, play(tr, r1("unavailable")), `offline alice@localhost/r1 user=alice@localhost count=1 unverified`)
}

func TestDefaultLimitOfResources(t *testing.T) {
	tr := newTranslator()
	for i := range DefaultMaxResources + 5 {
		play(tr, presence(trust.ServiceLog, fmt.Sprintf("alice@localhost/r%d", i), "alice@localhost", ""))
	}
	if got := tr.Stats().Resources; got != DefaultMaxResources {
		t.Errorf("%d resources, want %d", got, DefaultMaxResources)
	}
}

// TestManySessions: where a feed tells of every end there is no bound that a user with many
// sessions meets, so that no status change is taken for a login.
func TestManySessions(t *testing.T) {
	const n = 5 * DefaultMaxResources
	for _, tc := range []struct {
		name  string
		feed  trust.Feed
		to    string
		begin func(*Translator)
	}{
		{"firewall", trust.Firewall, "", nil},
		{"subscriptions", trust.Direct, "events.localhost", nil},
		{"privilege, after an empty snapshot", trust.Privilege, "events.localhost", func(tr *Translator) {
			play(tr, presence(trust.Privilege, bob, "events.localhost", ""))
			tr.Settled("localhost", nil, nil)
		}},
		{"privilege, in a snapshot", trust.Privilege, "events.localhost", func(tr *Translator) {
			play(tr, presence(trust.Privilege, bob, "events.localhost", "").delay("localhost"))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTranslator()
			if tc.begin != nil {
				tc.begin(tr)
			}
			before := tr.Stats().Resources
			say := func(i int, kind string) []event.Event {
				return tr.Translate(presence(tc.feed, fmt.Sprintf("alice@localhost/r%d", i), tc.to, kind).fact(), nil)
			}
			for i := range n {
				if got := say(i, ""); len(got) != 1 || !got[0].Online || got[0].SessionCount != i+1 {
					t.Fatalf("session %d comes online: %v", i, showAll(got))
				}
			}
			for i := range n {
				if got := say(i, ""); len(got) != 0 {
					t.Fatalf("session %d changes its status: %v", i, showAll(got))
				}
			}
			for i := range n {
				if got := say(i, "unavailable"); len(got) != 1 || got[0].Online || got[0].SessionCount != n-1-i {
					t.Fatalf("session %d goes: %v", i, showAll(got))
				}
			}
			if s := tr.Stats(); s.Ghosts != 0 || s.Resources != before {
				t.Errorf("%d ghosts, %d resources", s.Ghosts, s.Resources)
			}
		})
	}
}

// TestTooManySessions: beyond a thousand nothing is remembered, told or forgotten for them.
func TestTooManySessions(t *testing.T) {
	tr := newTranslator()
	for range 2 {
		for i := range maxExact + 5 {
			play(tr, presence(trust.Firewall, fmt.Sprintf("alice@localhost/r%d", i), "", ""))
		}
	}
	s := tr.Stats()
	if s.Events != maxExact || s.Resources != maxExact || s.Skipped[SkippedCrowded] != 2*5 || s.Ghosts != 0 {
		t.Errorf("%d events, %d resources, %d crowded out, %d ghosts", s.Events, s.Resources, s.Skipped[SkippedCrowded], s.Ghosts)
	}
	// After a gap those in doubt give way.
	tr.Gap()
	want(t, play(tr, presence(trust.Firewall, "alice@localhost/new", "", "")),
		fmt.Sprintf("online alice@localhost/new user=alice@localhost count=%d unverified", maxExact))
}

// The memory of ended sessions is bounded.
func TestOfflineMemoryIsBounded(t *testing.T) {
	tr := newTranslator()
	for i := range offlineKept + 10 {
		play(tr, presence(trust.Firewall, fmt.Sprintf("alice@localhost/r%d", i), "", "unavailable"))
	}
	if got := tr.sessions.offline.Len(); got != offlineKept {
		t.Errorf("%d kept, want %d", got, offlineKept)
	}
}

// A million available resources must fit into 300 MiB; a tenth of them is
// measured here, with addresses of the length that servers make up.
func TestTableIsCompact(t *testing.T) {
	const resources = 100_000
	tr := newTranslator()
	before := heap()
	stanzas := make([]byte, 0, 1000)
	for i := range resources {
		// Two users in three have one resource, the third has two. Each address lies in
		// a large stanza that the table must not keep.
		n := i
		if i%4 == 3 {
			n = i - 1
		}
		stanzas = fmt.Appendf(stanzas[:0], "user%06d@localhost/gajim.%016d", n, i)
		length := len(stanzas)
		raw := string(stanzas[:cap(stanzas)])
		tr.Translate(&trust.Fact{Stanza: stanza.Stanza{Kind: stanza.Presence, From: jid.JID(raw[:length]), Raw: raw},
			Feed: trust.Firewall, Copy: trust.SentCopy, Host: "localhost", Received: start}, nil)
		// An update must not make it keep the new stanza either.
		raw = string(stanzas[:cap(stanzas)])
		tr.Translate(&trust.Fact{Stanza: stanza.Stanza{Kind: stanza.Presence, From: jid.JID(raw[:length]), Raw: raw},
			Feed: trust.Firewall, Copy: trust.SentCopy, Host: "localhost", Received: start.Add(time.Second)}, nil)
	}
	if got := tr.Stats().Resources; got != resources {
		t.Fatalf("%d resources, want %d", got, resources)
	}
	per := float64(heap()-before) / resources
	t.Logf("%.0f bytes a resource, %.0f MiB for a million", per, per*1e6/(1<<20))
	if limit := 300.0 * (1 << 20) / 1e6; per > limit {
		t.Errorf("%.0f bytes a resource, want at most %.0f", per, limit)
	}
	runtime.KeepAlive(tr)
}

// The same for sessions of the event-feed, half of which are bound and nothing else,
// in the memory that the latest events take beside.
func TestBoundTableIsCompact(t *testing.T) {
	const sessions = 100_000
	tr := newTranslator()
	before := heap()
	var m module
	for i := range sessions {
		full := fmt.Sprintf("user%06d@localhost/gajim.%016d", i, i)
		tr.Translate(m.report("session-start", full, 0), nil)
		if i%2 == 0 {
			tr.Translate(m.report("online", full, 0), nil)
		}
		m.forget()
	}
	if got := tr.Stats(); got.Sessions != sessions || got.Resources != sessions/2 {
		t.Fatalf("%+v", got)
	}
	per := float64(heap()-before) / sessions
	t.Logf("%.0f bytes a session, %.0f MiB for a million", per, per*1e6/(1<<20))
	if limit := 300.0 * (1 << 20) / 1e6; per > limit {
		t.Errorf("%.0f bytes a session, want at most %.0f", per, limit)
	}
	runtime.KeepAlive(tr)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

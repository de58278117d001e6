package translator

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

func TestIDs(t *testing.T) {
	tr := newTranslator()
	sent := message(trust.Firewall, trust.SentCopy, alice, bob, "chat").id("").fact()
	available := presence(trust.Firewall, alice, "", "").fact()
	unavailable := presence(trust.Firewall, alice, "", "unavailable").fact()
	seen := map[string]bool{}
	record := func(events []event.Event) {
		t.Helper()
		if len(events) == 0 {
			t.Fatal("no event")
		}
		for _, e := range events {
			if raw, err := hex.DecodeString(e.ID); err != nil || len(raw) != 16 || strings.ToLower(e.ID) != e.ID {
				t.Errorf("id %q, want 32 lower-case hexadecimal digits", e.ID)
			}
			if seen[e.ID] {
				t.Errorf("id %s twice", e.ID)
			}
			seen[e.ID] = true
		}
	}
	for range 3 { // all equal, at one reading of the clock
		record(tr.Translate(sent, nil))
		record(tr.Translate(available, nil))
		record(tr.Translate(unavailable, nil))
	}
	if len(seen) != 12 {
		t.Errorf("%d ids, want 12", len(seen))
	}
}

// After a restart the running number begins anew; the time tells events apart.
func TestIDsAfterARestart(t *testing.T) {
	ids := func(s *trust.Fact) string { return newTranslator().Translate(s, nil)[0].ID }
	first := message(trust.Firewall, trust.SentCopy, alice, bob, "chat")
	base := ids(first.fact())
	if again := ids(first.fact()); again != base {
		t.Errorf("the same stanza, time and place gave %s and %s", base, again)
	}
	for name, d := range map[string]draft{
		"time":      first.at(time.Nanosecond),
		"recipient": message(trust.Firewall, trust.SentCopy, alice, "bob@localhost", "chat"),
		"content":   first.body("ho"),
	} {
		if got := ids(d.fact()); got == base {
			t.Errorf("another %s, the same id", name)
		}
	}
}

// Whatever comes, a stanza makes at most one event of each direction, about
// addresses that are local in the right way.
func TestAnyStanza(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	addresses := []jid.JID{"", "/", "@", "@/", "a", "a@", "@localhost", "localhost", "localhost/", "localhost/x", "alice@localhost",
		"alice@localhost/r1", "alice@localhost/r2", "alice@localhost/", "bob@localhost/r/1@x", "eve@other.example/q",
		"conference.localhost", room, room + "/al", "x@remote.example", "x@remote.example/q", "events.localhost", "svc@events.localhost/x"}
	types := []string{"", "chat", "groupchat", "headline", "normal", "error", "unavailable", "subscribe", "bogus"}
	pick := func() jid.JID { return addresses[rng.IntN(len(addresses))] }
	tr := newTranslator()
	total := 0
	for i := range 200_000 {
		s := &trust.Fact{
			Stanza: stanza.Stanza{
				Kind: stanza.Kind(rng.IntN(4)),
				From: pick(), To: pick(), Type: types[rng.IntN(len(types))], Flags: stanza.Flags(rng.Uint32()),
				DelayFrom: pick(), StanzaIDBy: [2]jid.JID{pick(), pick()}, HasBody: rng.IntN(2) == 0,
			},
			Feed: trust.Feed(rng.IntN(7)), Copy: trust.Copy(rng.IntN(4)), Host: pick(),
			Received: start.Add(time.Duration(rng.Int64N(int64(time.Hour)))),
		}
		if rng.IntN(2) == 0 {
			s.DelayStamp = start
		}
		s.Raw = fmt.Sprint(i % 1000)
		events := tr.Translate(s, nil)
		total += len(events)
		check(t, s, events)
	}
	if s := tr.Stats(); s.Events != total || s.Stanzas != 200_000 || total == 0 {
		t.Errorf("%d events of %d stanzas counted, %d made", s.Events, s.Stanzas, total)
	}
}

// check holds the events of s against what is true of all events.
func check(t *testing.T, s *trust.Fact, events []event.Event) {
	t.Helper()
	host := func(j jid.JID) bool { return j.Domain() == "localhost" || j.Domain() == "other.example" }
	local := func(j jid.JID) bool { return host(j) || j.Domain() == "conference.localhost" }
	user := func(j jid.JID) bool { return host(j) && j.Local() != "" }
	if len(events) > 2 || len(events) == 2 && (events[0].Direction != event.In || events[1].Direction != event.Out) {
		t.Fatalf("%+v gave %v", s, showAll(events))
	}
	for i := range events {
		e := &events[i]
		ok := len(e.ID) == 32 && e.Packet == s.Raw && e.From == s.From
		switch {
		case s.Kind == stanza.Presence:
			ok = ok && e.Kind == event.UserStatus && user(e.From) && e.From.Resource() != "" && e.User == e.From.Bare() && e.To == ""
		case e.Direction == event.In:
			ok = ok && user(e.From) && e.From.Resource() != "" && e.User == e.From.Bare() && s.Copy != trust.ReceivedCopy
		case user(e.From):
			ok = ok && len(events) == 2 && local(e.To) && e.User == e.To.Bare()
		default:
			ok = ok && e.Direction == event.Out && user(e.To) && e.User == e.To.Bare() && s.Copy != trust.SentCopy
		}
		if !ok || e.Type == "" || e.Type == "error" || e.SessionCount < 0 || e.SessionCount > DefaultMaxResources {
			t.Fatalf("%+v gave %+v", s, e)
		}
	}
}

func FuzzTranslate(f *testing.F) {
	f.Add("alice@localhost/r1", "bob@localhost", "chat", "<message/>", uint8(1), uint8(2), uint32(0))
	f.Add("alice@localhost/r1", "", "", "<presence><priority>-1</priority></presence>", uint8(2), uint8(2), uint32(1))
	f.Fuzz(func(t *testing.T, from, to, kind, raw string, what, how uint8, flags uint32) {
		tr := newTranslator()
		for _, received := range []time.Time{start, start.Add(time.Second), {}} {
			s := &trust.Fact{
				Stanza: stanza.Stanza{
					Kind: stanza.Kind(what % 3), From: jid.Prepare(from), To: jid.Prepare(to), Type: kind, Raw: raw, Flags: stanza.Flags(flags),
					DelayFrom: "localhost", DelayStamp: start,
				},
				Feed: trust.Feed(how % 7), Copy: trust.Copy(how / 7 % 3), Received: received,
			}
			check(t, s, tr.Translate(s, nil))
		}
	})
}

// reported is a chat message in a fact of the event-feed.
func reported(fact stanza.ReportKind, from, to string) draft {
	d := message(trust.EventFeed, trust.UnknownCopy, from, to, "chat")
	d.s.Report = stanza.Report{Kind: fact, Source: "xmpp1", Epoch: "e", Seq: 1, User: d.s.To}
	return d
}

// Translation may cost 2 allocations; the stanza's own is the decoder's.
func TestAllocations(t *testing.T) {
	tr := newTranslator()
	play(tr, presence(trust.ServiceLog, alice, "alice@localhost", ""), presence(trust.ServiceLog, bob, "bob@localhost", ""))
	dst := make([]event.Event, 0, 2)
	next := 0
	for _, tc := range []struct {
		name   string
		draft  draft
		max    float64
		events int
	}{
		{"a marked send", message(trust.Firewall, trust.SentCopy, alice, bob, "chat"), 1, 2},
		{"a report of a send", reported(stanza.MessageSent, alice, bob), 1, 2},
		{"a report of an arrival", reported(stanza.MessageReceived, room+"/al", bob), 1, 1},
		{"an arrival", message(trust.Firewall, trust.ReceivedCopy, room+"/al", bob, "groupchat"), 1, 1},
		{"a receive copy", message(trust.Firewall, trust.ReceivedCopy, alice, bob, "chat"), 0, 0},
		{"an unmarked send", logged(alice, bob, "chat"), 2, 2},
		{"an update of presence", presence(trust.Firewall, alice, "", ""), 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := tc.draft.fact()
			var raws []string
			for range 102 {
				raws = append(raws, fmt.Sprint(next))
				next++
			}
			run := 0
			got := testing.AllocsPerRun(100, func() {
				s.Raw = raws[run]
				run++
				if dst = tr.Translate(s, dst[:0]); len(dst) != tc.events {
					t.Fatalf("%d events, want %d", len(dst), tc.events)
				}
			})
			if got > tc.max {
				t.Errorf("%v allocations, want at most %v", got, tc.max)
			}
		})
	}
}

func TestStatsMayBeReadMeanwhile(t *testing.T) {
	tr := newTranslator()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			_ = tr.Stats()
		}
	}()
	for i := range 100 {
		play(tr, presence(trust.Firewall, fmt.Sprintf("u%d@localhost/r", i), "", ""))
	}
	<-done
	if got := tr.Stats(); got.Users != 100 || got.Resources != 100 {
		t.Errorf("%d users, %d resources, want 100 each", got.Users, got.Resources)
	}
}

func TestReasonsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reasons {
		if name := r.String(); name == "" || name == "unknown" || seen[name] {
			t.Errorf("reason %d is named %q", r, name)
		}
		seen[r.String()] = true
	}
	if Reasons.String() != "unknown" {
		t.Error("a reason beyond the last has a name")
	}
}

// Hosts that are served from now on make events, those that are not served any more make none, and what
// is known of the others stays.
func TestServe(t *testing.T) {
	tr := newTranslator()
	online := func(user string) {
		d := presence(trust.Firewall, user, string(jid.JID(user).Bare()), "")
		tr.Translate(d.host(jid.JID(jid.JID(user).Domain())).fact(), nil)
	}
	says := func(user string) int {
		d := message(trust.Firewall, trust.SentCopy, user, "x@elsewhere.example", "chat")
		d.s.Host = jid.JID(jid.JID(user).Domain())
		return len(tr.Translate(d.fact(), nil))
	}
	online(alice)
	online("carol@other.example/r")
	if s := tr.Stats(); s.Users != 2 {
		t.Fatalf("%+v", s)
	}
	before := tr.hosts.find("localhost")
	tr.Serve([]string{"localhost", "New.Example"}, []string{"conference.localhost"})
	if tr.hosts.find("localhost") != before || tr.hosts.find("localhost").rooms {
		t.Error("what was known of a host that stays is forgotten")
	}
	if s := tr.Stats(); s.Users != 1 || tr.sessions.users[jid.JID(alice).Bare()] == nil {
		t.Errorf("sessions: %+v", s)
	}
	for user, want := range map[string]int{alice: 1, "dave@new.example/r": 1, "carol@other.example/r": 0} {
		if got := says(user); got != want {
			t.Errorf("%s makes %d events, want %d", user, got, want)
		}
	}
	tr.Serve([]string{"conference.localhost"}, nil)
	if h := tr.hosts.find("conference.localhost"); h == nil || h.rooms || len(tr.hosts.known) != 1 {
		t.Errorf("%+v", tr.hosts)
	}
}

// A wildcard stands for hosts, their rooms not among them, and what is remembered of made-up ones is bounded.
func TestWildcards(t *testing.T) {
	tr := New(Options{
		Hosts: []string{"example.org", "*.example.org"}, MUCHosts: []string{"conference.example.org", "conference.*.example.org"}, Component: "events.example.org",
		Now: func() time.Time { return start },
	})
	for domain, want := range map[string]string{
		"example.org": "users", "a.example.org": "users", "conference.example.org": "rooms", "conference.a.example.org": "rooms", "events.example.org": "", "b.a.example.org": "", "example.net": "",
	} {
		got := ""
		if h := tr.hosts.find(domain); h != nil && h.rooms {
			got = "rooms"
		} else if h != nil {
			got = "users"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}
	d := message(trust.Firewall, trust.SentCopy, "u@a.example.org/r", "v@b.example.org", "chat").host("a.example.org")
	if got := tr.Translate(d.fact(), nil); len(got) != 2 || got[1].Direction != event.Out {
		t.Errorf("%q", showAll(got))
	}
	for i := range 2 * maxWild {
		if tr.hosts.find(fmt.Sprint("h", i, ".example.org")) == nil {
			t.Fatal("not served any more")
		}
	}
	if n := len(tr.hosts.known); n > maxWild {
		t.Errorf("%d hosts are remembered", n)
	}
	heard := tr.hosts.find("a.example.org")
	tr.Serve([]string{"example.org", "*.example.org"}, []string{"conference.example.org"})
	if tr.hosts.find("a.example.org") != heard {
		t.Error("what was known of a host that stays is forgotten")
	}
	tr.Serve([]string{"example.org"}, nil)
	if tr.hosts.find("a.example.org") != nil || len(tr.hosts.known) != 1 {
		t.Errorf("%d hosts", len(tr.hosts.known))
	}
}

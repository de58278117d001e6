package translator

import (
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

// gap among drafts stands for a gap in the feed.
var gap = draft{s: trust.Fact{Stanza: stanza.Stanza{Kind: stanza.Message, Type: "gap"}}}

// playGaps is play with gaps.
func playGaps(tr *Translator, drafts ...draft) []string {
	var lines []string
	for _, d := range drafts {
		if d.s.Type == "gap" {
			tr.Gap()
			continue
		}
		lines = append(lines, play(tr, d)...)
	}
	return lines
}

func TestGap(t *testing.T) {
	const us, gone = "events.localhost", "unavailable"
	r1 := func(kind string) draft { return presence(trust.Firewall, alice, "", kind) }
	r2 := func(kind string) draft { return presence(trust.Firewall, "alice@localhost/r2", "", kind) }
	told := func(kind string) draft { return presence(trust.Privilege, alice, us, kind) }
	probed := func(kind string) draft { return presence(trust.Direct, alice, us, kind) }
	chat := message(trust.Firewall, trust.SentCopy, bob, alice, "chat")
	const (
		online  = `online alice@localhost/r1 user=alice@localhost count=1`
		again   = `online alice@localhost/r1 user=alice@localhost count=1 reconciled`
		offline = `offline alice@localhost/r1 user=alice@localhost count=0`
	)
	for _, tc := range []struct {
		name   string
		drafts []draft
		want   []string
	}{
		{"at the very start", []draft{gap, r1(""), r1("")}, []string{online}},
		{"a login", []draft{r1(""), gap, r1("")}, []string{online, again}},
		{"once", []draft{r1(""), gap, r1(""), r1(""), r1("")}, []string{online, again}},
		{"after each gap", []draft{r1(""), gap, r1(""), gap, gap, r1("")}, []string{online, again, again}},
		{"an end", []draft{r1(""), gap, r1(gone), r1(gone)}, []string{online, offline}},
		{"an end, then a login", []draft{r1(""), gap, r1(gone), r1("")}, []string{online, offline, online}},
		{"a login and an end missed", []draft{r1(""), r1(gone), gap, r1(gone), r1(gone)}, []string{online, offline, offline}},
		{"a login missed, in an empty table", []draft{r1(""), r1(gone), gap, r1("")}, []string{online, offline, online}},
		{"another session", []draft{r1(""), gap, r2(""), r1(""), r2("")}, []string{
			online,
			`online alice@localhost/r2 user=alice@localhost count=2 unverified`,
			`online alice@localhost/r1 user=alice@localhost count=2 reconciled`,
		}},
		{"the end of another session", []draft{r1(""), r2(""), gap, r2(gone), r1(gone)}, []string{
			online,
			`online alice@localhost/r2 user=alice@localhost count=2`,
			`offline alice@localhost/r2 user=alice@localhost count=1 unverified`,
			offline,
		}},
		{"a message in between", []draft{r1(""), gap, chat, r1(""), chat}, []string{
			online,
			`in chat bob@localhost/r1 -> alice@localhost/r1 user=bob@localhost content "hi" count=0 id=m1`,
			`out chat bob@localhost/r1 -> alice@localhost/r1 user=alice@localhost content "hi" count=1 id=m1 unverified`,
			again,
			`in chat bob@localhost/r1 -> alice@localhost/r1 user=bob@localhost content "hi" count=0 id=m1`,
			`out chat bob@localhost/r1 -> alice@localhost/r1 user=alice@localhost content "hi" count=1 id=m1`,
		}},
		{"privilege: the snapshot confirms", []draft{told(""), gap, told("").delay("localhost"), told(""), told(gone)}, []string{
			online + " unverified", offline + " unverified",
		}},
		{"privilege: no snapshot", []draft{told(""), gap, told(""), told("").delay("localhost")}, []string{
			online + " unverified", online + " unverified reconciled",
		}},
		{"privilege: a new session in the snapshot", []draft{told(""), told(gone), gap, told("").delay("localhost")}, []string{
			online + " unverified", offline + " unverified", online + " unverified reconciled",
		}},
		{"direct: the answer to a probe confirms", []draft{probed(""), gap, probed("").delay("localhost"), probed("")}, []string{online}},
		{"a delay of somebody else is no snapshot", []draft{told(""), gap, told("").delay("gateway.example")}, []string{
			online + " unverified", online + " unverified reconciled",
		}},
		{"firewall knows no snapshot", []draft{r1(""), gap, r1("").delay("localhost")}, []string{online, again}},
	} {
		t.Run(tc.name, func(t *testing.T) { want(t, playGaps(newTranslator(), tc.drafts...), tc.want...) })
	}
}

// Of a user with too many sessions those in doubt give way first.
func TestStaleSessionsGiveWayFirst(t *testing.T) {
	tr := New(Options{Hosts: []string{"localhost"}, MaxResources: 2, Now: func() time.Time { return start }})
	r := func(i int) draft {
		return presence(trust.ServiceLog, fmt.Sprintf("alice@localhost/r%d", i), "alice@localhost", "")
	}
	playGaps(tr, r(1), r(2), gap, r(1), r(3))
	want(t, play(tr, r(1), r(3)))
	want(t, play(tr, r(2)), `online alice@localhost/r2 user=alice@localhost count=2 unverified`)
}

// A login after a gap may be what stored messages are handed over for.
func TestComingBackAfterAGap(t *testing.T) {
	const bare = "bob@localhost"
	online := presence(trust.ServiceLog, bob, bare, "").at(time.Hour)
	stored := logged(alice, bare, "chat").delay("localhost").at(time.Hour + time.Second)
	for _, tc := range []struct {
		name   string
		drafts []draft
		events int
	}{
		{"an update", []draft{online, stored}, 2},
		{"perhaps a login", []draft{gap, online, stored}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTranslator()
			play(tr, presence(trust.ServiceLog, bob, bare, ""))
			if got := playGaps(tr, tc.drafts...); len(got) != tc.events {
				t.Errorf("%d events, want %d: %q", len(got), tc.events, got)
			}
		})
	}
}

func TestStaleForTooLong(t *testing.T) {
	const day = DefaultMaxStale
	r1 := func(kind string) draft { return presence(trust.Firewall, alice, "", kind) }
	toAlice := message(trust.Firewall, trust.SentCopy, bob, alice, "chat")
	const (
		in  = `in chat bob@localhost/r1 -> alice@localhost/r1 user=bob@localhost content "hi" count=0 id=m1`
		out = `out chat bob@localhost/r1 -> alice@localhost/r1 user=alice@localhost content "hi" count=`
	)
	for _, tc := range []struct {
		name  string
		draft draft
		want  []string
		left  int // in the table
	}{
		{"not yet", toAlice.at(day - 1), []string{in, out + "1 id=m1 unverified"}, 1},
		{"a message", toAlice.at(day), []string{in, out + "0 id=m1"}, 0},
		{"a login", r1("").at(day), []string{`online alice@localhost/r1 user=alice@localhost count=1`}, 1},
		{"a snapshot", presence(trust.Privilege, alice, "events.localhost", "").delay("localhost").at(day),
			[]string{`online alice@localhost/r1 user=alice@localhost count=1 unverified reconciled`}, 1},
		{"an end", r1("unavailable").at(day), []string{`offline alice@localhost/r1 user=alice@localhost count=0`}, 0},
		{"another session", presence(trust.Firewall, "alice@localhost/r2", "", "").at(day),
			[]string{`online alice@localhost/r2 user=alice@localhost count=1`}, 1},
		{"nothing about the user", message(trust.Firewall, trust.SentCopy, bob, room, "groupchat").at(day),
			[]string{`in groupchat bob@localhost/r1 -> ` + room + ` user=bob@localhost room=` + room + ` content "hi" count=0 id=m1`,
				`out groupchat bob@localhost/r1 -> ` + room + ` user=` + room + ` room=` + room + ` content "hi" count=0 id=m1`}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTranslator()
			playGaps(tr, r1(""), gap)
			want(t, play(tr, tc.draft), tc.want...)
			s := tr.Stats()
			ghosts := 1
			if tc.name == "not yet" {
				ghosts = 0
			}
			if s.Resources != tc.left || s.Users != tc.left || s.Ghosts != ghosts {
				t.Errorf("%d resources, %d users, %d ghosts; want %d, %d, %d", s.Resources, s.Users, s.Ghosts, tc.left, tc.left, ghosts)
			}
		})
	}
}

// With one stanza only a few users are looked at, and in the end all of them.
func TestSweepIsBounded(t *testing.T) {
	const users = 10 * sweepStep
	tr := newTranslator()
	for i := range users {
		play(tr, presence(trust.Firewall, fmt.Sprintf("u%d@localhost/r", i), "", ""))
	}
	tr.Gap()
	const confirmed = 3
	for i := range confirmed {
		play(tr, presence(trust.Firewall, fmt.Sprintf("u%d@localhost/r", i*sweepStep), "", ""))
	}
	other := message(trust.Firewall, trust.SentCopy, bob, "eve@remote.example", "chat").at(DefaultMaxStale)
	before := tr.Stats().Resources
	for range users/sweepStep + 1 {
		play(tr, other)
		now := tr.Stats().Resources
		if before-now > sweepStep {
			t.Fatalf("%d sessions dropped with one stanza, want at most %d", before-now, sweepStep)
		}
		before = now
	}
	if s := tr.Stats(); s.Resources != confirmed || s.Ghosts != users-confirmed || len(tr.sessions.sources[lesser].gaps) != 0 {
		t.Errorf("%d resources, %d ghosts, %d gaps remembered; want %d, %d, 0", s.Resources, s.Ghosts, len(tr.sessions.sources[lesser].gaps), confirmed, users-confirmed)
	}
}

// A link that comes and goes all the time without a word about sessions costs nothing.
func TestManyGaps(t *testing.T) {
	tr := newTranslator()
	play(tr, presence(trust.Firewall, alice, "", ""))
	for range 10_000 {
		tr.Gap()
	}
	if n := len(tr.sessions.sources[lesser].gaps); n != 1 {
		t.Errorf("%d gaps remembered, want 1", n)
	}
	playGaps(tr, presence(trust.Firewall, alice, "", "unavailable"), gap)
	if n := len(tr.sessions.sources[lesser].gaps); n != 0 {
		t.Errorf("%d gaps remembered of an empty table, want 0", n)
	}
}

// naive is the presence table as one would write it without regard for cost: when
// each session went stale, the zero time for those that did not.
type naive struct {
	sessions map[jid.JID]*time.Time
	told     map[jid.JID]bool
}

func (n *naive) gap(at time.Time) {
	clear(n.told)
	for _, stale := range n.sessions {
		if stale.IsZero() {
			*stale = at
		}
	}
}

// presence returns what the event says, empty for none.
func (n *naive) presence(from jid.JID, kind string, snapshot bool, at time.Time) string {
	for full, stale := range n.sessions {
		if !stale.IsZero() && at.Sub(*stale) >= DefaultMaxStale {
			delete(n.sessions, full)
		}
	}
	was, there := n.sessions[from]
	stale := there && !was.IsZero()
	reconciled := snapshot
	if kind == "" {
		n.sessions[from] = &time.Time{}
		delete(n.told, from)
		if there && (!stale || snapshot) {
			return ""
		}
		reconciled = reconciled || stale
	} else {
		delete(n.sessions, from)
		if !there && n.told[from] {
			return ""
		}
		n.told[from] = true
	}
	count := 0
	for full := range n.sessions {
		if full.Bare() == from.Bare() {
			count++
		}
	}
	return fmt.Sprintf("online=%t count=%d reconciled=%t", kind == "", count, reconciled)
}

// TestAgainstTheNaiveTable compares long random histories.
func TestAgainstTheNaiveTable(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := start
		tr := New(Options{Hosts: []string{"localhost"}, Component: "events.localhost", Now: func() time.Time { return now }})
		model := naive{map[jid.JID]*time.Time{}, map[jid.JID]bool{}}
		var history []string
		for range 2000 {
			now = now.Add(time.Duration(rng.Int64N(int64(DefaultMaxStale / 20))))
			if rng.IntN(10) == 0 {
				tr.Gap()
				model.gap(now)
				history = append(history, "gap")
				continue
			}
			d := presence(trust.Privilege, fmt.Sprintf("u%d@localhost/r%d", rng.IntN(40), rng.IntN(3)), "events.localhost",
				[]string{"", "unavailable"}[rng.IntN(2)])
			snapshot := d.s.Type == "" && rng.IntN(4) == 0
			if snapshot {
				d = d.delay("localhost")
			}
			got := ""
			for _, e := range tr.Translate(d.at(now.Sub(start)).fact(), nil) {
				got = fmt.Sprintf("online=%t count=%d reconciled=%t", e.Kind == event.UserStatus && e.Online, e.SessionCount, e.Reconciled)
			}
			want := model.presence(d.s.From, d.s.Type, snapshot, now)
			history = append(history, fmt.Sprintf("%s %s %s snapshot=%t", now.Format(time.DateTime), d.s.From, d.s.Type, snapshot))
			if got != want {
				t.Fatalf("seed %d: got %q, want %q; the last steps:\n%s", seed, got, want, strings.Join(history[max(0, len(history)-20):], "\n"))
			}
			table := tr.sessions
			n := 0
			for key, u := range table.users {
				n += len(u.sessions)
				if len(u.sessions) == 0 || table.order[u.place] != key {
					t.Fatalf("seed %d: %s has %d sessions and place %d", seed, key, len(u.sessions), u.place)
				}
			}
			if n != table.resources || len(table.order) != len(table.users) {
				t.Fatalf("seed %d: %d resources counted, %d there; %d places for %d users", seed, table.resources, n, len(table.order), len(table.users))
			}
		}
		if ghosts := tr.Stats().Ghosts; ghosts == 0 {
			t.Errorf("seed %d: nothing aged", seed)
		}
	}
}

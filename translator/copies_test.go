package translator

import (
	"fmt"
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// logged is a stanza as ejabberd's mod_service_log reports it.
func logged(from, to, kind string) draft {
	return message(trust.ServiceLog, trust.UnknownCopy, from, to, kind)
}

// online makes bob's resources available with the priorities given, longer ago
// than a message is kept waiting for.
func online(priorities ...int) []draft {
	var drafts []draft
	for i, p := range priorities {
		d := presence(trust.ServiceLog, fmt.Sprintf("bob@localhost/r%d", i+1), "bob@localhost", "").at(-time.Hour)
		drafts = append(drafts, d.priority(p))
	}
	return drafts
}

func repeat(d draft, n int) []draft {
	var drafts []draft
	for range n {
		drafts = append(drafts, d)
	}
	return drafts
}

// spaced is repeat with a pause between two.
func spaced(d draft, n int, pause time.Duration) []draft {
	drafts := repeat(d, n)
	for i := range drafts {
		drafts[i] = d.at(time.Duration(i) * pause)
	}
	return drafts
}

func TestServiceLogCopies(t *testing.T) {
	chat := func(to string) draft { return logged(alice, to, "chat") }
	fanout := func(kind string) draft {
		return logged("x@remote.example/q", "bob@localhost", kind).copied(trust.ReceivedCopy)
	}
	for _, tc := range []struct {
		name      string
		bob       []int // priorities of his resources r1, r2, ...
		drafts    []draft
		in, out   int
		ambiguous int
	}{
		{"to a full JID: send and receive copy", []int{0}, repeat(chat(bob), 2), 1, 1, 0},
		{"three copies with an id, two receivers", []int{0, 0}, repeat(chat("bob@localhost"), 3), 1, 1, 0},
		{"with an id, receivers that the table does not know", nil, repeat(chat("bob@localhost"), 3), 1, 1, 0},
		{"an id four times to one receiver", []int{0}, spaced(chat(bob), 8, 700*time.Millisecond), 4, 4, 3},
		{"an id four times at once", []int{0}, repeat(chat(bob), 8), 4, 4, 3},
		{"an id four times to two receivers", []int{0, 0}, repeat(chat("bob@localhost"), 12), 4, 4, 3},
		{"more receivers than the table keeps", make([]int, DefaultMaxResources+5), repeat(chat("bob@localhost"), 1+DefaultMaxResources+5), 1, 1, 0},
		{"an id four times to somebody who is away", nil, spaced(chat("bob@localhost"), 4, 700*time.Millisecond), 4, 4, 3},
		{"a remote id four times to two receivers", []int{0, 0}, repeat(fanout("chat"), 8), 0, 4, 0},
		{"a remote id to receivers that the table does not know", nil, repeat(fanout("chat"), 3), 0, 1, 0},
		{"a remote id, repeated to receivers that the table does not know", nil, spaced(fanout("chat"), 3, time.Second), 0, 3, 0},
		{"different ids", []int{0}, append(repeat(chat(bob), 2), repeat(chat(bob).id("m2"), 2)...), 2, 2, 0},
		{"equal id, different body", []int{0}, append(repeat(chat(bob), 2), repeat(chat(bob).body("ho"), 2)...), 2, 2, 0},
		{"equal id, different sender", []int{0}, append(repeat(chat(bob), 2), repeat(logged("eve@localhost/r1", bob, "chat"), 2)...), 2, 2, 0},
		{"equal id after more than a minute", []int{0}, []draft{chat(bob), chat(bob).at(61 * time.Second)}, 2, 2, 0},
		{"a copy that is late by less than a minute", []int{0}, []draft{chat(bob), chat(bob).at(59 * time.Second)}, 1, 1, 0},
		{"the minute counts from the first copy", []int{0}, []draft{chat(bob), chat(bob).at(50 * time.Second), chat(bob).at(100 * time.Second)}, 2, 2, 0},
		{"the clock was put back", []int{0}, []draft{chat(bob), chat(bob).at(-2 * time.Minute)}, 2, 2, 0},

		{"no id, one receiver, twice", []int{0}, repeat(chat(bob).id(""), 4), 2, 2, 2},
		{"no id, offline, twice", nil, repeat(chat("bob@localhost").id(""), 2), 2, 2, 2},
		{"no id, equal priorities get a copy each", []int{0, 0}, repeat(chat("bob@localhost").id(""), 6), 2, 2, 2},
		{"no id, only the highest priority gets it", []int{1, 5, 0}, repeat(chat("bob@localhost").id(""), 4), 2, 2, 2},
		{"no id, two of three have the highest", []int{5, 0, 5}, repeat(chat("bob@localhost").id(""), 6), 2, 2, 2},
		{"no id, normal like chat", []int{5, 0, 5}, repeat(logged(alice, "bob@localhost", "").id(""), 6), 2, 2, 2},
		{"no id, a negative priority gets none", []int{-1}, repeat(chat("bob@localhost").id(""), 2), 2, 2, 2},
		{"no id, full JID of negative priority", []int{-1}, repeat(chat(bob).id(""), 4), 2, 2, 2},
		{"no id, headline to all of priority 0 and above", []int{5, 0, -1}, repeat(logged(alice, "bob@localhost", "headline").id(""), 6), 2, 2, 2},
		{"no id, full JID that is gone counts as bare", []int{0, 0}, repeat(chat("bob@localhost/gone").id(""), 6), 2, 2, 2},
		{"no id, headline to a full JID that is gone", []int{0, 0}, repeat(logged(alice, "bob@localhost/gone", "headline").id(""), 2), 2, 2, 2},
		{"no id, groupchat to a user is not delivered", []int{0}, repeat(logged(alice, "bob@localhost", "groupchat").id(""), 2), 2, 2, 2},
		{"no id, after one of two equals raised its priority", []int{0, 0}, append(
			[]draft{presence(trust.ServiceLog, bob, "bob@localhost", "").priority(5)}, repeat(chat("bob@localhost").id(""), 6)...), 3, 3, 3},
		{"no id, run ends after a minute", []int{0}, []draft{chat(bob).id(""), chat(bob).id("").at(61 * time.Second)}, 2, 2, 2},

		{"to a room there is no receive copy", nil, repeat(logged(alice, room, "groupchat"), 2), 2, 2, 0},
		{"to the server neither", nil, repeat(chat("localhost"), 2), 2, 2, 0},
		{"to a remote user neither", nil, repeat(chat("x@remote.example"), 2), 2, 0, 0},
		{"to another host: its report is the receive copy", nil, []draft{
			chat("eve@other.example"), chat("eve@other.example").host("other.example"),
		}, 1, 1, 0},
		{"to another host: in whatever order", nil, []draft{
			chat("eve@other.example").host("other.example").copied(trust.ReceivedCopy), chat("eve@other.example"),
		}, 1, 1, 0},
		{"a marked copy needs no guess", []int{0}, repeat(chat(bob).copied(trust.SentCopy), 2), 2, 2, 0},

		{"remote to a bare JID with two receivers", []int{0, 0}, repeat(fanout("chat"), 2), 0, 1, 0},
		{"remote headline without id, twice, three receivers", []int{3, 0, 1}, repeat(fanout("headline").id(""), 6), 0, 2, 0},
		{"remote without id, twice, one receiver", []int{0}, repeat(fanout("chat").id(""), 2), 0, 2, 0},
		{"remote to a full JID that is there", []int{0}, repeat(logged("x@remote.example/q", bob, "chat"), 2), 0, 2, 0},
		{"of the server, by its API: sent copy and received copy", []int{0}, repeat(logged("localhost", "bob@localhost", "chat"), 2), 0, 1, 0},
		{"of the server, without id", []int{0}, repeat(logged("localhost", "bob@localhost", "chat").id(""), 2), 0, 1, 0},
		{"of the server to a full JID", []int{0}, repeat(logged("localhost", bob, "chat"), 2), 0, 1, 0},
		{"of the server, two receivers", []int{0, 0}, repeat(logged("localhost", "bob@localhost", "chat"), 3), 0, 1, 0},
		{"of the server, routed without a sent copy", []int{0}, repeat(logged("localhost", "bob@localhost", "headline"), 1), 0, 1, 0},
		{"of the server to a user who is away", nil, repeat(logged("localhost", "bob@localhost", "chat"), 1), 0, 1, 0},
		{"of the server, twice", []int{0}, spaced(logged("localhost", "bob@localhost", "chat"), 2, time.Second), 0, 2, 0},
		{"of a service of the server: no sent copy", []int{0}, repeat(logged("gateway.localhost", "bob@localhost", "chat").id(""), 2), 0, 2, 0},
		{"reflections by a room", []int{0}, repeat(logged(room+"/al", bob, "groupchat").id(""), 2), 0, 2, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTranslator()
			play(tr, online(tc.bob...)...)
			var events []event.Event
			for _, d := range tc.drafts {
				events = tr.Translate(d.fact(), events)
			}
			var in, out int
			for i := range events {
				switch events[i].Direction {
				case event.In:
					in++
				case event.Out:
					out++
				}
			}
			if in != tc.in || out != tc.out {
				t.Errorf("%d in, %d out, want %d and %d", in, out, tc.in, tc.out)
			}
			if got := tr.Stats().AmbiguousSends; got != tc.ambiguous {
				t.Errorf("%d ambiguous sends, want %d", got, tc.ambiguous)
			}
		})
	}
}

func TestSelfMessages(t *testing.T) {
	for _, tc := range []struct{ name, to, id, shown string }{
		{"bare", "alice@localhost", "m1", "alice@localhost"},
		{"bare without id", "alice@localhost", "", "alice@localhost"},
		{"own full JID without id", alice, "", alice},
		{"without to or id", "", "", "alice@localhost"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTranslator()
			play(tr, presence(trust.ServiceLog, alice, "alice@localhost", ""))
			id := ""
			if tc.id != "" {
				id = " id=" + tc.id
			}
			want(t, play(tr, repeat(logged(alice, tc.to, "chat").id(tc.id), 2)...),
				`in chat alice@localhost/r1 -> `+tc.shown+` user=alice@localhost content "hi" count=1`+id+` unverified`,
				`out chat alice@localhost/r1 -> `+tc.shown+` user=alice@localhost content "hi" count=1`+id+` unverified`)
		})
	}
}

func TestRedelivery(t *testing.T) {
	back := presence(trust.ServiceLog, bob, "bob@localhost", "")
	stored := logged(alice, "bob@localhost", "chat").delay("localhost")
	archived := logged(alice, "bob@localhost", "chat").archivedBy("bob@localhost")
	negative := func() draft { return presence(trust.ServiceLog, bob, "bob@localhost", "").priority(-1) }
	for _, tc := range []struct {
		name                         string
		drafts                       []draft
		sends, redelivered, unmasked int
	}{
		{"after coming back", []draft{back, stored}, 0, 1, 0},
		{"several, without ids", []draft{back, stored.id("").body("1"), stored.id("").body("2")}, 0, 2, 0},
		{"known by the archive's id alone", []draft{back, archived}, 0, 1, 0},
		{"after raising a negative priority", []draft{negative().at(-time.Hour), back, stored}, 0, 1, 0},
		{"stored for later: sent, and handed over", []draft{logged(alice, "bob@localhost", "chat"), back.at(time.Hour), stored.at(time.Hour)}, 1, 1, 0},
		{"handed over twice, in sessions apart", []draft{back, stored, stored.at(11 * time.Second)}, 0, 2, 0},
		{"two equal sessions get it", []draft{back, presence(trust.ServiceLog, "bob@localhost/r2", "bob@localhost", ""), stored, stored}, 0, 2, 0},

		{"forged to a user who is not there", []draft{stored}, 1, 0, 0},
		{"forged to a user of negative priority only", []draft{negative(), stored}, 1, 0, 0},
		{"forged to a user there for long", []draft{back.at(-time.Hour), stored, stored}, 1, 0, 0},
		{"forged to a user who came back just now", []draft{back, stored, stored}, 1, 1, 1},
		{"forged twice to a user who came back just now", []draft{back, stored.id(""), stored.id(""), stored.id(""), stored.id("")}, 2, 1, 1},
		{"forged archive id, which the server takes away on the way", []draft{back, archived, logged(alice, "bob@localhost", "chat")}, 1, 1, 0},
		{"delay by the sender's own client", []draft{back, logged(alice, "bob@localhost", "chat").delay(alice)}, 1, 0, 0},
		{"delay by another host", []draft{back, logged(alice, "bob@localhost", "chat").delay("other.example")}, 1, 0, 0},
		{"id of the sender's archive", []draft{back, logged(alice, "bob@localhost", "chat").archivedBy("alice@localhost")}, 1, 0, 0},
		{"user came back after it was sent", []draft{stored, back.at(time.Second)}, 1, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTranslator()
			sends := 0
			for _, d := range tc.drafts {
				for _, e := range tr.Translate(d.fact(), nil) {
					if e.Direction == event.In {
						sends++
					}
				}
			}
			s := tr.Stats()
			if sends != tc.sends || s.Skipped[SkippedRedelivered] != tc.redelivered || s.Unmasked != tc.unmasked {
				t.Errorf("%d sends, %d redelivered, %d unmasked; want %d, %d, %d",
					sends, s.Skipped[SkippedRedelivered], s.Unmasked, tc.sends, tc.redelivered, tc.unmasked)
			}
		})
	}
}

// A redelivery without a readable stamp was not stamped by a server.
func TestDelayWithoutStampIsNoRedelivery(t *testing.T) {
	tr := newTranslator()
	play(tr, presence(trust.ServiceLog, bob, "bob@localhost", ""))
	s := logged(alice, "bob@localhost", "chat").delay("localhost").fact()
	s.DelayStamp = time.Time{}
	if got := len(tr.Translate(s, nil)); got != 2 {
		t.Errorf("%d events, want 2", got)
	}
}

func TestPriority(t *testing.T) {
	for _, tc := range []struct {
		raw  string
		want int8
	}{
		{"<presence/>", 0},
		{"<presence><priority>5</priority></presence>", 5},
		{"<presence><show>away</show><priority> -128 </priority></presence>", -128},
		{"<presence><priority>128</priority></presence>", 0},
		{"<presence><priority>x</priority></presence>", 0},
		{"<presence><priority/></presence>", 0},
		{"<presence><priority>7", 7},
	} {
		if got := priority(&trust.Fact{Feed: trust.ServiceLog, Stanza: stanza.Stanza{Raw: tc.raw}}); got != tc.want {
			t.Errorf("priority of %s is %d, want %d", tc.raw, got, tc.want)
		}
	}
}

// The memory of copies is bounded, and the newest messages stay in it.
func TestCopiesAreBounded(t *testing.T) {
	tr := newTranslator()
	var events []event.Event
	s := logged(alice, "bob@localhost", "chat").fact()
	for i := range copiesKept + 10 {
		s.Raw = fmt.Sprint(i)
		events = tr.Translate(s, events[:0])
	}
	if got := tr.copies.runs.Len(); got != copiesKept {
		t.Errorf("%d kept, want %d", got, copiesKept)
	}
	if got := tr.Translate(s, nil); len(got) != 0 {
		t.Errorf("%d events for a copy of the last message", len(got))
	}
}

// One user's stanza never counts as a copy of another's.
func TestNobodySuppressesAnother(t *testing.T) {
	tr := newTranslator()
	for i := range 100 {
		from := jid.JID(fmt.Sprintf("u%d@localhost/r", i))
		s := logged(string(from), "bob@localhost", "chat").fact()
		if got := len(tr.Translate(s, nil)); got != 2 {
			t.Fatalf("%d events of %s, want 2", got, from)
		}
	}
}

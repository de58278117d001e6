package translator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

const (
	alice = "alice@localhost/r1"
	bob   = "bob@localhost/r1"
	room  = "room@conference.localhost"
)

func TestMessage(t *testing.T) {
	const (
		fw, svc, direct   = trust.Firewall, trust.ServiceLog, trust.Direct
		sent, rcvd, blank = trust.SentCopy, trust.ReceivedCopy, trust.UnknownCopy
	)
	none := []string{}
	for _, tc := range []struct {
		name   string
		draft  draft
		reason Reason // of nothing
		want   []string
	}{
		// Types.
		{"chat", message(fw, sent, alice, bob, "chat"), 0, []string{
			`in chat alice@localhost/r1 -> bob@localhost/r1 user=alice@localhost content "hi" count=0 id=m1 unverified`,
			`out chat alice@localhost/r1 -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"missing type is normal", message(fw, sent, alice, "x@remote.example", ""), 0, []string{
			`in normal alice@localhost/r1 -> x@remote.example user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"normal", message(fw, sent, alice, "x@remote.example", "normal"), 0, []string{
			`in normal alice@localhost/r1 -> x@remote.example user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"headline", message(fw, sent, alice, "x@remote.example", "headline"), 0, []string{
			`in headline alice@localhost/r1 -> x@remote.example user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"error", message(fw, sent, alice, bob, "error"), SkippedType, none},
		{"unknown type", message(fw, sent, alice, bob, "bogus"), SkippedType, none},
		{"type is case-sensitive", message(fw, sent, alice, bob, "Chat"), SkippedType, none},

		// Sent by a local session.
		{"to a bare JID", message(fw, sent, alice, "bob@localhost", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> bob@localhost user=alice@localhost content "hi" count=0 id=m1 unverified`,
			`out chat alice@localhost/r1 -> bob@localhost user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"to another served host", message(fw, sent, alice, "eve@other.example", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> eve@other.example user=alice@localhost content "hi" count=0 id=m1 unverified`,
			`out chat alice@localhost/r1 -> eve@other.example user=eve@other.example content "hi" count=0 id=m1 unverified`,
		}},
		{"to the server", message(fw, sent, alice, "localhost", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> localhost user=alice@localhost content "hi" count=0 id=m1 unverified`,
			`out chat alice@localhost/r1 -> localhost user=localhost content "hi" count=0 id=m1`,
		}},
		{"without to goes to oneself", message(fw, sent, alice, "", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> alice@localhost user=alice@localhost content "hi" count=0 id=m1 unverified`,
			`out chat alice@localhost/r1 -> alice@localhost user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"to a room", message(fw, sent, alice, room, "groupchat"), 0, []string{
			`in groupchat alice@localhost/r1 -> room@conference.localhost user=alice@localhost room=room@conference.localhost content "hi" count=0 id=m1 unverified`,
			`out groupchat alice@localhost/r1 -> room@conference.localhost user=room@conference.localhost room=room@conference.localhost content "hi" count=0 id=m1`,
		}},
		{"to a remote room", message(fw, sent, alice, "r@muc.remote.example", "groupchat"), 0, []string{
			`in groupchat alice@localhost/r1 -> r@muc.remote.example user=alice@localhost room=r@muc.remote.example content "hi" count=0 id=m1 unverified`,
		}},
		{"private message to an occupant", message(fw, sent, alice, room+"/bo", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> room@conference.localhost/bo user=alice@localhost content "hi" count=0 id=m1 unverified`,
			`out chat alice@localhost/r1 -> room@conference.localhost/bo user=room@conference.localhost content "hi" count=0 id=m1`,
		}},
		{"to the component", message(fw, sent, alice, "svc@events.localhost", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> svc@events.localhost user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"receive copy of a local user's message", message(fw, rcvd, alice, bob, "chat"), SkippedReceiveCopy, none},
		{"sent, told by another host", message(fw, sent, alice, bob, "chat").host("other.example"), SkippedReceiveCopy, none},
		{"no copy mark", message(fw, blank, alice, bob, "chat"), SkippedUnmarked, none},
		{"presence feed", message(trust.Privilege, blank, alice, bob, "chat"), SkippedUnmarked, none},

		// What children a sender puts in does not hide what he sent.
		{"sent with a forged carbon", message(fw, sent, alice, "x@remote.example", "chat").flags(stanza.HasCarbon), 0, []string{
			`in chat alice@localhost/r1 -> x@remote.example user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"sent with a forged archive result", message(fw, sent, alice, "x@remote.example", "chat").flags(stanza.HasMAMResult).noBody(), 0, []string{
			`in chat alice@localhost/r1 -> x@remote.example user=alice@localhost other count=0 id=m1 unverified`,
		}},
		{"sent with a forged delay", message(fw, sent, alice, "x@remote.example", "chat").delay("localhost"), 0, []string{
			`in chat alice@localhost/r1 -> x@remote.example user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"sent with a forward to somebody", message(fw, sent, alice, "x@remote.example", "chat").flags(stanza.HasForwarded), 0, []string{
			`in chat alice@localhost/r1 -> x@remote.example user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"a forward to the component", message(direct, blank, alice, "events.localhost", "").flags(stanza.HasForwarded), SkippedForwarded, none},
		{"a forward to the component, reported", message(svc, blank, alice, "events.localhost", "").flags(stanza.HasForwarded), SkippedForwarded, none},

		// Made by the server in a user's name.
		{"carbon", message(svc, blank, "bob@localhost", "bob@localhost/r2", "chat").flags(stanza.HasCarbon).noBody(), SkippedServerMade, none},
		{"PEP", message(fw, rcvd, "bob@localhost", alice, "headline").flags(stanza.HasPubsub).noBody(), SkippedServerMade, none},
		{"archive result of one's own", message(svc, blank, "alice@localhost", alice, "").flags(stanza.HasMAMResult).noBody(), SkippedServerMade, none},
		{"from a room's archive", message(svc, blank, room, alice, "").flags(stanza.HasMAMResult).noBody(), SkippedArchive, none},
		{"a message behind a forged result", message(fw, rcvd, "x@remote.example", bob, "chat").flags(stanza.HasMAMResult), 0, []string{
			`out chat x@remote.example -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"a stranger's forged result", message(fw, rcvd, "x@remote.example/q", bob, "chat").flags(stanza.HasMAMResult).noBody(), 0, []string{
			`out chat x@remote.example/q -> bob@localhost/r1 user=bob@localhost other count=0 id=m1 unverified`,
		}},
		{"a stranger's forged carbon", message(fw, rcvd, "x@remote.example/q", bob, "chat").flags(stanza.HasCarbon), 0, []string{
			`out chat x@remote.example/q -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},

		// From anybody else.
		{"remote to bare", message(fw, rcvd, "x@remote.example/q", "bob@localhost", "chat"), 0, []string{
			`out chat x@remote.example/q -> bob@localhost user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"remote on service_log", message(svc, rcvd, "x@remote.example/q", bob, "chat"), 0, []string{
			`out chat x@remote.example/q -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"the component", message(fw, rcvd, "events.localhost", bob, "chat"), 0, []string{
			`out chat events.localhost -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"the server", message(fw, rcvd, "localhost", bob, "headline"), 0, []string{
			`out headline localhost -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"an occupant", message(fw, rcvd, room+"/al", bob, "groupchat"), 0, []string{
			`out groupchat room@conference.localhost/al -> bob@localhost/r1 user=bob@localhost room=room@conference.localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"history of a room", message(fw, rcvd, room+"/al", bob, "groupchat").delay(room), 0, []string{
			`out groupchat room@conference.localhost/al -> bob@localhost/r1 user=bob@localhost room=room@conference.localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"private message of an occupant", message(fw, rcvd, room+"/al", bob, "chat").flags(stanza.HasMUCUser), 0, []string{
			`out chat room@conference.localhost/al -> bob@localhost/r1 user=bob@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"remote to the server", message(fw, rcvd, "x@remote.example/q", "localhost", "chat"), SkippedForeign, none},
		{"remote to a room", message(fw, rcvd, "x@remote.example/q", room, "groupchat"), SkippedForeign, none},
		{"remote to nobody", message(fw, rcvd, "x@remote.example/q", "", "chat"), SkippedForeign, none},
		{"a send copy of a remote user cannot be", message(fw, sent, "x@remote.example/q", bob, "chat"), SkippedForeign, none},
		{"between strangers", message(fw, rcvd, "x@remote.example/q", "y@remote.example", "chat"), SkippedForeign, none},
		{"without from", message(fw, sent, "", bob, "chat"), SkippedForeign, none},
		{"remote, no copy mark", message(fw, blank, "x@remote.example/q", bob, "chat"), SkippedUnmarked, none},

		// Addressed to us.
		{"direct", message(direct, sent, alice, "events.localhost", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> events.localhost user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"direct to a node", message(direct, blank, alice, "svc@events.localhost/x", "chat"), 0, []string{
			`in chat alice@localhost/r1 -> svc@events.localhost/x user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
		{"direct from a bare JID", message(direct, sent, "alice@localhost", "events.localhost", "chat"), SkippedServerMade, none},
		{"direct from a stranger", message(direct, sent, "x@remote.example/q", "events.localhost", "chat"), SkippedForeign, none},
		{"direct but to somebody else", message(direct, sent, alice, bob, "chat"), SkippedForeign, none},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTranslator()
			want(t, play(tr, tc.draft), tc.want...)
			s := Stats{Stanzas: 1, Events: len(tc.want)}
			if len(tc.want) == 0 {
				s.Skipped[tc.reason] = 1
			}
			if diff := cmp.Diff(s, tr.Stats()); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
		})
	}
}

func TestContent(t *testing.T) {
	toRoom := message(trust.Firewall, trust.SentCopy, alice, room, "groupchat")
	fromRoom := message(trust.Firewall, trust.ReceivedCopy, room, bob, "groupchat")
	out := message(trust.Firewall, trust.ReceivedCopy, "x@remote.example/q", bob, "chat")
	for _, tc := range []struct {
		name      string
		draft     draft
		class     event.Class
		encrypted bool
		body      string
		hasBody   bool
	}{
		{"body", out, event.Content, false, "hi", true},
		{"body beside all else", out.flags(stanza.HasState | stanza.HasMarker | stanza.HasReceipt | stanza.HasSubject | stanza.HasCall), event.Content, false, "hi", true},
		{"blank body is content", out.body(" "), event.Content, false, " ", true},
		{"empty body", out.emptyBody(), event.Other, false, "", true},
		{"reaction", out.noBody().flags(stanza.HasReaction | stanza.HasStore), event.Reaction, false, "", false},
		{"reaction with a fallback", out.flags(stanza.HasReaction | stanza.HasFallback), event.Content, false, "hi", true},
		{"retraction", out.noBody().flags(stanza.HasRetraction), event.Retraction, false, "", false},
		{"nothing", out.noBody(), event.Other, false, "", false},
		{"chat state", out.noBody().flags(stanza.HasState), event.State, false, "", false},
		{"receipt", out.noBody().flags(stanza.HasReceipt | stanza.HasStore), event.Receipt, false, "", false},
		{"marker", out.noBody().flags(stanza.HasMarker | stanza.HasState), event.Marker, false, "", false},
		{"call", out.noBody().flags(stanza.HasCall | stanza.HasStore), event.Call, false, "", false},
		{"subject of a chat with an empty body", out.emptyBody().flags(stanza.HasSubject), event.Subject, false, "", true},
		{"placeholder", out.flags(stanza.HasEncrypted), event.Content, true, "hi", true},
		{"key transport", out.noBody().flags(stanza.HasEncrypted), event.Other, true, "", false},
		{"user sets a subject", toRoom.noBody().flags(stanza.HasSubject), event.Subject, false, "", false},
		{"user sets a subject, with an empty body", toRoom.emptyBody().flags(stanza.HasSubject), event.Subject, false, "", true},
		{"room replays the subject", fromRoom.noBody().flags(stanza.HasSubject), event.Subject, false, "", false},
		{"room replays the subject with an empty body", fromRoom.emptyBody().flags(stanza.HasSubject), event.Subject, false, "", false},
		{"room passes on an empty body", fromRoom.emptyBody(), event.Other, false, "", true},
		{"room passes on a body and a subject", fromRoom.flags(stanza.HasSubject), event.Content, false, "hi", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			events := newTranslator().Translate(tc.draft.fact(), nil)
			if len(events) == 0 {
				t.Fatal("no event")
			}
			for _, e := range events {
				if e.Class != tc.class || e.Encrypted != tc.encrypted || e.Body != tc.body || e.HasBody != tc.hasBody {
					t.Errorf("class %v, encrypted %t, body %q, has body %t", e.Class, e.Encrypted, e.Body, e.HasBody)
				}
			}
		})
	}
}

// MongooseIM 6.9 makes no received event of a message to a room, to an occupant or to the server.
func TestToUsersOnly(t *testing.T) {
	outs := map[string][2]int{ // by 6.8 and 6.9
		bob: {1, 1}, string(jid.JID(bob).Bare()): {1, 1}, "": {1, 1}, "localhost": {1, 0}, "carol@elsewhere.example": {0, 0}, room: {1, 0}, room + "/nick": {1, 0},
	}
	for _, usersOnly := range []bool{false, true} {
		for to, want := range outs {
			for _, d := range []draft{message(trust.Firewall, trust.SentCopy, alice, to, "chat"), reported(stanza.MessageSent, alice, to)} {
				tr := newTranslator()
				tr.usersOnly = usersOnly
				outs := want[0]
				if usersOnly {
					outs = want[1]
				}
				events := tr.Translate(d.fact(), nil)
				if len(events) != 1+outs || events[0].Direction != event.In {
					t.Errorf("to %q, users only: %t: %q", to, usersOnly, showAll(events))
				}
			}
		}
		// What the room passes on to its occupants is received by them.
		tr := newTranslator()
		tr.usersOnly = usersOnly
		if got := tr.Translate(reported(stanza.MessageReceived, room+"/nick", bob).fact(), nil); len(got) != 1 || got[0].Direction != event.Out {
			t.Errorf("%q", showAll(got))
		}
	}
}

func TestFallbackAndCorrection(t *testing.T) {
	plain := message(trust.Firewall, trust.SentCopy, alice, bob, "chat")
	corrected := plain
	corrected.s.Replaces = "m0"
	for name, tc := range map[string]struct {
		draft    draft
		fallback bool
		replaces string
	}{
		"neither":                     {plain, false, ""},
		"fallback":                    {plain.flags(stanza.HasFallback | stanza.HasRetraction), true, ""},
		"fallback without any body":   {plain.noBody().flags(stanza.HasFallback), false, ""},
		"correction":                  {corrected, false, "m0"},
		"fallback that is a new text": {corrected.flags(stanza.HasFallback), true, "m0"},
	} {
		for _, e := range newTranslator().Translate(tc.draft.fact(), nil) {
			if e.Fallback != tc.fallback || e.Replaces != tc.replaces {
				t.Errorf("%s: fallback %v, replaces %q", name, e.Fallback, e.Replaces)
			}
		}
	}
}

func TestEventSaysWhereItCameFrom(t *testing.T) {
	s := message(trust.Firewall, trust.SentCopy, alice, bob, "chat").fact()
	events := newTranslator().Translate(s, make([]event.Event, 1))
	if len(events) != 3 {
		t.Fatalf("%d events after the one that was there, want 2", len(events)-1)
	}
	for _, e := range events[1:] {
		if e.Kind != event.Chat || e.Host != "localhost" || e.Dialect != "firewall" || e.Packet != s.Raw || !e.Time.Equal(start) {
			t.Errorf("%+v", e)
		}
	}
}

func TestClockIsAskedOnlyWithoutATimeOfReceipt(t *testing.T) {
	tr := newTranslator()
	for _, tc := range []struct {
		name           string
		received, want time.Time
	}{
		{"stamped", start.AddDate(1, 0, 0), start.AddDate(1, 0, 0)},
		{"not stamped", time.Time{}, start},
	} {
		s := message(trust.Firewall, trust.SentCopy, alice, bob, "chat").fact()
		s.Received = tc.received
		if e := tr.Translate(s, nil)[0]; !e.Time.Equal(tc.want) {
			t.Errorf("%s: time %v, want %v", tc.name, e.Time, tc.want)
		}
	}
}

func TestHostsMayBeWrittenInAnyCase(t *testing.T) {
	tr := New(Options{Hosts: []string{"EXAMPLE.org"}, MUCHosts: []string{"Rooms.Example.org"}, Component: "Events.Example.org"})
	a := "a@example.org/x"
	for _, tc := range []struct {
		to    jid.JID
		wants int
	}{{"b@example.org", 2}, {"r@rooms.example.org", 2}, {"events.example.org", 1}} {
		s := message(trust.Firewall, trust.SentCopy, a, string(tc.to), "chat").host("example.org").fact()
		if got := len(tr.Translate(s, nil)); got != tc.wants {
			t.Errorf("%d events to %s, want %d", got, tc.to, tc.wants)
		}
	}
}

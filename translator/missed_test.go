package translator

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// missedBy makes a fact of what an occupant of the room has said.
func missedBy(m *module, d draft, members ...jid.JID) *trust.Fact {
	s := m.forward("room-missed", "", d)
	s.Host, s.Report.Members = "conference.localhost", members
	return s
}

func TestMissed(t *testing.T) {
	const nick = room + "/Ally"
	said := message(0, 0, nick, room, "groupchat")
	for _, tc := range []struct {
		name    string
		message draft
		members []jid.JID
		reason  Reason // of nothing
		want    []string
	}{
		{"one event for each member", said, []jid.JID{"alice@localhost", "eve@other.example"}, 0, []string{
			`missed groupchat ` + nick + ` -> alice@localhost user=alice@localhost room=` + room + ` content "hi" count=0 id=m1 nobody there`,
			`missed groupchat ` + nick + ` -> eve@other.example user=eve@other.example room=` + room + ` content "hi" count=0 id=m1 unverified nobody there`,
		}},
		{"members of hosts that are not served", said, []jid.JID{"x@remote.example", "bob@localhost", "y@conference.localhost", "localhost"}, 0, []string{
			`missed groupchat ` + nick + ` -> bob@localhost user=bob@localhost room=` + room + ` content "hi" count=0 id=m1 nobody there`,
		}},
		{"no member of a served host", said, []jid.JID{"x@remote.example"}, SkippedForeign, nil},
		{"no member", said, nil, SkippedForeign, nil},
		{"no groupchat", message(0, 0, nick, room, "chat"), []jid.JID{"bob@localhost"}, SkippedType, nil},
		{"nobody said it", message(0, 0, room, room, "groupchat"), []jid.JID{"bob@localhost"}, SkippedForeign, nil},
		{"said by a user", message(0, 0, alice, room, "groupchat"), []jid.JID{"bob@localhost"}, SkippedForeign, nil},
		{"said by a host", message(0, 0, "conference.localhost/x", room, "groupchat"), []jid.JID{"bob@localhost"}, SkippedForeign, nil},
		{"no message", presence(0, nick, "", ""), []jid.JID{"bob@localhost"}, SkippedType, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			st.play(whole...)
			before := st.tr.Stats()
			events := st.tr.Translate(missedBy(st.modules["1"], tc.message, tc.members...), nil)
			want(t, showAll(events), tc.want...)
			if len(tc.want) == 0 && st.tr.Stats().Skipped[tc.reason] != before.Skipped[tc.reason]+1 {
				t.Errorf("not counted as %v: %+v", tc.reason, st.tr.Stats())
			}
		})
	}
}

// TestMissedInFull: all that one event says, when it happened, and that the table, which
// may be ahead, changes nothing.
func TestMissedInFull(t *testing.T) {
	st := newStage()
	st.play(whole...)
	st.do("online b/1")
	s := missedBy(st.modules["1"], message(0, 0, room+"/Ally", room, "groupchat").flags(stanza.HasEncrypted), "bob@localhost")
	s.Report.At = start.Add(-time.Minute)
	e := st.tr.Translate(s, nil)[0]
	full := event.Event{
		ID: e.ID, Kind: event.Missed, Type: "groupchat", From: room + "/Ally", To: "bob@localhost", User: "bob@localhost", Room: room,
		Body: "hi", HasBody: true, Class: event.Content, Encrypted: true, RecipientOffline: true, SessionCount: 1, StanzaID: "m1",
		Time: start.Add(-time.Minute), Host: "conference.localhost", Dialect: "event-feed",
	}
	if diff := cmp.Diff(full, e); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	again := *s
	if diff := cmp.Diff([]event.Event{full}, st.tr.Translate(&again, nil)); diff != "" {
		t.Errorf("sent again (-want +got):\n%s", diff)
	}
}

// TestMissedIsSmall: what one message costs does not grow with its length times the
// members.
func TestMissedIsSmall(t *testing.T) {
	st := newStage()
	st.play(whole...)
	s := missedBy(st.modules["1"], message(0, 0, room+"/Ally", room, "groupchat"), "bob@localhost")
	s.Body = "x" + strings.Repeat("ä", event.MissedBody)
	e := st.tr.Translate(s, nil)[0]
	if want := s.Body[:event.MissedBody-1]; e.Body != want {
		t.Errorf("%d bytes, want %d of whole characters", len(e.Body), len(want))
	}
}

// TestIDsOfMissed: each member's event has an id of its own, whoever else is on the list,
// whenever and by whatever process it is made.
func TestIDsOfMissed(t *testing.T) {
	ids := func(seq int, members ...jid.JID) map[jid.JID]string {
		m := &module{source: "s", epoch: "e", before: seq - 1}
		byMember := make(map[jid.JID]string)
		for _, e := range newTranslator().Translate(missedBy(m, message(0, 0, room+"/Ally", room, "groupchat"), members...), nil) {
			byMember[e.User] = e.ID
		}
		return byMember
	}
	first := ids(7, "alice@localhost", "bob@localhost", "carol@localhost")
	if diff := cmp.Diff(first, ids(7, "carol@localhost", "bob@localhost", "alice@localhost")); diff != "" {
		t.Errorf("in another order:\n%s", diff)
	}
	if alone := ids(7, "bob@localhost"); alone["bob@localhost"] != first["bob@localhost"] {
		t.Errorf("alone: %s, among others %s", alone["bob@localhost"], first["bob@localhost"])
	}
	seen := map[string]bool{}
	for _, list := range []map[jid.JID]string{first, ids(8, "alice@localhost", "bob@localhost", "carol@localhost")} {
		for member, id := range list {
			if len(id) != 32 || seen[id] {
				t.Errorf("%s: id %q", member, id)
			}
			seen[id] = true
		}
	}
	// The message of the same place, were it one, has another.
	if sent := newTranslator().Translate((&module{source: "s", epoch: "e", before: 6}).forward("message-sent", alice, message(0, 0, alice, bob, "chat")), nil); seen[sent[0].ID] || seen[sent[1].ID] {
		t.Error("an id of another kind's event")
	}
}

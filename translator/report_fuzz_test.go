package translator

import (
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// FuzzReports plays facts that no server would report in that way, among gaps, losses
// and lesser feeds: each byte is one step and whom it is about.
func FuzzReports(f *testing.F) {
	f.Add([]byte{0x91, 0x61, 0x71, 0x81, 0xa1, 0x03, 0xf1, 0xff})
	f.Add([]byte("session after session, told by two sources and a gap"))
	users := []jid.JID{"alice@localhost/1", "alice@localhost/2", "bob@localhost/1", "x@remote.example/q", "bob@localhost"}
	f.Fuzz(func(t *testing.T, script []byte) {
		st := newStage()
		made := 0
		var seq [2]uint64
		for i, b := range script {
			st.now += time.Duration(b) * time.Minute
			source, user := int(b>>2)%2, users[b%5]
			s := &trust.Fact{Stanza: stanza.Stanza{From: user, Raw: "<x/>", ID: "i"}, Feed: trust.EventFeed, Host: "localhost", Received: start.Add(st.now)}
			s.Report = stanza.Report{
				Source: []string{"xmpp1", "xmpp2"}[source], Epoch: "e", Kind: stanza.ReportKind(b>>3) % (stanza.UnknownReport + 2),
				User: user, At: s.Received.Add(-time.Duration(i%5) * time.Second), ID: "s",
			}
			if s.Report.Kind == stanza.RoomMissed {
				s.From, s.Type, s.Report.Members = "tea@conference.localhost/n", "groupchat", []jid.JID{"alice@localhost", user.Bare(), "localhost", ""}
			}
			if s.Kind = stanza.Kind(i % 3); i%4 == 0 && s.Kind == stanza.Presence {
				s.Type = "unavailable"
			}
			switch i % 11 {
			case 7:
				st.tr.Resume(s.Report.Source, b%3 == 0)
			case 8:
				st.tr.Gap()
			case 9:
				made += len(st.tr.Settled("localhost", nil, nil))
			case 10:
				s.Feed, s.Kind, s.To, s.Type = trust.Feed(b%5)+1, stanza.Presence, "events.localhost", []string{"", "unavailable"}[b%2]
			case 6: // again, or with a hole before it
				seq[source] += uint64(b % 3)
			default:
				seq[source]++
			}
			s.Report.Seq = seq[source]
			events := st.tr.Translate(s, nil)
			made += len(events)
			for _, e := range events {
				local := e.User == "alice@localhost" || e.User == "bob@localhost"
				status := e.Kind == event.UserStatus
				switch {
				case len(e.ID) != 32, e.SessionCount < 0, e.Packet == "", e.Host != "localhost",
					status && (!local || e.From.Bare() != e.User || e.Online != (e.Type == "online")),
					!status && e.Direction == event.NoDirection && (!local || e.Kind == event.Chat),
					(e.Kind == event.Stored || e.Kind == event.Missed) && !e.RecipientOffline,
					(e.Kind == event.Removed) != (s.Report.Kind == stanza.AccountRemoved && s.Feed == trust.EventFeed),
					e.Kind == event.Removed && e.User != user:
					t.Fatalf("step %d: %+v", i, e)
				}
			}
			check := st.tr.Stats()
			if check.Resources < 0 || check.Resources > check.Sessions || check.Users > check.Sessions || check.Events != made {
				t.Fatalf("step %d: %+v, %d events made", i, check, made)
			}
		}
		total := 0
		for _, src := range st.tr.sessions.sources {
			total += src.sessions
		}
		if total != st.tr.sessions.bound || len(st.tr.sessions.order) != len(st.tr.sessions.users) {
			t.Fatalf("sources count %d sessions, the table %d; %d places for %d users", total, st.tr.sessions.bound,
				len(st.tr.sessions.order), len(st.tr.sessions.users))
		}
	})
}

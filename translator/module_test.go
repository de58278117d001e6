package translator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// factNames are the facts as docs/feed-protocol.md names them.
var factNames = map[string]stanza.ReportKind{
	"message-sent": stanza.MessageSent, "message-received": stanza.MessageReceived, "message-offline": stanza.MessageOffline,
	"message-unacked": stanza.MessageUnacked, "message-failed": stanza.MessageFailed,
	"online": stanza.SessionOnline, "presence": stanza.SessionPresence, "offline": stanza.SessionOffline,
	"session-start": stanza.SessionStart, "session-end": stanza.SessionEnd,
	"hibernate": stanza.SessionHibernate, "resumed": stanza.SessionResumed, "account-removed": stanza.AccountRemoved,
	"room-message": stanza.RoomMessage, "room-join": stanza.RoomJoin, "room-part": stanza.RoomPart, "room-missed": stanza.RoomMissed,
	"snapshot-start": stanza.SnapshotStart, "snapshot": stanza.SnapshotSession, "snapshot-end": stanza.SnapshotEnd,
	"news": stanza.UnknownReport,
}

// module is the server's side of an event-feed: it numbers what it is told to
// report and keeps it.
type module struct {
	source, epoch string
	before        int // numbers given to facts that are forgotten
	sent          []trust.Fact
}

// report returns a fact about a user of localhost, at a time since start.
func (m *module) report(fact, user string, after time.Duration) *trust.Fact {
	full := jid.JID(user)
	s := trust.Fact{Stanza: stanza.Stanza{From: full}, Feed: trust.EventFeed, Host: "localhost", Received: start.Add(after)}
	s.Report = stanza.Report{Kind: factNames[fact], User: full, Source: m.source, Epoch: m.epoch, At: s.Received}
	switch fact {
	case "online", "presence", "snapshot":
		s.Kind = stanza.Presence
		s.Raw = fmt.Sprintf("<presence xmlns='jabber:client' from='%s'/>", full)
	case "bound":
		s.Report.Kind = stanza.SnapshotSession
	case "offline":
		s.Kind, s.Type = stanza.Presence, "unavailable"
		s.Raw = fmt.Sprintf("<presence xmlns='jabber:client' from='%s' type='unavailable'/>", full)
	case "snapshot-start", "snapshot-end":
		s.From, s.Report.User, s.Report.ID = "", "", user
	default:
		if s.Report.Kind == stanza.NoReport {
			panic("no fact is called " + fact)
		}
	}
	return m.number(s)
}

func (m *module) number(s trust.Fact) *trust.Fact {
	s.Report.Source, s.Report.Epoch, s.Report.Seq = m.source, m.epoch, uint64(m.before+len(m.sent)+1)
	m.sent = append(m.sent, s)
	return &s
}

// forget keeps nothing of what was sent.
func (m *module) forget() { m.before, m.sent = m.before+len(m.sent), nil }

// forward makes a fact of a message, about the user.
func (m *module) forward(fact, user string, d draft) *trust.Fact {
	s := d.fact()
	s.Feed, s.Copy = trust.EventFeed, trust.UnknownCopy
	s.Report = stanza.Report{Kind: factNames[fact], User: jid.JID(user), At: s.Received}
	return m.number(*s)
}

// stage plays scripts: facts with users, and between them what else can happen.
//
//	start a/1 · online a/1 · …   a fact about alice@localhost/1; b is bob, c carol
//	2:online a/1                 the same from the second source
//	snapshot-start s1            a fact that names a snapshot
//	bound a/1                    a session in a snapshot without presence
//	chat a/1 b                   message-sent
//	resume, lost                 Resume of the source, complete or not
//	elsewhere online a/1         a fact that another process of ours takes
//	forget                       Forget of the source
//	gap                          the link is set up anew
//	+1h                          time passes
//	again 3                      the source sends its latest 3 facts once more
//	service_log online a/1       a presence by a lesser feed
//	settled                      Settled for localhost
type stage struct {
	tr      *Translator
	now     time.Duration
	modules map[string]*module
	seen    []event.Event
}

func newStage() *stage {
	st := &stage{modules: map[string]*module{
		"1": {source: "xmpp1", epoch: "e1"}, "2": {source: "xmpp2", epoch: "e1"},
	}}
	st.restart()
	return st
}

// restart begins a new process of ours.
func (st *stage) restart() {
	st.tr = New(Options{
		Hosts: []string{"localhost", "other.example"}, MUCHosts: []string{"conference.localhost"}, Component: "events.localhost",
		Now: func() time.Time { return start.Add(st.now) },
	})
}

var people = map[string]string{"a": "alice", "b": "bob", "c": "carol"}

func address4(short string) string {
	who, resource, session := strings.Cut(short, "/")
	name, known := people[who]
	if !known {
		return short
	}
	if session {
		return name + "@localhost/" + resource
	}
	return name + "@localhost"
}

// play returns the events of a script, each behind the line that made it.
func (st *stage) play(script ...string) []string {
	lines := []string{}
	for _, line := range script {
		for _, e := range st.do(line) {
			st.seen = append(st.seen, e)
			lines = append(lines, line+": "+show(&e))
		}
	}
	return lines
}

func (st *stage) do(line string) []event.Event {
	source, rest, named := strings.Cut(line, ":")
	if !named {
		source, rest = "1", line
	}
	m := st.modules[source]
	words := strings.Fields(rest)
	words = append(words, "", "")
	switch what := words[0]; {
	case what[0] == '+':
		d, err := time.ParseDuration(what[1:])
		if err != nil {
			panic(err)
		}
		st.now += d
	case what == "gap":
		st.tr.Gap()
	case what == "resume", what == "lost":
		st.tr.Resume(m.source, what == "resume")
	case what == "forget":
		st.tr.Forget(m.source)
	case what == "elsewhere":
		m.report(words[1], address4(words[2]), st.now)
	case what == "settled":
		return st.tr.Settled("localhost", nil, nil)
	case what == "again":
		var n int
		fmt.Sscan(words[1], &n)
		var events []event.Event
		for i := len(m.sent) - n; i < len(m.sent); i++ {
			s := m.sent[i]
			events = st.tr.Translate(&s, events)
		}
		return events
	case what == "chat":
		d := message(0, 0, address4(words[1]), address4(words[2]), "chat").at(st.now)
		return st.tr.Translate(m.forward("message-sent", address4(words[1]), d), nil)
	case what == "service_log", what == "privilege", what == "direct", what == "repeated":
		return st.tr.Translate(st.lesser(what, words[1], address4(words[2])), nil)
	default:
		return st.tr.Translate(m.report(what, address4(words[1]), st.now), nil)
	}
	return nil
}

// lesser is a presence as a feed tells of it that numbers nothing; repeated is one of
// the privilege's snapshot.
func (st *stage) lesser(how, status, full string) *trust.Fact {
	kind := ""
	if status == "offline" {
		kind = "unavailable"
	}
	d := draft{}
	switch how {
	case "service_log":
		d = presence(trust.ServiceLog, full, string(jid.JID(full).Bare()), kind)
	case "privilege":
		d = presence(trust.Privilege, full, "events.localhost", kind)
	case "repeated":
		d = presence(trust.Privilege, full, "events.localhost", kind).delay("localhost")
	case "direct":
		d = presence(trust.Direct, full, "watch@events.localhost/x", kind)
	}
	return d.at(st.now).fact()
}

// whole is how a source begins that knows all of its sessions, which are none.
var whole = []string{"resume", "snapshot-start s0", "snapshot-end s0"}

func TestScriptsAreFacts(t *testing.T) {
	if len(factNames) != int(stanza.UnknownReport) {
		t.Errorf("%d facts have names, there are %d", len(factNames), stanza.UnknownReport)
	}
	seen := map[stanza.ReportKind]string{}
	for name, fact := range factNames {
		if fact == stanza.NoReport || seen[fact] != "" {
			t.Errorf("%s and %s are fact %d", name, seen[fact], fact)
		}
		seen[fact] = name
	}
}

package translator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/backends/backendtest"
	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
	"eventpusher/translator"
)

// The users of the session that MongooseIM 6.8 was driven through.
const (
	goldenA1   = "alice@localhost/res1"
	goldenA2   = "alice@localhost/res2"
	goldenBob  = "bob@localhost/desk"
	goldenRoom = "room@muc.localhost"
)

// feed is a module of the event-feed on localhost, in front of a translator.
type feed struct {
	t       *testing.T
	tr      *translator.Translator
	decoder *stanza.Decoder
	seq     uint64
	events  []event.Event
}

// report hands over a fact with the stanza that a client wrote, empty for none.
func (f *feed) report(fact stanza.ReportKind, user, xml string) {
	f.t.Helper()
	s := trust.Fact{Stanza: stanza.Stanza{From: jid.JID(user)}}
	if xml != "" {
		var env stanza.Envelope
		frame := "<message from='localhost' to='events.localhost'><forwarded xmlns='urn:xmpp:forward:0'>" + xml + "</forwarded></message>"
		if err := f.decoder.Decode([]byte(frame), &env); err != nil {
			f.t.Fatalf("%s: %v", xml, err)
		}
		s.Stanza = env.Inner
	}
	f.seq++
	s.Feed, s.Host = trust.EventFeed, "localhost"
	s.Received = time.Date(2026, 7, 1, 12, 0, int(f.seq), 0, time.UTC)
	s.Report = stanza.Report{Kind: fact, Source: "xmpp1", Epoch: "e", Seq: f.seq, User: jid.JID(user), At: s.Received.Add(-time.Millisecond)}
	f.events = f.tr.Translate(&s, f.events)
}

func (f *feed) status(fact stanza.ReportKind, from string) {
	kind := ""
	if fact == stanza.SessionOffline {
		kind = " type='unavailable'"
	}
	f.report(fact, from, "<presence xmlns='jabber:client' from='"+from+"'"+kind+"/>")
}

// msg is what a local session sends. The server stores it, or hands it on, as it goes.
func (f *feed) msg(from, to, kind, children string) {
	f.message(stanza.MessageSent, from, from, to, kind, children)
}

func (f *feed) message(fact stanza.ReportKind, user, from, to, kind, children string) {
	var attributes strings.Builder
	for _, a := range [...][2]string{{"from", from}, {"to", to}, {"type", kind}, {"id", fmt.Sprintf("m%d", f.seq)}} {
		if a[1] != "" {
			fmt.Fprintf(&attributes, " %s='%s'", a[0], a[1])
		}
	}
	f.report(fact, user, "<message xmlns='jabber:client'"+attributes.String()+">"+children+"</message>")
}

func text(s string) string { return "<body>" + s + "</body>" }

// goldenFacts are what a server reports of each step, by the table of
// docs/feed-protocol.md. A step that is missing reports nothing.
var goldenFacts = map[string]func(*feed){
	"P02": func(f *feed) { f.report(stanza.SessionStart, goldenA1, ""); f.status(stanza.SessionOnline, goldenA1) },
	"P03": func(f *feed) { f.report(stanza.SessionStart, goldenA2, ""); f.status(stanza.SessionOnline, goldenA2) },
	"P04": func(f *feed) {
		f.report(stanza.SessionPresence, goldenA1, "<presence xmlns='jabber:client' from='"+goldenA1+"'><show>away</show><status>brb</status><priority>5</priority></presence>")
	},
	"P05": func(f *feed) { f.status(stanza.SessionOffline, goldenA2) },
	"P06": func(f *feed) { f.status(stanza.SessionOnline, goldenA2) },
	"P08": func(f *feed) {
		f.report(stanza.SessionStart, goldenBob, "")
		f.report(stanza.SessionOnline, goldenBob, "<presence xmlns='jabber:client' from='"+goldenBob+"'><priority>-1</priority></presence>")
	},
	"P09": func(f *feed) { f.status(stanza.SessionPresence, goldenBob) },
	"C01": func(f *feed) { f.msg(goldenA1, goldenBob, "chat", text("C01 Hello, Bob")) },
	"C02": func(f *feed) { f.msg(goldenA1, "bob@localhost", "chat", text("C02 to bare")) },
	"C03": func(f *feed) {
		f.msg(goldenA1, goldenBob, "chat", text("C03 Zażółć gęślą jaźń 日本語 \u00a0\u2028|"))
	},
	"C04": func(f *feed) { f.msg(goldenA1, goldenBob, "chat", text("C04 😀👨\u200d👩\u200d👧 🇵🇱")) },
	"C05": func(f *feed) {
		f.msg(goldenA1, goldenBob, "chat", text("C05 &lt;b&gt; &amp; &quot;q&quot; &apos;a&apos; &#233; &#x1F600; &amp;amp;"))
	},
	"C06": func(f *feed) { f.msg(goldenA1, goldenBob, "chat", text(`C06 <![CDATA[<x a="1">&amp;</x>]]> tail`)) },
	"C07": func(f *feed) {
		// CR LF would come as LF (XML 1.0 section 2.11) but for the escape.
		f.msg(goldenA1, goldenBob, "chat", text("C07 a\nb\tc&#13;\nd&#13;e / \\ \x7f \" ' % + = &amp; "))
	},
	"C08": func(f *feed) { f.msg(goldenA1, goldenBob, "chat", "<body/>") },
	"C10": func(f *feed) {
		f.msg(goldenA1, goldenBob, "chat", "<composing xmlns='http://jabber.org/protocol/chatstates'/>")
	},
	"C11": func(f *feed) {
		f.msg(goldenA1, goldenBob, "chat", "<displayed xmlns='urn:xmpp:chat-markers:0' id='m1'/>")
	},
	"C12": func(f *feed) {
		f.msg(goldenA1, goldenBob, "chat", "<body xml:lang='en'>C12 hi</body><body xml:lang='pl'>C12 cześć</body>")
	},
	"C17": func(f *feed) { f.msg(goldenA1, goldenBob, "normal", text("C17 normal")) },
	"C18": func(f *feed) { f.msg(goldenA1, goldenBob, "", text("C18 typeless")) },
	"C19": func(f *feed) { f.msg(goldenA1, goldenBob, "headline", text("C19 headline")) },
	"C20": func(f *feed) { f.msg(goldenA1, goldenBob, "error", text("C20 error")) },
	"C21": func(f *feed) { f.msg(goldenA1, goldenBob, "bogus", text("C21 bogus")) },
	"C22": func(f *feed) { f.msg(goldenA1, goldenA2, "chat", text("C22 self")) },
	"C23": func(f *feed) { f.msg(goldenA1, "alice@localhost", "chat", text("C23 self bare")) },
	"C24": func(f *feed) { f.msg(goldenA1, "", "chat", text("C24 no to")) },
	"C25": func(f *feed) {
		f.msg(goldenA1, "carol@localhost", "chat", text("C25 offline"))
		f.message(stanza.MessageOffline, "carol@localhost", goldenA1, "carol@localhost", "chat", text("C25 offline"))
	},
	"M04": func(f *feed) {
		hi := text("M04 Hi, Everyone!")
		f.msg(goldenA1, goldenRoom, "groupchat", hi)
		f.message(stanza.MessageReceived, goldenBob, goldenRoom+"/Alice", goldenBob, "groupchat", hi)
		f.message(stanza.MessageReceived, goldenA1, goldenRoom+"/Alice", goldenA1, "groupchat", hi)
	},
	"U04": func(f *feed) {
		for _, gone := range []string{goldenA2, goldenA1} { // steps U02 and U03
			f.status(stanza.SessionOffline, gone)
			f.report(stanza.SessionEnd, gone, "")
		}
		f.events = nil
		wake := text("U04 wake up 😀 &lt;&amp;")
		f.msg(goldenBob, "alice@localhost", "chat", wake)
		f.message(stanza.MessageOffline, "alice@localhost", goldenBob, "alice@localhost", "chat", wake)
	},
}

// A server that reports a session by the event-feed makes the events that make what
// MongooseIM published (backendtest shows the latter), and beside them only
// what is for push alone.
func TestGoldenSession(t *testing.T) {
	f := &feed{t: t, decoder: stanza.NewDecoder(stanza.Limits{}), tr: translator.New(translator.Options{
		Hosts: []string{"localhost"}, MUCHosts: []string{"muc.localhost"}, Component: "events.localhost",
	})}
	f.tr.Resume("xmpp1", true)
	f.report(stanza.SnapshotStart, "", "")
	f.report(stanza.SnapshotEnd, "", "")
	ids := map[string]bool{}
	played, pushes := 0, 0
	for _, step := range backendtest.Golden(t) {
		name, _, _ := strings.Cut(step.Name, " ")
		f.events = nil
		if facts := goldenFacts[name]; facts != nil {
			facts(f)
			played++
		}
		var got []event.Event
		for _, e := range f.events {
			if ids[e.ID] || e.Unverified || e.Reconciled {
				t.Errorf("%s: id %s twice: %t, unverified: %t, reconciled: %t", step.Name, e.ID, ids[e.ID], e.Unverified, e.Reconciled)
			}
			ids[e.ID] = true
			if toNobody := name == "C25" || name == "U04"; e.RecipientOffline != (toNobody && e.Direction != event.In) {
				t.Errorf("%s: nobody is there: %t", step.Name, e.RecipientOffline)
			}
			if e.Kind == event.Stored {
				pushes++
				continue
			}
			got = append(got, e)
		}
		said := cmpopts.IgnoreFields(event.Event{}, "ID", "Class", "RecipientOffline", "Room", "SessionCount", "StanzaID", "Time", "Host", "Dialect", "Packet")
		if diff := cmp.Diff(step.Events, got, said, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.Name, diff)
		}
	}
	if played != len(goldenFacts) || pushes != 2 {
		t.Errorf("%d steps of %d played, %d messages stored, want 2", played, len(goldenFacts), pushes)
	}
}

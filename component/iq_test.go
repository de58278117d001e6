package component

import (
	"encoding/xml"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/component/stanza"
	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
)

func TestAnswers(t *testing.T) {
	const (
		from  = "<iq id='q1' from='alice@example.org/r1' to='events.example.org' "
		info  = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
		head  = "<iq type='result' from='events.example.org' to='alice@example.org/r1' id='q1'>"
		fails = "<iq type='error' from='events.example.org' to='alice@example.org/r1' id='q1'>"

		badRequest  = "<error type='modify'><bad-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
		unavailable = "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
		notFound    = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
		described   = "<query xmlns='http://jabber.org/protocol/disco#info'><identity category='component' type='generic' name='eventpusher'/>" +
			"<feature var='http://jabber.org/protocol/disco#info'/><feature var='jabber:iq:version'/><feature var='urn:xmpp:ping'/></query></iq>"
	)
	for _, tc := range []struct{ name, iq, want, kind string }{
		{"disco info", from + "type='get'>" + info + "</iq>", head + described, "disco"},
		{"disco info, empty node", from + "type='get'><query xmlns='http://jabber.org/protocol/disco#info' node=''/></iq>", head + described, "disco"},
		{"disco info, node", from + "type='get'><query xmlns='http://jabber.org/protocol/disco#info' node='urn:xmpp:delegation:2::urn:xmpp:push:0'/></iq>", fails + notFound, "disco"},
		{"disco items", from + "type='get'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>", head + "<query xmlns='http://jabber.org/protocol/disco#items'/></iq>", "disco"},
		{"disco items, node", from + "type='get'><query xmlns='http://jabber.org/protocol/disco#items' node='x'/></iq>", fails + notFound, "disco"},
		{"ping", from + "type='get'><ping xmlns='urn:xmpp:ping'/></iq>", head + "</iq>", "ping"},
		{"version", from + "type='get'><query xmlns='jabber:iq:version'/></iq>", head + "<query xmlns='jabber:iq:version'><name>eventpusher</name><version>1.2.3&lt;</version></query></iq>", "version"},
		{"ping as set", from + "type='set'><ping xmlns='urn:xmpp:ping'/></iq>", fails + unavailable, "unsupported"},
		{"something else", from + "type='set'><enable xmlns='urn:xmpp:push:0'/></iq>", fails + unavailable, "unsupported"},
		{"wrong element of a known namespace", from + "type='get'><x xmlns='urn:xmpp:ping'/></iq>", fails + unavailable, "unsupported"},
		{"to a node and resource", strings.Replace(from, "events.", "x&apos;y@Events.", 1) + "type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
			"<iq type='result' from='x&#39;y@Events.example.org' to='alice@example.org/r1' id='q1'></iq>", "ping"},
		{"odd sender", "<iq id='q1' from='@@//&lt;' to='events.example.org' type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
			"<iq type='result' from='events.example.org' to='@@//&lt;' id='q1'></iq>", "ping"},
		{"prefixed attributes mean nothing", "<iq id='q1' from='alice@example.org/r1' x:from='boss@example.org' xmlns:x='x' to='events.example.org' type='get'><ping xmlns='urn:xmpp:ping'/></iq>", head + "</iq>", "ping"},
		{"no child", from + "type='get'/>", fails + badRequest, "bad_request"},
		{"two children", from + "type='get'>" + info + info + "</iq>", fails + badRequest, "bad_request"},
		{"no type", from + ">" + info + "</iq>", fails + badRequest, "bad_request"},
		{"unknown type", from + "type='put'>" + info + "</iq>", fails + badRequest, "bad_request"},
		{"no id", "<iq from='alice@example.org/r1' to='events.example.org' type='get'>" + info + "</iq>",
			"<iq type='error' from='events.example.org' to='alice@example.org/r1'>" + badRequest, "bad_request"},
		{"no sender", "<iq id='q1' to='events.example.org' type='get'>" + info + "</iq>", "", "unanswerable"},
		{"no recipient", "<iq id='q1' from='alice@example.org/r1' type='get'><ping xmlns='urn:xmpp:ping'/></iq>", head + "</iq>", "ping"},
		{"not for us", "<iq id='q1' from='alice@example.org/r1' to='example.org' type='get'>" + info + "</iq>", "", "unanswerable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q, err := stanza.NewDecoder(stanza.Limits{}).DecodeIQ([]byte(tc.iq))
			if err != nil || q.IsReply() {
				t.Fatalf("%+v, %v", q, err)
			}
			got, kind := answerOf(t, &q, "1.2.3<")
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if kind != tc.kind {
				t.Errorf("counted as %s, want %s", kind, tc.kind)
			}
		})
	}
}

// answerOf returns what a component without handlers of its own answers, empty for
// nothing, and what the request is counted as.
func answerOf(t testing.TB, q *stanza.IQ, version string) (answer, kind string) {
	registry := prometheus.NewRegistry()
	r, err := newResponder(testName, version, nil, newChecker(testName), NewMetrics(registry))
	if err != nil {
		t.Fatal(err)
	}
	out := newOutbound(nil, 0)
	r.handle(q, nil, out)
	select {
	case b := <-out.queue:
		answer = string(b)
	default:
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "eventpusher_iqs_total" && m.GetCounter().GetValue() > 0 {
				kind += m.GetLabel()[0].GetValue()
			}
		}
	}
	return answer, kind
}

// TestIQsOnTheStream asks by the stream, among replies and messages that nobody
// may answer; a ping behind each shows that nothing came before its answer.
func TestIQsOnTheStream(t *testing.T) {
	o := serverOptions()
	o.NoPongs = true
	server := startServer(t, o)
	w := newWatched(t, testConfig(server.Addr()), nil).start()
	session := accept(t, server)
	for _, silent := range []string{
		"",
		"<iq type='result' id='1' from='alice@example.org/r1' to='events.example.org'/>",
		"<iq type='result' id='watchdog-1' from='mallory@example.org/r1' to='events.example.org'/>",
		"<iq type='error' id='2' from='alice@example.org/r1' to='events.example.org'><ping xmlns='urn:xmpp:ping'/></iq>",
		"<iq type='result' id='3' from='not@@a//jid@' to='events.example.org'/>",
		// What a user hides in a reply must not pass for the server's own stream error.
		"<iq type='result' id='1' from='mallory@example.org/m' to='events.example.org'><a xmlns='x'><error xmlns='http://etherx.jabber.org/streams'><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>evil:1</see-other-host></error></a></iq>",
		"<iq type='error' id='1' from='mallory@example.org/m' to='events.example.org'><stream xmlns='http://etherx.jabber.org/streams'/></iq>",
		"<iq type='get' id='4' to='events.example.org'><ping xmlns='urn:xmpp:ping'/></iq>",
		"<message from='alice@example.org/r1' to='nobody@events.example.org'><body>hi</body></message>",
		"<message from='alice@example.org/r1' to='events.example.org' type='error'/>",
		"<presence from='alice@example.org' to='events.example.org' type='subscribe'/>",
		"<presence from='alice@example.org' to='events.example.org' type='probe'/>",
	} {
		send(t, session, silent+"<iq type='get' id='p&amp;1' from='bob@example.org/&lt;' to='events.example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
		want := xmppserver.Stanza{Name: "iq", Type: "result", ID: "p&1", From: testName, To: "bob@example.org/<"}
		if diff := cmp.Diff(want, receive(t, session)); diff != "" {
			t.Errorf("after %s\n%s", silent, diff)
		}
	}
	if n := server.Connections(); n != 1 {
		t.Errorf("%d connections, want the one", n)
	}
	w.end()
}

// An id comes back as long as it was, and longer where it has to be escaped: servers end
// the stream of a component for an answer that is too large, which anybody could make it
// give.
func TestAnswerThatIsTooLarge(t *testing.T) {
	w, session := newHandling(t)
	long := strings.Repeat("&apos;", maxOutgoing/5+1)
	for _, payload := range []string{"<ping xmlns='urn:xmpp:ping'/>", "<unknown xmlns='urn:x'/>"} {
		send(t, session, "<iq type='get' from='mallory@example.org/x' to='events.example.org' id='"+long+"'>"+payload+"</iq>")
	}
	send(t, session, "<iq type='get' from='alice@example.org/x' to='events.example.org' id='short'><ping xmlns='urn:xmpp:ping'/></iq>")
	if got := receive(t, session); got.ID != "short" || got.Type != "result" {
		t.Errorf("an answer of %d bytes to %s", len(got.ID), got.To)
	}
	if n := w.counter("eventpusher_iqs_total", "dropped"); n != 2 {
		t.Errorf("%v answers counted as dropped", n)
	}
	w.end()
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("<iq type='get' id='1' from='a@b/c' to='events.example.org'><query xmlns='http://jabber.org/protocol/disco#info' node='x'/></iq>"))
	f.Add([]byte("<iq type='set' from='&lt;' to='\u2028@EVENTS.example.org./'><a/></iq>"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		q, err := stanza.NewDecoder(stanza.Limits{}).DecodeIQ(frame)
		if err != nil {
			return
		}
		reply, _ := answerOf(t, &q, "1")
		if reply == "" {
			return
		}
		var got struct {
			XMLName xml.Name `xml:"iq"`
			Type    string   `xml:"type,attr"`
			From    string   `xml:"from,attr"`
		}
		if err := xml.Unmarshal([]byte(reply), &got); err != nil {
			t.Fatalf("%s: %v", reply, err)
		}
		if got.Type != "result" && got.Type != "error" || jid.Prepare(got.From).Domain() != testName {
			t.Errorf("%s is no answer of ours", reply)
		}
	})
}

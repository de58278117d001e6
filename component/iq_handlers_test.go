package component

import (
	"encoding/xml"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/trust"
	"eventpusher/internal/jid"
	"eventpusher/internal/xmppserver"
)

const nsCommands = "http://jabber.org/protocol/commands"

// newHandling returns a link that runs with these handlers, and its session.
func newHandling(t *testing.T, handlers ...IQHandler) (*watched, *xmppserver.Session) {
	t.Helper()
	server := startServer(t, serverOptions())
	w := newWatched(t, testConfig(server.Addr()), nil)
	link, err := New(w.cfg, []string{testHost}, Options{
		Sink: w.hearing, IQ: handlers, Metrics: w.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Link = link
	w.start()
	return w, accept(t, server)
}

// A handler gets its requests in the order of the stream and answers when it likes.
func TestIQHandlerAnswersLater(t *testing.T) {
	var order []string // of the reading goroutine
	requests := make(chan *IQ, 10)
	handle := func(q *IQ) {
		order = append(order, string(q.From)+" "+q.Node)
		requests <- q
	}
	command := xml.Name{Space: nsCommands, Local: "command"}
	w, session := newHandling(t,
		IQHandler{Name: "command", Element: command, Type: Set, Features: []string{nsCommands}, Identity: Identity{"pubsub", "push"}, Handle: handle},
		IQHandler{Name: "command_list", Element: command, Type: Set, Node: "list", Handle: func(q *IQ) {
			if err := q.Result([]byte("<command xmlns='" + nsCommands + "' status='completed'/>")); err != nil {
				t.Error(err)
			}
			if err := q.Fail(StanzaError{Type: "cancel", Condition: "gone"}); !errors.Is(err, ErrAnswered) {
				t.Errorf("second answer: %v", err)
			}
		}},
	)
	pass := w.handler
	w.handler = func(s *trust.Fact) { order = append(order, s.Body); pass(s) }
	ask := func(id, node string) string {
		return "<iq type='set' id='" + id + "' from='Alice@example.org/R' to='events.example.org/x'><command xmlns='" + nsCommands + "' node='" + node + "'/></iq>"
	}
	send(t, session, logged("one")+ask("1", "enable")+logged("two")+ask("2", "")+ask("3", "list")+
		"<iq type='get' id='4' from='alice@example.org/R' to='events.example.org'><command xmlns='"+nsCommands+"'/></iq>"+logged("three"))
	first, second := <-requests, <-requests
	for _, body := range []string{"one", "two", "three"} {
		w.wantFact(body)
	}
	if diff := cmp.Diff([]string{"one", "alice@example.org/R enable", "two", "alice@example.org/R ", "three"}, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	got := []any{first.From, first.To, first.Type, first.Element, first.Node, string(first.Raw)}
	if diff := cmp.Diff([]any{jid.JID("alice@example.org/R"), jid.JID("events.example.org/x"), Set, command, "enable", ask("1", "enable")}, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	// What is no XML never reaches the stream, and the sender is not left waiting.
	if err := second.Result([]byte("</iq>")); err == nil {
		t.Error("a broken payload was taken")
	}
	if err := first.Fail(StanzaError{Type: "auth", Condition: "forbidden", Text: "no <entry>", App: xml.Name{Space: "urn:x", Local: "why"}}); err != nil {
		t.Error(err)
	}
	answer := func(id, kind, inner string) xmppserver.Stanza {
		return xmppserver.Stanza{Name: "iq", Type: kind, ID: id, From: "events.example.org/x", To: "Alice@example.org/R", Inner: inner}
	}
	const condition = "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'"
	unsupported := answer("4", "error", "<error type='cancel'><service-unavailable "+condition+"/></error>")
	unsupported.From, unsupported.To = testName, "alice@example.org/R"
	for _, want := range []xmppserver.Stanza{
		answer("3", "result", "<command xmlns='"+nsCommands+"' status='completed'/>"),
		unsupported,
		answer("2", "error", "<error type='wait'><internal-server-error "+condition+"/></error>"),
		answer("1", "error", "<error type='auth'><forbidden "+condition+"/><text "+condition+">no &lt;entry&gt;</text><why xmlns='urn:x'/></error>"),
	} {
		if diff := cmp.Diff(want, receive(t, session)); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	}
	send(t, session, "<iq type='get' id='5' from='alice@example.org/R' to='events.example.org'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
	if info := receive(t, session); !strings.Contains(info.Inner, "<feature var='"+nsCommands+"'/>") || !strings.Contains(info.Inner, "<identity category='pubsub' type='push' name='eventpusher'/>") {
		t.Errorf("disco#info: %s", info.Inner)
	}
	if n := w.counter("eventpusher_iqs_total", "command"); n != 2 {
		t.Errorf("%v requests counted for the handler", n)
	}
	w.end()
}

func TestIQHandlersThatCannotBe(t *testing.T) {
	good := IQHandler{Name: "x", Element: xml.Name{Space: "urn:x", Local: "x"}, Type: Get, Handle: func(*IQ) {}}
	with := func(change func(*IQHandler)) IQHandler {
		h := good
		change(&h)
		return h
	}
	for name, handlers := range map[string][]IQHandler{
		"twice":       {good, good},
		"ping":        {with(func(h *IQHandler) { h.Element = xml.Name{Space: "urn:xmpp:ping", Local: "ping"} })},
		"no name":     {with(func(h *IQHandler) { h.Name = "" })},
		"no function": {with(func(h *IQHandler) { h.Handle = nil })},
		"no element":  {with(func(h *IQHandler) { h.Element = xml.Name{} })},
		"wrong type":  {with(func(h *IQHandler) { h.Type = "result" })},
	} {
		if _, err := New(testConfig("127.0.0.1:1"), []string{testHost}, Options{IQ: handlers}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(testConfig("127.0.0.1:1"), []string{testHost}, Options{IQ: []IQHandler{good, with(func(h *IQHandler) { h.Node = "n" })}}); err != nil {
		t.Error(err)
	}
}

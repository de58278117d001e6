package translator

import (
	"testing"

	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// TestFormsOfDomains: a domain is local in whichever form the server writes it, and events
// keep that form.
func TestFormsOfDomains(t *testing.T) {
	for _, tc := range []struct{ configured, written string }{
		{"bücher.example", "xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "bücher.example"},
		{"BÜCHER.example.", "bücher.example"},
	} {
		tr := New(Options{Hosts: []string{tc.configured}, MUCHosts: []string{"rooms." + tc.configured}, Component: "events.localhost"})
		from, to := jid.JID("alice@"+tc.written+"/r"), jid.JID("bob@"+tc.written)
		fact := message(trust.Firewall, trust.SentCopy, string(from), string(to), "chat").fact()
		fact.Host = jid.JID(tc.written)
		events := tr.Translate(fact, nil)
		if len(events) != 2 || events[0].Direction != event.In || events[1].Direction != event.Out || events[1].To != to || events[0].User != from.Bare() {
			t.Errorf("%s as %s: a chat message gives %+v", tc.configured, tc.written, events)
		}
		fact = message(trust.Firewall, trust.SentCopy, string(from), "tea@rooms."+tc.written, "groupchat").fact()
		fact.Host = jid.JID(tc.written)
		if events = tr.Translate(fact, nil); len(events) != 2 || events[1].Room != fact.To {
			t.Errorf("%s as %s: a message to a room gives %+v", tc.configured, tc.written, events)
		}
	}
}

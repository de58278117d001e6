package translator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// start is when all tests begin.
var start = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func newTranslator() *Translator {
	return New(Options{
		Hosts:     []string{"localhost", "Other.Example"},
		MUCHosts:  []string{"conference.localhost"},
		Component: "events.localhost",
		Now:       func() time.Time { return start },
	})
}

// show writes what an event says in one line, but for its id, its time and its packet.
func show(e *event.Event) string {
	var b strings.Builder
	if e.Kind == event.UserStatus {
		fmt.Fprintf(&b, "%s %s user=%s", e.Type, e.From, e.User)
	} else {
		what := e.Direction.String()
		if e.Kind != event.Chat {
			what += e.Kind.String()
		}
		fmt.Fprintf(&b, "%s %s %s -> %s user=%s", what, e.Type, e.From, e.To, e.User)
		if e.Room != "" {
			fmt.Fprintf(&b, " room=%s", e.Room)
		}
		fmt.Fprintf(&b, " %s", e.Class)
		if e.HasBody || e.Body != "" {
			fmt.Fprintf(&b, " %q", e.Body)
		}
	}
	fmt.Fprintf(&b, " count=%d", e.SessionCount)
	if e.StanzaID != "" {
		fmt.Fprintf(&b, " id=%s", e.StanzaID)
	}
	for _, f := range []struct {
		set  bool
		name string
	}{{e.Encrypted, "encrypted"}, {e.Unverified, "unverified"}, {e.Reconciled, "reconciled"}, {e.RecipientOffline, "nobody there"}, {e.Stranger, "stranger"}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	return b.String()
}

func showAll(events []event.Event) []string {
	lines := []string{}
	for i := range events {
		lines = append(lines, show(&events[i]))
	}
	return lines
}

// a stanza under construction; the zero time of receipt is filled in by play.
type draft struct {
	s     trust.Fact
	after time.Duration // since start
}

func message(d trust.Feed, c trust.Copy, from, to, kind string) draft {
	s := trust.Fact{Feed: d, Copy: c, Host: "localhost", Stanza: stanza.Stanza{
		Kind: stanza.Message, From: jid.JID(from), To: jid.JID(to), Type: kind, ID: "m1", Body: "hi", HasBody: true,
	}}
	return draft{s: s}
}

func presence(d trust.Feed, from, to, kind string) draft {
	s := trust.Fact{Feed: d, Host: "localhost", Stanza: stanza.Stanza{
		Kind: stanza.Presence, From: jid.JID(from), To: jid.JID(to), Type: kind,
	}}
	if d == trust.Firewall {
		s.Copy = trust.SentCopy
	}
	return draft{s: s}
}

func (d draft) id(id string) draft           { d.s.ID = id; return d }
func (d draft) host(h jid.JID) draft         { d.s.Host = h; return d }
func (d draft) flags(f stanza.Flags) draft   { d.s.Flags |= f; return d }
func (d draft) at(after time.Duration) draft { d.after = after; return d }
func (d draft) noBody() draft                { d.s.Body, d.s.HasBody = "", false; return d }
func (d draft) emptyBody() draft             { d.s.Body, d.s.HasBody = "", true; return d }
func (d draft) body(text string) draft       { d.s.Body, d.s.HasBody = text, true; return d }
func (d draft) copied(c trust.Copy) draft    { d.s.Copy = c; return d }

// priority must be the last word about a presence.
func (d draft) priority(n int) draft {
	d.s.Raw = fmt.Sprintf("<presence xmlns='jabber:client' from='%s' to='%s'><priority>%d</priority></presence>", d.s.From, d.s.To, n)
	return d
}

func (d draft) delay(from jid.JID) draft {
	d.s.Flags |= stanza.HasDelay
	d.s.DelayFrom, d.s.DelayStamp = from, start.Add(-time.Hour)
	return d
}

func (d draft) archivedBy(by jid.JID) draft { d.s.StanzaIDBy[1] = by; return d }

// fact returns it with bytes that differ where it differs.
func (d draft) fact() *trust.Fact {
	s := d.s
	if s.Raw == "" {
		s.Raw = fmt.Sprintf("<%s from='%s' to='%s' type='%s' id='%s'>%q %d %s %v</%s>",
			s.Kind, s.From, s.To, s.Type, s.ID, s.Body, s.Flags, s.DelayFrom, s.StanzaIDBy, s.Kind)
	}
	s.Received = start.Add(d.after)
	return &s
}

// play translates the stanzas in order and shows the events of all of them.
func play(t *Translator, drafts ...draft) []string {
	var events []event.Event
	for _, d := range drafts {
		events = t.Translate(d.fact(), events)
	}
	return showAll(events)
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

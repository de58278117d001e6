package translator

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// subscription is a message of MUC/Sub as ejabberd 23.01 writes it.
func subscription(from, node, items string) string {
	return "<message xmlns='jabber:client' to='bob@localhost' from='" + from + "' id='w1'><event xmlns='http://jabber.org/protocol/pubsub#event'>" +
		"<items node='urn:xmpp:mucsub:nodes:" + node + "'>" + items + "</items></event></message>"
}

const (
	said = "<message to='bob@localhost' from='" + room + "/ally' type='groupchat' id='g2' xmlns='jabber:client'><body>while bob is away</body></message>"
	item = "<item id='1'>" + said + "</item>"
)

// decoded returns the stanza as a fact of the feed.
func decoded(t *testing.T, raw string, f trust.Feed, k stanza.ReportKind) *trust.Fact {
	t.Helper()
	var env stanza.Envelope
	if err := stanza.NewDecoder(stanza.Limits{}).Decode([]byte(raw), &env); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	fact := &trust.Fact{Stanza: env.Outer, Feed: f, Copy: trust.ReceivedCopy, Host: "localhost", Received: start}
	if f == trust.EventFeed {
		fact.Report = stanza.Report{Kind: k, User: "bob@localhost", Source: "s", Epoch: "e", Seq: 1, At: start}
	}
	if f == trust.ServiceLog {
		fact.Copy = trust.UnknownCopy
	}
	return fact
}

// TestSubscriptions opens the wrapper in which a room sends a subscriber what was said.
func TestSubscriptions(t *testing.T) {
	ways := []struct {
		name string
		feed trust.Feed
		kind stanza.ReportKind
		is   string // what a message makes
	}{
		{"received", trust.EventFeed, stanza.MessageReceived, "out"},
		{"stored", trust.EventFeed, stanza.MessageOffline, "stored"},
		{"unacknowledged", trust.EventFeed, stanza.MessageUnacked, "unack"},
		{"logged", trust.ServiceLog, 0, "out"},
		{"received, firewall", trust.Firewall, 0, "out"},
	}
	wrapper := strings.Replace
	for _, tc := range []struct {
		name, raw string
		opened    bool
		skipped   bool // else it is a message without text of whoever sent it
	}{
		{"a message", subscription(room, "messages", item), true, false},
		{"a message with a prefix of its own", subscription(room, "messages",
			wrapper(item, "<body>", "<p:x xmlns:p='urn:p'/><body>", 1)), true, false},
		{"blanks between the elements", subscription(room, "messages", " "+wrapper(item, "><message", ">\n<message", 1)+"\n"), true, false},
		{"a subject", subscription(room, "subject", wrapper(item, "body>", "subject>", 2)), false, true},
		{"affiliations", subscription(room, "affiliations", "<item><message xmlns='jabber:client' from='"+room+"'/></item>"), false, true},
		{"a presence", subscription(room, "presence", "<item><presence xmlns='jabber:client' from='"+room+"/ally'/></item>"), false, true},
		{"two messages", subscription(room, "messages", item+item), false, true},
		{"no message", subscription(room, "messages", "<item/>"), false, true},
		{"a private message", subscription(room, "messages", wrapper(item, "groupchat", "chat", 1)), false, true},
		{"about another room", subscription(room, "messages", wrapper(item, "room@", "other@", 1)), false, true},
		{"of the room itself", subscription(room, "messages", wrapper(item, "/ally", "", 1)), false, true},
		{"of another namespace", subscription(room, "messages", wrapper(item, " xmlns='jabber:client'", "", 1)), false, true},
		{"with a prefix from around it", wrapper(subscription(room, "messages", wrapper(item, "<body>", "<p:x/><body>", 1)),
			"<event ", "<event xmlns:p='urn:p' ", 1), false, true},
		{"deeper", subscription(room, "messages", "<item><x xmlns='jabber:client'>"+said+"</x></item>"), false, true},
		{"of an occupant", subscription(room+"/ally", "messages", item), false, false},
		{"of a room elsewhere", strings.ReplaceAll(subscription(room, "messages", item), "conference.localhost", "rooms.example"), false, false},
		{"of a remote user", subscription("x@remote.example", "messages", item), false, false},
		{"of the room service", subscription("conference.localhost", "messages", item), false, false},
	} {
		for _, way := range ways {
			t.Run(tc.name+", "+way.name, func(t *testing.T) {
				tr := newTranslator()
				events := tr.Translate(decoded(t, tc.raw, way.feed, way.kind), nil)
				if len(events) == 0 {
					if !tc.skipped || tr.Stats().Skipped[SkippedServerMade] != 1 {
						t.Errorf("no event; %v", tr.Stats().Skipped)
					}
					return
				}
				e := events[0]
				kind := map[event.Kind]string{event.Chat: "out", event.Stored: "stored", event.Unack: "unack"}[e.Kind]
				opened := e.Type == "groupchat" && e.Body == "while bob is away" && e.Room == room && e.From == room+"/ally" && e.StanzaID == "g2" &&
					strings.HasPrefix(e.Packet, "<message to='bob@localhost' from='"+room+"/ally'")
				plain := e.Type == "normal" && e.Body == "" && !e.HasBody && e.Room == "" && e.StanzaID == "w1"
				if tc.skipped || len(events) != 1 || kind != way.is || e.User != "bob@localhost" || e.To != jid.JID("bob@localhost") || opened != tc.opened || plain == tc.opened {
					t.Errorf("%s: %+v", cmp.Diff(nil, showAll(events)), e)
				}
			})
		}
	}
}

// A user who forges a message of MUC/Sub has sent nothing but that.
func TestForgedSubscription(t *testing.T) {
	f := decoded(t, strings.Replace(subscription(alice, "messages", item), "to='bob@localhost' from", "to='"+room+"' from", 1), trust.Firewall, 0)
	f.Copy = trust.SentCopy
	want(t, showAll(newTranslator().Translate(f, nil)),
		`in normal alice@localhost/r1 -> `+room+` user=alice@localhost other count=0 id=w1 unverified`,
		`out normal alice@localhost/r1 -> `+room+` user=`+room+` other count=0 id=w1`)
}

package decide

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/notify"
	"eventpusher/event"
	"eventpusher/internal/jid"
)

// readRules reads the rules among the children of an enable.
func readRules(t *testing.T, children string) (*UserRules, error) {
	t.Helper()
	var e struct{ Elements }
	if err := xml.Unmarshal([]byte("<enable xmlns='urn:xmpp:push:0'>"+children+"</enable>"), &e); err != nil {
		t.Fatal(err)
	}
	return e.Rules()
}

func muted(items string) string { return "<muted xmlns='" + nsMuted + "'>" + items + "</muted>" }
func rooms(list string) string  { return "<groupchat xmlns='" + nsRooms + "'>" + list + "</groupchat>" }

func encrypt(attributes, key string) string {
	return "<encrypt xmlns='tigase:push:encrypt:0' " + attributes + ">" + key + "</encrypt>"
}

func TestReadRules(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want *UserRules
	}{
		"none":                {"<muted/><x xmlns='jabber:x:data'/>", nil},
		"nothing muted":       {muted(""), nil},
		"muted":               {muted("<item jid='Romeo@Example.com/x'/><item jid='b@c'/>"), &UserRules{Muted: map[jid.JID]int64{"romeo@example.com": 0, "b@c": 0}}},
		"muted until":         {muted("<item jid='b@c' until='2026-01-02T04:04:05+01:00'/>"), &UserRules{Muted: map[jid.JID]int64{"b@c": 1767323045}}},
		"no room at all":      {rooms(""), &UserRules{Rooms: map[jid.JID]string{}}},
		"never is as unnamed": {rooms("<room jid='a@muc' allow='never'/>"), &UserRules{Rooms: map[jid.JID]string{}}},
		"contacts only":       {"<ignore-unknown xmlns='tigase:push:filter:ignore-unknown:0'/>", &UserRules{IgnoreUnknown: true}},
		"priority":            {"<priority xmlns='tigase:push:priority:0'/>", &UserRules{Priority: true}},
		"encrypt": {
			encrypt("alg='aes-128-gcm'", " AAECAwQFBgcI\nCQoLDA0ODw== "),
			&UserRules{Encryption: &notify.Encryption{Key: notify.Key{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}},
		},
		"encrypt a little": {
			encrypt("alg='AES-128-GCM' max-size='256'", "AAECAwQFBgcICQoLDA0ODw=="),
			&UserRules{Encryption: &notify.Encryption{Key: notify.Key{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, MaxSize: 256}},
		},
		"encrypt more than anybody takes": {
			encrypt("alg='aes-128-gcm' max-size='100000'", "AAECAwQFBgcICQoLDA0ODw=="),
			&UserRules{Encryption: &notify.Encryption{Key: notify.Key{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, MaxSize: notify.MaxSealed}},
		},
		"rooms": {
			rooms("<room jid='a@muc' allow='always' nick='x'/><room jid='b@muc' allow='mentioned' nick='Juliet'/>"),
			&UserRules{Rooms: map[jid.JID]string{"a@muc": "", "b@muc": "Juliet"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readRules(t, c.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadRulesRefuses(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "<item jid='a%d@b'/>", i)
		}
		return b.String()
	}
	if _, err := readRules(t, muted(many(maxRules-1))+rooms("<room jid='a@muc' allow='always'/>")); err != nil {
		t.Errorf("as many as are allowed: %v", err)
	}
	for name, c := range map[string]struct{ in, condition string }{
		"too many":          {muted(many(maxRules)) + rooms("<room jid='a@muc' allow='always'/>"), "not-acceptable"},
		"too long":          {muted("<item jid='a@b/" + strings.Repeat("r", maxRuleBytes) + "'/>"), "not-acceptable"},
		"a long nick":       {rooms("<room jid='a@muc' allow='mentioned' nick='" + strings.Repeat("n", maxNick+1) + "'/>"), "bad-request"},
		"no address":        {muted("<item/>"), "bad-request"},
		"a wrong address":   {muted("<item jid='a@'/>"), "bad-request"},
		"a wrong time":      {muted("<item jid='a@b' until='tomorrow'/>"), "bad-request"},
		"mentions of what?": {rooms("<room jid='a@muc' allow='mentioned'/>"), "bad-request"},
		"no algorithm":      {encrypt("", "AAECAwQFBgcICQoLDA0ODw=="), "feature-not-implemented"},
		"another algorithm": {encrypt("alg='aes-256-gcm'", "AAECAwQFBgcICQoLDA0ODw=="), "feature-not-implemented"},
		"no key":            {encrypt("alg='aes-128-gcm'", ""), "bad-request"},
		"half a key":        {encrypt("alg='aes-128-gcm'", "AAECAwQFBgc="), "bad-request"},
		"a size of nothing": {encrypt("alg='aes-128-gcm' max-size='255'", "AAECAwQFBgcICQoLDA0ODw=="), "bad-request"},
		"a size of words":   {encrypt("alg='aes-128-gcm' max-size='4 KiB'", "AAECAwQFBgcICQoLDA0ODw=="), "bad-request"},
		"allow nothing":     {rooms("<room jid='a@muc'/>"), "bad-request"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := readRules(t, c.in)
			var wrong *RulesError
			if !errors.As(err, &wrong) || wrong.Condition != c.condition || r != nil || strings.Contains(err.Error(), "AAEC") {
				t.Errorf("%v, %v", r, err)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	r := &UserRules{
		IgnoreUnknown: true,
		Muted:         map[jid.JID]int64{"for-ever@x": 0, "later@x": now.Unix() + 60, "past@x": now.Unix(), "loud@muc": 0},
		Rooms:         map[jid.JID]string{"all@muc": "", "some@muc": "Al", "loud@muc": ""},
	}
	chat := func(from jid.JID) event.Event {
		return event.Event{Kind: event.Chat, Direction: event.Out, Type: "chat", From: from, User: "bob@x", Body: "hi", RecipientOffline: true, Time: now}
	}
	room := func(from jid.JID, body string) event.Event {
		e := chat(from)
		e.Kind, e.Direction, e.Type, e.Body = event.Missed, event.NoDirection, "groupchat", body
		return e
	}
	strange := chat("eve@x/desk")
	strange.Stranger = true
	hidden := room("some@muc/eve", "Al, this stands for something encrypted")
	hidden.Encrypted = true
	for name, c := range map[string]struct {
		e    event.Event
		want Reason
	}{
		"a stranger":           {strange, Unknown},
		"nobody's":             {chat("alice@x/desk"), Push},
		"muted":                {chat("for-ever@x/desk"), Muted},
		"muted for a minute":   {chat("later@x/desk"), Muted},
		"not muted any more":   {chat("past@x/desk"), Push},
		"a muted room":         {room("loud@muc/eve", "hi"), Muted},
		"a room":               {room("all@muc/eve", "hi"), Push},
		"another room":         {room("other@muc/eve", "hi"), RoomUnwanted},
		"a word from a room":   {chat("other@muc/eve"), Push},
		"mentioned":            {room("some@muc/eve", "hi @al: tea?"), Push},
		"mentioned last":       {room("some@muc/eve", "also, AL"), Push},
		"mentioned after all":  {room("some@muc/eve", "Also Alice, Alex and al"), Push},
		"only part of a word":  {room("some@muc/eve", "Also Alice, équal and _al_"), NotMentioned},
		"mentioned too late":   {room("some@muc/eve", strings.Repeat("-", event.MissedBody)+" al"), NotMentioned},
		"not mentioned":        {room("some@muc/eve", "hi"), NotMentioned},
		"nobody can tell that": {hidden, NotMentioned},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decider{Plugin: Defaults}
			n, reason := d.Decide(&c.e)
			if reason != Push {
				t.Fatal(reason)
			}
			if got := r.Refuses(&c.e, &n); got != c.want {
				t.Errorf("%q, not %q", got, c.want)
			}
			if got := (*UserRules)(nil).Refuses(&c.e, &n); got != Push {
				t.Errorf("without rules: %q", got)
			}
		})
	}
}

// FuzzMentions compares with a search for the nick among words where that is the same.
func FuzzMentions(f *testing.F) {
	f.Add("hi Al, tea?", "al")
	f.Add("", "a")
	f.Add("\xff\xffa", "\xff")
	f.Fuzz(func(t *testing.T, text, nick string) {
		if nick == "" {
			return
		}
		if found := mentions(text, nick); found && !strings.Contains(strings.ToLower(text), strings.ToLower(nick)) {
			t.Errorf("%q is not in %q", nick, text)
		}
		if !mentions(nick+" "+text, nick) && len(nick) <= maxNick && utf8.ValidString(nick) {
			t.Errorf("%q is not found", nick)
		}
	})
}

// BenchmarkMentions: the worst that a user and a member of a room can make of one registration.
func BenchmarkMentions(b *testing.B) {
	text, nick := strings.Repeat("a", 1<<18), strings.Repeat("a", maxNick)
	for b.Loop() {
		if mentions(text, nick) {
			b.Fatal("it is no word")
		}
	}
}

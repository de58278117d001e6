package decide

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/notify"
	"eventpusher/event"
)

// message is one from alice to bob, who is offline.
func message(change func(*event.Event)) *event.Event {
	e := &event.Event{
		ID: "e1", Kind: event.Chat, Type: "chat", Direction: event.Out, From: "alice@example.org/desk", To: "bob@example.org",
		User: "bob@example.org", Body: "hi", HasBody: true, Class: event.Content, RecipientOffline: true, StanzaID: "s1", Dialect: "event-feed",
	}
	if change != nil {
		change(e)
	}
	return e
}

func inRoom(e *event.Event) {
	e.Type, e.From, e.Room = "groupchat", "room@conference.example.org/Ally", "room@conference.example.org"
}

// missed is what bob, a member, has missed in a room.
func missed(e *event.Event) {
	inRoom(e)
	e.ID, e.Kind, e.Direction = "e4", event.Missed, event.NoDirection
}

func TestFields(t *testing.T) {
	field := func(sender, body string) []notify.Field {
		list := []notify.Field{{Name: "message-count", Value: "1"}}
		if sender != "" {
			list = append(list, notify.Field{Name: "last-message-sender", Value: sender})
		}
		return append(list, notify.Field{Name: "last-message-body", Value: body})
	}
	jingle := "<message xmlns='jabber:client'><propose xmlns='urn:xmpp:jingle-message:0' id='ca3c'><x/></propose><store xmlns='urn:xmpp:hints'/></message>"
	for name, c := range map[string]struct {
		d    Decider
		e    *event.Event
		want []notify.Field
	}{
		"chat":      {Decider{Plugin: Defaults, Content: notify.ContentBody}, message(nil), field("alice@example.org", "hi")},
		"groupchat": {Decider{Plugin: Defaults, Content: notify.ContentBody}, message(inRoom), field("room@conference.example.org/Ally", "hi")},
		// push_SUITE, muclight_msg_notify_if_user_offline: the occupant's nick is his address.
		"MUC Light": {Decider{Plugin: Defaults, Content: notify.ContentBody}, message(func(e *event.Event) {
			inRoom(e)
			e.From = "room@muclight.example.org/alice@example.org"
		}), field("room@muclight.example.org/alice@example.org", "hi")},
		"stored":    {Decider{Plugin: Defaults, Content: notify.ContentBody}, message(func(e *event.Event) { e.Kind, e.Direction = event.Stored, event.NoDirection }), field("alice@example.org", "hi")},
		"missed":    {Decider{Plugin: Defaults, Content: notify.ContentBody}, message(missed), field("room@conference.example.org/Ally", "hi")},
		"encrypted": {Decider{Plugin: Defaults, Content: notify.ContentBody}, message(func(e *event.Event) { e.Encrypted = true }), field("alice@example.org", notify.GenericBody)},
		"sender":    {Decider{Plugin: Defaults, Content: notify.ContentSender}, message(nil), field("alice@example.org", notify.GenericBody)},
		"nothing":   {Decider{Plugin: Defaults, Content: notify.ContentNone}, message(nil), field("", notify.GenericBody)},
		"unacked": {Decider{Plugin: Enhanced, Content: notify.ContentBody}, message(func(e *event.Event) {
			e.Kind, e.Direction, e.RecipientOffline, e.To = event.Unack, event.NoDirection, false, "bob@example.org/phone"
		}), field("alice@example.org", "hi")},
		"hints with a body": {Decider{Plugin: Hints, Content: notify.ContentBody}, message(func(e *event.Event) {
			e.Packet = "<message xmlns='jabber:client'><store xmlns='urn:xmpp:hints'/></message>"
		}), field("alice@example.org", "hi")},
		"a long text": {Decider{Plugin: Defaults, Content: notify.ContentBody}, message(func(e *event.Event) { e.Body = strings.Repeat("'é", 1<<16) }),
			field("alice@example.org", strings.Repeat("'é", 1023)+"…")},
		"a call, nothing to be told": {Decider{Plugin: Hints, Content: notify.ContentNone}, message(func(e *event.Event) { e.Body, e.Packet = "", jingle }), []notify.Field{
			{Name: "jingle-message", Value: "propose"}, {Name: "jingle-session-id", Value: "ca3c"},
		}},
		"a call": {Decider{Plugin: Hints, Content: notify.ContentBody}, message(func(e *event.Event) { e.Body, e.Packet = "", jingle }), []notify.Field{
			{Name: "message-sender", Value: "alice@example.org"}, {Name: "jingle-message", Value: "propose"}, {Name: "jingle-session-id", Value: "ca3c"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			n, reason := c.d.Decide(c.e)
			if reason != Push || c.d.Concerns(c.e) != Push {
				t.Fatal(reason)
			}
			if diff := cmp.Diff(c.want, n.Fields()); diff != "" {
				t.Error(diff)
			}
			if (n.Session != "") != (c.e.Kind == event.Unack) {
				t.Errorf("session %q", n.Session)
			}
		})
	}
}

func TestNoNotice(t *testing.T) {
	packet := func(children string) func(*event.Event) {
		return func(e *event.Event) { e.Body, e.Packet = "", "<message xmlns='jabber:client'>"+children+"</message>" }
	}
	for name, c := range map[string]struct {
		plugin Plugin
		change func(*event.Event)
		want   Reason
	}{
		"a status":                 {Hints, func(e *event.Event) { e.Kind = event.UserStatus }, NotMessage},
		"on its way in":            {Hints, func(e *event.Event) { e.Direction = event.In }, NotMessage},
		"normal":                   {Hints, func(e *event.Event) { e.Type = "normal" }, WrongType},
		"headline":                 {Hints, func(e *event.Event) { e.Type = "headline" }, WrongType},
		"to a room":                {Hints, func(e *event.Event) { inRoom(e); e.User, e.RecipientOffline = "room@conference.example.org", false }, Online},
		"to the server":            {Hints, func(e *event.Event) { e.User = "example.org" }, NotOurs},
		"online":                   {Hints, func(e *event.Event) { e.RecipientOffline = false }, Online},
		"no feed knows":            {Hints, func(e *event.Event) { e.RecipientOffline, e.Dialect = false, "service_log" }, CannotTell},
		"seen by another feed":     {Hints, func(e *event.Event) { e.RecipientOffline, e.Dialect, e.SessionCount = false, "service_log", 1 }, Online},
		"nobody knows":             {Hints, func(e *event.Event) { e.RecipientOffline, e.Unverified = false, true }, Unclear},
		"known in spite of doubt":  {Hints, func(e *event.Event) { e.Unverified, e.Body = true, "" }, NoBody},
		"unacked":                  {Defaults, func(e *event.Event) { e.Kind = event.Unack }, Unacked},
		"chat state":               {Hints, packet("<composing xmlns='http://jabber.org/protocol/chatstates'/>"), NoBody},
		"no-store":                 {Hints, func(e *event.Event) { e.Packet = "<message><body>x</body><no-store xmlns='urn:xmpp:hints'/></message>" }, NoStore},
		"call not to be stored":    {Hints, packet("<propose xmlns='urn:xmpp:jingle-message:0' id='a'/>"), NoBody},
		"call without an id":       {Hints, packet("<propose xmlns='urn:xmpp:jingle-message:0'/><store xmlns='urn:xmpp:hints'/>"), NoBody},
		"hints further down":       {Hints, packet("<x><store xmlns='urn:xmpp:hints'/><propose xmlns='urn:xmpp:jingle-message:0' id='a'/></x>"), NoBody},
		"a call with a long id":    {Hints, packet("<propose xmlns='urn:xmpp:jingle-message:0' id='" + strings.Repeat("a", 1025) + "'/><store xmlns='urn:xmpp:hints'/>"), NoBody},
		"a call of a long sort":    {Hints, packet("<p" + strings.Repeat("a", 1025) + " xmlns='urn:xmpp:jingle-message:0' id='a'/><store xmlns='urn:xmpp:hints'/>"), NoBody},
		"a call and other plugins": {Enhanced, packet("<propose xmlns='urn:xmpp:jingle-message:0' id='a'/><store xmlns='urn:xmpp:hints'/>"), NoBody},
		"missed, without a text":   {Hints, func(e *event.Event) { missed(e); e.Body = "" }, NoBody},
		"from himself":             {Hints, func(e *event.Event) { e.From = "bob@example.org/desk" }, OwnMessage},
	} {
		t.Run(name, func(t *testing.T) {
			n, reason := Decider{Plugin: c.plugin, Content: notify.ContentBody}.Decide(message(c.change))
			if reason != c.want {
				t.Errorf("got %q, %+v", reason, n)
			}
		})
	}
}

// TestKey: the events of one message have one key, other messages another.
func TestKey(t *testing.T) {
	key := func(change func(*event.Event)) string {
		n, reason := Decider{Plugin: Enhanced, Content: notify.ContentBody}.Decide(message(change))
		if reason != Push {
			t.Fatal(reason)
		}
		return n.Key
	}
	same := key(nil)
	for name, change := range map[string]func(*event.Event){
		"stored":  func(e *event.Event) { e.ID, e.Kind = "e2", event.Stored },
		"unacked": func(e *event.Event) { e.ID, e.Kind, e.To = "e3", event.Unack, "bob@example.org/phone" },
	} {
		if key(change) != same {
			t.Errorf("%s: another key", name)
		}
	}
	inTheRoom := key(inRoom)
	for name, change := range map[string]func(*event.Event){
		"stored":  func(e *event.Event) { inRoom(e); e.ID, e.Kind = "e2", event.Stored },
		"unacked": func(e *event.Event) { inRoom(e); e.ID, e.Kind, e.To = "e3", event.Unack, "bob@example.org/phone" },
		"missed":  missed,
	} {
		if key(change) != inTheRoom || inTheRoom == same {
			t.Errorf("in a room, %s: another key", name)
		}
	}
	long := func(kind event.Kind, bytes int) string {
		return key(func(e *event.Event) { inRoom(e); e.Kind, e.Body = kind, strings.Repeat("ä", bytes/2) })
	}
	if long(event.Missed, event.MissedBody) != long(event.Unack, 8*event.MissedBody) {
		t.Error("a long text is another one when it is missed")
	}
	without := func(body string, at int64) string {
		return key(func(e *event.Event) { e.StanzaID, e.Body, e.Time = "", body, time.Unix(at, 0) })
	}
	if first, stored := without("disk full", 1000), without("disk full", 1001); first != stored {
		t.Error("the events of a message without an id are taken for two")
	}
	if without("disk full", 1000) == without("all is well", 1000) {
		t.Error("messages without an id are not told apart by their content")
	}
	call := func(kind event.Kind, to string) string {
		n, _ := Decider{Plugin: Hints, Content: notify.ContentBody}.Decide(message(func(e *event.Event) {
			e.Kind, e.Body = kind, ""
			e.Packet = "<message to='" + to + "'><propose xmlns='urn:xmpp:jingle-message:0' id='a'/><store xmlns='urn:xmpp:hints'/></message>"
		}))
		return n.Key
	}
	if call(event.Chat, "bob@example.org") != call(event.Stored, "bob@example.org/phone") {
		t.Error("the events of a call are taken for two")
	}
	if long := key(func(e *event.Event) { e.StanzaID = strings.Repeat("x", 1<<18) }); len(long) > 32 {
		t.Errorf("a key of %d bytes, which is kept for each service", len(long))
	}
	for name, change := range map[string]func(*event.Event){
		"text":      func(e *event.Event) { e.Body = "ho" }, // of a client that counts from 1 at each start
		"sender":    func(e *event.Event) { e.From = "carol@example.org/desk" },
		"recipient": func(e *event.Event) { e.User = "dave@example.org" },
		"id":        func(e *event.Event) { e.StanzaID = "s2" },
	} {
		if key(change) == same {
			t.Errorf("%s: the same key", name)
		}
	}
}

// TestPrivate: what is encrypted, in each content mode (section 4.4 of Tigase's document).
func TestPrivate(t *testing.T) {
	call := func(step, media string) func(*event.Event) {
		return func(e *event.Event) {
			e.Body = ""
			e.Packet = "<message><" + step + " xmlns='urn:xmpp:jingle-message:0' id='ca3c'>" + media + "</" + step + "><store xmlns='urn:xmpp:hints'/></message>"
		}
	}
	const rtp = "<description xmlns='urn:xmpp:jingle:apps:rtp:1' media="
	for name, c := range map[string]struct {
		content notify.Content
		change  func(*event.Event)
		want    notify.Private
	}{
		"chat":              {notify.ContentBody, nil, notify.Private{Unread: 1, Sender: "alice@example.org", Type: "chat", Message: "hi"}},
		"chat, sender":      {notify.ContentSender, nil, notify.Private{Unread: 1, Sender: "alice@example.org", Type: "chat", Message: notify.GenericBody}},
		"chat, none":        {notify.ContentNone, nil, notify.Private{Unread: 1, Type: "chat", Message: notify.GenericBody}},
		"in a room":         {notify.ContentBody, inRoom, notify.Private{Unread: 1, Sender: "room@conference.example.org", Type: "groupchat", Message: "hi", Nickname: "Ally"}},
		"in a room, none":   {notify.ContentNone, inRoom, notify.Private{Unread: 1, Type: "groupchat", Message: notify.GenericBody}},
		"end-to-end":        {notify.ContentBody, func(e *event.Event) { e.Encrypted = true }, notify.Private{Unread: 1, Sender: "alice@example.org", Type: "chat", Message: notify.GenericBody}},
		"a call":            {notify.ContentBody, call("propose", rtp+"'audio'/>"+rtp+"'video'/>"+rtp+"'audio'/><x media='video'/>"), notify.Private{Unread: 1, Sender: "alice@example.org/desk", Type: "call", SID: "ca3c", Media: []string{"audio", "video"}}},
		"a call of nothing": {notify.ContentNone, call("propose", rtp+"'smell'/>"), notify.Private{Unread: 1, Type: "call", SID: "ca3c", Media: []string{}}},
		"a call that ends":  {notify.ContentBody, call("retract", ""), notify.Private{Unread: 1, Sender: "alice@example.org/desk", Type: "call", SID: "ca3c"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := message(c.change)
			n, reason := Decider{Plugin: Hints, Content: c.content}.Decide(e)
			if reason != Push {
				t.Fatal(reason)
			}
			if diff := cmp.Diff(c.want, n.Private(e)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

package decide

import (
	"testing"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/event"
)

// manual is the example of MongooseIM's manual: never what is not to be stored; else a text for
// somebody who is away, or whose client is inactive, or who has not acknowledged it.
func manual() []config.PushRule {
	return []config.PushRule{
		{Action: "skip", Conditions: []config.PushCondition{{Hint: "no_store"}}},
		{Action: "push", Content: "message", Conditions: []config.PushCondition{
			{Event: "msg", Body: "non_empty", UserStatus: "offline"},
			{Event: "msg", Body: "non_empty", UserStatus: "online", ClientState: "inactive"},
			{Event: "unack_msg", Body: "non_empty"},
		}},
	}
}

func TestOrderedRules(t *testing.T) {
	yes, no := true, false
	online := func(e *event.Event) { e.RecipientOffline, e.SessionCount = false, 1 }
	unacked := func(e *event.Event) { e.Kind, e.Direction, e.RecipientOffline = event.Unack, event.NoDirection, false }
	holding := func(children string) func(*event.Event) {
		return func(e *event.Event) { e.Packet = "<message xmlns='jabber:client'>" + children + "</message>" }
	}
	call := func(e *event.Event) {
		holding("<propose xmlns='urn:xmpp:jingle-message:0' id='ca3c'/>")(e)
		e.Body, e.HasBody = "", false
	}
	all := func(content string, list ...config.PushCondition) []config.PushRule {
		return []config.PushRule{{Action: "push", Content: content, Conditions: list}}
	}
	for name, c := range map[string]struct {
		rules  []config.PushRule
		change func(*event.Event)
		want   Reason
	}{
		"the manual's, offline":              {manual(), nil, Push},
		"the manual's, online":               {manual(), online, NoRule},
		"the manual's, unacknowledged":       {manual(), unacked, Push},
		"the manual's, not to be stored":     {manual(), holding("<body>hi</body><no-store xmlns='urn:xmpp:hints'/>"), RuleSkip},
		"the manual's, missed in a room":     {manual(), missed, Push},
		"the manual's, a chat state":         {manual(), func(e *event.Event) { e.Body, e.HasBody = "", false }, NoRule},
		"the first one decides":              {append([]config.PushRule{{Action: "skip"}}, manual()...), nil, RuleSkip},
		"the first one decides, to push":     {append(all("message"), config.PushRule{Action: "skip"}), nil, Push},
		"without conditions, online":         {all("message"), online, Push},
		"without conditions, without a text": {all("message"), func(e *event.Event) { e.Body = "" }, NoBody},
		"no rule":                            {[]config.PushRule{}, nil, NoRule},
		"online":                             {all("message", config.PushCondition{UserStatus: "online"}), online, Push},
		"online, and nobody knows":           {all("message", config.PushCondition{UserStatus: "online"}), func(e *event.Event) { online(e); e.Unverified = true }, NoRule},
		"online, and no feed tells":          {all("message", config.PushCondition{UserStatus: "online"}), func(e *event.Event) { e.RecipientOffline, e.Dialect = false, "service_log" }, NoRule},
		"a status of what has none":          {all("message", config.PushCondition{UserStatus: "online"}), unacked, NoRule},
		"another event":                      {all("message", config.PushCondition{Event: "unack_msg"}), nil, NoRule},
		"rooms alone, a chat":                {all("message", config.PushCondition{Type: "groupchat"}), nil, NoRule},
		"rooms alone":                        {all("message", config.PushCondition{Type: "groupchat"}), inRoom, Push},
		"an empty text":                      {all("message", config.PushCondition{Body: "empty"}), func(e *event.Event) { e.Body = "" }, NoBody},
		"no text, and there is one":          {all("message", config.PushCondition{Body: "absent"}), nil, NoRule},
		"to be stored":                       {all("message", config.PushCondition{Hint: "store"}), holding("<store xmlns='urn:xmpp:hints'/>"), Push},
		"to be stored, without the hint":     {all("message", config.PushCondition{Hint: "store"}), nil, NoRule},
		"calls":                              {all("jingle", config.PushCondition{Jingle: &yes}), call, Push},
		"calls, a text":                      {all("jingle", config.PushCondition{Jingle: &yes}), nil, NoRule},
		"no calls, a text":                   {all("message", config.PushCondition{Jingle: &no}), nil, Push},
		"calls without condition, a text":    {all("jingle"), nil, RuleOfCall},
		"from himself":                       {all("message"), func(e *event.Event) { e.From = "bob@example.org/desk" }, OwnMessage},
		"a headline":                         {all("message"), func(e *event.Event) { e.Type = "headline" }, WrongType},
		"to the server":                      {all("message"), func(e *event.Event) { e.User = "example.org" }, NotOurs},
	} {
		t.Run(name, func(t *testing.T) {
			d, e := Decider{Plugin: Defaults, Content: notify.ContentBody, Rules: c.rules}, message(c.change)
			n, got := d.Decide(e)
			if got != c.want {
				t.Fatalf("%q, want %q", got, c.want)
			}
			if got == Push && (d.Concerns(e) != Push || n.Session != "") {
				t.Errorf("concerns %q, session %q", d.Concerns(e), n.Session)
			}
			if content := c.rules[:min(1, len(c.rules))]; got == Push && content[0].Content == contentJingle && n.CallID != "ca3c" {
				t.Errorf("%+v", n)
			}
		})
	}
}

package config

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const rulesBase = "[component]\nname = 'events.example.org'\nsecret = 'x'\n[general]\nhosts = ['example.org']\n[modules.mod_event_pusher]\nfollow = '6.9'\n"

// TestPushRules: the example of MongooseIM 6.9's manual is read, and what of it cannot be so
// here is said.
func TestPushRules(t *testing.T) {
	c, problems := Parse([]byte(rulesBase+`
[modules.mod_event_pusher.push]
  [[modules.mod_event_pusher.push.rules]]
    conditions = [{ hint = "no_store" }]
    action = "skip"
  [[modules.mod_event_pusher.push.rules]]
    conditions = [
      { event = "msg", body = "non_empty", user_status = "offline" },
      { event = "msg", body = "non_empty", user_status = "online", client_state = "inactive" },
      { event = "unack_msg", type = "chat", jingle = false }
    ]
    action = "push"
    content = "message"
  [[modules.mod_event_pusher.push.rules]]
    action = "push"
    content = "jingle"
`), nil, "")
	want := "warning: modules.mod_event_pusher.push.rules[2].conditions[2].client_state: never holds: no feed tells whether a client is inactive (XEP-0352); " +
		"remove the condition, or the rule if it has no other\n"
	if got := lines(problems); c == nil || got != want {
		t.Fatalf("%s", got)
	}
	no := false
	rules := []PushRule{
		{Action: "skip", Conditions: []PushCondition{{Hint: "no_store"}}},
		{Action: "push", Content: "message", Conditions: []PushCondition{
			{Event: "msg", Body: "non_empty", UserStatus: "offline"},
			{Event: "msg", Body: "non_empty", UserStatus: "online", ClientState: "inactive"},
			{Event: "unack_msg", Type: "chat", Jingle: &no},
		}},
		{Action: "push", Content: "jingle"},
	}
	if diff := cmp.Diff(rules, c.Pusher.Push.Rules); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !c.Pusher.ToUsersOnly() {
		t.Error("6.9 is not followed")
	}
}

func TestPushRulesThatNotifyNobody(t *testing.T) {
	c, problems := Parse([]byte(rulesBase+"[modules.mod_event_pusher.push]\n[[modules.mod_event_pusher.push.rules]]\naction = 'skip'\n"), nil, "")
	want := `warning: modules.mod_event_pusher.push.rules: no rule has the action push, so nobody is notified; add one with action = "push" and content = "message"` + "\n"
	if got := lines(problems); c == nil || got != want {
		t.Errorf("%s", got)
	}
}

package config

import "slices"

// followNew is the later MongooseIM that Modules.Follow can name.
const followNew = "6.9"

// ToUsersOnly reports whether a message on its way to a room or to the server itself makes no
// event, as in MongooseIM 6.9 (its migration guide, 6.8.1 to 6.9.0).
func (m *Modules) ToUsersOnly() bool { return m.Follow == followNew }

func (r *PushRule) fields() []field {
	return []field{
		list("conditions", &r.Conditions, (*PushCondition).fields),
		choice("action", &r.Action, nil, "push", "skip"),
		choice("content", &r.Content, nil, "message", "jingle"),
	}
}

func (c *PushCondition) fields() []field {
	return []field{
		choice("event", &c.Event, nil, "msg", "unack_msg"),
		choice("type", &c.Type, nil, "chat", "groupchat"),
		choice("body", &c.Body, nil, "absent", "empty", "non_empty"),
		choice("hint", &c.Hint, nil, "no_store", "store"),
		scalar("jingle", booleanShape, nil, truth, func(on bool) { c.Jingle = &on }),
		choice("user_status", &c.UserStatus, nil, "online", "offline"),
		choice("client_state", &c.ClientState, nil, "active", "inactive"),
	}
}

// pushRules checks [[modules.mod_event_pusher.push.rules]].
func (l *loader) pushRules(m *Modules) {
	at := pusherPath.with("push").with("rules")
	if m.Push == nil || !l.given(at...) {
		return
	}
	if plugin := pusherPath.with("push").with("plugin_module"); l.given(plugin...) {
		l.errorf(plugin.String(), "is given beside rules, which take its place", "remove one of the two")
	}
	if m.Follow != followNew {
		l.note(at.String(), "are an option of MongooseIM 6.9; its other change, that messages to rooms and to the server make no received events, needs "+
			pusherPath.with("follow").String()+" = "+quote(followNew))
	}
	pushes := false
	for i := range m.Push.Rules {
		l.pushRule(&m.Push.Rules[i], at.with(position(i)))
		pushes = pushes || m.Push.Rules[i].Action == "push"
	}
	if !pushes && !HasError(l.list, at.String()) {
		l.warn(at.String(), "no rule has the action push, so nobody is notified", `add one with action = "push" and content = "message"`)
	}
}

func (l *loader) pushRule(r *PushRule, at keyPath) {
	l.require(at.with("action").String(), `write action = "push" or action = "skip"`, r.Action == "")
	l.require(at.with("content").String(), `write content = "message", or "jingle" for calls`, r.Action == "push" && r.Content == "")
	if r.Action == "skip" && r.Content != "" {
		l.errorf(at.with("content").String(), "belongs to the action push", "remove it")
	}
	conditions := at.with("conditions")
	if l.given(conditions...) && len(r.Conditions) == 0 && !l.isSettled(conditions.String()) {
		l.errorf(conditions.String(), "is empty", "name a condition, or remove the key: then the rule is for all messages")
	}
	for i, c := range r.Conditions {
		here := conditions.with(position(i))
		switch {
		case c == PushCondition{} && !HasError(l.list, here.String()):
			l.errorf(here.String(), "is empty", `name what has to be so, such as { body = "non_empty" }`)
		case c.ClientState != "":
			l.warn(here.with("client_state").String(), "never holds: no feed tells whether a client is inactive (XEP-0352)", "remove the condition, or the rule if it has no other")
		case c.Event == "unack_msg" && c.UserStatus != "":
			l.warn(here.with("user_status").String(), "never holds of unack_msg", "remove one of the two")
		}
		if c != (PushCondition{}) && slices.ContainsFunc(r.Conditions[:i], c.equal) {
			l.errorf(here.String(), "stands there twice", "remove one of them")
		}
	}
}

func (c PushCondition) equal(o PushCondition) bool {
	same := c.Jingle == o.Jingle || c.Jingle != nil && o.Jingle != nil && *c.Jingle == *o.Jingle
	c.Jingle, o.Jingle = nil, nil
	return same && c == o
}

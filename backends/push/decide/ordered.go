package decide

import (
	"eventpusher/config"
	"eventpusher/event"
)

// contentJingle is the content of a rule that pushes calls (XEP-0353).
const contentJingle = "jingle"

// ruled applies MongooseIM's push.rules (mod_event_pusher_push_rules.erl): the first one that
// matches decides, and without one there is no notification. Without h it looks at no text, and
// a rule that depends on one counts as matching if it pushes and as not matching if it skips.
func (d Decider) ruled(e *event.Event, h *hints) (content string, r Reason) {
	for i := range d.Rules {
		switch rule := &d.Rules[i]; {
		case !matches(rule, e, h):
		case rule.Action == "push":
			return rule.Content, Push
		default:
			return "", RuleSkip
		}
	}
	return "", NoRule
}

func matches(rule *config.PushRule, e *event.Event, h *hints) bool {
	for i := range rule.Conditions {
		c := &rule.Conditions[i]
		if h == nil && (c.Hint != "" || c.Jingle != nil) && rule.Action != "push" {
			continue
		}
		if routed(c, e) && written(c, e) && (h == nil || hintsAt(c, h)) {
			return true
		}
	}
	return len(rule.Conditions) == 0
}

// routed checks what is about the way of a message. A stored or missed message is one that was
// routed to somebody who was not there.
func routed(c *config.PushCondition, e *event.Event) bool {
	unacked := e.Kind == event.Unack
	return (c.Event == "" || (c.Event == "unack_msg") == unacked) &&
		(c.Type == "" || c.Type == e.Type) &&
		(c.UserStatus == "" || !unacked && c.UserStatus == status(e)) &&
		c.ClientState == "" // no feed tells
}

// status is whether the recipient had a session, empty if the feed does not tell.
func status(e *event.Event) string {
	switch {
	case e.RecipientOffline:
		return "offline"
	case e.Unverified, e.SessionCount == 0 && e.Dialect != eventFeed:
		return ""
	}
	return "online"
}

func written(c *config.PushCondition, e *event.Event) bool {
	switch c.Body {
	case "absent":
		return !e.HasBody
	case "empty":
		return e.HasBody && e.Body == ""
	case "non_empty":
		return e.Body != ""
	}
	return true
}

func hintsAt(c *config.PushCondition, h *hints) bool {
	return (c.Hint == "" || c.Hint == "store" && h.store || c.Hint == "no_store" && h.noStore) &&
		(c.Jingle == nil || *c.Jingle == h.jingle)
}

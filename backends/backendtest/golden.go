package backendtest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"eventpusher/event"
	"eventpusher/internal/jid"
)

//go:embed testdata/golden.txt
var golden string

// Step is one step of a session that a real MongooseIM 6.8.0 was driven through:
// the events that it makes, and what was published then. Order within a step has
// no meaning.
type Step struct {
	Name   string
	Events []event.Event
	Rabbit []RabbitMessage
	SNS    []SNSMessage
	HTTP   []url.Values
}

// RabbitMessage is a message on an exchange, its JSON by value.
type RabbitMessage struct {
	Exchange, Key string
	Payload       any
}

// SNSMessage is a message on a topic, its JSON by value.
type SNSMessage struct {
	Topic   string
	Payload any
}

const (
	alice1 = "alice@localhost/res1"
	alice2 = "alice@localhost/res2"
	bob    = "bob@localhost/desk"
	room   = "room@muc.localhost"
)

// goldenEvents are the events of each step: what a translator makes of it.
func goldenEvents() map[string][]event.Event {
	chat := func(to jid.JID, body string) []event.Event {
		return bothWays("chat", alice1, to, body)
	}
	without := func(events []event.Event) []event.Event {
		for i := range events {
			events[i].HasBody = false
		}
		return events
	}
	mucHop := func(to jid.JID) event.Event {
		return message("groupchat", event.Out, room+"/Alice", to, "M04 Hi, Everyone!")
	}
	return map[string][]event.Event{
		"P02": {status(alice1, true)}, "P03": {status(alice2, true)}, "P04": nil,
		"P05": {status(alice2, false)}, "P06": {status(alice2, true)}, "P07": nil,
		"P08": {status(bob, true)}, "P09": nil,
		"C01": chat(bob, "C01 Hello, Bob"),
		"C02": chat("bob@localhost", "C02 to bare"),
		"C03": chat(bob, "C03 Zażółć gęślą jaźń 日本語 \u00a0\u2028|"),
		"C04": chat(bob, "C04 😀👨\u200d👩\u200d👧 🇵🇱"),
		"C05": chat(bob, `C05 <b> & "q" 'a' é 😀 &amp;`),
		"C06": chat(bob, `C06 <x a="1">&amp;</x> tail`),
		"C07": chat(bob, "C07 a\nb\tc\r\nd\re / \\ \x7f \" ' % + = & "),
		"C08": chat(bob, ""),
		"C10": without(chat(bob, "")), "C11": without(chat(bob, "")),
		"C12": chat(bob, "C12 hi"),
		"C17": bothWays("normal", alice1, bob, "C17 normal"),
		"C18": bothWays("normal", alice1, bob, "C18 typeless"),
		"C19": bothWays("headline", alice1, bob, "C19 headline"),
		"C20": nil, "C21": nil, // types error and bogus make no event
		"C22": chat(alice2, "C22 self"),
		"C23": chat("alice@localhost", "C23 self bare"),
		"C24": chat("alice@localhost", "C24 no to"),
		"C25": chat("carol@localhost", "C25 offline"),
		"M04": append(bothWays("groupchat", alice1, room, "M04 Hi, Everyone!"), mucHop(bob), mucHop(alice1)),
		"U04": bothWays("chat", bob, "alice@localhost", "U04 wake up 😀 <&"),
	}
}

func bothWays(kind string, from, to jid.JID, body string) []event.Event {
	return []event.Event{message(kind, event.In, from, to, body), message(kind, event.Out, from, to, body)}
}

func message(kind string, d event.Direction, from, to jid.JID, body string) event.Event {
	user := from.Bare()
	if d == event.Out {
		user = to.Bare()
	}
	return event.Event{Kind: event.Chat, Type: kind, Direction: d, From: from, To: to, User: user, Body: body, HasBody: true}
}

func status(from jid.JID, online bool) event.Event {
	kind := "offline"
	if online {
		kind = "online"
	}
	return event.Event{Kind: event.UserStatus, Type: kind, From: from, User: from.Bare(), Online: online}
}

// Golden returns the steps.
func Golden(t testing.TB) []Step {
	t.Helper()
	events := goldenEvents()
	var steps []Step
	for line := range strings.SplitSeq(golden, "\n") {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			name, _, _ := strings.Cut(title, " ")
			made, known := events[name]
			if !known {
				t.Fatalf("golden session: no events for step %s", name)
			}
			for i := range made {
				made[i].ID = fmt.Sprintf("%032x", len(steps)<<8|i)
			}
			steps = append(steps, Step{Name: title, Events: made})
			continue
		}
		if len(steps) > 0 && line != "" {
			steps[len(steps)-1].parse(t, line)
		}
	}
	if len(steps) != len(events) {
		t.Fatalf("golden session: %d steps, but events for %d", len(steps), len(events))
	}
	return steps
}

// parse reads one line of what was published.
func (s *Step) parse(t testing.TB, line string) {
	t.Helper()
	service, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimLeft(rest, " ")
	switch service {
	case "RABBIT":
		exchange, rest, _ := strings.Cut(rest, " ")
		key, payload, _ := strings.Cut(rest, " ")
		s.Rabbit = append(s.Rabbit, RabbitMessage{exchange, strings.TrimPrefix(key, "key="), JSON(t, payload)})
	case "SNS":
		topic, rest, _ := strings.Cut(rest, " ")
		payload := strings.TrimSuffix(strings.TrimPrefix(rest, "Message="), " MessageStructure=json")
		s.SNS = append(s.SNS, SNSMessage{topic, JSON(t, payload)})
	case "HTTP":
		_, body, _ := strings.Cut(rest, " ")
		form, err := url.ParseQuery(body)
		if err != nil {
			t.Fatalf("golden session, step %s: %v", s.Name, err)
		}
		s.HTTP = append(s.HTTP, form)
	default:
		t.Fatalf("golden session, step %s: line %q", s.Name, line)
	}
}

// Wanted returns the events that the backend wants.
func Wanted(wants func(*event.Event) bool, events []event.Event) []event.Event {
	return slices.DeleteFunc(slices.Clone(events), func(e event.Event) bool { return !wants(&e) })
}

// JSON returns the value of a JSON text.
func JSON(t testing.TB, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("JSON %q: %v", text, err)
	}
	return v
}

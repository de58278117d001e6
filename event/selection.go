package event

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Selection is a set of sorts of events, such as messages of type chat that a local user
// has sent. The zero Selection has none.
type Selection uint32

// sorts are the sorts of events by the names that a configuration gives them: the type
// of the message and its direction, the kind of what is no message.
var sorts = []struct {
	name string
	is   func(e *Event) bool
}{
	{"chat.in", message("chat", In)},
	{"chat.out", message("chat", Out)},
	{"groupchat.in", message("groupchat", In)},
	{"groupchat.out", message("groupchat", Out)},
	{"normal.in", message("normal", In)},
	{"normal.out", message("normal", Out)},
	{"headline.in", message("headline", In)},
	{"headline.out", message("headline", Out)},
	{"user_status.online", func(e *Event) bool { return e.Kind == UserStatus && e.Online }},
	{"user_status.offline", func(e *Event) bool { return e.Kind == UserStatus && !e.Online }},
	{"unack", ofKind(Unack)},
	{"stored", ofKind(Stored)},
	{"missed", ofKind(Missed)},
	{"account_removed", ofKind(Removed)},
}

func message(kind string, d Direction) func(*Event) bool {
	return func(e *Event) bool { return e.Kind == Chat && e.Direction == d && e.Type == kind }
}

func ofKind(k Kind) func(*Event) bool { return func(e *Event) bool { return e.Kind == k } }

// SortNames lists the names that ParseSelection knows, the whole ones first, then the
// groups.
func SortNames() []string {
	var names, groups []string
	for _, s := range sorts {
		names = append(names, s.name)
		if group, _, ok := strings.Cut(s.name, "."); ok && !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	return append(append(names, groups...), "all")
}

// ParseSelection reads names of sorts: "chat.in", the group "chat" for "chat.in" and
// "chat.out", or "all". The error names the first one that is unknown.
func ParseSelection(names []string) (s Selection, err error) {
	for _, name := range names {
		found := false
		for i, sort := range sorts {
			if name == "all" || sort.name == name || strings.HasPrefix(sort.name, name+".") {
				s |= 1 << i
				found = true
			}
		}
		if !found {
			return 0, fmt.Errorf("%q is no sort of events", name)
		}
	}
	return s, nil
}

// Has reports whether e is of one of the sorts. What push makes for itself never is.
func (s Selection) Has(e *Event) bool {
	for i := range sorts {
		if s&(1<<i) != 0 && sorts[i].is(e) {
			return true
		}
	}
	return false
}

// Samples returns a made-up event for each sort, by which forms and conditions can be
// tried. Nobody real is in them.
func (s Selection) Samples() (list []Event) {
	for i := range sorts {
		if s&(1<<i) != 0 {
			list = append(list, sample(sorts[i].name))
		}
	}
	return list
}

// sample makes up the event of a sort.
func sample(name string) Event {
	group, way, _ := strings.Cut(name, ".")
	e := Event{
		ID: "0123456789abcdef0123456789abcdef", Kind: Chat, Type: "chat", Direction: Out, From: "alice@example.org/phone", To: "bob@example.org/desk",
		User: "bob@example.org", Body: "A sample", HasBody: true, Class: Content, StanzaID: "sample-1", Time: time.Unix(1_700_000_000, 0).UTC(),
		Host: "example.org", Dialect: "event-feed",
		Packet: "<message xmlns='jabber:client' type='chat' from='alice@example.org/phone' to='bob@example.org/desk' id='sample-1'><body>A sample</body></message>",
	}
	switch group {
	case "user_status":
		return Event{
			ID: e.ID, Kind: UserStatus, Type: way, From: e.From, User: e.From.Bare(), Online: way == "online", SessionCount: 1, Time: e.Time,
			Host: e.Host, Dialect: e.Dialect, Packet: "<presence xmlns='jabber:client' from='alice@example.org/phone'/>",
		}
	case "account_removed":
		return Event{ID: e.ID, Kind: Removed, From: e.User, User: e.User, Time: e.Time, Host: e.Host, Dialect: e.Dialect}
	case "unack":
		e.Kind, e.Direction = Unack, NoDirection
	case "stored":
		e.Kind, e.Direction, e.RecipientOffline = Stored, NoDirection, true
	case "missed":
		e.Kind, e.Type, e.Direction, e.RecipientOffline, e.Packet = Missed, "groupchat", NoDirection, true, ""
		e.From, e.To, e.Room = "room@conference.example.org/alice", e.User, "room@conference.example.org"
	default:
		e.Type = group
		e.Packet = strings.Replace(e.Packet, "type='chat'", "type='"+group+"'", 1)
		if way == "in" {
			e.Direction, e.User = In, e.From.Bare()
		}
		if group == "groupchat" {
			e.Room = "room@conference.example.org"
			if e.To = e.Room; way == "out" {
				e.From, e.To = e.Room+"/alice", "bob@example.org/desk"
			}
		}
	}
	return e
}

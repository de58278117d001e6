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

// sorts are the names of the sorts of events: the type of the message and its direction,
// the kind of what is no message.
var sorts = [...]string{
	"chat.in", "chat.out", "groupchat.in", "groupchat.out", "normal.in", "normal.out", "headline.in", "headline.out",
	"user_status.online", "user_status.offline", "unack", "stored", "missed", "account_removed",
}

// sort returns the index of e's sort, -1 if it is of none.
func (e *Event) sort() int {
	switch e.Kind {
	case Chat:
		way := int(e.Direction - In)
		switch {
		case e.Direction == NoDirection:
		case e.Type == "chat":
			return way
		case e.Type == "groupchat":
			return 2 + way
		case e.Type == "normal":
			return 4 + way
		case e.Type == "headline":
			return 6 + way
		}
	case UserStatus:
		if e.Online {
			return 8
		}
		return 9
	case Unack:
		return 10
	case Stored:
		return 11
	case Missed:
		return 12
	case Removed:
		return 13
	}
	return -1
}

// Sort returns the name of the sort of events that e is of, "" if it is of none: what push
// makes for itself.
func (e *Event) Sort() string {
	if i := e.sort(); i >= 0 {
		return sorts[i]
	}
	return ""
}

// SortNames lists the names that ParseSelection knows, the whole ones first, then the
// groups.
func SortNames() []string {
	var names, groups []string
	for _, name := range sorts {
		names = append(names, name)
		if group, _, ok := strings.Cut(name, "."); ok && !slices.Contains(groups, group) {
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
			if name == "all" || sort == name || strings.HasPrefix(sort, name+".") {
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

// Has reports whether e is of one of the sorts.
func (s Selection) Has(e *Event) bool {
	i := e.sort()
	return i >= 0 && s&(1<<i) != 0
}

// Samples returns a made-up event for each sort, by which forms and conditions can be
// tried. Nobody real is in them.
func (s Selection) Samples() (list []Event) {
	for i := range sorts {
		if s&(1<<i) != 0 {
			list = append(list, sample(sorts[i]))
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

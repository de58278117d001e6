package decide

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	xmppjid "mellium.im/xmpp/jid"

	"eventpusher/backends/push/notify"
	"eventpusher/internal/jid"
)

// The namespaces of Tigase's filters (xeps.tigase.net/docs/push-notifications/filters), which
// Siskin and Snikket send, and which Prosody's mod_cloud_notify_filters takes.
const (
	nsMuted   = "tigase:push:filter:muted:0"
	nsRooms   = "tigase:push:filter:groupchat:0"
	nsUnknown = "tigase:push:filter:ignore-unknown:0"
)

// Features are what clients look for in the disco#info of the account before they send rules.
var Features = []string{nsMuted, nsRooms, nsUnknown, notify.NSPriority, notify.NSEncrypt, "tigase:push:encrypt:" + notify.AlgAES128GCM}

// Bounds of the rules of one registration.
const (
	maxRules     = 256     // conversations and rooms
	maxRuleBytes = 8 << 10 // of their addresses and nicks
	maxNick      = 250     // bytes
)

// Elements are the children of an enable that have rules. Embed it in what is unmarshaled.
type Elements struct {
	Muted *struct {
		Items []struct {
			JID string `xml:"jid,attr"`
			// Until ends the rule (XEP-0082). It is ours: Tigase's rules have no end.
			Until string `xml:"until,attr"`
		} `xml:"item"`
	} `xml:"tigase:push:filter:muted:0 muted"`
	Rooms *struct {
		Rooms []struct {
			JID   string `xml:"jid,attr"`
			Allow string `xml:"allow,attr"`
			Nick  string `xml:"nick,attr"`
		} `xml:"room"`
	} `xml:"tigase:push:filter:groupchat:0 groupchat"`
	Encrypt *struct {
		Alg     string `xml:"alg,attr"`
		MaxSize string `xml:"max-size,attr"`
		Key     string `xml:",chardata"`
	} `xml:"tigase:push:encrypt:0 encrypt"`
	Priority      *struct{} `xml:"tigase:push:priority:0 priority"`
	IgnoreUnknown *struct{} `xml:"tigase:push:filter:ignore-unknown:0 ignore-unknown"`
}

// RulesError says what is wrong with rules, for the client.
type RulesError struct {
	Condition string // of RFC 6120 section 8.3.3
	Text      string
}

// Error implements error.
func (e *RulesError) Error() string { return e.Text }

func badRule(format string, args ...any) error {
	return &RulesError{"bad-request", fmt.Sprintf(format, args...)}
}

// Rules returns the rules, nil if there are none. The error is a *RulesError: an address
// is none, a time is none, allow is none of always, mentioned and never, a nick is missing or longer than 250 bytes,
// there are more than 256 entries or 8 KiB of addresses and nicks, or the encryption is
// another than AES-128 in GCM with a key for it.
func (e *Elements) Rules() (*UserRules, error) {
	r, a := &UserRules{Priority: e.Priority != nil, IgnoreUnknown: e.IgnoreUnknown != nil}, &addresses{}
	for _, read := range [...]func(*UserRules, *addresses) error{e.muted, e.rooms, e.encryption} {
		if err := read(r, a); err != nil {
			return nil, err
		}
	}
	if r.Muted == nil && r.Rooms == nil && r.Encryption == nil && !r.Priority && !r.IgnoreUnknown {
		return nil, nil
	}
	return r, nil
}

// addresses counts the addresses of a registration's rules.
type addresses struct{ entries, size int }

// enter returns an address, prepared. more is what belongs to it.
func (a *addresses) enter(address, more string) (jid.JID, error) {
	a.entries, a.size = a.entries+1, a.size+len(address)+len(more)
	if a.entries > maxRules || a.size > maxRuleBytes {
		return "", &RulesError{"not-acceptable", fmt.Sprintf("a registration can have %d muted conversations and rooms, of %d bytes together", maxRules, maxRuleBytes)}
	}
	if _, err := xmppjid.Parse(address); err != nil {
		return "", badRule("jid of a muted conversation or room is no address")
	}
	return jid.Prepare(address).Bare(), nil
}

func (e *Elements) muted(r *UserRules, a *addresses) error {
	if e.Muted == nil || len(e.Muted.Items) == 0 {
		return nil
	}
	r.Muted = make(map[jid.JID]int64)
	for _, item := range e.Muted.Items {
		conversation, err := a.enter(item.JID, "")
		if err != nil {
			return err
		}
		if r.Muted[conversation], err = readUntil(item.Until); err != nil {
			return err
		}
	}
	return nil
}

func (e *Elements) rooms(r *UserRules, a *addresses) error {
	if e.Rooms == nil {
		return nil
	}
	r.Rooms = make(map[jid.JID]string)
	for _, one := range e.Rooms.Rooms {
		room, err := a.enter(one.JID, one.Nick)
		if err != nil {
			return err
		}
		switch {
		case one.Allow == "always":
			r.Rooms[room] = ""
		case one.Allow == "mentioned" && (one.Nick == "" || len(one.Nick) > maxNick):
			return badRule("a room with allow='mentioned' needs a nick of at most %d bytes", maxNick)
		case one.Allow == "mentioned":
			r.Rooms[room] = one.Nick
		case one.Allow == "never":
			delete(r.Rooms, room)
		default:
			return badRule("allow of a room is none of always, mentioned, never")
		}
	}
	return nil
}

func (e *Elements) encryption(r *UserRules, _ *addresses) error {
	if e.Encrypt == nil {
		return nil
	}
	if !strings.EqualFold(e.Encrypt.Alg, notify.AlgAES128GCM) {
		return &RulesError{"feature-not-implemented", "alg of encrypt is not " + notify.AlgAES128GCM}
	}
	key, err := notify.ParseKey(e.Encrypt.Key)
	if err != nil {
		return badRule("encrypt: %v", err)
	}
	r.Encryption = &notify.Encryption{Key: key}
	if e.Encrypt.MaxSize != "" {
		size, err := strconv.Atoi(e.Encrypt.MaxSize)
		if err != nil || size < notify.MinSealed {
			return badRule("max-size of encrypt is no number of bytes from %d on", notify.MinSealed)
		}
		r.Encryption.MaxSize = min(size, notify.MaxSealed)
	}
	return nil
}

// readUntil reads the end of a rule, 0 if it has none.
func readUntil(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil || at.Unix() <= 0 {
		return 0, badRule("until of a muted conversation is no time such as 2026-12-31T18:00:00Z")
	}
	return at.Unix(), nil
}

// Summary says in a few words for each kind what the rules are, without the addresses;
// nil if there are none.
func (r *UserRules) Summary() (list []string) {
	if r == nil {
		return nil
	}
	if len(r.Muted) > 0 {
		list = append(list, fmt.Sprintf("muted %d", len(r.Muted)))
	}
	if r.Rooms != nil {
		mentions := 0
		for _, nick := range r.Rooms {
			if nick != "" {
				mentions++
			}
		}
		list = append(list, fmt.Sprintf("rooms %d (mentions only: %d)", len(r.Rooms), mentions))
	}
	if r.IgnoreUnknown {
		list = append(list, "contacts only")
	}
	if r.Encryption != nil {
		list = append(list, "encrypted")
	}
	return list
}

package devices

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"eventpusher/backends/push/decide"
	"eventpusher/backends/push/internal/dataform"
	"eventpusher/backends/push/notify"
	"eventpusher/internal/jid"
)

// fieldCallSender is how the hints plugin calls the sender of a call.
const fieldCallSender = "message-sender"

// Bounds of a summary: no provider takes more than 4 KiB.
const (
	maxFields  = 32
	maxSummary = 8 << 10
)

// Summary is what a notification tells, field by field.
type Summary []notify.Field

// ReadSummary reads a notification element as servers publish it: Prosody's form is of
// type form and has fields without a value, ejabberd's notification may have no form.
// Fields without a value are left out, and what no provider would take: a text is cut,
// and there are at most 32 fields and 8 KiB of them. What was encrypted takes the place of
// all fields, as encrypted and iv.
func ReadSummary(packet string) (Summary, error) {
	p, err := notify.ReadElement(packet)
	if err != nil {
		return nil, err
	}
	return NewSummary(&p), nil
}

// NewSummary takes the fields out of a notification as ReadSummary does.
func NewSummary(p *notify.Published) Summary {
	if p.Encrypted != (notify.Encrypted{}) {
		return sealed(&p.Encrypted)
	}
	var s Summary
	f := &p.Form
	size := 0
	for i := range f.Fields {
		name, value := f.Fields[i].Name, f.Fields[i].Value()
		if name == "" || name == dataform.FormType || value == "" {
			continue
		}
		if name == notify.KeyBody {
			value = notify.Cut(value, decide.MaxBody)
		}
		if len(s) == maxFields || size+len(name)+len(value) > maxSummary {
			continue
		}
		size += len(name) + len(value)
		s = append(s, notify.Field{Name: name, Value: value})
	}
	return s
}

// sealed returns the summary of what was encrypted. If no application can read that, or no
// provider would take it, something has come all the same.
func sealed(e *notify.Encrypted) Summary {
	checked, err := e.Checked()
	if err != nil {
		return Summary{{Name: notify.KeyBody, Value: notify.GenericBody}}
	}
	s := Summary{{Name: notify.KeyEncrypted, Value: checked.Data}, {Name: notify.KeyIV, Value: checked.IV}}
	if checked.Call() {
		s = append(s, notify.Field{Name: fieldCall, Value: calling})
	}
	return s
}

// Packet returns the summary as a notification element.
func (s Summary) Packet() string { return notify.Element(s) }

func (s Summary) value(name string) string { return notify.Value(s, name) }

// Sender returns who wrote, prepared, empty if the summary does not say.
func (s Summary) Sender() jid.JID {
	if sender := s.value(notify.KeySender); sender != "" {
		return jid.Prepare(sender)
	}
	return jid.Prepare(s.value(fieldCallSender))
}

// WithoutSession returns the summary with the account in place of a sender's session, which
// says nothing to people: ejabberd's mod_push names that. Occupants of rooms stay, since
// their resource is the nick; room reports whether a domain has rooms.
func (s Summary) WithoutSession(room func(domain string) bool) Summary {
	for i := range s {
		if s[i].Name != notify.KeySender && s[i].Name != fieldCallSender {
			continue
		}
		if sender := jid.Prepare(s[i].Value); !sender.IsBare() && !room(sender.Domain()) {
			s = slices.Clone(s)
			s[i].Value = string(sender.Bare())
		}
	}
	return s
}

// Body returns the last message's text, or what stands for it.
func (s Summary) Body() string { return s.value(notify.KeyBody) }

// number returns a count, 0 if there is none.
func (s Summary) number(name string) int {
	n, err := strconv.Atoi(s.value(name))
	if err != nil || n < 0 || n > 1<<20 {
		return 0
	}
	return n
}

// Silent reports whether there is nothing to show: servers also publish for chat
// states and the like, to let the application wake up.
func (s Summary) Silent() bool {
	for i := range s {
		switch s[i].Name {
		case notify.KeyMessageCount, "pending-subscription-count", notify.KeyBadge:
		default:
			return false
		}
	}
	return s.number("pending-subscription-count") == 0
}

// The field by which the hints plugin tells of a call, and its value when somebody calls
// (XEP-0353).
const (
	fieldCall = "jingle-message"
	calling   = "propose"
)

// Call reports whether somebody is calling.
func (s Summary) Call() bool { return s.value(fieldCall) == calling }

// Message is a notification for a device.
type Message struct {
	EventID string
	Time    time.Time // when it was published
	Owner   jid.JID   // of the device
	Summary Summary
	// Decided says that the summary was made here, within the content mode. Otherwise nobody
	// knows what was encrypted.
	Decided bool
}

// notification turns a message into what a provider takes, within the content mode.
// Fields that the providers do not know go along as data, if bodies do.
func (m *Message) notification(node string, c notify.Content, ttl time.Duration) notify.Notification {
	s := m.Summary
	if s.value(notify.KeyEncrypted) != "" && s.value(notify.KeyIV) != "" {
		return m.sealed(node, c, ttl)
	}
	n := notify.Notification{
		ID: m.EventID, Time: m.Time, TTL: ttl, Body: s.Body(), Priority: notify.High, Call: s.Call(),
		MessageCount: s.number(notify.KeyMessageCount),
	}
	if badge := s.value(notify.KeyBadge); badge != "" {
		total := s.number(notify.KeyBadge)
		n.Badge = &total
	}
	if s.Silent() {
		n.Priority, n.Silent = notify.Normal, true
		return n
	}
	conversation := ""
	if sender := s.Sender(); sender != "" {
		n.Sender, n.Title = string(sender), string(sender)
		conversation = string(sender.Bare())
	}
	n.Thread = thread(node, conversation)
	n = n.Redacted(c, notify.GenericBody)
	if n.Title == "" && n.Body == "" {
		n.Title = notify.GenericBody
	}
	if c != notify.ContentBody || n.Body == "" {
		n.CollapseID = n.Thread // each would say the same again
	}
	if c == notify.ContentBody {
		n.Data = s.data()
	}
	return n
}

// sealed is notification for what was encrypted: the application decrypts it before it shows
// something. The account tells it with which key.
func (m *Message) sealed(node string, c notify.Content, ttl time.Duration) notify.Notification {
	n := notify.Notification{ID: m.EventID, Time: m.Time, TTL: ttl, Title: notify.GenericBody, Priority: notify.High, Call: m.Summary.Call()}
	if !m.Decided && c != notify.ContentBody {
		n.Thread = thread(node, "")
		n.CollapseID = n.Thread // each would say the same again
		return n
	}
	n.Sealed = true
	n.Data = map[string]string{notify.KeyEncrypted: m.Summary.value(notify.KeyEncrypted), notify.KeyIV: m.Summary.value(notify.KeyIV)}
	if m.Owner != "" {
		n.Data[notify.KeyAccount] = string(m.Owner)
	}
	return n
}

// thread names a conversation without saying with whom.
func thread(node, conversation string) string {
	digest := sha256.Sum256([]byte(node + "\x00" + conversation))
	return base64.RawURLEncoding.EncodeToString(digest[:12])
}

// data returns the fields by agreement between a server and an application, nil if
// there are none.
func (s Summary) data() map[string]string {
	var data map[string]string
	for i := range s {
		switch name := s[i].Name; {
		case name == notify.KeyMessageCount, name == notify.KeySender, name == notify.KeyBody, name == notify.KeyBadge, name == fieldCallSender,
			name == "aps", name == "from", name == "message_type", strings.HasPrefix(name, "google"), strings.HasPrefix(name, "gcm"):
			// Sent in their places, or the providers' own.
		default:
			if data == nil {
				data = make(map[string]string)
			}
			data[name] = s[i].Value
		}
	}
	return data
}

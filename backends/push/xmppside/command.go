package xmppside

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"log/slog"
	"slices"
	"time"

	"mellium.im/xmpp/disco"

	"eventpusher/backends/push/devices"
	"eventpusher/backends/push/internal/dataform"
	"eventpusher/backends/push/store"
	"eventpusher/component"
	"eventpusher/internal/jid"
)

// nsCommands is the namespace of ad-hoc commands (XEP-0050), and the node under which
// they are listed.
const nsCommands = "http://jabber.org/protocol/commands"

// The commands' nodes.
const (
	registerDevice   = "register-device"
	unregisterDevice = "unregister-device"
	listDevices      = "list-devices"
)

// commandNames are the commands in the order of the list.
var commandNames = [...]struct{ node, name string }{
	{registerDevice, "Register a device for push notifications"},
	{unregisterDevice, "Remove a device"},
	{listDevices, "List the devices of the account"},
}

// items returns the answer to disco#items for nsCommands (XEP-0050 section 2.2).
func (d *Devices) items() []byte {
	var b bytes.Buffer
	b.WriteString("<query xmlns='" + disco.NSItems + "' node='" + nsCommands + "'>")
	for _, c := range commandNames {
		b.WriteString("<item jid='" + string(d.o.Own) + "' node='" + c.node + "' name='" + c.name + "'/>")
	}
	b.WriteString("</query>")
	return b.Bytes()
}

// commandInfo returns the answer to disco#info for a command's node (XEP-0050 section 2.3).
func commandInfo(node string) []byte {
	name := ""
	for _, c := range commandNames {
		if c.node == node {
			name = c.name
		}
	}
	return []byte("<query xmlns='" + disco.NSInfo + "' node='" + node + "'><identity category='automation' type='command-node' name='" + name +
		"'/><feature var='" + nsCommands + "'/><feature var='" + dataform.NS + "'/></query>")
}

// actions carry a command out; next is what some clients say with the only form.
var actions = [...]string{"", "execute", "next", "complete"}

// command is a request by XEP-0050.
type command struct {
	Node    string         `xml:"node,attr"`
	Action  string         `xml:"action,attr"`
	Session string         `xml:"sessionid,attr"`
	Form    *dataform.Form `xml:"jabber:x:data x"`
}

// command carries out an IQ of type set with a command and returns the payload of the
// result. Sessions are not kept: a command is carried out when its form comes, which
// may be at once. The error is an *component.StanzaError.
//
// To register an endpoint it asks the DNS, for up to 5 s.
func (d *Devices) command(ctx context.Context, from jid.JID, iq []byte) ([]byte, error) {
	if from.Local() == "" || !d.o.Served.Has(jid.JID(from.Domain())) {
		return nil, &component.StanzaError{Type: "auth", Condition: "forbidden", Text: "only users of the served hosts may do that"}
	}
	var q struct {
		Command command `xml:"http://jabber.org/protocol/commands command"`
	}
	if err := xml.Unmarshal(iq, &q); err != nil {
		return nil, &component.StanzaError{Type: "modify", Condition: "bad-request"}
	}
	c := &q.Command
	if len(c.Session) > 128 {
		return nil, &component.StanzaError{Type: "modify", Condition: "bad-request", Text: "the session is none of ours"}
	}
	if c.Session == "" {
		c.Session = rand.Text()
	}
	switch {
	case c.Action == "cancel" || c.Form != nil && c.Form.Type == "cancel":
		return c.answer("canceled", nil), nil
	case c.Action == "prev":
		return nil, &component.StanzaError{Type: "modify", Condition: "bad-request", Text: "there is one step only"}
	case !slices.Contains(actions[:], c.Action):
		return nil, &component.StanzaError{Type: "modify", Condition: "bad-request", Text: "the action is none of XEP-0050"}
	}
	switch owner := from.Bare(); c.Node {
	case registerDevice:
		return d.register(ctx, owner, c)
	case unregisterDevice:
		return d.unregister(ctx, owner, c)
	case listDevices:
		return d.list(ctx, owner, c)
	}
	return nil, &component.StanzaError{Type: "cancel", Condition: "item-not-found"}
}

func (d *Devices) register(ctx context.Context, owner jid.JID, c *command) ([]byte, error) {
	if c.Form == nil {
		return c.answer("executing", d.registrationForm), nil
	}
	credentials, err := d.registry.Register(ctx, devices.Request{
		Owner: owner, Kind: c.Form.Value("kind"), App: c.Form.Value("app"),
		Token: c.Form.Value("token"), Topic: c.Form.Value("topic"),
		Endpoint: c.Form.Value("endpoint"), P256DH: c.Form.Value("p256dh"), Auth: c.Form.Value("auth"),
	})
	if err != nil {
		return nil, d.refuse(err)
	}
	fields := [...][2]string{{"jid", string(d.o.Own)}, {"node", credentials.Node}, {"secret", credentials.Secret}}
	return c.answer("completed", func(b *bytes.Buffer) {
		dataform.Write(b, dataform.Result, "", len(fields), func(i int) (string, string) { return fields[i][0], fields[i][1] })
	}), nil
}

func (d *Devices) unregister(ctx context.Context, owner jid.JID, c *command) ([]byte, error) {
	if c.Form == nil {
		return c.answer("executing", func(b *bytes.Buffer) {
			beginForm(b, "Remove a device")
			textField(b, "node", "Node of the device", true)
			b.WriteString("</x>")
		}), nil
	}
	if err := d.registry.Remove(ctx, c.Form.Value("node"), func(one *store.Device) bool { return one.Owner == owner }); err != nil {
		return nil, d.refuse(err)
	}
	return c.answer("completed", nil), nil
}

func (d *Devices) list(ctx context.Context, owner jid.JID, c *command) ([]byte, error) {
	all, err := d.registry.List(ctx, owner)
	if err != nil {
		return nil, d.refuse(err)
	}
	return c.answer("completed", func(b *bytes.Buffer) {
		b.WriteString("<x xmlns='" + dataform.NS + "' type='" + dataform.Result + "'><reported>")
		for _, name := range [...]string{"node", "app", "kind", "registered", "used"} {
			b.WriteString("<field var='" + name + "' label='" + name + "' type='text-single'/>")
		}
		b.WriteString("</reported>")
		for i := range all {
			d := &all[i]
			b.WriteString("<item>")
			for _, f := range [...][2]string{
				{"node", d.Node}, {"app", d.App}, {"kind", string(d.Target.Kind)}, {"registered", stamp(d.Registered)}, {"used", stamp(d.Used)},
			} {
				b.WriteString("<field var='" + f[0] + "'><value>")
				escape(b, f[1])
				b.WriteString("</value></field>")
			}
			b.WriteString("</item>")
		}
		b.WriteString("</x>")
	}), nil
}

// stamp writes a time as XEP-0082 has it, nothing for the zero time.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// refuse turns an error of the registry into an answer.
func (d *Devices) refuse(err error) *component.StanzaError {
	var invalid *devices.InvalidError
	switch {
	case errors.As(err, &invalid):
		return &component.StanzaError{Type: "modify", Condition: "bad-request", Text: invalid.Error()}
	case errors.Is(err, store.ErrTooMany):
		return &component.StanzaError{Type: "cancel", Condition: "not-allowed", Text: err.Error()}
	case errors.Is(err, store.ErrUnknown):
		return &component.StanzaError{Type: "cancel", Condition: "item-not-found"}
	}
	d.complaints.Add(slog.LevelWarn, "push: a device could not be registered or removed, its owner was told to try again", err)
	return busy()
}

// answer writes the command element of a result.
func (c *command) answer(status string, payload func(*bytes.Buffer)) []byte {
	var b bytes.Buffer
	b.WriteString("<command xmlns='" + nsCommands + "' node='")
	escape(&b, c.Node)
	b.WriteString("' sessionid='")
	escape(&b, c.Session)
	b.WriteString("' status='" + status + "'>")
	if status == "executing" {
		b.WriteString("<actions execute='complete'><complete/></actions>")
	}
	if payload != nil {
		payload(&b)
	}
	b.WriteString("</command>")
	return b.Bytes()
}

// registrationForm asks for a device.
func (d *Devices) registrationForm(b *bytes.Buffer) {
	apps, kinds := d.registry.Choices()
	beginForm(b, "Register a device")
	listField(b, "kind", "Provider", kinds)
	listField(b, "app", "Application", apps)
	for _, f := range [...][2]string{
		{"token", "Token (apns, fcm)"}, {"topic", "Bundle id (apns)"},
		{"endpoint", "Endpoint (webpush)"}, {"p256dh", "Public key (webpush)"}, {"auth", "Authentication secret (webpush)"},
	} {
		textField(b, f[0], f[1], false)
	}
	b.WriteString("</x>")
}

func beginForm(b *bytes.Buffer, title string) {
	b.WriteString("<x xmlns='" + dataform.NS + "' type='" + dataform.Ask + "'><title>" + title + "</title>")
}

func textField(b *bytes.Buffer, name, label string, required bool) {
	b.WriteString("<field var='" + name + "' type='text-single' label='" + label + "'>")
	if required {
		b.WriteString("<required/>")
	}
	b.WriteString("</field>")
}

// listField offers options; a single one is chosen already.
func listField(b *bytes.Buffer, name, label string, options []string) {
	b.WriteString("<field var='" + name + "' type='list-single' label='" + label + "'>")
	if len(options) == 1 {
		b.WriteString("<value>")
		escape(b, options[0])
		b.WriteString("</value>")
	}
	for _, option := range options {
		b.WriteString("<option><value>")
		escape(b, option)
		b.WriteString("</value></option>")
	}
	b.WriteString("</field>")
}

func escape(b *bytes.Buffer, s string) { _ = xml.EscapeText(b, []byte(s)) } // a buffer takes everything

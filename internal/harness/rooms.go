//go:build linux

package harness

import (
	"fmt"
	"strings"
)

// room returns the JID of a room: one of the server's MUC host unless the name has an "@".
func (c *Client) room(name string) string {
	if strings.Contains(name, "@") {
		return name
	}
	return name + "@" + c.s.MUC
}

// Join enters a room, at the server's MUC host unless the name has an "@", and
// waits until the room says so. A new room is opened with its default
// configuration (XEP-0045 section 10.1.2).
func (c *Client) Join(room, nick string) {
	c.t.Helper()
	room = c.room(room)
	occupant := room + "/" + nick
	c.Sendf("<presence to='%s'><x xmlns='http://jabber.org/protocol/muc'/></presence>", occupant)
	self := c.Wait("the own presence of "+occupant, func(text string) bool {
		return strings.HasPrefix(text, "<presence") && attributeOf(text, "from") == occupant &&
			(hasStatus(text, 110) || attributeOf(text, "type") == "error")
	})
	if attributeOf(self, "type") == "error" {
		c.t.Fatalf("%s: join %s: %s", c.name, occupant, self)
	}
	if hasStatus(self, 201) {
		c.IQ("set", room, "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>")
	}
	// The subject, empty or not, is the last thing that a room sends to whom
	// has joined (XEP-0045 section 7.2.15).
	c.Wait("the subject of "+room, func(text string) bool {
		return strings.HasPrefix(text, "<message") && strings.HasPrefix(attributeOf(text, "from"), room) &&
			strings.Contains(text, "<subject")
	})
}

// Leave leaves a room and waits until the room says so.
func (c *Client) Leave(room, nick string) {
	c.t.Helper()
	room = c.room(room)
	occupant := room + "/" + nick
	c.Sendf("<presence type='unavailable' to='%s'/>", occupant)
	c.Wait("the end of "+occupant, func(text string) bool {
		return strings.HasPrefix(text, "<presence") && attributeOf(text, "from") == occupant &&
			attributeOf(text, "type") == "unavailable"
	})
}

func hasStatus(text string, code int) bool {
	return Containing(fmt.Sprintf("code='%d'", code))(text) || Containing(fmt.Sprintf("code=\"%d\"", code))(text)
}

// MembersOnly has the owner say whether only members may enter a room.
func (c *Client) MembersOnly(room string, only bool) {
	c.t.Helper()
	value := map[bool]string{false: "0", true: "1"}[only]
	c.IQ("set", c.room(room), "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'>"+
		"<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>"+
		"<field var='muc#roomconfig_membersonly'><value>"+value+"</value></field></x></query>")
}

// Affiliate has the owner give people an affiliation with a room (XEP-0045 section 9):
// each text is a JID, a space and the affiliation. Servers take one at a time or more,
// so it goes one by one.
func (c *Client) Affiliate(room string, list ...string) {
	c.t.Helper()
	for _, item := range list {
		jid, affiliation, _ := strings.Cut(item, " ")
		c.IQ("set", c.room(room), "<query xmlns='http://jabber.org/protocol/muc#admin'><item jid='"+jid+"' affiliation='"+affiliation+"'/></query>")
	}
}

//go:build linux

package harness

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"testing"
)

// Client is a user's session over a raw socket. Its methods fail the test it was
// made for, and are for one goroutine at a time.
type Client struct {
	*stream
	// User is the localpart, JID the full JID that the server has bound.
	User, JID string
	// SMID is the id for Resume, after EnableSM.
	SMID string

	s   *XMPPServer
	ids int
}

// BareJID is the user's address without the resource.
func (c *Client) BareJID() string {
	bare, _, _ := strings.Cut(c.JID, "/")
	return bare
}

// Login authenticates a user and binds a resource. The session is not available
// before Presence. A user with an "@" is one of that virtual host, else one of
// the server's first.
func (s *XMPPServer) Login(t testing.TB, user, resource string) *Client {
	t.Helper()
	c := s.authenticate(t, user, resource)
	c.WaitFor("features", "urn:ietf:params:xml:ns:xmpp-bind")
	bound := c.IQ("set", "", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"+resource+"</resource></bind>")
	_, jid, _ := strings.Cut(bound, "<jid>")
	c.JID, _, _ = strings.Cut(jid, "</jid>")
	if !strings.Contains(c.JID, "/") {
		t.Fatalf("%s: no JID in %s", c.name, bound)
	}
	return c
}

// authenticate opens a stream and goes as far as SASL does.
func (s *XMPPServer) authenticate(t testing.TB, user, resource string) *Client {
	t.Helper()
	name, host, ok := strings.Cut(user, "@")
	if !ok {
		host = s.Domain
	}
	c := &Client{stream: dialStream(t, name+"/"+resource, s.c2s), User: name, s: s}
	c.Send(openStream("jabber:client", host))
	c.WaitFor("features", "mechanisms")
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + Password))
	c.Send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + plain + "</auth>")
	if answer := c.WaitFor("urn:ietf:params:xml:ns:xmpp-sasl"); !strings.HasPrefix(answer, "<success") {
		t.Fatalf("%s: %s", c.name, answer)
	}
	c.Send(openStream("jabber:client", host))
	return c
}

// register makes an account in the way of XEP-0077.
func (s *XMPPServer) register(t testing.TB, user, host string) {
	t.Helper()
	c := &Client{stream: dialStream(t, "registration of "+user, s.c2s), s: s}
	c.Send(openStream("jabber:client", host))
	c.WaitFor("features")
	c.IQ("set", host, "<query xmlns='jabber:iq:register'><username>"+user+"</username><password>"+Password+"</password></query>")
	c.CloseStream()
}

// IQ sends a request and returns its result; an error fails the test. An empty
// to leaves the attribute out.
func (c *Client) IQ(kind, to, payload string) string {
	c.t.Helper()
	answer := c.Ask(kind, to, payload)
	if attributeOf(answer, "type") != "result" {
		c.t.Fatalf("%s: %s was answered by %s", c.name, payload, answer)
	}
	return answer
}

// Ask sends a request and returns its answer, result or error.
func (c *Client) Ask(kind, to, payload string) string {
	c.t.Helper()
	c.ids++
	id := "harness-" + strconv.Itoa(c.ids)
	if to != "" {
		to = " to='" + to + "'"
	}
	c.Sendf("<iq type='%s' id='%s'%s>%s</iq>", kind, id, to, payload)
	return c.Wait("the answer to "+payload, func(text string) bool {
		return strings.HasPrefix(text, "<iq") && attributeOf(text, "id") == id
	})
}

// Ping asks the server for an answer (XEP-0199). What the client had sent before
// has then been routed, and what had been routed to it has arrived: after
// a.Ping() and b.Ping() nothing more comes to b of what a sent.
func (c *Client) Ping() {
	c.t.Helper()
	_, host, _ := strings.Cut(c.BareJID(), "@")
	c.IQ("get", host, "<ping xmlns='urn:xmpp:ping'/>")
}

// Presence makes the session available and waits until the server has seen it.
func (c *Client) Presence() {
	c.t.Helper()
	c.Send("<presence/>")
	c.Ping()
}

// EnableCarbons asks for copies of the user's other sessions (XEP-0280).
func (c *Client) EnableCarbons() {
	c.t.Helper()
	c.IQ("set", "", "<enable xmlns='urn:xmpp:carbons:2'/>")
}

// EnableSM enables stream management with resumption (XEP-0198). Requests for
// acknowledgement are answered from then on.
func (c *Client) EnableSM() {
	c.t.Helper()
	c.Send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	enabled := c.WaitFor("urn:xmpp:sm:3", "<enabled")
	c.SMID = attributeOf(enabled, "id")
	if c.SMID == "" {
		c.t.Fatalf("%s: no resumption in %s", c.name, enabled)
	}
}

// HoldAcks leaves the server's requests for acknowledgement unanswered from now
// on, also after Resume, which still says what has arrived.
func (c *Client) HoldAcks() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sm = false
}

// Resume goes on with a dropped session of stream management on a new
// connection. The old Client is of no more use but for what it has received.
func (c *Client) Resume() *Client {
	c.t.Helper()
	_, resource, _ := strings.Cut(c.JID, "/")
	n := c.s.authenticate(c.t, c.BareJID(), resource)
	n.JID, n.SMID, n.ids = c.JID, c.SMID, c.ids
	n.WaitFor("features", "urn:xmpp:sm:3")
	c.mu.Lock()
	sm, handled := c.sm, c.handled
	c.mu.Unlock()
	n.mu.Lock()
	n.sm, n.handled = sm, handled
	n.mu.Unlock()
	n.Sendf("<resume xmlns='urn:xmpp:sm:3' h='%d' previd='%s'/>", handled, c.SMID)
	n.Wait("the resumption", func(text string) bool { return strings.HasPrefix(text, "<resumed") })
	return n
}

// AttachComponent attaches a raw component (XEP-0114), for tests of what a
// server sends, or of a component that another one meets. It has no JID.
func (s *XMPPServer) AttachComponent(t testing.TB, name string) *Client {
	t.Helper()
	c := &Client{stream: dialStream(t, "component "+name, s.ComponentAddr(name)), s: s}
	c.Send(openStream("jabber:component:accept", name))
	id, err := c.waitRoot("id")
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	digest := sha1.Sum([]byte(id + s.Secret))
	c.Send("<handshake>" + hex.EncodeToString(digest[:]) + "</handshake>")
	c.Wait("the handshake", func(text string) bool { return strings.HasPrefix(text, "<handshake") })
	return c
}

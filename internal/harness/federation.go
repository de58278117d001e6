//go:build linux

package harness

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
)

// federationPort is where every server looks for one whose domain is an address
// (RFC 6120 section 3.2.4); neither Prosody nor DNS can be told another.
const federationPort = "5269"

// RemoteServer is another XMPP server, with users of its own, as far as the one
// under test can see: it is named by an address of the loopback network that
// nobody else has, so that no DNS is asked, and proves its name with server
// dialback (XEP-0220) over plain TCP. It trusts whoever connects to it, since it
// is there to be distrusted. Its methods fail the test it was made for; Send is
// for one goroutine at a time.
type RemoteServer struct {
	// Domain is the part of its addresses behind the "@".
	Domain string

	t      testing.TB
	s      *XMPPServer
	secret []byte
	inbox  *stream                 // what the server under test has sent, over any stream
	out    map[string]RemoteStream // verified streams by the domain they lead to

	reading sync.WaitGroup
	mu      sync.Mutex
	in      []net.Conn // what the server under test has opened
	ended   bool
}

// RemoteStream is a stream that a RemoteServer has opened. Only the server under
// test speaks on it after the dialback if it has something to complain about.
type RemoteStream struct{ *stream }

// Federate makes another server that the one under test exchanges stanzas with.
// It needs the option Federation.
func (s *XMPPServer) Federate(t testing.TB) *RemoteServer {
	t.Helper()
	if s.s2s == "" {
		t.Fatalf("%s does not federate: its option Federation is off", s.s.name)
	}
	listener := listenAnywhere(t)
	domain, _, _ := net.SplitHostPort(listener.Addr().String())
	r := &RemoteServer{
		Domain: domain, t: t, s: s, secret: []byte(rand.Text()), out: make(map[string]RemoteStream),
		inbox: newStream(t, "remote server "+domain, nil),
	}
	r.reading.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.serve(conn)
		}
	})
	t.Cleanup(func() {
		listener.Close()
		r.mu.Lock()
		r.ended = true
		r.mu.Unlock()
		r.Hangup()
		r.reading.Wait()
		if t.Failed() {
			t.Logf("what %s got last:\n%s", r.inbox.name, r.inbox.transcript())
		}
	})
	return r
}

// listenAnywhere listens on an address of 127.0.0.0/8 where nobody listens yet.
func listenAnywhere(t testing.TB) net.Listener {
	t.Helper()
	var err error
	for range 100 {
		address := fmt.Sprintf("127.%d.%d.%d", 1+mathrand.IntN(254), mathrand.IntN(256), 1+mathrand.IntN(254))
		var listener net.Listener
		if listener, err = net.Listen("tcp4", net.JoinHostPort(address, federationPort)); err == nil {
			return listener
		}
	}
	t.Fatalf("no address to listen on: %v", err)
	return nil
}

// openFederation is the opening of a stream between servers (RFC 6120 section
// 4.8.2, XEP-0220 section 2.1).
func openFederation(from, to, id string) string {
	attributes := ""
	for _, a := range [][2]string{{"from", from}, {"to", to}, {"id", id}} {
		if a[1] != "" {
			attributes += fmt.Sprintf(" %s='%s'", a[0], a[1])
		}
	}
	return "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'" +
		" xmlns:db='jabber:server:dialback' version='1.0'" + attributes + ">"
}

// key proves to receiving that originating is us, on the stream of that id
// (XEP-0185).
func (r *RemoteServer) key(receiving, originating, id string) string {
	mac := hmac.New(sha256.New, r.secret)
	fmt.Fprintf(mac, "%s %s %s", receiving, originating, id)
	return hex.EncodeToString(mac.Sum(nil))
}

// serve takes a connection of the server under test, which asks about our keys
// and sends what its users have for ours.
func (r *RemoteServer) serve(conn net.Conn) {
	in := newStream(r.t, r.inbox.name, conn)
	in.on = func(name, text string) {
		from, to, id := attributeOf(text, "from"), attributeOf(text, "to"), attributeOf(text, "id")
		answer := ""
		switch name {
		case "stream":
			id := rand.Text()
			answer = openFederation(r.Domain, from, id) + "<stream:features><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>"
		case "verify":
			verdict := "invalid"
			if to == r.Domain && hmac.Equal([]byte(contentOf(text)), []byte(r.key(from, to, id))) {
				verdict = "valid"
			}
			answer = fmt.Sprintf("<db:verify from='%s' to='%s' id='%s' type='%s'/>", to, from, id, verdict)
		case "result":
			answer = fmt.Sprintf("<db:result from='%s' to='%s' type='valid'/>", to, from)
		default:
			r.inbox.received(name, text)
		}
		if answer != "" {
			in.send(answer) // a connection that is gone ends the reading by itself
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		conn.Close()
	}
	r.in = append(r.in, conn)
	r.reading.Go(in.read)
}

// Claim opens a stream to a host of the server under test in the name of any
// domain and returns what becomes of it: the server's <db:result/>, an error of
// the stream, or "" when it closes the connection. The stream remains open.
func (r *RemoteServer) Claim(from, to string) (s RemoteStream, answer string) {
	r.t.Helper()
	s = RemoteStream{dialStream(r.t, from+" to "+to, r.s.s2s)}
	s.Send(openFederation(from, to, ""))
	id, err := s.waitRoot("id")
	if err != nil {
		return s, ""
	}
	if err := s.send(fmt.Sprintf("<db:result from='%s' to='%s'>%s</db:result>", from, to, r.key(to, from, id))); err != nil {
		return s, ""
	}
	answer, _ = s.wait(func(text string) bool {
		return strings.HasPrefix(text, "<db:result") || strings.HasPrefix(text, "<stream:error")
	})
	return s, answer
}

// Stream returns a stream on which the server under test has verified that we
// are who we say, for stanzas to one of its domains.
func (r *RemoteServer) Stream(to string) RemoteStream {
	r.t.Helper()
	if _, ok := r.out[to]; !ok {
		s, answer := r.Claim(r.Domain, to)
		if attributeOf(answer, "type") != "valid" {
			r.t.Fatalf("%s: not verified: %s", s.name, cmp.Or(answer, "the connection was closed"))
		}
		r.out[to] = s
	}
	return r.out[to]
}

// Send sends a stanza to the domain in its "to".
func (r *RemoteServer) Send(stanza string) {
	r.t.Helper()
	to := attributeOf(stanza, "to")
	to, _, _ = strings.Cut(to, "/")
	r.Stream(to[strings.IndexByte(to, '@')+1:]).Send(stanza)
}

// Ping asks a host of the server under test for an answer, as Client.Ping does.
func (r *RemoteServer) Ping(to string) {
	r.t.Helper()
	id := rand.Text()
	r.Send(fmt.Sprintf("<iq type='get' id='%s' from='%s' to='%s'><ping xmlns='urn:xmpp:ping'/></iq>", id, r.Domain, to))
	r.inbox.Wait("the answer to a ping of "+to, func(text string) bool {
		return strings.HasPrefix(text, "<iq") && attributeOf(text, "id") == id
	})
}

// WaitFor is Client.WaitFor over all that the server under test sends us.
func (r *RemoteServer) WaitFor(parts ...string) string {
	r.t.Helper()
	return r.inbox.WaitFor(parts...)
}

// Hangup drops the streams that the server under test has opened.
func (r *RemoteServer) Hangup() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.in {
		conn.Close()
	}
	r.in = nil
}

// contentOf returns the text of an element without children.
func contentOf(text string) string {
	var content struct {
		Text string `xml:",chardata"`
	}
	if xml.Unmarshal([]byte(text), &content) != nil {
		return ""
	}
	return strings.TrimSpace(content.Text)
}

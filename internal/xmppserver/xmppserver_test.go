package xmppserver_test

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"eventpusher/internal/xmppserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a component that speaks raw XML.
type client struct {
	net.Conn
	t testing.TB
}

func newServer(t testing.TB, o xmppserver.Options) *xmppserver.Server {
	t.Helper()
	if o.Component == "" {
		o.Component, o.Secret, o.Hosts = "events.example.org", "s3cret", []string{"example.org"}
	}
	server, err := xmppserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server
}

func dial(t testing.TB, server *xmppserver.Server) *client {
	t.Helper()
	conn, err := net.Dial("tcp", server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute)) // only against a test that hangs
	return &client{conn, t}
}

func (c *client) send(xml string) {
	c.t.Helper()
	if _, err := io.WriteString(c, xml); err != nil {
		c.t.Fatal(err)
	}
}

// until reads up to and including the text, or to the end of the connection.
func (c *client) until(end string) string {
	c.t.Helper()
	var got strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(got.String(), end) {
		if _, err := io.ReadFull(c, one); err != nil {
			break
		}
		got.Write(one)
	}
	return got.String()
}

// all reads to the end of the connection.
func (c *client) all() string {
	data, err := io.ReadAll(c)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(data)
}

const header = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='events.example.org'>"

// handshake sends the header and the digest for the id that comes.
func (c *client) handshake(secret string) {
	c.t.Helper()
	c.send(header)
	_, id, _ := strings.Cut(c.until("'>"), " id='")
	digest := sha1.Sum([]byte(strings.TrimSuffix(id, "'>") + secret))
	c.send("<handshake>" + hex.EncodeToString(digest[:]) + "</handshake>")
}

// attach returns both ends of a stream that is established.
func attach(t testing.TB, server *xmppserver.Server) (*client, *xmppserver.Session) {
	t.Helper()
	c := dial(t, server)
	c.handshake("s3cret")
	if got := c.until("<handshake/>"); got != "<handshake/>" {
		t.Fatalf("handshake answered by %q", got)
	}
	session, err := server.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c, session
}

func streamError(condition, text string) string {
	if text != "" {
		text = "<text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>" + text + "</text>"
	}
	return "<stream:error><" + condition + " xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>" + text + "</stream:error></stream:stream>"
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct{ name, header, want string }{
		{"unknown component", strings.Replace(header, "events.", "other.", 1), streamError("host-unknown", "other.example.org does not match any configured external components")},
		{"no component", strings.Replace(header, " to='events.example.org'", "", 1), streamError("improper-addressing", "")},
		{"client", strings.Replace(header, "component:accept", "client", 1), streamError("invalid-namespace", "")},
		{"wrong digest", header + "<handshake>00</handshake>", streamError("not-authorized", "Given token does not match calculated token")},
		{"no handshake", header + "<message/>", streamError("not-authorized", "Given token does not match calculated token")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, newServer(t, xmppserver.Options{}))
			c.send(tc.header)
			if got := c.all(); !strings.HasPrefix(got, "<?xml version='1.0'?><stream:stream ") || !strings.HasSuffix(got, tc.want) {
				t.Errorf("got %q, want the end %q", got, tc.want)
			}
		})
	}
}

func TestSecondComponentIsRefused(t *testing.T) {
	server := newServer(t, xmppserver.Options{})
	first, session := attach(t, server)
	second := dial(t, server)
	second.handshake("s3cret")
	if got, want := second.all(), streamError("conflict", "Component already connected"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	first.Close()
	<-session.Done()
	for { // the server forgets the first when it has read its end
		third := dial(t, server)
		third.handshake("s3cret")
		if third.until(">") == "<handshake/>" {
			break
		}
	}
}

func TestSession(t *testing.T) {
	c, session := attach(t, newServer(t, xmppserver.Options{}))
	c.send("  <iq type='get' id='1' from='events.example.org' to='example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
	if got, want := c.until("/>"), "<iq type='result' id='1' from='example.org' to='events.example.org'/>"; got != want {
		t.Errorf("pong %q, want %q", got, want)
	}
	c.send("<iq type='get' id='2' from='events.example.org' to='far.example'><ping xmlns='urn:xmpp:ping'/></iq><presence id='&lt;'/>")
	for _, want := range []xmppserver.Stanza{
		{Name: "iq", Type: "get", ID: "2", From: "events.example.org", To: "far.example", Inner: "<ping xmlns='urn:xmpp:ping'/>"},
		{Name: "presence", ID: "<"},
	} {
		got, err := session.Receive(t.Context())
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Error(err, diff)
		}
	}
	if n := session.Keepalives(); n != 1 {
		t.Errorf("%d keepalives, want 1", n)
	}
	if err := session.Send("<message><body>" + xmppserver.Escape("a<b") + "</body></message>"); err != nil {
		t.Error(err)
	}
	if got, want := c.until("</message>"), "<message><body>a&lt;b</body></message>"; got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	c.send("</stream:stream>")
	if got := c.all(); got != "</stream:stream>" {
		t.Errorf("the end is answered by %q", got)
	}
	<-session.Done()
	if !session.Ended() {
		t.Error("the end was not noticed")
	}
	if _, err := session.Receive(t.Context()); !errors.Is(err, xmppserver.ErrClosed) {
		t.Errorf("receive after the end: %v", err)
	}
}

func TestFail(t *testing.T) {
	c, session := attach(t, newServer(t, xmppserver.Options{}))
	session.Fail("system-shutdown", "bye & thanks")
	if got, want := c.all(), streamError("system-shutdown", "bye &amp; thanks"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	<-session.Done()
}

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fault  xmppserver.Fault
		secret string
		want   string // of everything behind the header, up to the end or the last '>'
	}{
		{"drop", xmppserver.Fault{Drop: true}, "s3cret", ""},
		{"other id", xmppserver.Fault{OtherID: true}, "s3cret", streamError("not-authorized", "Given token does not match calculated token")},
		{"stream error", xmppserver.Fault{StreamError: "reset"}, "s3cret", streamError("reset", "")},
		{"glue, split", xmppserver.Fault{Glue: "<message/></stream:stream>", Segment: 3}, "s3cret", "<handshake/><message/></stream:stream>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, newServer(t, xmppserver.Options{Fault: func(int) xmppserver.Fault { return tc.fault }}))
			c.handshake(tc.secret)
			if got := c.until("</stream:stream>"); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("raw", func(t *testing.T) {
		c := dial(t, newServer(t, xmppserver.Options{Fault: func(int) xmppserver.Fault { return xmppserver.Fault{Raw: "HTTP/1.1 200 OK"} }}))
		if got := c.until("OK"); got != "HTTP/1.1 200 OK" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("no id", func(t *testing.T) {
		c := dial(t, newServer(t, xmppserver.Options{Fault: func(int) xmppserver.Fault { return xmppserver.Fault{NoStreamID: true} }}))
		c.send(header)
		if got := c.until("org'>"); strings.Contains(got, " id=") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("only the first connection", func(t *testing.T) {
		server := newServer(t, xmppserver.Options{Fault: func(n int) xmppserver.Fault { return xmppserver.Fault{Drop: n == 1} }})
		dropped := dial(t, server)
		dropped.handshake("s3cret")
		dropped.all()
		attach(t, server)
		if n := server.Connections(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
	})
}

func TestSilentAndDeafConnectionsEndWithTheServer(t *testing.T) {
	for _, fault := range []xmppserver.Fault{{Silent: true}, {Deaf: true}} {
		server := newServer(t, xmppserver.Options{Fault: func(int) xmppserver.Fault { return fault }})
		c := dial(t, server)
		if fault.Deaf {
			c.handshake("s3cret")
			c.until("<handshake/>")
		} else {
			c.send(header)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if got := c.until("\x00"); got != "" {
			t.Errorf("%+v said %q", fault, got)
		}
		if _, err := server.Accept(context.Background()); fault.Silent && !errors.Is(err, xmppserver.ErrClosed) {
			t.Errorf("accept after the end: %v", err)
		}
	}
}

func TestAcceptEndsWithItsContext(t *testing.T) {
	server := newServer(t, xmppserver.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := server.Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

//go:build linux

package prosody_test

import (
	"crypto/sha1"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// start starts a Prosody with mod_event_feed on its host and its rooms, users,
// the component of the feed, and other.localhost for those from elsewhere.
// Config is Lua for the global section, more are further users.
func start(t testing.TB, config string, more ...string) *harness.XMPPServer {
	t.Helper()
	return harness.Prosody(t, harness.ProsodyOptions{
		EventFeed: true, Users: append([]string{"alice", "bob", "carol", "dave"}, more...), PluginPaths: []string{"feeds/prosody/testdata/plugins"},
		Modules:    []string{"mam", "blocklist", "feed_probe"},
		Components: []string{"events.localhost", "other.localhost"},
		Config:     "archive_expires_after = 'never'\n" + config,
	})
}

// probe has the test's module do something; attributes are for it.
func probe(c *harness.Client, what, attributes string) {
	c.IQ("set", "localhost", "<do xmlns='urn:test:probe' what='"+what+"' "+attributes+"/>")
}

// lines are events, one line each.
func lines(events []received) []string {
	var all []string
	for _, r := range events {
		all = append(all, r.line())
	}
	return all
}

// diffOf compares events with lines, "" when they are the same.
func diffOf(want []string, got []received) string { return cmp.Diff(want, lines(got)) }

// settled returns when the server has handled all that the component has sent.
func settled(t testing.TB, c *harness.Client) {
	t.Helper()
	id := fmt.Sprintf("settled-%d", len(c.Stanzas()))
	c.Sendf("<iq type='get' id='%s' from='x@other.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", id)
	c.WaitFor("<iq", id)
}

// until asks the test's module again and again whether something is so.
func until(t testing.TB, c *harness.Client, question, attributes string) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); ; {
		answer := c.Ask("set", "localhost", "<do xmlns='urn:test:probe' what='"+question+"' "+attributes+"/>")
		if strings.Contains(answer, "result") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s %s: not so within %s", question, attributes, waitLimit)
		}
	}
}

// connectTwice attaches one more component of the same name and returns when it
// has been refused.
func connectTwice(s *harness.XMPPServer, addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(waitLimit))
	fmt.Fprintf(conn, "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='%s'>", s.Component)
	var text []byte
	buffer := make([]byte, 4096)
	for !strings.Contains(string(text), "id='") || !strings.HasSuffix(string(text), ">") {
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		text = append(text, buffer[:n]...)
	}
	_, id, _ := strings.Cut(string(text), " id='")
	id, _, _ = strings.Cut(id, "'")
	fmt.Fprintf(conn, "<handshake>%x</handshake>", sha1.Sum([]byte(id+s.Secret)))
	rest, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(rest), "conflict") {
		return fmt.Errorf("not refused: %v, %s", err, rest)
	}
	return nil
}

// acknowledged returns when the server knows that the client has everything: the
// first answer follows every request for acknowledgement, which the client has
// answered then, and the second follows these answers.
func acknowledged(c *harness.Client) {
	c.Ping()
	c.Ping()
}

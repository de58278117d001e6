//go:build linux

package prosody_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// start starts a Prosody with mod_event_feed on its host and its rooms, users,
// the component of the feed, and other.localhost for those from elsewhere.
// Config is Lua for the global section.
func start(t testing.TB, config string) *harness.XMPPServer {
	t.Helper()
	return harness.Prosody(t, harness.ProsodyOptions{
		EventFeed: true, PluginPaths: []string{"feeds/prosody/testdata/plugins"},
		Modules:    []string{"mam", "feed_probe"},
		Components: []string{"events.localhost", "other.localhost"},
		Config:     "archive_expires_after = 'never'\n" + config,
	})
}

// probe has the test's module do something; attributes are for it.
func probe(c *harness.Client, what, attributes string) {
	c.IQ("set", "localhost", "<do xmlns='urn:test:probe' what='"+what+"' "+attributes+"/>")
}

// briefs are events in lines.
func briefs(all []received) []string {
	var lines []string
	for _, r := range all {
		lines = append(lines, r.brief())
	}
	return lines
}

// diffOf compares events with lines, "" when they are the same.
func diffOf(want []string, got []received) string { return cmp.Diff(want, briefs(got)) }

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

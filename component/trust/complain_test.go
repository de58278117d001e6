package trust

import (
	"strings"
	"testing"
	"time"

	"eventpusher/component/stanza"
)

// TestComplaintsOfAConnection: what a server sends in vain is listed until the next connection, what a
// user sends never.
func TestComplaintsOfAConnection(t *testing.T) {
	j := New(Options{Component: "events.localhost", Forwarders: []string{"localhost"}, Hosts: []string{"localhost"}})
	now := time.Now()
	j.Reconnected(now)
	send := func(from string) {
		t.Helper()
		var env stanza.Envelope
		text := "<message from='" + from + "' to='events.localhost'><forwarded xmlns='urn:xmpp:forward:0'><message from='a@x' to='b@x'><body>x</body></message></forwarded></message>"
		if err := stanza.NewDecoder(stanza.Limits{}).Decode([]byte(text), &env); err != nil {
			t.Fatal(err)
		}
		j.Stanza(&env, now)
	}
	send("mallory@localhost/x")
	if list := j.Complaints(); len(list) != 0 {
		t.Errorf("about a user: %v", list)
	}
	send("second.localhost")
	if list := j.Complaints(); len(list) != 1 || !strings.Contains(list[0].Text, "second.localhost") || !strings.Contains(list[0].Remedy, "component.forwarders") {
		t.Errorf("about a server: %v", list)
	}
	j.Reconnected(now)
	if list := j.Complaints(); len(list) != 0 {
		t.Errorf("on the next connection: %v", list)
	}
}

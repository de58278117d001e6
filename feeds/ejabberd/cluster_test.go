//go:build linux

package ejabberd_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// node is an ejabberd that others can join.
func node(t *testing.T, name, address string, port int) (*harness.XMPPServer, *harness.ErlangShell) {
	t.Helper()
	erlang := harness.NewErlangShell(t)
	return harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed: true, Eval: erlang.Eval(""), Node: name + "@" + address, NodePort: port, EventFeedOptions: "    source: " + name,
		Components: []string{"events.localhost", "gateway.localhost"}, Modules: "  mod_admin_extra: {}\n",
	}), erlang
}

// TestCluster: two nodes, each a source. A message that passes from one to the other is
// reported once, by the node on which it came into being.
func TestCluster(t *testing.T) {
	t.Parallel()
	one, other := fmt.Sprintf("127.%d.%d.2", 2+rand.IntN(250), rand.IntN(250)), fmt.Sprintf("127.%d.%d.3", 2+rand.IntN(250), rand.IntN(250))
	free, err := net.Listen("tcp", one+":0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	first, _ := node(t, "first", one, port)
	second, erlang := node(t, "second", other, port)
	erlang.Run(fmt.Sprintf("ejabberd_cluster:join('first@%s')", one))
	want := fmt.Sprintf("{ok,['first@%s','second@%s']}", one, other)
	for deadline := time.Now().Add(harness.WaitLimit); ; time.Sleep(100 * time.Millisecond) {
		got := erlang.Run("{lists:sort(ejabberd_cluster:get_nodes()), whereis(mod_event_feed_source) /= undefined, ejabberd_option:hosts()}")
		if strings.HasPrefix(got, "{ok,{"+want[len("{ok,"):len(want)-1]+",true,") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nodes %s\n%s", got, second.Log())
		}
	}

	c := first.AttachComponent(t, first.Component)
	gateway := first.AttachComponent(t, "gateway.localhost")
	for _, source := range []string{"first", "second"} {
		c.WaitFor("<hello", "source='"+source+"'")
		c.Sendf("<message from='%s' to='localhost'><resume xmlns='%s' source='%s' token='T'/></message>", first.Component, feedNS, source)
	}
	alice, bob := first.Login(t, "alice", "a"), second.Login(t, "bob", "b")
	alice.Presence()
	bob.Presence()
	c.WaitFor("kind='online'", "alice@localhost/a")
	c.WaitFor("kind='online'", "bob@localhost/b")
	alice.Send("<message type='chat' id='m1' to='bob@localhost'><body>Across</body></message>")
	bob.WaitFor("m1")
	bob.Send("<message type='chat' id='m2' to='alice@localhost/a'><body>And back</body></message>")
	alice.WaitFor("m2")
	gateway.Send("<message type='chat' id='m3' from='x@gateway.localhost' to='bob@localhost'><body>From elsewhere</body></message>")
	bob.WaitFor("m3")
	erlang.Ctl("send_message", "chat", "alice@localhost", "bob@localhost", "", "By the API")
	bob.WaitFor("By the API")
	erlang.Ctl("send_message", "chat", "localhost", "alice@localhost", "", "By the server")
	for _, source := range []string{"first", "second"} {
		c.Sendf("<message from='%s' to='localhost'><snapshot xmlns='%s' source='%s' id='end'/></message>", first.Component, feedNS, source)
		c.WaitFor("kind='snapshot-end'", "source='"+source+"'", "token='T'")
	}
	attribute := func(text, name string) string {
		m := regexp.MustCompile(" " + name + "='([^']*)'").FindStringSubmatch(text)
		return m[1]
	}
	var got []string
	for _, text := range c.Stanzas() {
		if _, event, ok := strings.Cut(text, "<event "); ok && strings.Contains(event, "kind='message-") {
			event = " " + event
			got = append(got, strings.Join([]string{attribute(event, "source"), attribute(event, "kind"), attribute(event, "user")}, " "))
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{
		"first message-received bob@localhost", "first message-sent alice@localhost/a",
		"second message-received alice@localhost", "second message-sent alice@localhost", "second message-sent bob@localhost/b",
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/harness"
)

// sendersOf is how many users write to the ones that are away: more conversations than
// one instance's half of the partitions could hold alone.
const sendersOf = 8

// pushCluster is two instances with push at one server.
type pushCluster struct {
	*cluster
	server  *harness.XMPPServer
	gateway *pushtest.MongoosePush
	senders []*harness.Client
	says    []func(to, text string)
	// subscriber gets what is published at the pubsub node that one user has registered.
	subscriber *harness.Client
}

const clusterNode = "carol@localhost/phone"

func startPushCluster(t *testing.T) *pushCluster {
	t.Helper()
	accounts := slices.Clone(users)
	for i := range sendersOf {
		accounts = append(accounts, fmt.Sprint("sender", i))
	}
	server := harness.Prosody(t, harness.ProsodyOptions{
		EventFeed: true, DelegatePush: true, Components: []string{"events.localhost"}, Users: accounts,
		Config: `smacks_hibernation_time = 120
admins = { "dave@localhost" }
Component "pubsub.localhost" "pubsub"
`,
	})
	gateway := pushtest.StartMongoosePush(t)
	c := &pushCluster{server: server, gateway: gateway, cluster: prepareCluster(t, server.ComponentAddr(server.Component), fmt.Sprintf(`
[modules.mod_event_pusher.push]
backend = "nats"
virtual_pubsub_hosts = ["virtual.@HOST@"]
plugin_module = "mod_event_pusher_push_plugin_enhanced"

[modules.mod_push_service_mongoosepush]
pool_name = "mongoose_push_http"

[outgoing_pools.http.mongoose_push_http.connection]
host = %q
tls.cacertfile = %q
`, gateway.URL, gateway.CAFile))}
	for i := range sendersOf {
		s := server.Login(t, fmt.Sprint("sender", i), "desk")
		s.Presence()
		c.senders, c.says = append(c.senders, s), append(c.says, speaker(s))
	}
	return c
}

// login is that of a user whose server has push delegated.
func (c *pushCluster) login(user, resource string) *harness.Client {
	c.t.Helper()
	client := c.server.Login(c.t, user, resource)
	await(c.t, "delegation", func() bool { return listsPush(client) })
	return client
}

// sayAll has every sender write to a user.
func (c *pushCluster) sayAll(to, round string) {
	c.t.Helper()
	for _, say := range c.says {
		say(to+"@localhost", round)
	}
}

// clusterPush is a notification: of which user's device, from whom, of what.
type clusterPush struct{ Device, Sender, Text string }

// badges returns those of every notification so far, in order.
func (c *pushCluster) badges() map[clusterPush][]int {
	c.t.Helper()
	got := make(map[clusterPush][]int)
	for _, r := range c.gateway.Requests() {
		var b struct {
			Alert struct {
				Body, Title string
				Badge       int
			}
		}
		if err := json.Unmarshal([]byte(r.Body), &b); err != nil {
			c.t.Fatal(err)
		}
		p := clusterPush{r.DeviceID, b.Alert.Title, b.Alert.Body}
		got[p] = append(got[p], b.Alert.Badge)
	}
	return got
}

// fromAll waits until a user's device was notified of what every sender has written, and
// returns how often, and with what badge. Badges that are not the same are -1.
func (c *pushCluster) fromAll(device, text string) (most, badge int) {
	c.t.Helper()
	of := func() (list [][]int) {
		for p, badges := range c.badges() {
			if p.Device == device && p.Text == text {
				list = append(list, badges)
			}
		}
		return list
	}
	await(c.t, fmt.Sprint(device, " to hear of ", text), func() bool { return len(of()) == sendersOf })
	for _, badges := range of() {
		most = max(most, len(badges))
		for _, b := range badges {
			if badge == 0 {
				badge = b
			}
			if b != badge {
				badge = -1
			}
		}
	}
	return most, badge
}

// once expects one notification of each with that badge.
func (c *pushCluster) once(device, text string, badge int) {
	c.t.Helper()
	if most, got := c.fromAll(device, text); most != 1 || got != badge {
		c.t.Errorf("%s of %s: at most %d times, badge %d; want once, badge %d", device, text, most, got, badge)
	}
}

// published waits until the pubsub service has got what every sender has written.
func (c *pushCluster) published(text string) {
	c.t.Helper()
	for i := range sendersOf {
		c.subscriber.WaitFor("<message", "pubsub#event", clusterNode, ">"+text+"<", fmt.Sprintf(">sender%d@localhost<", i))
	}
}

// pushed returns how many notifications an instance has handed over.
func (n *node) pushed() int {
	_, text := n.get("/metrics")
	for line := range strings.Lines(text) {
		if count, ok := strings.CutPrefix(line, `eventpusher_backend_occurrences_total{backend="push",what="pushed"} `); ok {
			v, err := strconv.Atoi(strings.TrimSpace(count))
			if err != nil {
				n.c.t.Fatal(line)
			}
			return v
		}
	}
	return 0
}

// explains returns the lines that an instance explains a user by, sorted.
func (n *node) explains(user string) []string {
	n.c.t.Helper()
	return slices.Sorted(strings.Lines(n.command("push", "explain", user+"@localhost")))
}

// TestClusterPush lets two instances notify of their halves of the conversations, with
// one link to a real server, and ends the one that has it.
func TestClusterPush(t *testing.T) {
	c := startPushCluster(t)
	a, b := c.nodes[0], c.nodes[1]
	a.start()
	a.ready("ready")
	b.start()
	b.ready("standby: ")
	a.has(8)
	b.has(8)

	c.subscriber = c.server.Login(t, "dave", "d")
	c.subscriber.Presence()
	const service = "pubsub.localhost"
	c.subscriber.IQ("set", service, "<pubsub xmlns='http://jabber.org/protocol/pubsub'><create node='"+clusterNode+"'/><configure>"+
		"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>http://jabber.org/protocol/pubsub#node_config</value></field>"+
		"<field var='pubsub#publish_model'><value>open</value></field></x></configure></pubsub>")
	c.subscriber.IQ("set", service, "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='"+clusterNode+"' jid='dave@localhost'/></pubsub>")

	virtual := func(device string) string {
		return pushEnable("virtual.localhost", device, "service", "fcm", "device_id", device)
	}
	for user, enable := range map[string]string{"alice": virtual("alice"), "bob": virtual("bob"), "carol": pushEnable(service, clusterNode)} {
		client := c.login(user, "phone")
		client.Presence()
		client.IQ("set", "", enable)
		// The request went to the one with the link, the other one knows of it at once.
		if e := b.explains(user); !slices.ContainsFunc(e, func(line string) bool { return strings.Contains(line, "has 1 registration") }) {
			t.Errorf("%s as the other instance sees him: %q", user, e)
		}
		leave(client)
	}
	// erin's phone stays, her tablet goes.
	erin := c.login("erin", "phone")
	erin.EnableSM()
	erin.Presence()
	erin.IQ("set", "", virtual("erins-phone"))
	tablet := c.login("erin", "tablet")
	tablet.IQ("set", "", virtual("erins-tablet"))
	leave(tablet)

	t.Run("each instance notifies of its half", func(t *testing.T) {
		for i, text := range []string{"one", "two"} {
			for _, user := range []string{"alice", "bob", "carol"} {
				c.sayAll(user, text)
			}
			c.published(text)
			c.once("alice", text, i+1)
			c.once("bob", text, i+1)
		}
		// The result of a publish comes beside what the subscriber gets.
		await(t, "the last result", func() bool { return a.pushed()+b.pushed() == 2*3*sendersOf })
		if a.pushed() == 0 || b.pushed() == 0 {
			t.Errorf("one instance has handed over %d, the other one %d", a.pushed(), b.pushed())
		}
		var one, other []string
		await(t, "both instances to explain the same", func() bool {
			one, other = a.explains("bob"), b.explains("bob")
			return slices.Equal(one, other)
		})
		text := strings.Join(one, "")
		if n := strings.Count(text, " pushed "); n < sendersOf || !strings.Contains(text, "message by event-feed") {
			t.Errorf("%d of %d decisions:\n%s", n, 2*sendersOf, text)
		}
	})
	t.Run("what was read counts no more", func(t *testing.T) {
		alice := c.server.Login(t, "alice", "phone")
		alice.Presence()
		leave(alice)
		c.sayAll("alice", "three")
		c.once("alice", "three", 1) // of the conversations that the other instance has as well
		bob := c.server.Login(t, "bob", "phone")
		for i := range c.senders[:sendersOf/2] {
			bob.Sendf("<message to='sender%d@localhost' type='chat' id='re%d'>%s</message>", i, i, body("read"))
		}
		bob.Ping()
		bob.CloseStream()
		c.sayAll("bob", "three")
		if most, _ := c.fromAll("bob", "three"); most != 1 {
			t.Errorf("bob was notified up to %d times", most)
		}
		want := make(map[int]int)
		for p, badges := range c.badges() {
			if p.Device == "bob" && p.Text == "three" {
				want[badges[0]]++
			}
		}
		if diff := gocmp.Diff(map[int]int{1: sendersOf / 2, 3: sendersOf / 2}, want); diff != "" {
			t.Error("badges of bob after he has answered half of them:", diff)
		}
	})
	t.Run("the leader is killed", func(t *testing.T) {
		for _, user := range []string{"alice", "bob", "carol"} {
			c.sayAll(user, "before")
		}
		a.end(syscall.SIGKILL)
		for _, user := range []string{"alice", "bob", "carol"} {
			c.sayAll(user, "while nobody leads")
		}
		b.ready("ready")
		b.has(16)
		for _, device := range []string{"alice", "bob"} {
			if most, _ := c.fromAll(device, "before"); most > 2 { // one that was under way may come again
				t.Errorf("%s was notified %d times", device, most)
			}
			if most, _ := c.fromAll(device, "while nobody leads"); most != 1 {
				t.Errorf("%s was notified %d times of what was sent after it", device, most)
			}
		}
		c.published("before")
		c.published("while nobody leads")
	})
	t.Run("a session is where it was", func(t *testing.T) {
		erin.HoldAcks()
		c.says[0]("erin@localhost", "unacknowledged")
		erin.WaitFor("<message", "unacknowledged")
		erin.Drop()
		unacked := clusterPush{"erins-phone", "sender0@localhost", "unacknowledged"}
		await(t, "erin's phone to hear of it", func() bool { return len(c.badges()[unacked]) > 0 })
	})
	t.Run("the other one is back", func(t *testing.T) {
		a.start()
		a.ready("standby: ")
		a.has(8)
		alice := c.server.Login(t, "alice", "phone")
		alice.Presence()
		leave(alice)
		c.sayAll("alice", "last")
		c.sayAll("carol", "last")
		c.once("alice", "last", 1)
		c.published("last")
		await(t, "the other one's part", func() bool { return a.pushed() > 0 })
	})
	devices := make(map[string]bool)
	for p := range c.badges() {
		devices[p.Device] = true
	}
	if diff := gocmp.Diff([]string{"alice", "bob", "erins-phone"}, slices.Sorted(maps.Keys(devices))); diff != "" {
		t.Error("who was notified:", diff)
	}
}

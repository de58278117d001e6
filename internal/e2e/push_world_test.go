package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/backends/push/pushtest"
	"eventpusher/internal/harness"
)

// pushWorld is eventpusher with push alone, and a MongoosePush behind its virtual host.
type pushWorld struct {
	*world
	stop    func()
	gateway *pushtest.MongoosePush
	seen    int // how many of the gateway's requests have been looked at
	server  *harness.XMPPServer
	dir     string // of the outbox
	toml    string
}

// pushHosts are the virtual hosts of pushServers.
const otherHost = "other.localhost"

// pushServers are like pushFlavours, with a second virtual host, a pubsub service on
// which carol may create nodes, and stream management that gives sessions up soon.
var pushServers = []struct {
	name string
	// noNode is the outcome where a pubsub service has no such node.
	noNode string
	start  func(t *testing.T) *harness.XMPPServer
}{
	{"prosody", "refused", func(t *testing.T) *harness.XMPPServer {
		return harness.Prosody(t, harness.ProsodyOptions{
			EventFeed: true, DelegatePush: true, Accounts: true, Components: []string{"events.localhost"}, MUC: "muc.localhost", Users: users,
			Hosts: []string{"localhost", otherHost}, Modules: []string{"blocklist"},
			Config: `smacks_hibernation_time = 3
admins = { "carol@localhost" }
Component "pubsub.localhost" "pubsub"
`,
		})
	}},
	{"ejabberd", "disabled", func(t *testing.T) *harness.XMPPServer {
		return harness.Ejabberd(t, harness.EjabberdOptions{
			EventFeed: true, DelegatePush: true, Accounts: true, Components: []string{"events.localhost"}, MUC: "muc.localhost", Users: users,
			Hosts:   []string{"localhost", otherHost},
			NodesBy: "carol@localhost", // as with most configurations the component may not
			// Otherwise it forgets what a session has not acknowledged, if it is archived.
			StreamManagement: "{resend_on_timeout: if_offline, resume_timeout: 3}",
		})
	}},
}

// startPush runs the program at a server until the test ends. Options are of
// [modules.mod_event_pusher.push], more is for the end of the configuration.
func startPush(t *testing.T, server *harness.XMPPServer, options, api, more string) *pushWorld {
	t.Helper()
	w := preparePush(t, server, options, api, more)
	w.restart()
	return w
}

// preparePush is startPush without the program.
func preparePush(t *testing.T, server *harness.XMPPServer, options, api, more string) *pushWorld {
	t.Helper()
	w := &pushWorld{world: &world{t: t}, gateway: pushtest.StartMongoosePush(t), server: server, dir: t.TempDir()}
	w.toml = fmt.Sprintf(`
[component]
address = %q
name = "events.localhost"
secret = "secret"
[general]
hosts = ["localhost", %q]
[admin]
listen = "127.0.0.1:0"
[outbox]
path = %q
[modules.mod_event_pusher.push]
virtual_pubsub_hosts = ["virtual.@HOST@"]
%s
[modules.mod_push_service_mongoosepush]
pool_name = "mongoose_push_http"
api_version = %q
[outgoing_pools.http.mongoose_push_http.connection]
host = %q
tls.cacertfile = %q
%s`, server.ComponentAddr(server.Component), otherHost, w.dir, options, api, w.gateway.URL, w.gateway.CAFile, more)
	return w
}

// restart runs the program, again after stop.
func (w *pushWorld) restart() {
	w.t.Helper()
	w.stop = w.run(w.toml)
	await(w.t, "readiness", w.ready)
}

// login logs a user in and waits until the server has push delegated.
func (w *pushWorld) login(user, resource string) *harness.Client {
	w.t.Helper()
	c := w.server.Login(w.t, user, resource)
	c.Presence()
	await(w.t, "delegation", func() bool { return listsPush(c) })
	return c
}

// listsPush asks the user's server whether it knows push.
func listsPush(c *harness.Client) bool {
	_, host, _ := strings.Cut(c.BareJID(), "@")
	return strings.Contains(c.IQ("get", host, "<query xmlns='http://jabber.org/protocol/disco#info'/>"), "urn:xmpp:push:0")
}

// leave ends the session and waits until the server knows.
func leave(c *harness.Client) {
	c.Send("<presence type='unavailable'/>")
	c.Ping()
	c.CloseStream()
}

// occurred returns how often the push backend has had that outcome.
func (w *pushWorld) occurred(what string) int {
	w.t.Helper()
	_, text := w.get("/metrics")
	for line := range strings.Lines(text) {
		if n, ok := strings.CutPrefix(line, `eventpusher_backend_occurrences_total{backend="push",what="`+what+`"} `); ok {
			count, err := strconv.Atoi(strings.TrimSpace(n))
			if err != nil {
				w.t.Fatal(line)
			}
			return count
		}
	}
	return 0
}

// expect waits for as many requests as are wanted and compares those that have come.
// What comes too much is seen here or by the next call.
func (w *pushWorld) expect(what string, want ...pushtest.MongoosePushRequest) {
	w.t.Helper()
	await(w.t, what, func() bool { return len(w.gateway.Requests()) >= w.seen+len(want) })
	got := w.gateway.Requests()[w.seen:]
	w.seen += len(got)
	for i := range got {
		got[i].Body = canonicalJSON(w.t, []byte(got[i].Body))
	}
	order := func(a, b pushtest.MongoosePushRequest) int {
		return cmp.Or(cmp.Compare(a.DeviceID, b.DeviceID), cmp.Compare(a.Body, b.Body))
	}
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		w.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// request is one that MongoosePush gets; members are of its body.
func request(api, device string, members ...any) pushtest.MongoosePushRequest {
	return pushtest.MongoosePushRequest{Path: "/" + api + "/notification/" + device, DeviceID: device, Body: object(members...)}
}

// alert is the one of a message from bob; more members may follow.
func alert(text string, badge int, sender string, more ...any) map[string]any {
	m := map[string]any{"badge": badge, "body": text, "title": sender, "tag": sender}
	for i := 0; i < len(more); i += 2 {
		m[more[i].(string)] = more[i+1]
	}
	return m
}

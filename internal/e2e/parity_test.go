package e2e

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"eventpusher/internal/harness"
)

// flavour is a way to attach to a server.
type flavour struct {
	name  string
	start func(t *testing.T) *harness.XMPPServer
	// unseen are the steps whose events this feed cannot know.
	unseen []string
	// acknowledged: the server has a module for the event-feed.
	acknowledged bool
}

var users = []string{"alice", "bob", "carol", "dave", "erin", "mallory"}

// outside is the domain of a component whose addresses are no users of the server's.
const outside = "outside.localhost"

// subscribable lets users subscribe to ejabberd's rooms (MUC/Sub).
const subscribable = "{allow_subscription: true}"

var flavours = []flavour{
	{
		name: "prosody firewall",
		start: func(t *testing.T) *harness.XMPPServer {
			return harness.Prosody(t, harness.ProsodyOptions{
				FirewallRules: []string{"docs/servers/events.pfw"}, MUC: "muc.localhost", Users: users, Modules: []string{"mam"},
			})
		},
	},
	{
		// Stock ejabberd never says that a session ended without sending unavailable.
		name: "ejabberd service_log",
		start: func(t *testing.T) *harness.XMPPServer {
			return harness.Ejabberd(t, harness.EjabberdOptions{ServiceLog: true, MUC: "muc.localhost", RoomOptions: subscribable, Users: users})
		},
		unseen: []string{"U02", "U03"},
	},
	{
		name: "prosody event-feed",
		start: func(t *testing.T) *harness.XMPPServer {
			return harness.Prosody(t, harness.ProsodyOptions{EventFeed: true, Components: []string{"events.localhost", outside}, MUC: "muc.localhost", Users: users, Modules: []string{"mam"}})
		},
		acknowledged: true,
	},
	{
		name: "ejabberd event-feed",
		start: func(t *testing.T) *harness.XMPPServer {
			return harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true, Components: []string{"events.localhost", outside}, MUC: "muc.localhost", RoomOptions: subscribable, Users: users})
		},
		acknowledged: true,
	},
}

// TestParity drives the scripted session through each real server and compares
// what arrives at RabbitMQ, SNS and HTTP with what MongooseIM 6.8 published.
func TestParity(t *testing.T) {
	golden := loadGolden(t)
	for _, f := range flavours {
		t.Run(f.name, func(t *testing.T) {
			server := f.start(t)
			w := newWorld(t, server.ComponentAddr(server.Component), "")
			s := &session{t: t, server: server, dave: server.Login(t, "dave", "marker")}
			for _, step := range steps {
				want, ok := golden[step.name]
				if !ok {
					t.Fatalf("step %s is not in the golden file", step.name)
				}
				if slices.Contains(f.unseen, step.name) {
					want = nil
				}
				want = slices.Sorted(slices.Values(want))
				step.do(s)
				got := w.collect(want, func(text string) { s.msg(s.dave, "erin@localhost", body(text)) })
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s (-MongooseIM +eventpusher):\n%s", step.name, diff)
				}
			}
		})
	}
}

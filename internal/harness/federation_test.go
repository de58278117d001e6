//go:build linux

package harness

import (
	"fmt"
	"strings"
	"testing"
)

// federated are the two servers with the option on.
var federated = []struct {
	name  string
	start func(t testing.TB) *XMPPServer
}{
	{"prosody", func(t testing.TB) *XMPPServer { return Prosody(t, ProsodyOptions{Federation: true}) }},
	{"ejabberd", func(t testing.TB) *XMPPServer { return Ejabberd(t, EjabberdOptions{Federation: true}) }},
}

func TestFederation(t *testing.T) {
	t.Parallel()
	for _, server := range federated {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			s := server.start(t)
			r := s.Federate(t)
			zoe := "zoe@" + r.Domain + "/x"
			alice := s.Login(t, "alice", "r1")
			alice.Presence()
			component := s.AttachComponent(t, s.Component)

			r.Send(fmt.Sprintf("<message from='%s' to='alice@localhost' id='in' type='chat'><body>In</body></message>", zoe))
			if got := alice.Wait("a message from elsewhere", message("in")); attributeOf(got, "from") != zoe {
				t.Errorf("alice got %s", got)
			}
			alice.Sendf("<message to='%s' id='out' type='chat'><body>Out</body></message>", zoe)
			if got := r.WaitFor("<message", "Out"); attributeOf(got, "from") != alice.JID || attributeOf(got, "to") != zoe {
				t.Errorf("zoe got %s", got)
			}
			r.Send(fmt.Sprintf("<message from='%s' to='%s' id='c'/>", zoe, s.Component))
			if got := component.Wait("a message from elsewhere", message("c")); attributeOf(got, "from") != zoe {
				t.Errorf("the component got %s", got)
			}
			r.Ping(s.Domain)

			// What only somebody else could have proved.
			imposter := s.Federate(t)
			_, answer := imposter.Claim(r.Domain, s.Domain)
			if attributeOf(answer, "type") != "invalid" && !strings.HasPrefix(answer, "<stream:error") {
				t.Errorf("%s claims to be %s: %q", imposter.Domain, r.Domain, answer)
			}
		})
	}
}

//go:build linux

package harness

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"slices"
	"strings"
	"testing"
)

// servers are the two servers with what both can do switched on.
var servers = []struct {
	name  string
	start func(t testing.TB) *XMPPServer
}{
	{"prosody", func(t testing.TB) *XMPPServer {
		return Prosody(t, ProsodyOptions{Modules: []string{"mam"}, Accounts: true})
	}},
	{"ejabberd", func(t testing.TB) *XMPPServer { return Ejabberd(t, EjabberdOptions{Accounts: true}) }},
}

// message matches a message with that id.
func message(id string) func(string) bool {
	return func(text string) bool { return strings.HasPrefix(text, "<message") && attributeOf(text, "id") == id }
}

func TestXMPPServers(t *testing.T) {
	t.Parallel()
	for _, server := range servers {
		t.Run(server.name, func(t *testing.T) {
			t.Parallel()
			s := server.start(t)
			alice, bob := s.Login(t, "alice", "r1"), s.Login(t, "bob", "desk")
			if alice.JID != "alice@localhost/r1" || bob.BareJID() != "bob@localhost" {
				t.Errorf("JIDs %s and %s", alice.JID, bob.JID)
			}
			alice.Presence()
			bob.Presence()

			t.Run("chat", func(t *testing.T) {
				alice.Send("<message type='chat' id='c1' to='bob@localhost/desk'><body>Hello</body></message>")
				got := bob.Wait("the chat", message("c1"))
				if attributeOf(got, "from") != alice.JID || !strings.Contains(got, "<body>Hello</body>") {
					t.Errorf("bob got %s", got)
				}
			})

			t.Run("accounts", func(t *testing.T) {
				s.Register("erin")
				erin := s.Login(t, "erin", "r1")
				s.Unregister("erin@localhost")
				erin.WaitEnd()
				s.Register("erin")
				s.Login(t, "erin", "r1").CloseStream()
			})

			t.Run("ping is a barrier", func(t *testing.T) {
				for range 20 {
					alice.Send("<message type='chat' id='burst' to='bob@localhost/desk'><body>x</body></message>")
				}
				alice.Ping()
				bob.Ping()
				n := 0
				for _, text := range bob.Stanzas() {
					if message("burst")(text) {
						n++
					}
				}
				if n != 20 {
					t.Errorf("%d of 20 messages are there after the pings", n)
				}
			})

			t.Run("room", func(t *testing.T) {
				alice.Join("room", "ally")
				bob.Join("room", "bobby")
				alice.Sendf("<message type='groupchat' id='g1' to='room@%s'><body>All</body></message>", s.MUC)
				if got := bob.Wait("the groupchat", message("g1")); attributeOf(got, "from") != "room@"+s.MUC+"/ally" {
					t.Errorf("bob got %s", got)
				}
				bob.Leave("room", "bobby")
			})

			t.Run("carbons", func(t *testing.T) {
				other := s.Login(t, "bob", "phone")
				other.EnableCarbons()
				other.Presence()
				alice.Send("<message type='chat' id='c2' to='bob@localhost/desk'><body>Copy</body></message>")
				other.WaitFor("urn:xmpp:carbons:2", "received", "c2")
				other.CloseStream()
			})

			t.Run("offline message", func(t *testing.T) {
				alice.Send("<message type='chat' id='o1' to='carol@localhost'><body>Later</body></message>")
				alice.Ping()
				carol := s.Login(t, "carol", "r1")
				carol.Presence()
				if got := carol.Wait("the offline message", message("o1")); !strings.Contains(got, "urn:xmpp:delay") {
					t.Errorf("carol got %s", got)
				}
				carol.Hangup()
			})

			t.Run("stream management", func(t *testing.T) {
				dave := s.Login(t, "dave", "r1")
				dave.EnableSM()
				dave.Presence()
				dave.Drop()
				alice.Send("<message type='chat' id='s1' to='dave@localhost/r1'><body>While away</body></message>")
				alice.Ping()
				dave = dave.Resume()
				dave.Wait("what came meanwhile", message("s1"))
				dave.CloseStream()
			})

			t.Run("component", func(t *testing.T) {
				c := s.AttachComponent(t, s.Component)
				alice.Sendf("<message id='d1' to='x@%s'><body>Direct</body></message>", s.Component)
				if got := c.Wait("the message", message("d1")); attributeOf(got, "from") != alice.JID {
					t.Errorf("the component got %s", got)
				}
				c.Sendf("<message id='d2' from='%s' to='%s'><body>Answer</body></message>", s.Component, alice.JID)
				alice.Wait("the answer", message("d2"))
				c.CloseStream()
			})

			t.Run("restart", func(t *testing.T) {
				before := s.C2SAddr()
				s.Restart()
				alice.WaitEnd()
				s.Kill()
				s.Start()
				if s.C2SAddr() != before {
					t.Errorf("ports %s and %s", before, s.C2SAddr())
				}
				s.Login(t, "alice", "r2").Presence()
			})
		})
	}
}

func TestEjabberdServiceLogAndTLS(t *testing.T) {
	t.Parallel()
	s := Ejabberd(t, EjabberdOptions{ServiceLog: true, Privilege: true, Components: []string{"events.localhost", "other.localhost"}})
	events, other := s.AttachComponent(t, "events.localhost"), s.AttachComponent(t, "other.localhost")
	events.WaitFor("urn:xmpp:privilege:", "managed_entity")
	other.WaitFor("urn:xmpp:privilege:")

	alice := s.Login(t, "alice", "r1")
	alice.Presence()
	events.Wait("alice's privileged presence", func(text string) bool {
		return strings.HasPrefix(text, "<presence") && attributeOf(text, "from") == alice.JID
	})
	alice.Send("<message type='chat' id='c1' to='bob@localhost'><body>Hello</body></message>")
	events.WaitFor("urn:xmpp:forward:0", "c1", "<body>Hello</body>")

	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	for _, name := range []string{"events.localhost", "localhost"} {
		conn, err := tls.Dial("tcp", s.ComponentTLSAddr("other.localhost"), &tls.Config{RootCAs: roots, ServerName: name})
		if err != nil {
			t.Errorf("TLS as %s: %v", name, err)
			continue
		}
		conn.Close()
	}
}

func TestProsodyPrivilege(t *testing.T) {
	t.Parallel()
	s := Prosody(t, ProsodyOptions{Privilege: true})
	alice := s.Login(t, "alice", "r1")
	alice.Presence()
	c := s.AttachComponent(t, s.Component)
	c.WaitFor("urn:xmpp:privilege:2", "managed_entity")
	c.Wait("alice in the snapshot", func(text string) bool {
		return strings.HasPrefix(text, "<presence") && attributeOf(text, "from") == alice.JID
	})
	alice.Drop()
	c.Wait("alice's end", func(text string) bool {
		return strings.HasPrefix(text, "<presence") && attributeOf(text, "type") == "unavailable"
	})
}

// The rules that the harness uses and those that the documentation gives to
// operators, each on a server with privileged presence: what is copied, and
// that nobody can address a presence to the component.
func TestProsodyFirewallRules(t *testing.T) {
	t.Parallel()
	for _, variant := range []struct {
		name    string
		options ProsodyOptions
		targets []string // of the copies of the session below, in any order
	}{
		{"of the harness", ProsodyOptions{Firewall: true, Privilege: true}, []string{"out c1", "in c1", "presence", "muc"}},
		{
			"of the documentation",
			ProsodyOptions{
				FirewallRules: []string{"docs/servers/privilege-guard.pfw", "docs/servers/events.pfw"}, Privilege: true,
				Modules: []string{"mam"},
			},
			[]string{"out c1", "presence"},
		},
	} {
		t.Run(variant.name, func(t *testing.T) {
			t.Parallel()
			s := Prosody(t, variant.options)
			c := s.AttachComponent(t, s.Component)
			alice, bob := s.Login(t, "alice", "r1"), s.Login(t, "bob", "desk")
			bob.Presence()

			alice.Sendf("<presence to='%s'><status>forged</status></presence>", s.Component)
			alice.Sendf("<presence to='x@%s/y'><status>forged</status></presence>", s.Component)
			alice.Sendf("<presence type='unavailable' to='%s'><status>forged</status></presence>", s.Component)
			alice.Presence()
			alice.Send("<message type='chat' id='c1' to='bob@localhost'><body>Hello</body></message>")
			bob.Wait("the chat", message("c1"))
			alice.Join("room", "ally")
			alice.Sendf("<message type='groupchat' id='g1' to='room@%s'><body>All</body></message>", s.MUC)
			alice.Wait("the reflection", message("g1"))
			alice.Ping()
			// Comes after all that was copied before: Prosody is one thread.
			alice.Sendf("<message id='last' to='%s'><body>.</body></message>", s.Component)
			c.Wait("the last message", message("last"))

			all := c.Stanzas()
			for _, text := range all {
				if strings.Contains(text, "forged") {
					t.Errorf("a user's presence reached the component: %s", text)
				}
			}
			for _, want := range append(variant.targets, "out g1", "in g1") {
				target, id, _ := strings.Cut(want, " ")
				n := 0
				for _, text := range all {
					if attributeOf(text, "to") == target+"@"+s.Component && (id == "" || strings.Contains(text, id)) {
						n++
					}
				}
				// bob and alice have sent a presence each.
				wanted := 1
				if target == "presence" {
					wanted = 2
				}
				if n != wanted {
					t.Errorf("%d copies %q, want %d", n, want, wanted)
				}
			}
			privileged := func(text string) bool {
				return strings.HasPrefix(text, "<presence") && attributeOf(text, "from") == alice.JID && attributeOf(text, "to") == s.Component
			}
			if !slices.ContainsFunc(all, privileged) {
				t.Error("the rules keep mod_privilege's presences away as well")
			}
			if len(variant.targets) == 2 {
				for _, text := range all {
					if attributeOf(text, "to") == "in@"+s.Component && strings.Contains(text, "c1") {
						t.Errorf("a local sender's message was copied twice: %s", text)
					}
				}
			}
		})
	}
}

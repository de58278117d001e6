//go:build linux

package ejabberd_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// TestContact: a chat message to somebody who is away says whether its sender is a stranger.
func TestContact(t *testing.T) {
	t.Parallel()
	s := harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true, Components: []string{"events.localhost", "elsewhere.localhost"}})
	c := attach(t, s)
	alice, bob := s.Login(t, "alice", "r1"), s.Login(t, "bob", "r1")
	other := s.AttachComponent(t, "elsewhere.localhost")
	carol := s.Login(t, "carol", "r1")
	carol.Presence()
	carol.IQ("set", "", "<query xmlns='jabber:iq:roster'><item jid='alice@localhost'><group>Friends</group></item></query>") // without a subscription
	bob.Send("<presence to='carol@localhost' type='subscribe'/>")                                                            // of which carol knows, and no more
	carol.WaitFor("<presence", "subscribe", "bob@localhost")
	got := make(map[string][]string)
	for _, e := range c.step(func() {
		bob.Send("<message id='there' type='chat' to='carol@localhost'><body>hi</body></message>")
		c.await("message-sent", "bob@localhost", 1)
		carol.WaitFor("there")
		carol.EnableSM()
		carol.Drop()
		c.await("hibernate", "carol@localhost", 1)
		bob.Send("<message id='unacked' type='chat' to='carol@localhost/r1'><body>hi</body></message>")
		c.await("message-unacked", "carol@localhost", 1)
		carol = carol.Resume()
		carol.WaitFor("unacked")
		carol.Send("<a xmlns='urn:xmpp:sm:3' h='1'/>") // or it is stored as well
		carol.CloseStream()
		c.await("session-end", "carol@localhost", 1)

		bob.Send("<message id='stranger' type='chat' to='carol@localhost'><body>hi</body></message>")
		bob.Send("<message id='normal' to='carol@localhost'><body>hi</body></message>")
		bob.Send("<message id='nobody' type='chat' to='nobody@localhost'><body>hi</body></message>")
		bob.Send("<message id='myself' type='chat' to='bob@localhost'><body>hi</body></message>")
		alice.Send("<message id='contact' type='chat' to='carol@localhost'><body>hi</body></message>")
		other.Send("<message id='elsewhere' type='chat' from='x@elsewhere.localhost/q' to='carol@localhost'><body>hi</body></message>")
		c.await("message-offline", "carol@localhost", 4)
		c.await("message-offline", "bob@localhost", 1)
		c.await("message-sent", "bob@localhost", 6)
	}) {
		switch e.Kind {
		case "message-sent", "message-received", "message-offline", "message-unacked":
			id := e.decode().ID
			got[id] = append(got[id], e.Kind+" "+e.Contact)
		}
	}
	want := map[string][]string{
		"there": {"message-sent "}, "unacked": {"message-sent ", "message-unacked false"},
		"stranger": {"message-sent false", "message-offline false"}, "contact": {"message-sent ", "message-offline "},
		"normal": {"message-sent ", "message-offline "}, "nobody": {"message-sent "}, "myself": {"message-sent ", "message-offline "},
		"elsewhere": {"message-received false", "message-offline false"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

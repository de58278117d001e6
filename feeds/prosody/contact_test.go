//go:build linux

package prosody_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestContact: a chat message to somebody who is away says whether its sender is a stranger.
func TestContact(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	p := attach(t, s)
	p.hello()
	p.resumeNothing()
	alice, bob, watcher := s.Login(t, "alice", "r1"), s.Login(t, "bob", "r1"), s.Login(t, "dave", "watch")
	other := s.AttachComponent(t, "other.localhost")
	carol := s.Login(t, "carol", "r1")
	carol.Presence()
	carol.IQ("set", "", "<query xmlns='jabber:iq:roster'><item jid='alice@localhost'/></query>") // without a subscription
	bob.Send("<presence to='carol@localhost' type='subscribe'/>")                                // of which carol knows, and no more
	carol.WaitFor("<presence", "subscribe", "bob@localhost")
	bob.Send("<message id='there' type='chat' to='carol@localhost'><body>hi</body></message>")
	bob.Ping()
	carol.EnableSM()
	carol.Drop()
	until(t, watcher, "hibernates", "jid='carol@localhost/r1'")
	bob.Send("<message id='unacked' type='chat' to='carol@localhost/r1'><body>hi</body></message>")
	bob.Ping()
	carol = carol.Resume()
	carol.WaitFor("unacked")
	carol.Send("<a xmlns='urn:xmpp:sm:3' h='1'/>") // or it is stored as well
	carol.CloseStream()
	until(t, watcher, "gone", "jid='carol@localhost/r1'")

	bob.Send("<message id='stranger' type='chat' to='carol@localhost'><body>hi</body></message>")
	bob.Send("<message id='normal' to='carol@localhost'><body>hi</body></message>")
	bob.Send("<message id='nobody' type='chat' to='nobody@localhost'><body>hi</body></message>")
	bob.Send("<message id='myself' type='chat' to='bob@localhost'><body>hi</body></message>")
	bob.Ping()
	alice.Send("<message id='contact' type='chat' to='carol@localhost'><body>hi</body></message>")
	alice.Ping()
	other.Send("<message id='elsewhere' type='chat' from='x@other.localhost/q' to='carol@localhost'><body>hi</body></message>")
	settled(t, other)
	alice.Send("<message id='so far' to='localhost'/>")
	got := make(map[string][]string)
	for _, r := range p.until("so far") {
		switch id := r.stanza().ID; r.Event.Kind {
		case "message-sent", "message-received", "message-offline", "message-unacked":
			got[id] = append(got[id], r.Event.Kind+" "+r.Event.Contact)
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

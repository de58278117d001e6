//go:build linux

package ejabberd_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// A session of every kind, step by step on one server.
func TestKinds(t *testing.T) {
	s := harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed:  true,
		Components: []string{"events.localhost", "other.localhost"},
	})
	c := attach(t, s)
	other := s.AttachComponent(t, "other.localhost")
	var alice, alice2, bob, carol *harness.Client
	room := "tea@" + s.MUC

	for _, step := range []struct {
		name string
		do   func()
		want []string // without order where a room tells several occupants
	}{
		{
			"a session begins", func() { alice = s.Login(t, "alice", "r1") },
			[]string{"session-start alice@localhost/r1"},
		},
		{
			"online, then away", func() {
				alice.Send("<presence/>")
				alice.Send("<presence><show>away</show></presence>")
				alice.Ping()
			},
			[]string{"online alice@localhost/r1 [presence ]", "presence alice@localhost/r1 [presence away]"},
		},
		{
			"directed presence and subscriptions are nobody's status", func() {
				alice.Send("<presence to='bob@localhost'/>")
				alice.Send("<presence to='bob@localhost' type='subscribe'/>")
				alice.Send("<presence to='bob@localhost' type='unavailable'/>")
				alice.Ping()
			},
			nil,
		},
		{
			"offline and offline again", func() {
				alice.Send("<presence type='unavailable'/>")
				alice.Send("<presence type='unavailable'/>")
				alice.Ping()
			},
			[]string{"offline alice@localhost/r1 [presence unavailable]"},
		},
		{
			"the stream is closed without a word", func() {
				alice.Presence()
				alice.CloseStream()
				c.await("session-end", "alice@localhost", 1)
			},
			[]string{
				"online alice@localhost/r1 [presence ]", "offline alice@localhost/r1 [presence unavailable]",
				"session-end alice@localhost/r1 reason=closed",
			},
		},
		{
			"a lone user's connection drops", func() {
				alice = s.Login(t, "alice", "r1")
				alice.Presence()
				alice.Drop()
				c.await("session-end", "alice@localhost", 1)
			},
			[]string{
				"session-start alice@localhost/r1", "online alice@localhost/r1 [presence ]",
				"offline alice@localhost/r1 [presence unavailable]",
				"session-end alice@localhost/r1 reason=connection-lost",
			},
		},
		{
			"a session that was never available ends", func() {
				s.Login(t, "alice", "r1").Drop()
				c.await("session-end", "alice@localhost", 1)
			},
			[]string{"session-start alice@localhost/r1", "session-end alice@localhost/r1 reason=connection-lost"},
		},
		{
			"another connection takes the resource", func() {
				old := s.Login(t, "alice", "r1")
				old.Presence()
				alice = s.Login(t, "alice", "r1")
				alice.Presence()
				old.WaitEnd()
			},
			[]string{
				"session-start alice@localhost/r1", "online alice@localhost/r1 [presence ]",
				"offline alice@localhost/r1 [presence unavailable]", "session-end alice@localhost/r1 reason=conflict",
				"session-start alice@localhost/r1", "online alice@localhost/r1 [presence ]",
			},
		},
		{
			"between two local users with two resources of one priority, one of them with carbons", func() {
				bob = s.Login(t, "bob", "desk")
				bob.Presence()
				alice2 = s.Login(t, "alice", "r2")
				alice2.Presence()
				alice2.EnableCarbons()
				bob.Send("<message type='chat' id='m1' to='alice@localhost'><body>Both</body></message>")
				bob.Send("<message type='chat' id='m2' to='alice@localhost/r1'><body>One</body></message>")
				alice.WaitFor("m1")
				alice2.WaitFor("m1")
				alice2.WaitFor("m2", "urn:xmpp:carbons:2")
			},
			[]string{
				"session-start bob@localhost/desk", "online bob@localhost/desk [presence ]",
				"session-start alice@localhost/r2", "online alice@localhost/r2 [presence ]",
				"message-sent bob@localhost/desk to=alice@localhost [message Both]",
				"message-sent bob@localhost/desk to=alice@localhost/r1 [message One]",
			},
		},
		{
			"errors are no messages", func() {
				bob.Send("<message type='error' id='e1' to='alice@localhost/r1'><body>x</body><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>")
				bob.Ping()
			},
			nil,
		},
		{
			"from elsewhere to a user with two resources", func() {
				other.Send("<message type='chat' id='o1' from='x@other.localhost/y' to='alice@localhost'><body>Hi</body></message>")
				alice.WaitFor("o1")
				alice2.WaitFor("o1")
				other.Send("<message type='headline' id='o2' from='other.localhost' to='alice@localhost'><body>News</body></message>")
				alice.WaitFor("o2")
				alice2.WaitFor("o2")
			},
			[]string{
				"message-received alice@localhost to=alice@localhost [message Hi]",
				"message-received alice@localhost to=alice@localhost [message News]",
			},
		},
		{
			"from elsewhere to nobody", func() {
				other.Send("<message type='chat' id='o3' from='x@other.localhost' to='nobody@localhost'><body>Hi</body></message>")
				other.WaitFor("o3", "error")
			},
			nil,
		},
		{
			"from one whom the user has blocked", func() {
				alice.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='spam@other.localhost'/></block>")
				other.Send("<message type='chat' id='o4' from='spam@other.localhost/y' to='alice@localhost'><body>Hi</body></message>")
				other.WaitFor("o4", "error")
			},
			nil,
		},
		{
			"stored for one who is offline", func() {
				bob.Send("<message type='chat' id='s1' to='carol@localhost'><body>Later</body></message>")
				bob.Send("<message type='chat' id='s2' to='carol@localhost'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
				bob.Send("<message type='chat' id='s3' to='nobody@localhost'><body>Never</body></message>")
				bob.WaitFor("s3", "error")
				other.Send("<message type='chat' id='s4' from='x@other.localhost/y' to='carol@localhost'><body>Hello</body></message>")
				bob.Ping()
				c.await("message-offline", "carol@localhost", 2)
			},
			[]string{
				"message-sent bob@localhost/desk to=carol@localhost [message Later]",
				"message-offline carol@localhost [message Later]",
				"message-sent bob@localhost/desk to=carol@localhost [message ]",
				"message-sent bob@localhost/desk to=nobody@localhost reached=false [message Never]",
				"message-received carol@localhost to=carol@localhost [message Hello]",
				"message-offline carol@localhost [message Hello]",
			},
		},
		{
			"handed over when he comes", func() {
				carol = s.Login(t, "carol", "r1")
				carol.Presence()
				carol.WaitFor("s1", "urn:xmpp:delay")
				carol.WaitFor("s4", "urn:xmpp:delay")
			},
			[]string{"session-start carol@localhost/r1", "online carol@localhost/r1 [presence ]"},
		},
		{
			"results of an archive", func() {
				carol.IQ("set", "", "<query xmlns='urn:xmpp:mam:2'/>")
			},
			nil,
		},
		{
			"a room", func() {
				alice.Join("tea", "ally")
				other.Sendf("<presence from='x@other.localhost/y' to='%s/Éx &lt;y'><x xmlns='http://jabber.org/protocol/muc'/></presence>", room)
				alice.WaitFor("presence", "Éx")
				alice.Sendf("<message type='groupchat' id='g1' to='%s'><body>In</body></message>", room)
				other.WaitFor("g1")
				other.Sendf("<message type='groupchat' id='g2' from='x@other.localhost/y' to='%s'><body>Out</body></message>", room)
				alice.WaitFor("g2")
			},
			[]string{
				"room-join alice@localhost/r1 room=" + room + " nick=ally",
				"message-received alice@localhost/r1 to=alice@localhost/r1 [message ]", // the subject
				"room-join x@other.localhost/y room=" + room + " nick=Éx <y",
				"message-sent alice@localhost/r1 to=" + room + " [message In]",
				"message-received alice@localhost/r1 to=alice@localhost/r1 [message In]",
				"room-message x@other.localhost room=" + room + " nick=Éx <y [message Out]",
				"message-received alice@localhost/r1 to=alice@localhost/r1 [message Out]",
			},
		},
		{
			"history and subject for one who enters", func() {
				carol.Join("tea", "carol")
			},
			[]string{
				"room-join carol@localhost/r1 room=" + room + " nick=carol",
				"message-received carol@localhost/r1 to=carol@localhost/r1 [message In]",
				"message-received carol@localhost/r1 to=carol@localhost/r1 [message Out]",
				"message-received carol@localhost/r1 to=carol@localhost/r1 [message ]",
			},
		},
		{
			"a subject, a private message, a new nick, the end of a connection", func() {
				alice.Sendf("<message type='groupchat' id='g3' to='%s'><subject>Tea</subject></message>", room)
				carol.WaitFor("g3")
				alice.WaitFor("g3")
				alice.Sendf("<message type='chat' id='g4' to='%s/carol'><body>Psst</body></message>", room)
				carol.WaitFor("g4")
				carol.Sendf("<presence to='%s/carola'/>", room)
				alice.WaitFor("presence", "carola")
				alice.Leave("tea", "ally")
				carol.Drop()
				c.await("session-end", "carol@localhost", 1)
				other.WaitFor("/carola'", "unavailable") // and not that carol is carola now
			},
			[]string{
				"message-sent alice@localhost/r1 to=" + room + " [message ]",
				"message-received alice@localhost/r1 to=alice@localhost/r1 [message ]",
				"message-received carol@localhost/r1 to=carol@localhost/r1 [message ]",
				"message-sent alice@localhost/r1 to=" + room + "/carol [message Psst]",
				"message-received carol@localhost/r1 to=carol@localhost/r1 [message Psst]",
				"room-part alice@localhost/r1 room=" + room + " nick=ally",
				"offline carol@localhost/r1 [presence unavailable]",
				"session-end carol@localhost/r1 reason=connection-lost",
				"room-part carol@localhost/r1 room=" + room + " nick=carola",
			},
		},
		{
			"a session hibernates with one message not acknowledged", func() {
				carol = s.Login(t, "carol", "sm")
				carol.EnableSM()
				carol.Presence()
				alice.IQ("set", "", fmt.Sprintf(openNode, "t1"))
				carol.IQ("set", "alice@localhost", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><subscribe node='tune' jid='carol@localhost'/></pubsub>")
				carol.HoldAcks()
				alice.IQ("set", "", fmt.Sprintf(openNode, "t2")) // nobody misses that
				carol.WaitFor("<message", "t2")
				bob.Send("<message type='chat' id='u1' to='carol@localhost/sm'><body>One</body></message>")
				carol.WaitFor("u1")
				carol.Drop()
				c.await("message-unacked", "carol@localhost", 1)
			},
			[]string{
				"session-start carol@localhost/sm", "online carol@localhost/sm [presence ]",
				"message-sent bob@localhost/desk to=carol@localhost/sm [message One]",
				"hibernate carol@localhost/sm unacked=1",
				"message-unacked carol@localhost/sm [message One]",
			},
		},
		{
			"messages come meanwhile, and it resumes", func() {
				alice.IQ("set", "", fmt.Sprintf(openNode, "t3"))
				bob.Send("<message type='chat' id='u2' to='carol@localhost'><body>Two</body></message>")
				bob.Ping()
				carol = carol.Resume()
				carol.WaitFor("<message", "t3")
				carol.WaitFor("u2")
				carol.Ping()
			},
			[]string{
				"message-sent bob@localhost/desk to=carol@localhost [message Two]",
				"message-unacked carol@localhost/sm [message Two]",
				"resumed carol@localhost/sm unacked=1",
			},
		},
		{
			"it hibernates again, resumes, and ends with one not acknowledged", func() {
				carol.HoldAcks()
				bob.Send("<message type='chat' id='u3' to='carol@localhost/sm'><body>Three</body></message>")
				carol.WaitFor("u3")
				carol.Drop()
				c.await("message-unacked", "carol@localhost", 1)
				carol = carol.Resume()
				carol.HoldAcks()
				bob.Send("<message type='chat' id='u4' to='carol@localhost/sm'><body>Four</body></message>")
				carol.WaitFor("u4")
				carol.CloseStream()
				c.await("session-end", "carol@localhost", 1)
			},
			[]string{
				"message-sent bob@localhost/desk to=carol@localhost/sm [message Three]",
				"hibernate carol@localhost/sm unacked=2",
				"message-unacked carol@localhost/sm [message Three]",
				"resumed carol@localhost/sm unacked=0",
				"message-sent bob@localhost/desk to=carol@localhost/sm [message Four]",
				"message-failed carol@localhost/sm [message Four]",
				"offline carol@localhost/sm [presence unavailable]",
				"session-end carol@localhost/sm reason=closed",
			},
		},
		{
			"the end of an account", func() {
				carol = s.Login(t, "carol", "last")
				carol.Presence()
				carol.Send("<iq type='set' id='remove' to='localhost'><query xmlns='jabber:iq:register'><remove/></query></iq>")
				carol.WaitEnd()
				c.await("session-end", "carol@localhost", 1)
			},
			[]string{
				"session-start carol@localhost/last", "online carol@localhost/last [presence ]",
				"account-removed carol@localhost",
				"offline carol@localhost/last [presence unavailable]",
				"session-end carol@localhost/last reason=conflict",
			},
		},
	} {
		got := lines(c.step(step.do))
		if strings.Contains(step.name, "subject") {
			slices.Sort(got)
			slices.Sort(step.want)
		}
		if diff := cmp.Diff(step.want, got); diff != "" && len(step.want)+len(got) > 0 {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	c.sound()
}

//go:build linux

package prosody_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// club is a room of alice's, with what the test says there.
type club struct {
	t     *testing.T
	s     *harness.XMPPServer
	p     *peer
	alice *harness.Client
	room  string
}

// openClub makes a room for members only.
func openClub(t *testing.T, config string) *club {
	t.Helper()
	s := start(t, config)
	c := &club{t: t, s: s, p: attach(t, s), alice: s.Login(t, "alice", "r1"), room: "club@" + s.MUC}
	c.p.hello()
	c.p.resumeNothing()
	c.alice.Join("club", "Älly Co")
	configure(c.alice, c.room, "1")
	return c
}

func (c *club) say(id, content string) {
	c.t.Helper()
	c.alice.Sendf("<message id='%s' type='groupchat' to='%s'>%s</message>", id, c.room, content)
	c.alice.WaitFor("from='"+c.room, id)
}

// missed says one thing more, that nobody misses, and returns what was missed before.
func (c *club) missed() (list []string) {
	c.t.Helper()
	c.alice.Send("<message id='so far' to='localhost'/>")
	for _, r := range c.p.until("so far") {
		if r.Event.Kind != "room-missed" {
			continue
		}
		list = append(list, r.stanza().ID+": "+sorted(r.Event.Members))
		if e, s := r.Event, r.stanza(); r.From != c.s.MUC || e.User != "" || e.Room != c.room || e.Nick != "Älly Co" || e.T == "" ||
			s.From != c.room+"/Älly Co" || s.To != c.room || s.Type != "groupchat" || s.Body == "" {
			c.t.Errorf("%+v with %+v", *e, s)
		}
	}
	return list
}

func (c *club) wantMissed(what string, want ...string) {
	c.t.Helper()
	if diff := cmp.Diff(want, c.missed()); diff != "" {
		c.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestMissed: one event says which members, of all who are away, miss what is said.
func TestMissed(t *testing.T) {
	t.Parallel()
	c := openClub(t, "event_feed_room_missed_limit = 3")
	watcher := c.s.Login(t, "dave", "watch") // online, and not in the room
	affiliate(c.alice, c.room, "bob@localhost member", "carol@localhost admin", "dave@localhost owner", "nobody@localhost member",
		"x@other.localhost member", "localhost member", "banned@localhost outcast")

	c.say("1", "<body>Tea?</body>")
	c.say("2", "<subject>Tea</subject><body>With a subject</body>")
	c.wantMissed("said to members who are away", "1: bob@localhost carol@localhost", "2: bob@localhost carol@localhost")

	c.say("3", "<composing xmlns='http://jabber.org/protocol/chatstates'/>")
	c.say("4", "<body/>")
	c.say("5", "<body>Secret</body><no-store xmlns='urn:xmpp:hints'/>")
	c.alice.Sendf("<message type='groupchat' to='%s'><subject>Tea</subject></message>", c.room)
	c.wantMissed("nothing said, or nothing to keep")

	carol := c.s.Login(t, "carol", "r1") // bound, and no more
	c.say("6", "<body>Carol is there</body>")
	carol.EnableSM()
	carol.Drop()
	until(t, watcher, "hibernates", "jid='carol@localhost/r1'")
	c.say("7", "<body>Carol may come back</body>")
	probe(watcher, "expire", "jid='carol@localhost/r1'")
	c.say("8", "<body>Carol has gone</body>")
	c.wantMissed("who has a session", "6: bob@localhost", "7: bob@localhost", "8: bob@localhost carol@localhost")

	bob := c.s.Login(t, "bob", "r1")
	bob.Join("club", "Bobby") // history and subject
	c.say("9", "<body>Bob is here</body>")
	bob.Leave("club", "Bobby")
	c.wantMissed("history", "9: carol@localhost")

	configure(c.alice, c.room, "0")
	c.say("10", "<body>Everybody may come</body>")
	c.wantMissed("an open room")
	configure(c.alice, c.room, "1")

	affiliate(c.alice, c.room, "noone@localhost member", "nix@localhost member")
	c.say("11", "<body>Too many</body>") // three without an account, and carol
	c.say("12", "<body>Too many</body>")
	affiliate(c.alice, c.room, "noone@localhost none", "nix@localhost none")
	c.say("13", "<body>Not too many</body>")
	c.wantMissed("more than the limit", "13: carol@localhost")
	log := c.s.Log()
	if n := strings.Count(log, "Nobody who is away is told of messages in "+c.room); n != 1 || strings.Contains(log, "mod_event_feed\terror") {
		t.Errorf("%d times too many in the log:\n%s", n, log)
	}
}

// TestMissedRooms: which rooms it is about is an option.
func TestMissedRooms(t *testing.T) {
	t.Parallel()
	for option, want := range map[string][]string{"all": {"1: bob@localhost", "2: bob@localhost"}, "none": nil} {
		c := openClub(t, "event_feed_room_missed = '"+option+"'")
		affiliate(c.alice, c.room, "bob@localhost member")
		c.say("1", "<body>For members</body>")
		configure(c.alice, c.room, "0")
		c.say("2", "<body>For everybody</body>")
		c.wantMissed(option, want...)
	}
}

// TestMissedManyWithoutAccounts: accounts are looked up few at a time, and those that are
// not known yet count as such.
func TestMissedManyWithoutAccounts(t *testing.T) {
	t.Parallel()
	c := openClub(t, "")
	const made = 20 // 16 are looked up for one message
	for i := range made {
		affiliate(c.alice, c.room, "made-up-"+strings.Repeat("i", i)+"@localhost member")
	}
	affiliate(c.alice, c.room, "bob@localhost member")
	for _, id := range []string{"1", "2", "3"} {
		c.say(id, "<body>Tea?</body>")
	}
	got := c.missed()
	if len(got) != 3 || strings.Count(got[0], "@") != made+1-16 && strings.Count(got[0], "@") != made+2-16 || got[1] != "2: bob@localhost" || got[2] != "3: bob@localhost" {
		t.Errorf("%q", got)
	}
}

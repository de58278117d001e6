//go:build linux

package prosody_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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

// openClub makes a room for members only; more are further users.
func openClub(t *testing.T, config string, more ...string) *club {
	t.Helper()
	s := start(t, config, more...)
	c := &club{t: t, s: s, p: attach(t, s), alice: s.Login(t, "alice", "r1"), room: "club@" + s.MUC}
	c.p.hello()
	c.p.resumeNothing()
	c.alice.Join("club", "Älly Co")
	c.alice.MembersOnly(c.room, true)
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

// missedUntil returns what is missed, of now and later, until that is enough.
func (c *club) missedUntil(enough func(list []string) bool) (list []string) {
	c.t.Helper()
	for deadline := time.Now().Add(harness.WaitLimit); ; time.Sleep(50 * time.Millisecond) {
		if list = append(list, c.missed()...); enough(list) {
			return list
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("only this was missed: %q", list)
		}
	}
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
	c.alice.Affiliate(c.room, "bob@localhost member", "carol@localhost admin", "dave@localhost owner", "nobody@localhost member",
		"x@other.localhost member", "localhost member", "banned@localhost outcast")

	c.say("m01", "<body>Tea?</body>")
	c.say("m02", "<subject>Tea</subject><body>With a subject</body>")
	c.wantMissed("said to members who are away", "m01: bob@localhost carol@localhost", "m02: bob@localhost carol@localhost")

	c.say("m03", "<composing xmlns='http://jabber.org/protocol/chatstates'/>")
	c.say("m04", "<body/>")
	c.say("m05", "<body>Secret</body><no-store xmlns='urn:xmpp:hints'/>")
	c.alice.Sendf("<message type='groupchat' to='%s'><subject>Tea</subject></message>", c.room)
	c.wantMissed("nothing said, or nothing to keep")

	carol := c.s.Login(t, "carol", "r1") // bound, and no more
	c.say("m06", "<body>Carol is there</body>")
	carol.EnableSM()
	carol.Drop()
	until(t, watcher, "hibernates", "jid='carol@localhost/r1'")
	c.say("m07", "<body>Carol may come back</body>")
	probe(watcher, "expire", "jid='carol@localhost/r1'")
	c.say("m08", "<body>Carol has gone</body>")
	c.wantMissed("who has a session", "m06: bob@localhost", "m07: bob@localhost", "m08: bob@localhost carol@localhost")

	bob := c.s.Login(t, "bob", "r1")
	bob.Join("club", "Bobby") // history and subject
	c.say("m09", "<body>Bob is here</body>")
	bob.Leave("club", "Bobby")
	c.wantMissed("history", "m09: carol@localhost")

	c.alice.MembersOnly(c.room, false)
	c.say("m10", "<body>Everybody may come</body>")
	c.wantMissed("an open room")
	c.alice.MembersOnly(c.room, true)

	c.alice.Affiliate(c.room, "noone@localhost member", "nix@localhost member")
	c.say("m11", "<body>Too many</body>") // three without an account, and carol
	c.say("m12", "<body>Too many</body>")
	c.alice.Affiliate(c.room, "noone@localhost none", "nix@localhost none")
	c.say("m13", "<body>Not too many</body>")
	c.wantMissed("more than the limit", "m13: carol@localhost")
	log := c.s.Log()
	if n := strings.Count(log, "Nobody who is away is told of a message in "+c.room); n != 1 || strings.Contains(log, "mod_event_feed\terror") {
		t.Errorf("%d times too many in the log:\n%s", n, log)
	}
}

// TestMissedRooms: which rooms it is about is an option.
func TestMissedRooms(t *testing.T) {
	t.Parallel()
	for option, want := range map[string][]string{"all": {"m01: bob@localhost", "m02: bob@localhost"}, "none": nil} {
		c := openClub(t, "event_feed_room_missed = '"+option+"'")
		c.alice.Affiliate(c.room, "bob@localhost member")
		c.say("m01", "<body>For members</body>")
		c.alice.MembersOnly(c.room, false)
		c.say("m02", "<body>For everybody</body>")
		c.wantMissed(option, want...)
	}
}

// TestMissedLongList: a list goes out in parts of at most 16 KiB, and in no more than four.
func TestMissedLongList(t *testing.T) {
	t.Parallel()
	var all, users []string
	for i := range 320 {
		users = append(users, fmt.Sprintf("%03d%s", i, strings.Repeat("x", 200)))
		all = append(all, users[i]+"@localhost")
	}
	c := openClub(t, "event_feed_room_missed_limit = 1000", users...)
	const fit = 4 * (16 << 10 / 214) // with the space between
	affiliate := func(list []string) {
		for _, jid := range list {
			c.alice.Affiliate(c.room, jid+" member")
		}
	}
	parts := func(id string, n int) (events int, members []string) {
		t.Helper()
		for _, line := range c.missedUntil(func(list []string) bool { return strings.Count(strings.Join(list, " "), "@") >= n }) {
			of, part, _ := strings.Cut(line, ": ")
			if len(part) > 16<<10 || of != id {
				t.Errorf("a list of %d bytes for %s", len(part), of)
			}
			members = append(members, strings.Fields(part)...)
			events++
		}
		slices.Sort(members)
		return events, members
	}
	affiliate(all[:fit])
	c.say("m01", "<body>Tea?</body>") // those that are not known yet are told of it later
	if _, members := parts("m01", fit); !slices.Equal(members, all[:fit]) {
		t.Errorf("for the first time (-want +got):\n%s", cmp.Diff(all[:fit], members))
	}
	c.say("m02", "<body>Tea?</body>")
	if events, members := parts("m02", fit); events != 4 || !slices.Equal(members, all[:fit]) {
		t.Errorf("in %d parts (-want +got):\n%s", events, cmp.Diff(all[:fit], members))
	}
	affiliate(all[fit:])
	for _, id := range []string{"m03", "m04"} {
		c.say(id, "<body>Tea?</body>")
		events, members := parts(id, fit)
		if events != 4 || len(members) != fit {
			t.Errorf("%s: %d members are told of in %d events, want %d", id, len(members), events, fit)
		}
		for _, jid := range members {
			if !slices.Contains(all, jid) {
				t.Errorf("%s is told of", jid)
			}
		}
	}
	if line := fmt.Sprintf("%d members who are away are not told of a message in %s", 320-fit, c.room); strings.Count(c.s.Log(), line) != 1 {
		t.Errorf("not once in the log: %s", line)
	}
}

// TestMissedManyWithoutAccounts: the server is asked for accounts so many times a second
// at most, whatever an owner writes into the list of members and however much is said
// there. Each message is told once to who has an account, and to nobody else.
func TestMissedManyWithoutAccounts(t *testing.T) {
	t.Parallel()
	c := openClub(t, "")
	const made, most, messages = 120, 50, 20
	for i := range made {
		c.alice.Affiliate(c.room, fmt.Sprintf("made-up-%d@localhost member", i))
	}
	c.alice.Affiliate(c.room, "bob@localhost member")
	probe(c.alice, "count_lookups", "")
	for range messages {
		c.say("m01", "<body>Tea?</body>")
	}
	want := slices.Repeat([]string{"m01: bob@localhost"}, messages)
	if diff := cmp.Diff(want, c.missedUntil(func(list []string) bool { return len(list) >= messages })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.say("m02", "<body>Tea?</body>")
	c.wantMissed("when all are known", "m02: bob@localhost")
	until(t, c.alice, "few_lookups", fmt.Sprintf("most='%d'", most))
}

// TestMissedBlockedAmongMany: however many members are not known, none who blocks the room
// is told of what is said there.
func TestMissedBlockedAmongMany(t *testing.T) {
	t.Parallel()
	users := []string{"u1", "u2", "u3", "u4", "u5", "u6"}
	c := openClub(t, "", users...)
	for i := range 120 {
		c.alice.Affiliate(c.room, fmt.Sprintf("made-up-%d@localhost member", i))
	}
	for _, user := range users {
		client := c.s.Login(t, user, "settings")
		client.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='"+c.room+"'/></block>")
		client.CloseStream()
		until(t, c.alice, "gone", "jid='"+user+"@localhost/settings'")
		c.alice.Affiliate(c.room, user+"@localhost member")
	}
	c.alice.Affiliate(c.room, "bob@localhost member")
	c.say("m01", "<body>Tea?</body>")
	c.say("m02", "<body>Tea?</body>")
	want := []string{"m01: bob@localhost", "m02: bob@localhost"}
	if diff := cmp.Diff(want, c.missedUntil(func(list []string) bool { return len(list) >= 2 })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	c.say("m03", "<body>Tea?</body>")
	c.wantMissed("when all are known", "m03: bob@localhost")
}

// TestMissedBlocked: a member who blocks the room, its host, or the one who speaks there
// does not miss what is said.
func TestMissedBlocked(t *testing.T) {
	t.Parallel()
	c := openClub(t, "")
	c.alice.Affiliate(c.room, "bob@localhost member", "carol@localhost member", "dave@localhost member")
	change := func(verb, user, whom string) {
		client := c.s.Login(t, user, "settings")
		client.IQ("set", "", "<"+verb+" xmlns='urn:xmpp:blocking'><item jid='"+whom+"'/></"+verb+">")
		client.CloseStream()
		until(t, c.alice, "gone", "jid='"+user+"@localhost/settings'")
	}
	c.say("m01", "<body>Tea?</body>")
	change("block", "bob", c.room)
	change("block", "carol", c.s.MUC)
	change("block", "dave", c.room+"/Älly Co")
	c.say("m02", "<body>Tea?</body>")
	change("unblock", "bob", c.room)
	change("unblock", "carol", c.s.MUC)
	change("block", "dave", "alice@localhost") // of whom the room tells nothing
	change("unblock", "dave", c.room+"/Älly Co")
	c.say("m03", "<body>Tea?</body>")
	c.wantMissed("who has blocked", "m01: bob@localhost carol@localhost dave@localhost", "m03: bob@localhost carol@localhost dave@localhost")
}

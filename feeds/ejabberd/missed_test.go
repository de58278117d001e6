//go:build linux

package ejabberd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// TestMissed: one event says which members, of all who are away, miss what is said.
func TestMissed(t *testing.T) {
	t.Parallel()
	erlang := harness.NewErlangShell(t)
	s := harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed: true, EventFeedOptions: "    room_missed_limit: 3", Eval: erlang.Eval(""),
		RoomOptions: "{allow_subscription: true}",
	})
	c := attach(t, s)
	room := "club@" + s.MUC
	alice := s.Login(t, "alice", "r1")
	alice.Join("club", "Älly Co")
	alice.MembersOnly(room, true)
	dave := s.Login(t, "dave", "desk") // online, and not in the room
	alice.Affiliate(room, "bob@localhost member", "carol@localhost admin", "dave@localhost owner", "nobody@localhost member",
		"x@elsewhere.example member", "elsewhere.example member", "banned@localhost outcast")
	say := func(id, content string) {
		alice.Sendf("<message id='%s' type='groupchat' to='%s'>%s</message>", id, room, content)
		alice.WaitFor("<message", id, "club@")
	}
	set := func(option, value string) {
		t.Helper()
		if got := erlang.Run(`gen_mod:update_module(<<"localhost">>, mod_event_feed,
			maps:put(` + option + `, ` + value + `, gen_mod:get_module_opts(<<"localhost">>, mod_event_feed)))`); got != "{ok,ok}" {
			t.Fatal(got)
		}
	}
	missed := func(do func()) (got []string) {
		t.Helper()
		for _, e := range c.step(do) {
			if e.Kind != "room-missed" {
				continue
			}
			members, x := strings.Fields(e.Members), e.decode()
			slices.Sort(members)
			got = append(got, x.ID+": "+strings.Join(members, " "))
			if e.Host != s.MUC || e.User != "" || e.Room != room || e.Nick != "Älly Co" || e.T == 0 ||
				x.From != room+"/Älly Co" || x.To != room || x.Type != "groupchat" || x.Body == "" || strings.Contains(e.Stanza, "Real Alice") {
				t.Errorf("%+v", e)
			}
		}
		return got
	}
	step := func(what string, do func(), want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, missed(do)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}

	step("said to members who are away", func() {
		say("m01", "<body>Tea?</body><nick xmlns='http://jabber.org/protocol/nick'>Real Alice</nick>")
		say("m02", "<subject>Tea</subject><body>With a subject</body>")
	}, "m01: bob@localhost carol@localhost", "m02: bob@localhost carol@localhost")
	step("nothing said, or nothing to keep", func() {
		say("m03", "<composing xmlns='http://jabber.org/protocol/chatstates'/>")
		say("m04", "<body/>")
		say("m05", "<body>Secret</body><no-store xmlns='urn:xmpp:hints'/>")
		say("m06", "<subject>Tea</subject>")
	})
	var carol *harness.Client
	step("who has a session", func() {
		carol = s.Login(t, "carol", "sm") // bound, and no more
		say("m07", "<body>Carol is there</body>")
		carol.EnableSM()
		carol.Drop()
		c.await("hibernate", "carol@localhost", 1)
		say("m08", "<body>Carol may come back</body>")
		carol = carol.Resume()
		carol.CloseStream()
		c.await("session-end", "carol@localhost", 1)
		say("m09", "<body>Carol has gone</body>")
	}, "m07: bob@localhost", "m08: bob@localhost", "m09: bob@localhost carol@localhost")
	step("history", func() {
		bob := s.Login(t, "bob", "r1")
		bob.Join("club", "Bobby")
		say("m10", "<body>Bob is here</body>")
		bob.Leave("club", "Bobby")
		bob.CloseStream()
		c.await("session-end", "bob@localhost", 1)
	}, "m10: carol@localhost")
	step("an open room", func() {
		alice.MembersOnly(room, false)
		say("m11", "<body>Everybody may come</body>")
	})
	step("all rooms", func() {
		set("room_missed", "all")
		say("m12", "<body>Everybody may come</body>")
	}, "m12: bob@localhost carol@localhost")
	step("no rooms", func() {
		set("room_missed", "none")
		alice.MembersOnly(room, true)
		say("m13", "<body>For nobody</body>")
	})
	step("more than the limit", func() {
		set("room_missed", "'members-only'")
		alice.Affiliate(room, "noone@localhost member")
		say("m14", "<body>Too many</body>") // two without an account, bob and carol
		say("m15", "<body>Too many</body>")
		alice.Affiliate(room, "noone@localhost none")
		say("m16", "<body>Not too many</body>")
	}, "m16: bob@localhost carol@localhost")
	step("who blocks the room, and who subscribes to it", func() {
		carol := s.Login(t, "carol", "r1")
		carol.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='"+room+"'/></block>")
		carol.CloseStream()
		c.await("session-end", "carol@localhost", 1)
		say("m20", "<body>Carol blocks us</body>")
		bob := s.Login(t, "bob", "r1")
		bob.IQ("set", room, "<subscribe xmlns='urn:xmpp:mucsub:0' nick='bobby'><event node='urn:xmpp:mucsub:nodes:messages'/></subscribe>")
		bob.CloseStream()
		c.await("session-end", "bob@localhost", 1)
		say("m21", "<body>Bob has subscribed</body>")
		c.await("message-offline", "bob@localhost", 1)
		carol = s.Login(t, "carol", "r1")
		carol.IQ("set", "", "<unblock xmlns='urn:xmpp:blocking'/>")
		carol.CloseStream()
		bob = s.Login(t, "bob", "r1")
		bob.IQ("set", room, "<unsubscribe xmlns='urn:xmpp:mucsub:0'/>")
		bob.CloseStream()
		c.await("session-end", "bob@localhost", 2)
		c.await("session-end", "carol@localhost", 2)
	}, "m20: bob@localhost")
	set("room_missed_limit", "200")
	var made []string
	for i := range 20 {
		made = append(made, "made-up-"+strings.Repeat("i", i)+"@localhost member")
	}
	alice.Affiliate(room, made...)
	dave.IQ("set", "", "<block xmlns='urn:xmpp:blocking'><item jid='"+room+"'/></block>")
	dave.CloseStream()
	c.await("session-end", "dave@localhost", 1)
	// Of the new ones 16 are looked up at once, and the others with the next message. That
	// dave blocks the room is known at once.
	if got := missed(func() { say("m17", "<body>Tea?</body>") }); len(got) != 1 || strings.Count(got[0], "@") != 2+20-16 || strings.Contains(got[0], "dave") {
		t.Errorf("many without an account: %q", got)
	}
	step("many without an account, again", func() { say("m18", "<body>Tea?</body>") }, "m18: bob@localhost carol@localhost")
	unnamed := 2 + 100 - 16 // for which the next events have no room
	t.Run("more than fits into one event", func(t *testing.T) {
		names := make([]string, 100)
		for i := range names {
			names[i] = fmt.Sprintf("%s%03d@localhost", strings.Repeat("long", 240), i)
			alice.Affiliate(room, names[i]+" member")
		}
		named := make(map[string]bool)
		var lists []event
		for _, e := range c.step(func() { say("m19", "<body>Tea?</body>") }) {
			if e.Kind == "room-missed" {
				lists = append(lists, e)
				for _, member := range strings.Fields(e.Members) {
					if named[member] {
						t.Errorf("named twice: %s", member)
					}
					named[member] = true
				}
				if len(e.Members) > 16<<10 || e.decode().ID != "m19" {
					t.Errorf("%d bytes of members, %+v", len(e.Members), e.decode())
				}
			}
		}
		// 16 of the new ones were looked up; each event has room for 16.
		if len(lists) != 4 || len(named) < 64 {
			t.Errorf("%d events name %d members", len(lists), len(named))
		}
		unnamed -= len(named)
	})
	// What was counted is in the log if a minute was over.
	counted := erlang.Run("mod_event_feed_intake:counted(element(3, persistent_term:get(mod_event_feed_intake)))")
	// ejabberd writes its log some time later.
	erlang.Run(`error_logger:error_msg("the test has ended")`)
	var log string
	for deadline := time.Now().Add(harness.WaitLimit); !strings.Contains(log, "the test has ended"); time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(s.Dir(), "log", "ejabberd.log"))
		if log = string(text); err != nil || time.Now().After(deadline) {
			t.Fatalf("no end of the log: %v", err)
		}
	}
	if n := strings.Count(log, "Nobody who is away is told of messages in "+room); n != 1 || strings.Contains(log, "Cannot say who") {
		t.Errorf("%d times too many in the log", n)
	}
	for _, m := range regexp.MustCompile(`unnamed => (\d+)|(\d+) members of rooms were not named`).FindAllStringSubmatch(counted+"\n"+log, -1) {
		n, _ := strconv.Atoi(m[1] + m[2])
		unnamed -= n
	}
	if unnamed != 0 || !strings.Contains(counted, "ignored => 0") || strings.Contains(log, "Ignored ") {
		t.Errorf("%d members too few were counted: %s", unnamed, counted)
	}
	c.sound()
}

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventpusher/internal/harness"
)

// acknowledged are the servers with a module for the event-feed, which can do more
// than is asked of the others.
func acknowledged(t *testing.T, test func(t *testing.T, f flavour)) {
	for _, f := range flavours {
		if f.acknowledged {
			t.Run(f.name, func(t *testing.T) { test(t, f) })
		}
	}
}

// TestFeedSessions drives what only the event-feed knows.
func TestFeedSessions(t *testing.T) {
	acknowledged(t, func(t *testing.T, f flavour) {
		server := f.start(t)
		w := newWorld(t, server.ComponentAddr(server.Component), "")
		mark := marker(t, server)

		lone := server.Login(t, "alice", "lone")
		lone.Presence()
		w.expect(mark, "a lone user", statusLines("alice@localhost/lone", true))
		lone.Drop()
		w.expect(mark, "the socket of a lone user is dropped", statusLines("alice@localhost/lone", false))

		silent := server.Login(t, "alice", "silent")
		w.expect(mark, "a session without presence")
		silent.Drop()
		w.expect(mark, "the end of a session without presence")

		one, two := server.Login(t, "alice", "one"), server.Login(t, "alice", "two")
		one.Presence()
		two.Presence()
		w.expect(mark, "two resources", statusLines("alice@localhost/one", true), statusLines("alice@localhost/two", true))
		one.CloseStream()
		w.expect(mark, "one of two", statusLines("alice@localhost/one", false))

		bob := server.Login(t, "bob", "sm")
		bob.EnableSM()
		bob.Presence()
		w.expect(mark, "a session that can be resumed", statusLines("bob@localhost/sm", true))
		bob.Drop()
		w.expect(mark, "hibernation")
		two.Send("<message to='bob@localhost/sm' type='chat' id='h1'>" + body("while away") + "</message>")
		w.expect(mark, "a message to a hibernating session", localChat("alice@localhost/two", "bob@localhost/sm", "while away"))
		bob = bob.Resume()
		bob.WaitFor("<message", "while away")
		w.expect(mark, "resumption")
		bob.CloseStream()
		w.expect(mark, "the end of a resumed session", statusLines("bob@localhost/sm", false))

		carol := server.Login(t, "carol", "room")
		carol.Presence()
		w.expect(mark, "carol", statusLines("carol@localhost/room", true))
		carol.Join(room, "Carol")
		outsider := server.AttachComponent(t, outside)
		outsider.Send("<presence from='zoe@outside.localhost/x' to='" + room + "/Zoe'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
		outsider.WaitFor("<message", "<subject")
		outsider.Send("<message from='zoe@outside.localhost/x' to='" + room + "' type='groupchat' id='z1'>" + body("from outside") + "</message>")
		w.expect(mark, "an occupant who is no user of the server", []string{receivedLine("groupchat_msg", room+"/Zoe", "carol@localhost/room", "from outside")})
		outsider.Send("<message from='zoe@outside.localhost/x' to='carol@localhost' type='chat' id='z2'>" + body("hello carol") + "</message>")
		w.expect(mark, "a message from outside", []string{receivedLine("chat_msg", "zoe@outside.localhost/x", "carol@localhost", "hello carol")})
	})
}

// TestRecipientOffline asks a filter whether anybody was there to take a message.
func TestRecipientOffline(t *testing.T) {
	acknowledged(t, func(t *testing.T, f flavour) {
		server := f.start(t)
		bob := server.Login(t, "bob", "here") // before we come
		bob.Presence()
		w := newWorld(t, server.ComponentAddr(server.Component), "[[filter]]\nname = \"offline\"\n"+
			"metadata = { offline = \"event.recipient_offline\", unverified = \"event.unverified\" }\n")
		alice := server.Login(t, "alice", "a")
		erin := server.Login(t, "erin", "silent") // bound, without presence
		n := 0
		offline := func(to string) bool {
			t.Helper()
			n++
			text := fmt.Sprint("message ", n)
			alice.Sendf("<message to='%s' type='chat' id='o%d'>%s</message>", to, n, body(text))
			var m struct {
				Message             string
				Offline, Unverified bool
			}
			await(t, text, func() bool {
				for _, d := range w.consumer.All() {
					if strings.HasSuffix(d.RoutingKey, "chat_msg_recv") && strings.Contains(string(d.Body), text) {
						if err := json.Unmarshal(d.Body, &m); err != nil {
							t.Fatal(err)
						}
						return m.Message == text
					}
				}
				return false
			})
			if m.Unverified {
				t.Errorf("to %s: unverified", to)
			}
			return m.Offline
		}
		for to, want := range map[string]bool{
			"bob@localhost": false, "bob@localhost/gone": false, "carol@localhost": true, "erin@localhost": false,
		} {
			if got := offline(to); got != want {
				t.Errorf("%s offline: %v", to, got)
			}
		}
		bob.Drop()
		erin.CloseStream()
		await(t, "bob's end", func() bool { return offline("bob@localhost") })
		await(t, "erin's end", func() bool { return offline("erin@localhost") })
	})
}

// feedProcess starts the program as a child attached to the server.
func feedProcess(t *testing.T, server *harness.XMPPServer) (w *world, start func() *process) {
	t.Helper()
	w = prepareWorld(t)
	config := filepath.Join(t.TempDir(), "config.toml")
	toml := w.configuration(server.ComponentAddr(server.Component), "") + fmt.Sprintf("[outbox]\npath = %q\n", filepath.Join(t.TempDir(), "outbox"))
	if err := os.WriteFile(config, []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	program := build(t)
	return w, func() *process { return run(t, program, config) }
}

// TestFeedKill ends the program with kill -9 under load through a real server, and
// starts it again after a while: what was sent meanwhile arrives too.
func TestFeedKill(t *testing.T) {
	acknowledged(t, func(t *testing.T, f flavour) { feedKill(t, f, 3*time.Second) })
}

func feedKill(t *testing.T, f flavour, away time.Duration) {
	const rate = 500 // messages a second
	server := f.start(t)
	w, start := feedProcess(t, server)
	p := start()
	load := press(t, server, 0, rate)
	w.consumer.Wait(rate)
	p.end(syscall.SIGKILL)
	<-time.After(away)
	missed := time.Now()
	start()
	w.consumer.Wait(2 * rate)
	sent := load.stop(false)
	w.arrived(0, sent)
	repeated := 0
	for _, got := range w.received(t) {
		repeated = max(repeated, got.repeats(0))
	}
	t.Logf("figures: %s, killed for %v under %d messages/s: %d sent, missing: %v, all there %v after the start; a service got at most %d again",
		f.name, away, rate, len(sent), t.Failed(), time.Since(missed).Round(100*time.Millisecond), repeated)
}

//go:build linux

package ejabberd_test

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

const smallFeed = "    source: xmpp1\n    window: 20\n    buffer_events: 300\n"

// chat sends messages from a user to himself-like others; their bodies are
// the numbers from first on.
func chat(from *harness.Client, to string, first, n int) {
	for i := first; i < first+n; i++ {
		from.Sendf("<message type='chat' id='n%d' to='%s'><body>%d</body></message>", i, to, i)
	}
	from.Ping()
}

// bodies lists the bodies of the messages among events.
func bodies(events []event) (all []string) {
	for _, e := range events {
		if e.Kind == "message-sent" {
			all = append(all, e.decode().Body)
		}
	}
	return all
}

func numbers(first, n int) (all []string) {
	for i := first; i < first+n; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// What goes over the wire when, on one server with a small ring and window.
func TestFlow(t *testing.T) {
	t.Parallel()
	erlang := harness.NewErlangShell(t)
	s := harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed: true, EventFeedOptions: smallFeed, Eval: erlang.Eval(""),
		Components: []string{"events.localhost", "other.localhost"},
	})
	other := s.AttachComponent(t, "other.localhost")
	alice := s.Login(t, "alice", "r1")
	bob := s.Login(t, "bob", "desk")
	bob.Presence()

	// The component is not there: nothing happens to users.
	chat(alice, "bob@localhost", 1, 3)
	bob.WaitFor("<body>3</body>")
	c := attach(t, s)
	c.until("what was kept", func() bool { return c.last >= 6 })
	c.locked(func() {
		want := hello{
			Source: "xmpp1", Epoch: c.epoch, First: 1, Next: 7, Hosts: "localhost conference.localhost",
			Server: c.hellos[0].Server, Token: "true", From: "localhost",
		}
		if diff := cmp.Diff(want, c.hellos[0]); diff != "" {
			t.Errorf("hello (-want +got):\n%s", diff)
		}
		if !strings.HasPrefix(c.hellos[0].Server, "ejabberd 2") {
			t.Errorf("server %q", c.hellos[0].Server)
		}
		want2 := []string{
			"session-start alice@localhost/r1", "session-start bob@localhost/desk",
			"online bob@localhost/desk [presence ]",
			"message-sent alice@localhost/r1 to=bob@localhost [message 1]",
			"message-sent alice@localhost/r1 to=bob@localhost [message 2]",
			"message-sent alice@localhost/r1 to=bob@localhost [message 3]",
		}
		if diff := cmp.Diff(want2, lines(c.events)); diff != "" {
			t.Errorf("events before the component was there (-want +got):\n%s", diff)
		}
		for _, e := range c.events {
			if age := float64(time.Now().UnixMilli())/1000 - e.T; age < -1 || age > 600 || e.Host != "localhost" {
				t.Errorf("event of host %s, %f s old: %+v", e.Host, age, e)
			}
		}
	})

	t.Run("window", func(t *testing.T) {
		c.disconnect()
		c.manual = true
		chat(alice, "bob@localhost", 100, 60)
		c.connect()
		c.until("the hello", func() bool { return len(c.hellos) >= 2 }) // it is repeated until it is answered
		before := c.count()
		c.locked(func() { c.widest = 0 })
		c.say(c.resumeLocked)
		c.until("a window full", func() bool { return len(c.events) == before+20 })
		// What is not within the window waits, although more happens.
		chat(alice, "bob@localhost", 160, 1)
		c.say(c.ackLocked)
		c.until("another", func() bool { return len(c.events) == before+40 })
		c.say(c.ackLocked)
		c.until("the rest", func() bool { return len(c.events) == before+60 })
		c.locked(func() {
			if c.widest != 20 {
				t.Errorf("%d events without an acknowledgement, want 20", c.widest)
			}
			c.manual = false
		})
		c.say(c.ackLocked)
		c.snapshot("window")
		c.locked(func() {
			if diff := cmp.Diff(numbers(100, 61), bodies(c.events[before:])); diff != "" {
				t.Errorf("bodies (-want +got):\n%s", diff)
			}
		})
	})

	t.Run("resume at a lower number sends the same again", func(t *testing.T) {
		c.locked(func() { c.manual = true })
		c.say(c.ackLocked)
		from, position := c.count(), 0
		c.locked(func() { position = c.last })
		alice.Send("<message type='chat' to='bob@localhost'><body>a 'b' \"c\" &lt;d&gt; &amp; &#13; \u2028 \U0001F600 ]]&gt;</body><x xmlns='urn:x' a='&#10;&#9;&lt;&quot;'><y xmlns=''/></x></message>")
		chat(alice, "bob@localhost", 200, 5)
		c.until("six events", func() bool { return len(c.events) == from+6 })
		var before []event
		c.locked(func() {
			before = slices.Clone(c.events[from:])
			c.events, c.last = c.events[:from], position
		})
		c.say(c.resumeLocked)
		c.until("six events again", func() bool { return len(c.events) == from+6 })
		c.locked(func() {
			for i := range before {
				// Live it is the server's own form, later it was parsed again.
				if diff := cmp.Diff(meaning(t, before[i].Stanza), meaning(t, c.events[from+i].Stanza)); diff != "" {
					t.Errorf("stanza (-first +second):\n%s", diff)
				}
				before[i].Stanza, c.events[from+i].Stanza = "", ""
			}
			if diff := cmp.Diff(before, c.events[from:]); diff != "" {
				t.Errorf("(-first +second):\n%s", diff)
			}
			c.manual = false
		})
		c.say(c.ackLocked)
	})

	t.Run("what nobody but the component may ask for", func(t *testing.T) {
		c.locked(func() { c.manual = true })
		from, position := c.count(), 0
		c.locked(func() { position = c.last })
		chat(alice, "bob@localhost", 300, 10)
		c.until("ten events", func() bool { return len(c.events) == from+10 })
		for _, verb := range []string{"ack", "resume", "snapshot"} {
			forged := fmt.Sprintf("<%s xmlns='%s' source='xmpp1' epoch='%s' seq='%d' id='forged'/>", verb, feedNS, c.epoch, position+10)
			alice.Sendf("<message to='localhost'>%s</message>", forged)
			other.Sendf("<message from='other.localhost' to='localhost'>%s</message>", forged)
			for _, wrong := range []string{
				strings.ReplaceAll(forged, "xmpp1", "xmpp2"),
				strings.ReplaceAll(forged, fmt.Sprintf("seq='%d'", position+10), "seq='99999'"),
				strings.ReplaceAll(forged, fmt.Sprintf("seq='%d'", position+10), "seq='-1'"),
				strings.ReplaceAll(strings.ReplaceAll(forged, c.epoch, "other"), "resume", "ack"),
			} {
				if verb != "snapshot" && !(verb == "resume" && strings.Contains(wrong, "99999")) {
					c.send("<message from='events.localhost' to='localhost'>" + wrong + "</message>")
				}
			}
			c.send("<message from='x@events.localhost' to='localhost'>" + forged + "</message>")
		}
		other.Send("<iq type='get' id='p1' from='other.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
		other.WaitFor("p1")
		alice.Ping()
		// A component may write another's name if it shares its listener, or if
		// check_from is off; what counts is the name that its connection has proved.
		got := erlang.Run(`M = xmpp:decode({xmlel, <<"message">>,
			[{<<"from">>, <<"events.localhost">>}, {<<"to">>, <<"localhost">>}],
			[{xmlel, <<"snapshot">>, [{<<"xmlns">>, <<"urn:eventpusher:feed:1">>}, {<<"source">>, <<"xmpp1">>}], []}]},
			<<"jabber:client">>, [ignore_els]),
			Sent = fun(Name) -> element(1, mod_event_feed:component_send({M, #{remote_server => Name}})) end,
			{Sent(<<"other.localhost">>) == M, Sent(<<"events.localhost">>)}`)
		if got != "{ok,{true,stop}}" {
			t.Errorf("another component in the name of ours, and ours: %s", got)
		}
		// Nothing was acknowledged, nothing was sent again, no snapshot was begun.
		c.disconnect()
		c.locked(func() {
			if c.repeat != 0 {
				t.Errorf("%d events were sent again", c.repeat)
			}
			c.events, c.last = c.events[:from], position
		})
		c.connect()
		c.until("the hello", func() bool { return c.hellos[len(c.hellos)-1].First == position+1 })
		c.say(c.resumeLocked)
		// What alice sent to the host was a message like any other.
		c.until("the events again", func() bool { return len(c.events) == from+13 })
		c.locked(func() { c.manual = false })
		c.say(c.ackLocked)
		if made := c.step(func() {}); len(made) > 0 {
			t.Errorf("events: %v", lines(made))
		}
	})

	t.Run("overflow", func(t *testing.T) {
		c.disconnect()
		from, position := c.count(), 0
		c.locked(func() { position, c.losses = c.last, nil })
		chat(alice, "bob@localhost", 1000, 400)
		c.connect()
		c.until("what is left", func() bool { return c.last == position+400 })
		c.locked(func() {
			want := []lost{{Source: "xmpp1", Epoch: c.epoch, From: position + 1, To: position + 100, Host: "localhost"}}
			if diff := cmp.Diff(want, c.losses); diff != "" {
				t.Errorf("lost (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(numbers(1100, 300), bodies(c.events[from:])); diff != "" {
				t.Errorf("bodies (-want +got):\n%s", diff)
			}
		})
	})

	t.Run("a source that does not keep up", func(t *testing.T) {
		from, position := c.count(), 0
		c.locked(func() { position, c.losses = c.last, nil })
		if got := erlang.Run("sys:suspend(mod_event_feed_source)"); got != "{ok,ok}" {
			t.Fatal(got)
		}
		chat(alice, "bob@localhost", 3000, 310)
		bob.WaitFor("<body>3309</body>")
		alice.Send("<presence><show>away</show></presence>")
		alice.Ping()
		erlang.Run("sys:resume(mod_event_feed_source)")
		// The presence was too much as well, but its place in the table was not.
		users := make(map[string]string)
		for _, e := range c.snapshot("kept up") {
			users[e.User] = e.line()
		}
		if want := "snapshot alice@localhost/r1 [presence ]"; users["alice@localhost/r1"] != want {
			t.Errorf("alice is %q, want %q", users["alice@localhost/r1"], want)
		}
		c.locked(func() {
			missing := 0
			for _, l := range c.losses {
				missing += l.To - l.From + 1
			}
			// Ten messages and the presence did not get in. They count as events,
			// so the oldest of the others may have made room for them.
			got := bodies(c.events[from:])
			if missing < 11 || missing+len(c.events)-from != c.last-position {
				t.Errorf("losses %v, %d messages, %d numbers", c.losses, len(got), c.last-position)
			}
			if slices.Contains(got, "3309") || !slices.Contains(got, "3299") {
				t.Errorf("messages %v", got)
			}
		})
		alice.Send("<presence type='unavailable'/>")
		c.snapshot("quiet")
	})

	t.Run("a component of another epoch gets the oldest", func(t *testing.T) {
		c.disconnect()
		from := c.count()
		chat(alice, "bob@localhost", 2000, 3)
		c.locked(func() { c.epoch, c.last, c.losses = "another", 77777, nil })
		c.connect()
		c.until("what was kept", func() bool {
			return slices.Contains(bodies(c.events[from:]), "2002")
		})
		c.locked(func() {
			if len(c.losses) > 0 {
				t.Errorf("losses %v", c.losses)
			}
		})
	})

	t.Run("a large stanza", func(t *testing.T) {
		body := strings.Repeat("'\u00e9\U0001F600 ", 100_000)
		made := c.step(func() {
			alice.Sendf("<message type='chat' id='big' to='bob@localhost'><body>%s</body></message>", body)
			alice.Ping()
		})
		if len(made) != 1 || made[0].decode().Body != body {
			t.Errorf("%d events", len(made))
		}
	})

	t.Run("snapshot", func(t *testing.T) {
		carol := s.Login(t, "carol", "sm")
		carol.EnableSM()
		carol.Send("<presence><show>dnd</show></presence>")
		carol.Ping()
		carol.Drop()
		for i := range 100 {
			// More sessions than the window and than one slice.
			s.Login(t, "dave", fmt.Sprintf("d%d", i))
		}
		c.await("hibernate", "carol@localhost", 1)
		c.disconnect()
		c.connect()
		got := make(map[string]string)
		for _, e := range c.snapshot("all") {
			got[e.User] = e.line()
		}
		for user, want := range map[string]string{
			"alice@localhost/r1": "snapshot alice@localhost/r1",
			"bob@localhost/desk": "snapshot bob@localhost/desk [presence ]",
			"carol@localhost/sm": "snapshot carol@localhost/sm [presence dnd]",
			"dave@localhost/d99": "snapshot dave@localhost/d99",
		} {
			if got[user] != want {
				t.Errorf("%s: %q, want %q", user, got[user], want)
			}
		}
		if len(got) != 103 {
			t.Errorf("%d sessions, want 103", len(got))
		}
	})

	t.Run("an old component, without tokens", func(t *testing.T) {
		c.disconnect()
		c.locked(func() { c.old = true })
		from := c.count()
		chat(alice, "bob@localhost", 4000, 400) // the oldest are lost
		c.connect()
		c.snapshot("old")
		if got := bodies(c.since(from)); !slices.Contains(got, "4399") {
			t.Errorf("bodies %v", got)
		}
		c.locked(func() { c.old = false })
	})

	t.Run("an answer that comes late and twice", func(t *testing.T) {
		c.disconnect()
		c.locked(func() { c.manual, c.hellos = true, nil })
		c.connect()
		from := c.count()
		chat(alice, "bob@localhost", 5000, 3)
		c.until("a hello", func() bool { return len(c.hellos) > 0 })
		c.say(c.resumeLocked)
		c.until("three events", func() bool { return len(c.events) == from+3 })
		repeated := 0
		c.locked(func() { repeated, c.last = c.repeat, c.last-3 })
		c.say(c.resumeLocked) // the same once more: the events come again, with the new token
		c.locked(func() { c.last += 3 })
		c.until("three events again", func() bool { return c.repeat == repeated+3 || len(c.events) > from+3 })
		c.locked(func() { c.manual = false })
		c.say(c.ackLocked)
		c.snapshot("late")
		if diff := cmp.Diff(numbers(5000, 3), slices.Compact(bodies(c.since(from)))); diff != "" {
			t.Errorf("bodies (-want +got):\n%s", diff)
		}
	})

	t.Run("an acknowledgement that a hello has overtaken is nobody's forgery", func(t *testing.T) {
		ignored := func() string {
			return erlang.Run("maps:get(ignored, mod_event_feed_intake:counted(element(3, persistent_term:get(mod_event_feed_intake))))")
		}
		from, hellos := c.count(), 0
		c.locked(func() { c.manual, hellos = true, len(c.hellos) })
		chat(alice, "bob@localhost", 7000, 3)
		c.until("three events", func() bool { return len(c.events) == from+3 })
		reload(t, erlang, 20)
		c.until("a hello", func() bool { return len(c.hellos) > hellos })
		ignored() // and no more of what was forged before
		c.say(c.ackLocked)
		c.locked(func() { c.manual = false })
		c.say(c.resumeLocked)
		c.snapshot("overtaken")
		if got := ignored(); got != "{ok,0}" {
			t.Errorf("ignored %s control messages of the component", got)
		}
	})

	t.Run("hello from each host in turn, until one is answered", func(t *testing.T) {
		c.disconnect()
		from := c.count()
		c.locked(func() { c.manual, c.hellos, c.losses = true, nil, nil })
		chat(alice, "bob@localhost", 6000, 400)
		c.connect()
		c.until("the room's hello", func() bool { return len(c.hellos) > 0 && c.hellos[len(c.hellos)-1].From == s.MUC })
		if n := c.count(); n != from {
			t.Errorf("%d events before resume", n-from)
		}
		c.locked(func() {
			if c.hellos[0].From != "localhost" || len(c.hellos) != 2 {
				t.Errorf("hellos %+v", c.hellos)
			}
			c.manual = false
		})
		c.say(c.resumeLocked)
		c.snapshot("room")
		c.locked(func() {
			// What the module says of its own comes from the host that was answered.
			if len(c.losses) != 1 || c.losses[0].Host != s.MUC {
				t.Errorf("losses %+v", c.losses)
			}
			for _, e := range c.events[from:] {
				want := "localhost"
				if e.Kind == "snapshot-start" || e.Kind == "snapshot-end" {
					want = s.MUC
				}
				if e.Host != want {
					t.Errorf("%s came from %s", e.line(), e.Host)
				}
			}
		})
	})
	c.sound()
}

// meaning is what an XML text says, whatever its quotes and references.
func meaning(t *testing.T, text string) (all []string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.Token()
		if err != nil {
			if err.Error() != "EOF" {
				t.Errorf("%v in %s", err, text)
			}
			return all
		}
		if start, ok := token.(xml.StartElement); ok {
			slices.SortFunc(start.Attr, func(a, b xml.Attr) int {
				return strings.Compare(a.Name.Space+" "+a.Name.Local, b.Name.Space+" "+b.Name.Local)
			})
			token = start
		}
		all = append(all, fmt.Sprintf("%v", token))
	}
}

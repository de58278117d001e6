//go:build linux

package prosody_test

import (
	"fmt"
	"strings"
	"testing"

	"eventpusher/internal/harness"
)

// chat makes n events: messages that nobody takes.
func chat(c *harness.Client, prefix string, n int) {
	for i := range n {
		c.Sendf("<message id='%s%d' type='headline' to='dave@localhost'/>", prefix, i)
	}
	c.Ping()
}

// take returns the ids of the next n events.
func take(p *peer, n int) string {
	p.t.Helper()
	var ids []string
	for range n {
		ids = append(ids, p.event().stanza().ID)
	}
	return strings.Join(ids, " ")
}

// ids are prefix0 prefix1 ... from a on, up to but without b.
func ids(prefix string, a, b int) string {
	var all []string
	for i := a; i < b; i++ {
		all = append(all, fmt.Sprintf("%s%d", prefix, i))
	}
	return strings.Join(all, " ")
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

// How much is on the wire, what acknowledges it, and who may.
func TestWindow(t *testing.T) {
	t.Parallel()
	// Any component may use any name here: the connection has to tell them apart.
	s := start(t, "event_feed_window = 5\nvalidate_from_addresses = false")
	alice := s.Login(t, "alice", "r1") // event 1
	other := s.AttachComponent(t, "other.localhost")
	chat(alice, "a", 3)

	p := attach(t, s)
	p.ack = 0
	if h := p.hello().Hello; h.First != 1 || h.Next != 5 {
		t.Errorf("hello %+v after four events", *h)
	}
	p.silent()
	chat(alice, "b", 8)
	p.silent()
	p.resumeNothing()
	same(t, "the oldest", take(p, 5), " "+ids("a", 0, 3)+" b0")
	p.silent()

	t.Run("partial acknowledgement", func(t *testing.T) {
		p.acknowledge(2)
		same(t, "after two", take(p, 2), "b1 b2")
		p.silent()
		p.acknowledge(7)
		same(t, "after five", take(p, 5), "b3 b4 b5 b6 b7")
		p.silent()
	})
	// 12 were sent, 7 are acknowledged: the window is closed.
	chat(alice, "c", 3)
	p.silent()

	source, epoch, host := p.source, p.epoch, p.host
	ack := func(source, epoch string, seq int) string {
		return fmt.Sprintf("<ack xmlns='urn:eventpusher:feed:1' source='%s' epoch='%s' seq='%d'/>", source, epoch, seq)
	}
	for name, forge := range map[string]func(){
		"another source":     func() { p.control(ack("elsewhere", epoch, 12)) },
		"another epoch":      func() { p.control(ack(source, "elsewhen", 12)) },
		"more than was sent": func() { p.control(ack(source, epoch, 13)) },
		"no number":          func() { p.control(strings.Replace(ack(source, epoch, 12), "'12'", "'12x'", 1)) },
		"no epoch":           func() { p.control(strings.Replace(ack(source, epoch, 12), "epoch", "era", 1)) },
		"an error": func() {
			p.send("<message type='error' from='events.localhost' to='%s'>%s</message>", host, ack(source, epoch, 12))
		},
		"a user of the name": func() {
			p.send("<message from='x@events.localhost' to='%s'>%s</message>", host, ack(source, epoch, 12))
		},
		"a resource": func() {
			p.send("<message from='events.localhost/x' to='%s'>%s</message>", host, ack(source, epoch, 12))
		},
		"not to a host": func() {
			p.send("<message from='events.localhost' to='nobody@%s'>%s</message>", host, ack(source, epoch, 12))
		},
		"another component": func() {
			other.Sendf("<message from='other.localhost' to='%s'>%s</message>", host, ack(source, epoch, 12))
			settled(t, other)
		},
		"another component in our name": func() {
			other.Sendf("<message from='events.localhost' to='%s'>%s</message>", host, ack(source, epoch, 12))
			settled(t, other)
		},
		"an unknown element": func() { p.control("<rewind xmlns='urn:eventpusher:feed:1' source='" + source + "'/>") },
		"a snapshot, no id":  func() { p.control("<snapshot xmlns='urn:eventpusher:feed:1' source='" + source + "'/>") },
		"the host itself": func() {
			probe(alice, "forge", fmt.Sprintf("name='ack' source='%s' epoch='%s' seq='12'", source, epoch))
		},
		"the host as the peer": func() {
			probe(alice, "forge", fmt.Sprintf("from='events.localhost' name='ack' source='%s' epoch='%s' seq='12'", source, epoch))
		},
	} {
		t.Run("ignored: "+name, func(t *testing.T) {
			forge()
			p.silent()
		})
	}

	// The module takes all that the component sends, also what it ignores; what was
	// sent in its name is like any other message to the host.
	if p.sentBack != 1 {
		t.Errorf("%d messages came back as errors, want that of the host as the peer only", p.sentBack)
	}

	t.Run("a user's control messages are ordinary ones", func(t *testing.T) {
		for i, element := range []string{
			ack(source, epoch, 12),
			strings.Replace(ack(source, epoch, 0), "<ack", "<resume", 1),
			fmt.Sprintf("<snapshot xmlns='urn:eventpusher:feed:1' source='%s' id='s'/>", source),
		} {
			alice.Sendf("<message id='f%d' to='%s'>%s</message>", i, host, element)
			alice.WaitFor(fmt.Sprintf("f%d", i), "service-unavailable") // what any message to the host gets
		}
		p.silent()
		p.acknowledge(12)
		same(t, "next", take(p, 5), ids("c", 0, 3)+" f0 f1")
		p.acknowledge(17)
		same(t, "next", take(p, 1), "f2")
		p.acknowledge(18)
		p.silent()
	})

	t.Run("resume at each position", func(t *testing.T) {
		chat(alice, "d", 5)
		same(t, "sent", take(p, 5), ids("d", 0, 5))
		for k := range 6 {
			p.resume(epoch, 18+k)
			if want := ids("d", k, 5); want != "" {
				same(t, fmt.Sprintf("behind %d", 18+k), take(p, 5-k), want)
			}
			p.silent()
		}
		p.resume(epoch, 20) // was acknowledged, so it is gone: what follows is lost
		if from, to := p.lost(); from != 21 || to != 23 {
			t.Errorf("lost %d to %d, want 21 to 23", from, to)
		}
		p.silent()
	})
}

// What does not fit into the ring is announced where it would have stood.
func TestLost(t *testing.T) {
	t.Parallel()
	top := t // what a subtest connects outlives it
	s := start(t, "event_feed_window = 5\nevent_feed_buffer_events = 10")
	alice := s.Login(t, "alice", "r1") // event 1
	chat(alice, "a", 29)               // 2 to 30
	p := attach(t, s)
	p.ack = 0
	if h := p.hello().Hello; h.First != 21 || h.Next != 31 {
		t.Errorf("hello %+v with a ring of 10 after 30 events", *h)
	}
	p.resumeNothing()
	if from, to := p.lost(); from != 1 || to != 20 {
		t.Errorf("lost %d to %d, want 1 to 20", from, to)
	}
	same(t, "what is left", take(p, 5), ids("a", 19, 24))
	p.silent()

	t.Run("while the window is closed", func(t *testing.T) {
		chat(alice, "b", 20) // 31 to 50; kept: 41 to 50
		p.silent()
		p.acknowledge(25) // 26 to 40 are gone
		if from, to := p.lost(); from != 26 || to != 40 {
			t.Errorf("lost %d to %d, want 26 to 40", from, to)
		}
		same(t, "what is left", take(p, 5), ids("b", 10, 15))
		p.silent()
		p.acknowledge(45)
		same(t, "what is left", take(p, 5), ids("b", 15, 20))
		p.acknowledge(50)
	})

	t.Run("after they were sent", func(t *testing.T) {
		chat(alice, "c", 5) // 51 to 55
		same(t, "sent", take(p, 5), ids("c", 0, 5))
		chat(alice, "d", 10) // 56 to 65, and 51 to 55 are no longer kept
		p.acknowledge(53)
		same(t, "as if nothing were", take(p, 3), ids("d", 0, 3))
		p.drop()
		p = attach(top, s)
		p.ack = 0
		p.hello()
		p.resume(p.epoch, 53)
		if from, to := p.lost(); from != 54 || to != 55 {
			t.Errorf("lost %d to %d, want 54 to 55", from, to)
		}
		same(t, "what is left", take(p, 5), ids("d", 0, 5))
		p.acknowledge(60)
		same(t, "what is left", take(p, 5), ids("d", 5, 10))
		p.acknowledge(65)
		p.silent()
	})

	t.Run("by size", func(t *testing.T) {
		s := start(t, "event_feed_buffer_bytes = 5000")
		alice := s.Login(t, "alice", "r1")
		for i := range 5 {
			alice.Sendf("<message id='big%d' type='headline' to='dave@localhost'><body>%s</body></message>", i, strings.Repeat("x", 2000))
		}
		alice.Sendf("<message id='huge' type='headline' to='dave@localhost'><body>%s</body></message>", strings.Repeat("x", 20000))
		alice.Ping()
		p := attach(t, s)
		if h := p.hello().Hello; h.First != 7 || h.Next != 8 {
			t.Errorf("hello %+v; of what is larger than the ring only the last is kept", *h)
		}
		p.resumeNothing()
		p.lost()
		same(t, "the last", take(p, 1), "huge")
	})
}

// The component's connection comes and goes.
func TestReconnect(t *testing.T) {
	t.Parallel()
	top := t // what a subtest connects outlives it
	s := start(t, "")
	alice := s.Login(t, "alice", "r1")
	p := attach(t, s)
	p.hello()
	p.resumeNothing()
	p.event()
	epoch := p.epoch

	p.drop()
	chat(alice, "a", 20)
	p = attach(t, s)
	if p.hello(); p.epoch != epoch {
		t.Errorf("epoch %s after a reconnect, was %s", p.epoch, epoch)
	}
	p.resume(epoch, 1)
	same(t, "what came meanwhile", take(p, 20), ids("a", 0, 20))

	t.Run("of another epoch", func(t *testing.T) {
		chat(alice, "b", 3)
		take(p, 3)
		p.drop()
		chat(alice, "c", 3)
		p = attach(top, s)
		p.hello()
		p.resume("elsewhen", 7)
		p.last = 24
		same(t, "the oldest kept", take(p, 3), ids("c", 0, 3))
	})

	t.Run("a second connection changes nothing", func(t *testing.T) {
		refused := s.ComponentAddr(s.Component)
		if err := connectTwice(s, refused); err != nil {
			t.Fatal(err)
		}
		chat(alice, "d", 3)
		same(t, "on the first", take(p, 3), ids("d", 0, 3))
	})

	t.Run("the module is loaded again", func(t *testing.T) {
		p.ack = 0
		chat(alice, "e", 3)
		take(p, 3)
		last := p.last
		probe(alice, "reload", "")
		if h := p.hello().Hello; p.epoch != epoch || h.First != last-2 || h.Next != last+1 {
			t.Errorf("hello %+v after a reload; epoch %s and events %d to %d were expected", *h, epoch, last-2, last)
		}
		chat(alice, "f", 2)
		p.silent()
		p.resume(epoch, last-2)
		same(t, "after the reload", take(p, 4), "e1 e2 f0 f1")

		probe(alice, "reload_global", "") // the hosts keep the old code's hooks
		p.hello()
		p.resume(epoch, last+2)
		chat(alice, "g", 2)
		same(t, "by old hooks", take(p, 2), "g0 g1")
		p.acknowledge(p.last)
	})

	t.Run("the component knows more than the module", func(t *testing.T) {
		chat(alice, "h", 2)
		take(p, 2)
		p.resume(epoch, p.last+100)
		h := p.hello().Hello
		if h.Epoch == epoch || h.PrevEpoch != epoch || h.Clean != "false" || h.PrevLast != "" || h.First != 1 || h.Next != 3 {
			t.Errorf("hello %+v; a new epoch with two events was expected after %s", *h, epoch)
		}
		p.resumeNothing()
		same(t, "with new numbers", take(p, 2), "h0 h1")
	})

	for _, text := range alice.Stanzas() {
		if strings.Contains(text, "error") {
			t.Errorf("the missing component has cost the user: %s", text)
		}
	}
}

// A hello that is not answered comes again from each host in turn, and what the module
// says of itself from the host that was answered.
func TestHelloInTurn(t *testing.T) {
	t.Parallel()
	s := harness.Prosody(t, harness.ProsodyOptions{
		EventFeed: true, Hosts: []string{"localhost", "second.localhost"}, Config: "event_feed_buffer_events = 10",
	})
	p := attach(t, s)
	first := p.hello()
	for _, want := range []string{"second.localhost", "conference.localhost", "localhost"} {
		r := p.hello()
		if *r.Hello != *first.Hello || r.From != want {
			t.Errorf("hello %+v from %s, then %+v from %s", *first.Hello, first.From, *r.Hello, r.From)
		}
	}
	p.host = "second.localhost" // the component has heard that one last
	chat(s.Login(t, "alice", "r1"), "a", 29)
	p.resumeNothing()
	if from, to := p.lost(); from != 1 || to != 20 {
		t.Errorf("lost %d to %d, want 1 to 20", from, to)
	}
	take(p, 10)
	p.snapshot("s")
	for _, want := range []struct{ kind, from string }{
		{"snapshot-start", "second.localhost"}, {"snapshot", "localhost"}, {"snapshot-end", "second.localhost"},
	} {
		if r := p.event(); r.Event.Kind != want.kind || r.From != want.from {
			t.Errorf("%s from %s, want %s from %s", r.Event.Kind, r.From, want.kind, want.from)
		}
	}
	p.drop()
	p = attach(t, s)
	if r := p.hello(); r.From != "second.localhost" {
		t.Errorf("hello from %s on the next connection, want the host that was answered before", r.From)
	}
}

// A component that answers late, twice or out of order gets nothing wrong, and what others
// answer in its name changes nothing.
func TestAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, "event_feed_window = 5\nvalidate_from_addresses = false")
	alice, other := s.Login(t, "alice", "r1"), s.AttachComponent(t, "other.localhost")
	chat(alice, "a", 9) // 2 to 10
	p := attach(t, s)
	p.ack = 0
	p.hello()
	forge := func(verb, attributes string) {
		other.Sendf("<message from='events.localhost' to='localhost'><%s xmlns='urn:eventpusher:feed:1' source='%s' epoch='%s' %s/></message>",
			verb, p.source, p.epoch, attributes)
		settled(t, other)
	}
	forge("resume", "seq='9' token='forged'")
	forge("snapshot", "id='forged'")
	p.acknowledge(11) // of what was never sent
	p.snapshot("early")
	p.silent()

	p.hello() // the answer is late: hello has come again
	p.resumeNothing()
	same(t, "the oldest", take(p, 5), " "+ids("a", 0, 4))
	forge("resume", "seq='0' token='forged'")
	forge("ack", "seq='5'")
	forge("snapshot", "id='forged'")
	p.silent()

	first := p.token
	p.resume(p.epoch, 2) // says it twice, the second time with a new token
	p.token = "second"
	p.resume(p.epoch, 3)
	p.token, p.last = first, 2
	same(t, "as the first said", take(p, 5), ids("a", 1, 6))
	p.token, p.last = "second", 3
	same(t, "as the second said", take(p, 5), ids("a", 2, 7))

	for _, seq := range []int{7, 4, 7, 2} {
		p.acknowledge(seq)
	}
	same(t, "behind the highest acknowledgement", take(p, 2), ids("a", 7, 9))
	p.acknowledge(10)
	p.acknowledge(3)
	chat(alice, "b", 1)
	same(t, "and on", take(p, 1), "b0")
}

// An acknowledgement of what a repeated resume has the module send again is not ignored as
// one that does not fit.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	alice := s.Login(t, "alice", "r1") // event 1
	for range 6 {                      // more than goes out at once
		alice.Sendf("<message to='nobody@localhost' type='headline'><body>%s</body></message>", strings.Repeat("x", 100_000))
	}
	alice.Ping()
	p := attach(t, s)
	p.ack = 0
	p.hello()
	p.resumeNothing()
	take(p, 7)
	said := fmt.Sprintf("xmlns='urn:eventpusher:feed:1' source='%s' epoch='%s'", p.source, p.epoch)
	p.send("<message from='events.localhost' to='localhost'><resume %s seq='1'%s/></message>"+
		"<message from='events.localhost' to='localhost'><ack %s seq='7'/></message>", said, p.tokenAttribute(), said)
	p.last = 1
	take(p, 6)
	probe(alice, "none", "kind='ignored'")
}

// The token of the last resume of a connection is in all that follows it there, so that
// nobody else can say it.
func TestToken(t *testing.T) {
	t.Parallel()
	s := start(t, "event_feed_buffer_events = 10")
	alice := s.Login(t, "alice", "r1") // event 1
	chat(alice, "a", 14)               // 2 to 15, and 6 to 15 are kept
	p := attach(t, s)
	p.ack = 0
	if h := p.hello().Hello; h.Token != "true" {
		t.Errorf("hello %+v does not say that it repeats tokens", *h)
	}
	p.token = "&lt;1&apos; seq="
	p.control("<resume xmlns='urn:eventpusher:feed:1' source='localhost' token='" + p.token + "'/>")
	p.silent() // it has white space in it, so it is no token
	p.token = "&lt;1&apos;seq="
	p.resumeNothing()
	p.token, p.last = "<1'seq=", 0
	p.lost()
	same(t, "with the token", take(p, 10), ids("a", 4, 14))
	chat(alice, "b", 2)
	same(t, "what is new, too", take(p, 2), ids("b", 0, 2))
	epoch := p.epoch

	for name, token := range map[string]string{"another token": "2", "an old component": "", "the longest": strings.Repeat("ä", 64)} {
		p.token = token
		p.resume(epoch, 15)
		same(t, name, take(p, 2), ids("b", 0, 2))
		p.silent()
	}
	p.control(fmt.Sprintf("<resume xmlns='urn:eventpusher:feed:1' source='localhost' token='%s'/>", strings.Repeat("x", 129)))
	p.silent()

	p.drop()
	p = attach(t, s)
	p.hello()
	p.resume(epoch, 15)
	same(t, "on the next connection", take(p, 2), ids("b", 0, 2))
}

// All virtual hosts are one source, and a user of one is no stranger to another.
func TestHosts(t *testing.T) {
	t.Parallel()
	s := harness.Prosody(t, harness.ProsodyOptions{
		EventFeed: true, Hosts: []string{"second.localhost", "localhost"}, Config: "event_feed_source = 'chat-1'",
	})
	alice, bob := s.Login(t, "alice@localhost", "r1"), s.Login(t, "bob@second.localhost", "r1")
	p := attach(t, s)
	if h := p.hello().Hello; h.Source != "chat-1" || h.Hosts != "conference.localhost localhost second.localhost" {
		t.Errorf("hello %+v", *h)
	}
	p.resumeNothing()
	alice.Send("<message id='m1' to='bob@second.localhost/r1'><body>Hello</body></message>")
	bob.WaitFor("m1")
	bob.Send("<message id='m2' to='alice@localhost/r1'><body>Hello</body></message>")
	alice.WaitFor("m2")
	bob.Send("<message id='end' type='headline' to='dave@localhost'/>")
	got := p.until("end")
	if diff := diffOf([]string{
		"session-start alice@localhost/r1",
		"session-start bob@second.localhost/r1",
		"message-sent alice@localhost/r1 to=bob@second.localhost/r1 <message m1>",
		"message-sent bob@second.localhost/r1 to=alice@localhost/r1 <message m2>",
	}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if a, b := got[0].From, got[1].From; a != "localhost" || b != "second.localhost" {
		t.Errorf("from %s and %s", a, b)
	}
}

// A backlog goes out while users chat: all of it, in order, with what is new
// behind it, and the users are served meanwhile.
func TestReplay(t *testing.T) {
	t.Parallel()
	s := start(t, "")
	alice, bob := s.Login(t, "alice", "r1"), s.Login(t, "bob", "r1")
	const backlog = 5000
	for range backlog / 500 {
		alice.Send(strings.Repeat("<message id='old' type='headline' to='dave@localhost'/>", 500))
		alice.Ping()
	}
	p := attach(t, s)
	p.ack = 100
	if h := p.hello().Hello; h.Next != backlog+3 {
		t.Fatalf("hello %+v", *h)
	}
	p.resumeNothing()
	chatted := make(chan struct{})
	go func() {
		defer close(chatted)
		chat(bob, "new", 200)
	}()
	counts := make(map[string]int)
	for range backlog + 2 + 200 {
		id := p.event().stanza().ID
		if counts["new"] > 0 && id == "old" {
			t.Fatal("something old follows something new")
		}
		counts[strings.TrimRight(id, "0123456789")]++
	}
	<-chatted
	if counts["old"] != backlog || counts["new"] != 200 {
		t.Errorf("%v", counts)
	}
	p.acknowledge(p.last)
	p.silent()
}

//go:build linux

package prosody_test

import (
	"fmt"
	"strings"
	"testing"
)

// Every kind of event, out of one session with a real server. The steps build
// on each other.
func TestKinds(t *testing.T) {
	t.Parallel()
	s := start(t, "statistics = 'internal'\nstatistics_interval = 'manual'")
	p := attach(t, s)
	greeting := p.hello()
	if h := greeting.Hello; h.Source != "localhost" || h.First != 1 || h.Next != 1 || h.PrevEpoch != "" ||
		h.Hosts != "conference.localhost localhost" || !strings.HasPrefix(h.Server, "Prosody ") {
		t.Errorf("hello %+v", *h)
	}
	p.resumeNothing()
	dropped := "" // what the server says of a connection that is gone
	if !strings.HasPrefix(greeting.Hello.Server, "Prosody 0.") {
		dropped = " reason=closed" // since 13.0
	}

	barriers := 0
	// step runs one part and compares the events up to a message of the watcher's.
	watcher := s.Login(t, "dave", "watch")
	step := func(name string, run func(), want ...string) {
		t.Helper()
		run()
		barriers++
		id := fmt.Sprintf("barrier-%d", barriers)
		watcher.Sendf("<message id='%s' to='nobody@other.localhost' type='headline'/>", id)
		got := p.until(id)
		if diff := diffOf(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	other := s.AttachComponent(t, "other.localhost")

	step("the watcher itself", func() {}, "session-start dave@localhost/watch")

	alice := s.Login(t, "alice", "r1")
	step("session", func() {
		alice.Presence()
		alice.Send("<presence><show>away</show></presence>")
		alice.Sendf("<presence to='someone@other.localhost'/>")
		alice.Send("<presence type='unavailable'/>")
		alice.Send("<presence type='unavailable'/>")
		alice.Send("<presence><priority>-1</priority></presence>")
		alice.Send("<presence/>")
		alice.Ping()
	},
		"session-start alice@localhost/r1",
		"online alice@localhost/r1 <presence>",
		"presence alice@localhost/r1 <presence away>",
		"offline alice@localhost/r1 <presence unavailable>",
		"online alice@localhost/r1 <presence>",
		"presence alice@localhost/r1 <presence>",
	)

	bob, phone := s.Login(t, "bob", "desk"), s.Login(t, "bob", "phone")
	step("messages between users, with carbons and an archive", func() {
		bob.EnableCarbons()
		phone.EnableCarbons()
		bob.Presence()
		phone.Presence()
		alice.Send("<message id='m1' type='chat' to='bob@localhost'><body>Hello</body></message>")
		alice.Send("<message id='m2' type='chat' to='bob@localhost/desk'><body>Hello</body></message>")
		alice.Send("<message id='m3' to='localhost'><body>Hello</body></message>")
		alice.Send("<message id='m4' to='alice@localhost'><body>Note</body></message>")
		alice.Send("<message id='m5'><body>Note</body></message>")
		alice.Send("<message id='m6' type='error' to='bob@localhost'><error type='cancel'/></message>")
		alice.Send("<message id='m7' to='nobody@localhost'><body>?</body></message>")
		alice.Ping()
		bob.Ping()
		bob.IQ("set", "", "<query xmlns='urn:xmpp:mam:2' queryid='q'/>")
		bob.Ping()
	},
		"session-start bob@localhost/desk", "session-start bob@localhost/phone",
		"online bob@localhost/desk <presence>", "online bob@localhost/phone <presence>",
		"message-sent alice@localhost/r1 to=bob@localhost <message m1 chat>",
		"message-sent alice@localhost/r1 to=bob@localhost/desk <message m2 chat>",
		"message-sent alice@localhost/r1 to=localhost <message m3>",
		"message-sent alice@localhost/r1 to=alice@localhost <message m4>",
		"message-sent alice@localhost/r1 to=alice@localhost <message m5>",
		"message-sent alice@localhost/r1 to=nobody@localhost reached=false <message m7>",
	)

	step("messages from elsewhere", func() {
		other.Send("<message id='x1' type='chat' from='eve@other.localhost/r' to='bob@localhost'><body>Hi</body></message>")
		other.Send("<message id='x2' type='chat' from='eve@other.localhost/r' to='bob@localhost/desk'><body>Hi</body></message>")
		other.Send("<message id='x3' type='error' from='eve@other.localhost/r' to='bob@localhost/desk'><error type='cancel'/></message>")
		other.Send("<message id='x4' type='chat' from='other.localhost' to='nobody@localhost'><body>Hi</body></message>")
		other.Send("<message id='x5' type='chat' from='other.localhost' to='bob@localhost/gone'><body>Hi</body></message>")
		other.WaitFor("x4", "service-unavailable") // so all of them were handled
		bob.WaitFor("x5")
	},
		"message-received bob@localhost to=bob@localhost <message x1 chat>",
		"message-received bob@localhost/desk to=bob@localhost/desk <message x2 chat>",
		"message-received bob@localhost/gone to=bob@localhost/gone <message x5 chat>",
	)

	step("a message that is stored, and handed over later", func() {
		alice.Send("<message id='o1' type='chat' to='carol@localhost'><body>Later</body></message>")
		alice.Ping()
		other.Send("<message id='o2' type='chat' from='eve@other.localhost/r' to='carol@localhost/home'><body>Later</body></message>")
		other.Send("<message id='o3' type='headline' from='eve@other.localhost/r' to='carol@localhost'><body>Never</body></message>")
		other.Send("<message id='o4' from='other.localhost' to='nobody@localhost'/>")
		other.WaitFor("o4", "service-unavailable")
		carol := s.Login(t, "carol", "home")
		carol.Presence()
		carol.WaitFor("o1")
		carol.WaitFor("o2")
		carol.CloseStream()
	},
		"message-sent alice@localhost/r1 to=carol@localhost <message o1 chat>",
		"message-offline carol@localhost <message o1 chat>",
		"message-received carol@localhost/home to=carol@localhost/home <message o2 chat>",
		"message-offline carol@localhost <message o2 chat>",
		"session-start carol@localhost/home",
		"online carol@localhost/home <presence>",
		"offline carol@localhost/home <presence unavailable>",
		"session-end carol@localhost/home",
	)

	step("a dropped connection, and one that never was available", func() {
		carol, silent := s.Login(t, "carol", "home"), s.Login(t, "carol", "silent")
		carol.Presence()
		carol.Drop()
		until(t, watcher, "gone", "jid='carol@localhost/home'")
		silent.Hangup()
		until(t, watcher, "gone", "jid='carol@localhost/silent'")
	},
		"session-start carol@localhost/home", "session-start carol@localhost/silent",
		"online carol@localhost/home <presence>",
		"offline carol@localhost/home <presence unavailable>",
		"session-end carol@localhost/home"+dropped,
		"session-end carol@localhost/silent"+dropped,
	)

	carol := s.Login(t, "carol", "mobile")
	step("hibernation and resumption", func() {
		carol.EnableSM()
		carol.Presence()
		acknowledged(carol)
		carol.Drop()
		until(t, watcher, "hibernates", "jid='carol@localhost/mobile'")
		alice.Send("<message id='s1' type='chat' to='carol@localhost/mobile'><body>While away</body></message>")
		alice.Ping()
		// What somebody has published (XEP-0163) is queued too, and missed by nobody.
		watcher.IQ("set", "localhost", "<do xmlns='urn:test:probe' what='send'><message xmlns='jabber:client' type='headline' from='bob@localhost'"+
			" to='carol@localhost/mobile'><event xmlns='http://jabber.org/protocol/pubsub#event'/></message></do>")
		probe(watcher, "hibernate_again", "jid='carol@localhost/mobile'")
		carol = carol.Resume()
		carol.WaitFor("s1")
		carol.Ping()
	},
		"session-start carol@localhost/mobile",
		"online carol@localhost/mobile <presence>",
		"hibernate carol@localhost/mobile unacked=0",
		"message-sent alice@localhost/r1 to=carol@localhost/mobile <message s1 chat>",
		"message-unacked carol@localhost/mobile <message s1 chat>",
		"hibernate carol@localhost/mobile unacked=1", // and s1 is not reported again
		"resumed carol@localhost/mobile unacked=1",
	)
	step("hibernation until the end", func() {
		acknowledged(carol)
		carol.Drop()
		until(t, watcher, "hibernates", "jid='carol@localhost/mobile'")
		alice.Send("<message id='s2' type='chat' to='carol@localhost'><body>Lost</body></message>")
		alice.Ping()
		probe(watcher, "expire", "jid='carol@localhost/mobile'")
	},
		"hibernate carol@localhost/mobile unacked=0",
		"message-sent alice@localhost/r1 to=carol@localhost <message s2 chat>",
		"message-unacked carol@localhost/mobile <message s2 chat>",
		"message-failed carol@localhost/mobile <message s2 chat>",
		"message-offline carol@localhost <message s2 chat>",
		"offline carol@localhost/mobile <presence unavailable>",
		"session-end carol@localhost/mobile reason=Hibernating too long",
	)

	step("copies in the queue of a session that hibernates", func() {
		carol = s.Login(t, "carol", "mobile")
		carol.EnableSM()
		carol.EnableCarbons()
		desk := s.Login(t, "carol", "desk")
		desk.Presence() // takes what was stored
		desk.WaitFor("s2")
		carol.Presence()
		carol.Drop()
		until(t, watcher, "hibernates", "jid='carol@localhost/mobile'")
		alice.Send("<message id='c1' type='chat' to='carol@localhost/desk'><body>Copied</body></message>")
		alice.Send("<message id='c2' type='chat' to='carol@localhost/mobile'><body>Own</body></message>")
		alice.Ping()
		probe(watcher, "expire", "jid='carol@localhost/mobile'")
		desk.CloseStream()
	},
		"session-start carol@localhost/mobile", "session-start carol@localhost/desk",
		"online carol@localhost/desk <presence>",
		"online carol@localhost/mobile <presence>",
		"hibernate carol@localhost/mobile unacked=0",
		"message-sent alice@localhost/r1 to=carol@localhost/desk <message c1 chat>",
		"message-sent alice@localhost/r1 to=carol@localhost/mobile <message c2 chat>",
		"message-unacked carol@localhost/mobile <message c2 chat>",
		"message-failed carol@localhost/mobile <message c2 chat>",
		"offline carol@localhost/mobile <presence unavailable>",
		"session-end carol@localhost/mobile reason=Hibernating too long",
		"offline carol@localhost/desk <presence unavailable>",
		"session-end carol@localhost/desk",
	)

	step("rooms", func() {
		alice.Join("hall", "ally")
		eve := func(format string, args ...any) {
			other.Sendf(strings.ReplaceAll(format, "FROM", "from='eve@other.localhost/r'"), args...)
			settled(t, other)
		}
		eve("<presence FROM to='hall@%s/Eve &amp; Co'><x xmlns='http://jabber.org/protocol/muc'/></presence>", s.MUC)
		eve("<presence FROM to='hall@%s/Eve &amp; Co'><x xmlns='http://jabber.org/protocol/muc'/></presence>", s.MUC)
		eve("<message id='g2' type='groupchat' FROM to='hall@%s'><body>Hi</body></message>", s.MUC)
		eve("<message id='g3' type='chat' FROM to='hall@%s/ally'><body>Psst</body></message>", s.MUC)
		eve("<presence FROM to='hall@%s/Eve'/>", s.MUC)
		alice.Sendf("<message id='g1' type='groupchat' to='hall@%s'><body>All</body></message>", s.MUC)
		alice.Ping()
		alice.IQ("set", "hall@"+s.MUC, "<query xmlns='http://jabber.org/protocol/muc#admin'><item nick='Eve' role='none'/></query>")
		eve("<presence FROM to='hall@%s/Eve'><x xmlns='http://jabber.org/protocol/muc'/></presence>", s.MUC)
		eve("<presence type='unavailable' FROM to='hall@%s/Eve'/>", s.MUC)
		alice.Leave("hall", "ally")
	},
		"message-received alice@localhost/r1 to=alice@localhost/r1 <message groupchat>", // the subject
		"room-join alice@localhost/r1 room=hall@conference.localhost nick=ally",
		"room-join eve@other.localhost/r room=hall@conference.localhost nick=Eve & Co",
		"room-message eve@other.localhost room=hall@conference.localhost nick=Eve & Co <message g2 groupchat>",
		"message-received alice@localhost/r1 to=alice@localhost/r1 <message g2 groupchat>",
		"message-received alice@localhost/r1 to=alice@localhost/r1 <message g3 chat>",
		"room-part eve@other.localhost/r room=hall@conference.localhost nick=Eve & Co",
		"room-join eve@other.localhost/r room=hall@conference.localhost nick=Eve",
		"message-sent alice@localhost/r1 to=hall@conference.localhost <message g1 groupchat>",
		"message-received alice@localhost/r1 to=alice@localhost/r1 <message g1 groupchat>",
		"room-part eve@other.localhost/r room=hall@conference.localhost nick=Eve",
		"room-join eve@other.localhost/r room=hall@conference.localhost nick=Eve",
		"room-part eve@other.localhost/r room=hall@conference.localhost nick=Eve",
		"room-part alice@localhost/r1 room=hall@conference.localhost nick=ally",
	)

	if dropped != "" {
		step("an account that is disabled, which Prosody 13 can", func() {
			carol := s.Login(t, "carol", "disabled")
			carol.Presence()
			probe(watcher, "disable_user", "user='carol' host='localhost'")
			carol.WaitEnd()
		},
			"session-start carol@localhost/disabled",
			"online carol@localhost/disabled <presence>",
			"offline carol@localhost/disabled <presence unavailable>",
			"session-end carol@localhost/disabled reason=Account disabled",
		)
	}

	step("the end of an account", func() {
		carol := s.Login(t, "carol", "last")
		carol.Presence()
		probe(watcher, "delete_user", "user='carol' host='localhost'")
		carol.WaitEnd()
	},
		"session-start carol@localhost/last",
		"online carol@localhost/last <presence>",
		"offline carol@localhost/last <presence unavailable>",
		"session-end carol@localhost/last reason=Account deleted",
		"account-removed carol@localhost",
	)

	// The figures are only read when they are collected; nothing may fail then either.
	probe(watcher, "statistics", "")
	if log := s.Log(); strings.Contains(log, "mod_event_feed\terror") {
		t.Errorf("errors in the log:\n%s", log)
	}
}

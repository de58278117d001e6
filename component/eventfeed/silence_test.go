package eventfeed

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
	"eventpusher/internal/jid"
)

// direct reports whether a message that a user writes to the component is a fact.
func (d *desk) direct(id string) bool {
	d.t.Helper()
	var env stanza.Envelope
	if err := d.decoder.Decode([]byte("<message from='a@"+testHost+"/r' to='"+testName+"' id='"+id+"'><body>hi</body></message>"), &env); err != nil {
		d.t.Fatal(err)
	}
	return d.judge.Stanza(&env, time.Now()) != nil
}

// reported is the event of that message.
func (d *desk) reported(seq int, id string) {
	d.t.Helper()
	token := ""
	if d.token != "" {
		token = " token='" + d.token + "'"
	}
	d.in("<event NS source='s' epoch='e' seq='%d' kind='message-sent' user='a@"+testHost+"/r'"+token+"/>"+
		"<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='a@"+testHost+"/r' to='"+testName+"' id='%s'><body>hi</body></message></forwarded>", seq, id)
}

// unheard lists what is alerted.
func (d *desk) unheard() string {
	names, all := d.Missing(time.Now())
	return fmt.Sprint(names, all, d.judge.Unheard(time.Now()))
}

// TestSilentModule: a module that was unloaded while the link stays up is asked, and another
// feed takes its place when it does not answer.
func TestSilentModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := opened(t)
		defer d.stop()
		time.Sleep(trust.Patience)
		d.out()
		d.reported(2, "before")
		time.Sleep(trust.Patience - time.Second)
		if d.out(); d.direct("early") {
			t.Error("another feed counts, and nothing was asked")
		}
		time.Sleep(doubtPause + time.Second)
		d.want()
		d.direct("refused")
		time.Sleep(doubtPause + ackDelay)
		d.want("snapshot s")
		time.Sleep(trust.Patience - time.Second)
		if d.direct("too early") || d.unheard() != "[] false []" {
			t.Errorf("unheard too early: %s", d.unheard())
		}
		time.Sleep(time.Second)
		d.log.Reset()
		for n := range 3 {
			if !d.direct(fmt.Sprint("instead", n)) {
				t.Error("no feed counts")
			}
		}
		d.want()
		if got := d.unheard(); got != "[s] true ["+testHost+"]" {
			t.Errorf("unheard: %s", got)
		}
		if n := strings.Count(d.log.String(), "not heard any more"); n != 1 || strings.Count(d.log.String(), "\n") != 1 {
			t.Errorf("logged %s", d.log.String())
		}
		// It is there again: what the other feed has reported meanwhile is no event twice.
		d.took("take s e 2")
		d.reported(3, "instead2")
		d.reported(4, "new")
		d.took("position s e 3", "take s e 4")
		if d.direct("new") || d.unheard() != "[] false []" {
			t.Errorf("unheard: %s", d.unheard())
		}
	})
}

// TestQuietModule: a module that has nothing to say for days answers, and goes on to count.
// One that was unloaded is missed even if no other feed is heard.
func TestQuietModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, token := opened(t)
		defer d.stop()
		time.Sleep(ackDelay)
		d.want("ack s e 1")
		for seq := 2; seq < 20; seq++ {
			time.Sleep(longSilence + time.Minute + doubtPause + ackDelay)
			d.want("snapshot s")
			d.sent(token, "e", seq) // whatever it says
			time.Sleep(ackDelay)
			d.want(fmt.Sprint("ack s e ", seq))
			if got := d.unheard(); d.direct("refused") || got != "[] false []" {
				t.Errorf("unheard: %s", got)
			}
		}
		time.Sleep(time.Hour)
		d.want("snapshot s")
		if got := d.unheard(); got != "[s] true []" {
			t.Errorf("unheard: %s", got)
		}
	})
}

// TestSilentInAGap: the module was unloaded while a number was missing.
func TestSilentInAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, token := opened(t)
		defer d.stop()
		time.Sleep(trust.Patience)
		d.sent(token, "e", 3)
		for range 4 {
			if d.direct("refused") {
				t.Error("another feed counts, and nothing was asked")
			}
			time.Sleep(trust.Patience / 2)
		}
		time.Sleep(trust.Patience)
		if !d.direct("counts") {
			t.Errorf("no feed counts; said %v", d.out())
		}
	})
}

// TestFullDiskIsNotSilence: nobody may take the place of a source whose events wait for us.
func TestFullDiskIsNotSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, token := opened(t)
		defer d.stop()
		d.disk.hold = true
		d.sent(token, "e", 2)
		for range 10 {
			time.Sleep(trust.Patience)
			if d.direct("refused") {
				t.Fatal("another feed counts")
			}
		}
	})
}

// TestHostLeavesItsSource: the module was unloaded on one host of several.
func TestHostLeavesItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := opened(t)
		defer d.stop()
		time.Sleep(trust.Patience)
		d.from(testRoom, "<hello NS source='s' epoch='e' first='2' next='2' hosts='"+testRoom+"' token='true'/>")
		d.out()
		if d.direct("refused") {
			t.Error("a hello that proves nothing has taken a host away")
		}
		d.from(testRoom, "<event NS source='s' epoch='e' seq='2' kind='room-join' user='a@"+testHost+"/r' token='%s'/>", d.token)
		if !d.direct("counts") {
			t.Error("no feed counts")
		}
	})
}

// TestHelloProvesNothing: anybody may have said it. A host counts when its source has heard
// our answer, and what another feed has reported until then is no event twice.
func TestHelloProvesNothing(t *testing.T) {
	for name, token := range map[string]string{"tokens": " token='true'", "none": ""} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, 20)
				defer d.stop()
				d.in("<hello NS source='s' epoch='e' first='1' next='3' hosts='" + testHost + " " + testRoom + "'" + token + "/>")
				d.want("resume s", "snapshot s")
				if !d.direct("one") || !d.direct("two") || d.judge.Authority(testHost, trust.Messages) != trust.Direct {
					t.Error("a hello alone counts")
				}
				if token == "" {
					d.token = ""
				}
				d.reported(1, "one")
				if d.direct("three") {
					t.Error("the other feed counts although the module has spoken")
				}
				d.reported(2, "two")
				d.reported(3, "three")
				d.reported(4, "one") // said again
				if got := d.disk.said[len(d.disk.said)-4:]; strings.Join(got, ", ") != "position s e 1, position s e 2, take s e 3, take s e 4" {
					t.Errorf("handed over %v", got)
				}
			})
		})
	}
}

// TestHelloEndsNothing: a module without tokens that has spoken says hello again, or another
// component does in its name. It is asked, and has its time to answer, before another feed counts.
func TestHelloEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 20)
		defer d.stop()
		hello := func(next int) {
			d.in("<hello NS source='s' epoch='e' first='1' next='%d' hosts='%s'/>", next, testHost)
		}
		hello(1)
		d.token = ""
		d.reported(1, "one")
		time.Sleep(trust.Patience + time.Second)
		d.reported(2, "two")
		hello(3)
		if d.direct("three") || d.judge.Authority(testHost, trust.Messages) != trust.EventFeed {
			t.Error("a hello ends the authority of the feed at once")
		}
		time.Sleep(trust.Patience + 10*time.Second) // and nobody answers
		d.direct("four")
		time.Sleep(trust.Patience + 10*time.Second)
		if !d.direct("five") {
			t.Error("the other feed never counts")
		}
	})
}

// TestAnswerProvesAllHosts: an old module, which repeats no token, is known by the id of the
// snapshot that it was asked for.
func TestAnswerProvesAllHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 20)
		defer d.stop()
		d.in("<hello NS source='s' epoch='e' first='1' next='1' hosts='" + testHost + " " + testRoom + "'/>")
		d.out()
		d.from(testRoom, "<event NS source='s' epoch='e' seq='1' kind='snapshot-start' id='guessed'/>")
		if d.judge.Authority(testHost, trust.Messages) != 0 {
			t.Error("somebody who has not heard our question answers it")
		}
		d.from(testRoom, "<event NS source='s' epoch='e' seq='2' kind='snapshot-start' id='%s'/>", d.byName["s"].snapshot)
		if d.judge.Authority(testHost, trust.Messages) != trust.EventFeed {
			t.Error("the answer does not count")
		}
	})
}

// TestQuietServerComesBack: nothing was missed, so it has nothing to say, and is asked.
func TestQuietServerComesBack(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprint(answers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, _ := opened(t)
				defer d.stop()
				d.in("<event NS source='s' epoch='e' seq='2' kind='snapshot-end' id='%s' count='0' token='%s'/>", d.byName["s"].snapshot, d.token)
				time.Sleep(time.Second)
				d.out()
				d.Detached()
				d.connect()
				d.hello("s", "e", 3, 3)
				d.want("resume s e 2")
				time.Sleep(doubtPause + ackDelay)
				d.want("snapshot s")
				if answers {
					d.sent(d.token, "e", 3)
				}
				time.Sleep(trust.Patience)
				want := "[] false []"
				if !answers {
					want = fmt.Sprintf("[s] true %v", []jid.JID{testRoom, testHost})
				}
				if got := d.unheard(); got != want {
					t.Errorf("unheard: %s, want %s", got, want)
				}
			})
		})
	}
}

// TestTooManySources names the cause.
func TestTooManySources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 3*maxSources)
		defer d.stop()
		for n := range maxSources + 1 {
			d.greet(fmt.Sprint("s", n), 1, 1)
			d.in("<event NS source='s%d' epoch='e' seq='1' kind='session-start' user='a@"+testHost+"/r'/>", n)
		}
		if n := strings.Count(d.log.String(), "too many sources"); n != 1 || d.count("events", "too_many_sources") != 1 || d.count("events", "no_token") != 0 {
			t.Errorf("logged %d times", n)
		}
	})
}

// TestRefusedKeepsTheHello: events are refused between the hello of another epoch and its
// first element. What the hello has said of the epoch before still holds.
func TestRefusedKeepsTheHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, token := opened(t)
		defer d.stop()
		time.Sleep(askPause)
		d.in("<hello NS source='s' epoch='f' first='1' next='2' hosts='" + testHost + "' prev-epoch='e' prev-last='2' clean='true' token='true'/>")
		d.out()
		d.disk.full = true
		d.sent(token, "e", 2) // on its way
		d.disk.full = false
		time.Sleep(askPause + ackDelay)
		d.out()
		d.sent(d.token, "f", 1)
		if n := d.count("unknown_losses", ""); n != 0 {
			t.Errorf("%v unknown losses", n)
		}
		if got := d.disk.said[len(d.disk.said)-1]; got != "take s f 1" {
			t.Errorf("handed over %v", d.disk.said)
		}
	})
}

// TestUnreadableBeforeTheFirst: an unreadable element is noticed although no element has
// opened the sequence yet.
func TestUnreadableBeforeTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := opened(t)
		defer d.stop()
		d.Detached()
		d.connect()
		d.hello("s", "e", 2, 5)
		d.out()
		d.disk.said = nil
		env := stanza.Envelope{Outer: stanza.Stanza{From: testHost}}
		d.Damaged(&env, []byte("<message"), "too deep", time.Now()) // number 2
		d.sent(d.token, "e", 3)
		time.Sleep(askPause + ackDelay)
		d.out()
		d.sent(d.token, "e", 3)
		d.took("bury too deep", "resumed s missed", "take s e 3")
	})
}

// TestPanicLeavesNoLock: the link is set up again after a panic.
func TestPanicLeavesNoLock(t *testing.T) {
	for name, element := range map[string]func(d *desk, token string){
		"hello": func(d *desk, _ string) { d.hello("s", "e", 2, 2) },
		"event": func(d *desk, token string) { d.sent(token, "e", 9) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, token := opened(t)
				defer d.stop()
				time.Sleep(askPause)
				d.Attached(func([]byte) bool { panic(name) })
				func() {
					defer func() {
						if recover() == nil {
							t.Error("nothing panicked")
						}
					}()
					element(d, token)
				}()
				d.Detached()
				d.connect()
			})
		})
	}
}

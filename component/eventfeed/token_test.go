package eventfeed

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"eventpusher/component/stanza"
	"eventpusher/component/trust"
)

// hello greets in an epoch as a module that repeats tokens does.
func (d *desk) hello(source, epoch string, first, next int) {
	d.t.Helper()
	d.in("<hello NS source='%s' epoch='%s' first='%d' next='%d' hosts='"+testHost+" "+testRoom+"' token='true'/>", source, epoch, first, next)
}

// sent brings an event of the source s with a token.
func (d *desk) sent(token, epoch string, seq int) {
	d.t.Helper()
	d.in("<event NS source='s' epoch='%s' seq='%d' kind='session-start' user='a@"+testHost+"/r' token='%s'/>", epoch, seq, token)
}

// opened returns a desk whose source s is heard with the token that it returns.
func opened(t *testing.T) (*desk, string) {
	d := newDesk(t, 20)
	d.hello("s", "e", 1, 1)
	d.want("resume s", "snapshot s")
	token := d.token
	d.sent(token, "e", 1)
	d.took("resumed s missed", "take s e 1")
	return d, token
}

// TestForgedHello: a hello that another component of the server says in a host's name
// changes nothing, whatever is in it.
func TestForgedHello(t *testing.T) {
	for name, forged := range map[string]string{
		"another epoch":              "<hello NS source='s' epoch='x' first='1' next='1' hosts='" + testHost + "' token='true'/>",
		"the same, far ahead":        "<hello NS source='s' epoch='e' first='900' next='901' hosts='" + testHost + "' token='true'/>",
		"the same, set back":         "<hello NS source='s' epoch='e' first='1' next='1' hosts='" + testHost + "' token='true'/>",
		"with other hosts":           "<hello NS source='s' epoch='e' first='1' next='3' hosts='" + testRoom + "' token='true'/>",
		"of a module without tokens": "<hello NS source='s' epoch='e' first='900' next='901' hosts='" + testHost + "'/>",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, token := opened(t)
				defer d.stop()
				d.sent(token, "e", 2)
				for range 3 * maxOpenings {
					d.in(forged)
				}
				d.sent(token, "e", 3) // on its way when the module is told to go on elsewhere
				time.Sleep(time.Second)
				d.out()
				// The module obeys what it was told last, and goes on behind what was kept or
				// with its oldest.
				newest := d.token
				d.sent(newest, "e", 3)
				d.sent(newest, "e", 4)
				d.from(testRoom, "<event NS source='s' epoch='e' seq='5' kind='room-join' user='a@"+testHost+"/r' token='%s'/>", newest)
				d.took("take s e 2", "take s e 3", "take s e 4", "take s e 5")
				time.Sleep(time.Second)
				if said := d.out(); len(said) == 0 || said[len(said)-1] != "ack s e 5" {
					t.Errorf("said %v", said)
				}
			})
		})
	}
}

// TestForgedHelloBeforeTheFirst: the module's own answer counts although another hello was
// answered since.
func TestForgedHelloBeforeTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 20)
		defer d.stop()
		d.hello("s", "e", 7, 9)
		d.want("resume s", "snapshot s")
		own := d.token
		d.from(testRoom, "<hello NS source='s' epoch='x' first='1' next='1' hosts='"+testRoom+"' token='true'/>")
		d.out() // where the module does not hear it
		d.sent(own, "e", 7)
		d.sent(own, "e", 8)
		d.took("resumed s missed", "take s e 7", "take s e 8")
		time.Sleep(ackDelay)
		d.want("ack s e 8")
	})
}

// TestForgedElements do not count without the token of a resume.
func TestForgedElements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, token := opened(t)
		defer d.stop()
		for _, forged := range []string{"", "guessed"} {
			d.sent(forged, "e", 2)
			d.in("<lost NS source='s' epoch='e' from='2' to='9' token='%s'/>", forged)
		}
		d.events(2, 2) // without the attribute
		d.in("<hello NS source='t' epoch='e' first='1' next='1' hosts='" + testHost + "'/>")
		d.took()
		if n := strings.Count(d.log.String(), "without a token"); n != 1 || d.count("events", "no_token") != 2 {
			t.Errorf("%d lines and %v counted in\n%s", n, d.count("events", "no_token"), d.log.String())
		}
		d.sent(token, "e", 2)
		d.took("take s e 2")
		// The process remembers it over connections.
		d.Detached()
		d.connect()
		d.greet("s", 1, 9)
		d.want()
		d.hello("s", "e", 3, 3)
		d.want("resume s e 2", "snapshot s")
		d.sent(d.token, "e", 3)
		d.took("resumed s complete", "take s e 3")
	})
}

// TestOldModule is served as before, unless tokens are required.
func TestOldModule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.greet("s", 1, 1)
		d.want("resume s", "snapshot s")
		if d.token == "" {
			t.Error("resume carries no token")
		}
		d.events(1, 2)
		d.took("resumed s missed", "take s e 1", "take s e 2")
		strict := newDesk(t, 10, func(o *Options) { o.RequireToken = true })
		defer strict.stop()
		strict.greet("s", 1, 1)
		strict.events(1, 1)
		strict.want()
		strict.took()
		if !strings.Contains(strict.log.String(), "without a token") {
			t.Errorf("logged %s", strict.log.String())
		}
	})
}

// TestNewEpochOnOneConnection: a module that is loaded anew goes on in another epoch.
func TestNewEpochOnOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, token := opened(t)
		defer d.stop()
		d.in("<hello NS source='s' epoch='f' first='1' next='3' hosts='" + testHost + "' prev-epoch='e' prev-last='1' clean='true' token='true'/>")
		d.out()
		d.sent(token, "e", 2)
		d.sent(d.token, "f", 1)
		d.sent(d.token, "f", 2)
		d.took("take s e 2", "resumed s complete", "take s f 1", "take s f 2")
	})
}

// TestRefusedWithTokens: what was refused comes again with the token of another resume.
func TestRefusedWithTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, token := opened(t)
		defer d.stop()
		d.disk.hold = true
		d.sent(token, "e", 2)
		d.disk.full = true
		d.sent(token, "e", 3)
		d.sent(token, "e", 4)
		d.disk.full = false
		d.out()
		d.disk.commit(1)
		time.Sleep(askPause + ackDelay)
		d.out()
		d.disk.hold = false
		if d.token == token {
			t.Fatal("nothing was asked for")
		}
		d.sent(token, "e", 5)
		d.sent(d.token, "e", 3)
		d.sent(d.token, "e", 4)
		d.took("take s e 2", "take s e 3", "resumed s missed", "take s e 3", "take s e 4")
	})
}

// TestSourcesThatAreLive are not forgotten, however many names are made up.
func TestSourcesThatAreLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, token := opened(t)
		defer d.stop()
		for n := range 2 * maxSources {
			time.Sleep(time.Second)
			d.greet(fmt.Sprint("made-up-", n), 1, 1)
			d.hello(fmt.Sprint("made-up-too-", n), "e", 1, 1)
			d.out()
		}
		d.sent(token, "e", 2)
		if said := d.disk.said; said[len(said)-1] != "take s e 2" {
			t.Errorf("handed over %v", said)
		}
	})
}

// TestBracketsFromAnyHost: a module may send what is its own from a host that is announced
// and not served.
func TestBracketsFromAnyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.in("<hello NS source='s' epoch='e' first='1' next='4' hosts='" + testHost + " other.example'/>")
		d.from("other.example", "<event NS source='s' epoch='e' seq='1' kind='snapshot-start' id='i'/>")
		d.from("other.example", "<lost NS source='s' epoch='e' from='2' to='2'/>")
		d.from("other.example", "<event NS source='s' epoch='e' seq='3' kind='snapshot-end' id='i' count='0'/>")
		d.took("resumed s missed", "take s e 1", "resumed s missed", "position s e 2", "take s e 3")
	})
}

// TestHelloFromAnUnservedHost is counted and logged, and not a user's.
func TestHelloFromAnUnservedHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		for _, host := range []string{"other.example", "other.example", "mallory@other.example", "other.example/x"} {
			d.from(host, "<hello NS source='s' epoch='e' first='1' next='4' hosts='other.example'/>")
		}
		d.want()
		if n := strings.Count(d.log.String(), "a host sends elements of the event-feed and is not a forwarder"); n != 1 || d.count("unserved_hellos", "") != 2 {
			t.Errorf("%v counted, logged %s", d.count("unserved_hellos", ""), d.log.String())
		}
	})
}

// TestClosedGapIsNotAskedFor: the number that was missing has come by itself.
func TestClosedGapIsNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.greet("s", 1, 1)
		d.events(1, 1)
		time.Sleep(ackDelay)
		d.out()
		d.disk.hold = true
		d.events(2, 2)
		d.events(4, 4) // 3 is missing, and 2 is not kept yet, so nothing can be asked
		d.events(3, 4)
		d.disk.commit(3)
		time.Sleep(time.Minute)
		d.want("ack s e 4")
	})
}

// TestUnreadableWrapperIsSteppedOver: a wrapper whose element cannot be read leaves its
// number missing, and must not stop what follows.
func TestUnreadableWrapperIsSteppedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.greet("s", 1, 1)
		d.events(1, 1)
		d.out()
		d.disk.said = nil
		broken := func() {
			b := []byte("<message from='" + testHost + "' to='" + testName + "'><event")
			var env = decoded(d, b)
			d.Damaged(env, b, "too large", time.Now())
		}
		broken()
		d.events(3, 3)
		time.Sleep(askPause + ackDelay)
		broken() // again
		d.events(3, 4)
		if d.took("bury too large", "bury too large", "resumed s missed", "take s e 3", "take s e 4"); d.count("skipped_events", "") != 1 {
			t.Errorf("%v are counted", d.count("skipped_events", ""))
		}
		// Without one, when it was asked for twice.
		d.events(6, 6)
		time.Sleep(askPause + ackDelay)
		d.events(6, 6)
		d.took()
		time.Sleep(gapRetry + ackDelay)
		d.events(6, 6)
		d.took("resumed s missed", "take s e 6")
	})
}

// TestUnreadableAmongOthers: events that were on their way when the missing one was asked
// for are not taken for the answer.
func TestUnreadableAmongOthers(t *testing.T) {
	for name, module := range map[string]bool{"tokens": true, "none": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t, 20)
				defer d.stop()
				if module {
					d.hello("s", "e", 1, 1)
				} else {
					d.greet("s", 1, 1)
				}
				d.want("resume s", "snapshot s")
				send := func(from, to int) {
					for n := from; n <= to; n++ {
						if module {
							d.sent(d.token, "e", n)
						} else {
							d.events(n, n)
						}
					}
				}
				send(1, 1)
				d.disk.said = nil
				time.Sleep(askPause + time.Second)
				d.out()
				old := d.token
				env := stanza.Envelope{Outer: stanza.Stanza{From: testHost}}
				d.Damaged(&env, []byte("<message"), "too deep", time.Now()) // number 2
				send(3, 3)
				d.want("resume s e 1")
				token := d.token
				d.token = old
				send(4, 6) // were on their way
				d.token = token
				d.Damaged(&env, []byte("<message"), "too deep", time.Now())
				send(3, 6)
				d.took("bury too deep", "bury too deep", "resumed s missed", "take s e 3", "take s e 4", "take s e 5", "take s e 6")
			})
		})
	}
}

// TestPanicBecomesADeadLetter: an event whose handling panics is buried and acknowledged.
func TestPanicBecomesADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 10)
		defer d.stop()
		d.greet("s", 1, 1)
		d.out()
		d.disk.panics = true
		d.events(1, 1)
		d.disk.panics = false
		d.events(2, 2)
		d.took("resumed s missed", "bury s e 1: a defect in eventpusher: its handling panicked", "take s e 2")
		time.Sleep(ackDelay)
		d.want("ack s e 2")
		if log := d.log.String(); d.count("panics", "") != 1 || strings.Count(log, "level=ERROR") != 1 || strings.Contains(log, "of a@") {
			t.Errorf("logged %s", log)
		}
	})
}

// TestRepeatedHello: a module that never hears our answer is mentioned.
func TestRepeatedHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 30)
		defer d.stop()
		for range 10 {
			d.hello("s", "e", 1, 1)
			time.Sleep(10 * time.Second)
		}
		if n := strings.Count(d.log.String(), "our answers do not reach it"); n != 2 {
			t.Errorf("%d lines in %s", n, d.log.String())
		}
	})
}

// TestTwoServers: what a user of one served server sends to a user of another one is told
// by the first one's feed. A user of the reporting source without a session is not.
func TestTwoServers(t *testing.T) {
	const other = "example.net"
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t, 20, func(o *Options) {
			o.Judge = trust.New(trust.Options{
				Component: testName, Forwarders: []string{testHost, testRoom, other},
				Hosts: []string{testHost, other}, MUCHosts: []string{testRoom}, Log: o.Log,
			})
		})
		defer d.stop()
		d.hello("s", "e", 1, 1)
		d.want("resume s", "snapshot s")
		token := d.token
		received := func(seq int, from string) {
			d.in("<event NS source='s' epoch='e' seq='%d' kind='message-received' user='a@"+testHost+"' token='%s'/>"+
				"<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='%s' to='a@"+testHost+"'><body>hi</body></message></forwarded>",
				seq, token, from)
		}
		received(1, "b@"+other+"/r") // of which no feed was ever heard
		d.disk.at["s2"] = Position{Source: "s2", Epoch: "e", Seq: 1}
		received(2, "b@"+other+"/r") // whose feed is yet to come
		d.took("resumed s missed", "take s e 1", "position s e 2")
		d.from(other, "<hello NS source='s2' epoch='e' first='2' next='2' hosts='"+other+"'/>")
		d.took("resumed s2 missed")
		received(3, "b@"+other+"/r")
		received(4, "b@"+testHost)
		received(5, "b@elsewhere.example/r")
		d.took("position s e 3", "take s e 4", "take s e 5")
	})
}

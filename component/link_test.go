package component

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/component/trust"
	"eventpusher/config"
	"eventpusher/internal/xmppserver"
)

func TestStanzasGluedToTheHandshakeArrive(t *testing.T) {
	for _, segment := range []int{0, 1, 7} {
		o := serverOptions()
		o.Fault = func(int) xmppserver.Fault {
			return xmppserver.Fault{Glue: logged("first") + " \n" + logged("second"), Segment: segment}
		}
		server := startServer(t, o)
		w := newWatched(t, testConfig(server.Addr()), nil).start()
		w.wantFact("first")
		w.wantFact("second")
		send(t, accept(t, server), logged("third"))
		w.wantFact("third")
		w.end()
	}
}

// What the configuration says about trust arrives here: empty lists stay empty.
func TestEmptyForwardersInTheConfiguration(t *testing.T) {
	server := startServer(t, serverOptions())
	toml := fmt.Sprintf("[component]\naddress = %q\nname = %q\nsecret = %q\nforwarders = []\nmuc_hosts = []\n[general]\nhosts = [%q]\n",
		server.Addr(), testName, testSecret, testHost)
	cfg, problems := config.Parse([]byte(toml), nil, "")
	if cfg == nil {
		t.Fatal(problems)
	}
	w := newWatched(t, cfg.Component, nil).start()
	session := accept(t, server)
	send(t, session, logged("forwarded")+strings.Replace(logged("forwarded"), "from='example.org'", "from='conference.example.org'", 1)+
		"<message from='alice@example.org/r1' to='events.example.org'><body>direct</body></message>")
	w.wantFact("direct")
	if got := w.counter("eventpusher_stanzas_total", "direct", "untrusted_forward"); got != 2 {
		t.Errorf("%v wrappers were refused, want 2", got)
	}
	w.end()
}

func TestOrderlyStop(t *testing.T) {
	server := startServer(t, serverOptions())
	w := newWatched(t, testConfig(server.Addr()), nil)
	if w.Connected() || w.Status().State != Stopped {
		t.Errorf("before Run: %+v", w.Status())
	}
	w.start()
	session := accept(t, server)
	send(t, session, logged("hello"))
	w.wantFact("hello")
	if !w.Connected() || w.counter("eventpusher_component_connected") != 1 || w.counter("eventpusher_component_connects_total", "connected") != 1 {
		t.Errorf("attached, but: %+v", w.Status())
	}
	w.end()
	<-session.Done()
	if !session.Ended() {
		t.Error("the stream was not ended with </stream:stream>")
	}
	if w.Connected() || w.Status().State != Stopped || w.counter("eventpusher_component_connected") != 0 {
		t.Errorf("after Run: %+v", w.Status())
	}
	if status := w.Status(); status.LastError != "" {
		t.Errorf("an orderly stop left the error %q", status.LastError)
	}
}

func TestWhatComesDuringTheStopIsTaken(t *testing.T) {
	o := serverOptions()
	o.Fault = func(int) xmppserver.Fault { return xmppserver.Fault{Farewell: logged("last words")} }
	server := startServer(t, o)
	w := newWatched(t, testConfig(server.Addr()), nil).start()
	send(t, accept(t, server), logged("first"))
	w.wantFact("first")
	w.end()
	w.wantFact("last words")
}

// TestHandshakesOfLegalXML attaches to servers that write what XML allows around the stream
// header and the answer to the handshake, however their bytes are cut.
func TestHandshakesOfLegalXML(t *testing.T) {
	long := strings.Repeat("long - prologue > ", 100)
	for _, tc := range []struct {
		name  string
		fault xmppserver.Fault
	}{
		{"newline after the declaration", xmppserver.Fault{Prologue: "<?xml version='1.0'?>\n"}},
		{"declaration in other quotes, with an encoding", xmppserver.Fault{Prologue: "<?xml version=\"1.0\" encoding='UTF-8' standalone='yes' ?>\r\n\r\n"}},
		{"whitespace and no declaration", xmppserver.Fault{Prologue: " \t\r\n"}},
		{"byte order mark", xmppserver.Fault{Prologue: "\uFEFF<?xml version='1.0'?>"}},
		{"comments", xmppserver.Fault{Prologue: "<?xml version='1.0'?><!-- a > b --><!----> <!-- - -->", Answer: "<!-- <handshake/> --><handshake/>"}},
		{"processing instructions", xmppserver.Fault{Prologue: "<?xml version='1.0'?><?a b?><?c '?' >?>", Answer: "<?d?><handshake/>"}},
		{"long prologue", xmppserver.Fault{Prologue: "<?xml version='1.0'?><!-- " + long + " --><?x " + long + "?>" + strings.Repeat("\n", 1000)}},
		{"newline before the answer", xmppserver.Fault{Answer: "\n<handshake/>"}},
		{"newline after the answer", xmppserver.Fault{Answer: "<handshake/>\n"}},
		{"answer with an end tag", xmppserver.Fault{Answer: " <handshake ></handshake > "}},
		{"answer with content", xmppserver.Fault{Answer: "<handshake xml:lang='en'>\n<!-- in --></handshake>"}},
	} {
		for _, segment := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s in segments of %d", tc.name, segment), func(t *testing.T) {
				tc.fault.Segment, tc.fault.Glue = segment, logged("glued")
				o := serverOptions()
				o.Fault = func(int) xmppserver.Fault { return tc.fault }
				server := startServer(t, o)
				w := newWatched(t, testConfig(server.Addr()), nil).start()
				send(t, accept(t, server), logged("sent"))
				w.wantFact("glued")
				w.wantFact("sent")
				w.end()
			})
		}
	}
}

// TestNameInTheFormOfTheServer: a server knows the component in one form, and takes no other.
// TestEndlessHandshake: what a peer can send before it has accepted the handshake is bounded,
// and so is the memory that it takes.
func TestEndlessHandshake(t *testing.T) {
	header := "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' from='events.example.org' id='1'"
	for name, c := range map[string]struct{ first, more string }{
		"attribute":   {header + " a='", "x"},
		"attributes":  {header, " a='x'"},
		"name":        {"<", "x"},
		"text":        {header + ">", "x"},
		"space":       {header + ">", " "},
		"comment":     {header + "><!--", " -"},
		"instruction": {"<?xml", " "},
		"answer":      {header + "><handshake", " a='x'"},
		"in answer":   {header + "><handshake>", "<a>"},
		"error":       {header + "><stream:error><text>", "x"},
		"nothing":     {"", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			endless, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer endless.Close()
			said := make(chan int, 1)
			go func() {
				conn, err := endless.Accept()
				if err != nil {
					said <- 0
					return
				}
				defer conn.Close()
				conn.(*net.TCPConn).SetWriteBuffer(maxHandshake)
				n, _ := conn.Write([]byte(c.first))
				for more := bytes.Repeat([]byte(c.more), 4096); n < 64<<20; {
					k, err := conn.Write(more)
					if n += k; err != nil {
						break
					}
				}
				said <- n
			}()
			cfg := testConfig(endless.Addr().String())
			cfg.HandshakeTimeout = time.Minute
			link, err := New(cfg, []string{testHost}, Options{})
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, failed := link.connect(t.Context())
			runtime.ReadMemStats(&after)
			if failed == nil || failed.Reason != BrokenStream {
				t.Errorf("the end of it: %v", failed)
			}
			if n := <-said; n >= 64<<20 {
				t.Errorf("%d bytes were read", n)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 256*maxHandshake {
				t.Errorf("%d bytes were allocated", got)
			}
		})
	}
}

func TestNameInTheFormOfTheServer(t *testing.T) {
	for _, name := range []string{"events.xn--bcher-kva.example", "events.bücher.example"} {
		o := serverOptions()
		o.Component = name
		server := startServer(t, o)
		cfg := testConfig(server.Addr())
		cfg.Name = name
		w := newWatched(t, cfg, nil).start()
		send(t, accept(t, server), "<message from='example.org' to='"+name+"'>"+strings.SplitAfterN(logged("heard"), ">", 2)[1])
		w.wantFact("heard")
		w.end()
	}
}

func TestStopWhileTheServerIsSilent(t *testing.T) {
	o := serverOptions()
	reached := make(chan struct{})
	o.Fault = func(int) xmppserver.Fault { close(reached); return xmppserver.Fault{Silent: true} }
	server := startServer(t, o)
	w := newWatched(t, testConfig(server.Addr()), nil).start()
	<-reached
	w.end()
}

func TestBadStanzasAreSkipped(t *testing.T) {
	server := startServer(t, serverOptions())
	cfg := testConfig(server.Addr())
	cfg.MaxStanzaSize, cfg.MaxDepth = 1000, 8
	var log bytes.Buffer
	w := newWatched(t, cfg, slog.New(slog.NewTextHandler(&log, nil))).start()
	session := accept(t, server)
	for _, tc := range []struct{ name, reason, xml string }{
		{"too large", "too large", logged(strings.Repeat("private", 1000))},
		{"too deep", "too deep", logged(strings.Repeat("<b>", 20) + "private" + strings.Repeat("</b>", 20))},
		{"unbound prefix", "namespace violation", logged("private<x:y/>")},
		{"duplicate attribute", "duplicate attribute", "<message from='example.org' to='events.example.org' id='a' id='private'/>"},
		{"comment", "restricted XML", logged("<!-- private -->")},
		{"illegal character", "illegal character", logged("private\x01")},
		{"IQ that encoding/xml refuses", "malformed iq", "<iq type='get' id='1' from='example.org' to='events.example.org'><a:b:c xmlns:a='private'/></iq>"},
		{"unknown element", "unknown element", "<features>private</features>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := w.counter("eventpusher_bad_stanzas_total", tc.reason)
			send(t, session, tc.xml+logged("after "+tc.name))
			w.wantFact("after " + tc.name)
			if got := w.counter("eventpusher_bad_stanzas_total", tc.reason) - before; got != 1 {
				t.Errorf("counted %v times as %q", got, tc.reason)
			}
		})
	}
	if n := server.Connections(); n != 1 {
		t.Errorf("%d connections, want the one", n)
	}
	w.end()
	if strings.Contains(log.String(), "private") {
		t.Errorf("content in the log: %s", &log)
	}
	for _, sign := range []string{`reason="too large"`, "raise [component] max_stanza_size"} {
		if n := strings.Count(log.String(), sign); n != 1 {
			t.Errorf("a flood of bad stanzas was mentioned %d times with %s, want once:\n%s", n, sign, &log)
		}
	}
	if got := w.Status().Alerts; len(got) > 0 { // any user can send them
		t.Errorf("alerts %v", got)
	}
}

// TestLossesOfTheStream ends a stream in every way and wants another one, and the
// reason in the status.
func TestLossesOfTheStream(t *testing.T) {
	for _, tc := range []struct {
		name   string
		lose   func(s *xmppserver.Session)
		reason Reason
		text   string
	}{
		{"dropped", func(s *xmppserver.Session) { s.Drop() }, Closed, "ADDR closed the connection: it will be tried again"},
		{"dropped within a stanza", func(s *xmppserver.Session) { s.Send("<message from='a"); s.Drop() }, Closed, "ADDR closed the connection: it will be tried again"},
		{"ended", func(s *xmppserver.Session) { s.Send("</stream:stream>") }, Closed, "ADDR ended the stream: it will be tried again"},
		{"shutdown", func(s *xmppserver.Session) { s.Fail("system-shutdown", "Received SIGTERM") }, Shutdown, `the server at ADDR is shutting down (the server says "Received SIGTERM"): it will be tried again`},
		{"replaced", func(s *xmppserver.Session) { s.Fail("conflict", "Replaced by a new connection") }, Conflict,
			`ADDR gave our place to another connection under the same name (the server says "Replaced by a new connection"): stop the other one, or choose another [component] name`},
		{"other stream error", func(s *xmppserver.Session) { s.Fail("policy-violation", "Too \"fast\"") }, StreamError,
			`ADDR ended the stream with policy-violation (the server says "Too \"fast\""): look into the server's log`},
		{"stray text", func(s *xmppserver.Session) { s.Send("what?") }, BrokenStream,
			"the stream of ADDR cannot be read on (stanza: broken stream: text between stanzas at byte 0): look into the server's log"},
		{"tag mismatch", func(s *xmppserver.Session) { s.Send("<message></presence>") }, BrokenStream,
			"the stream of ADDR cannot be read on (stanza: broken stream: tag mismatch at byte 20): look into the server's log"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := startServer(t, serverOptions())
			cfg := testConfig(server.Addr())
			cfg.ReconnectMin, cfg.ReconnectMax = time.Millisecond, time.Millisecond
			w := newWatched(t, cfg, nil)
			lost := make(chan struct{})
			w.dialsOnceMore(lost)
			w.start()
			session := accept(t, server)
			tc.lose(session)
			<-session.Done()
			close(lost)
			send(t, accept(t, server), logged("back"))
			w.wantFact("back")
			status := w.Status()
			if got := strings.ReplaceAll(status.LastError, server.Addr(), "ADDR"); got != tc.text || status.LastErrorReason != tc.reason {
				t.Errorf("%s: %s\nwant %s: %s", status.LastErrorReason, got, tc.reason, tc.text)
			}
			if w.counter("eventpusher_component_connects_total", string(tc.reason)) < 1 {
				t.Errorf("the loss is not counted as %s", tc.reason)
			}
			w.end()
		})
	}
}

func TestPanicCostsOneConnection(t *testing.T) {
	server := startServer(t, serverOptions())
	cfg := testConfig(server.Addr())
	cfg.ReconnectMin, cfg.ReconnectMax = time.Millisecond, time.Millisecond
	w := newWatched(t, cfg, nil)
	pass := w.handler
	w.handler = func(s *trust.Fact) {
		if s.Body == "bang" {
			panic("bang")
		}
		pass(s)
	}
	lost := make(chan struct{})
	w.dialsOnceMore(lost)
	w.start()
	first := accept(t, server)
	send(t, first, logged("bang"))
	<-first.Done()
	close(lost)
	send(t, accept(t, server), logged("after"))
	w.wantFact("after")
	if n := w.counter("eventpusher_component_panics_total"); n != 1 || w.Status().LastErrorReason != Panicked {
		t.Errorf("%v panics counted, last reason %s", n, w.Status().LastErrorReason)
	}
	w.end()
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serverOptions()
		o.NoPongs = true
		server := xmppserver.NewUnlistened(o)
		defer server.Close()
		w := newWatched(t, testConfig("server:5347"), nil)
		w.inMemory(server)
		w.start()
		session := accept(t, server)
		begun := time.Now()

		ping := receive(t, session)
		if ping.To != testHost || ping.From != testName || ping.Type != "get" || ping.Inner != "<ping xmlns='urn:xmpp:ping'/>" {
			t.Errorf("the watchdog sent %+v", ping)
		}
		if n := session.Keepalives(); n != 1 {
			t.Errorf("%d whitespace keepalives, want 1", n)
		}
		if after := time.Since(begun); after != 30*time.Second {
			t.Errorf("the ping came after %v", after)
		}
		if own := receive(t, session); own.To != testName+"/watchdog" || time.Since(begun) != 45*time.Second {
			t.Errorf("the watchdog asked %s after %v", own.To, time.Since(begun))
		}
		time.Sleep(14 * time.Second)
		send(t, session, " ") // any byte is life
		synctest.Wait()
		ping = receive(t, session)
		if after := time.Since(begun); after != 89*time.Second {
			t.Errorf("the second ping came after %v", after)
		}
		<-session.Done()
		if after := time.Since(begun); after != 119*time.Second {
			t.Errorf("given up after %v", after)
		}
		accept(t, server)
		if got := w.Status(); got.LastErrorReason != NoPong || got.LastError != "server:5347 was silent and did not answer a ping within 30s: check the server and the network" {
			t.Errorf("status %+v", got)
		}
		w.end()
	})
}

// TestOwnPingsKeepTheLink: a server that drops what we send to a host, as mod_privilege of
// some ejabberd does, hands back what we send to ourselves.
func TestOwnPingsKeepTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serverOptions()
		o.NoPongs = true
		server := xmppserver.NewUnlistened(o)
		defer server.Close()
		w := newWatched(t, testConfig("server:5347"), nil)
		w.inMemory(server)
		w.start()
		session := accept(t, server)
		for began := time.Now(); time.Since(began) < time.Hour; {
			if s := receive(t, session); s.To == testName+"/watchdog" {
				send(t, session, "<iq type='"+s.Type+"' id='"+s.ID+"' from='"+s.From+"' to='"+s.To+"'>"+s.Inner+"</iq>")
			}
		}
		if n := server.Connections(); n != 1 || !w.Connected() {
			t.Errorf("%d connections, connected %t", n, w.Connected())
		}
		w.end()
	})
}

func TestPongsKeepTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := xmppserver.NewUnlistened(serverOptions())
		defer server.Close()
		w := newWatched(t, testConfig("server:5347"), nil)
		w.inMemory(server)
		w.start()
		accept(t, server)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := server.Connections(); n != 1 || !w.Connected() {
			t.Errorf("%d connections, connected %t", n, w.Connected())
		}
		// One ping for each half minute of silence since the last answer.
		if n := w.counter("eventpusher_iqs_total", "reply"); n != 119 && n != 120 {
			t.Errorf("%v replies in an hour", n)
		}
		w.end()
	})
}

// TestSlowHandlerIsNoSilence blocks the handler for longer than the watchdog waits.
func TestSlowHandlerIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := xmppserver.NewUnlistened(serverOptions())
		defer server.Close()
		w := newWatched(t, testConfig("server:5347"), nil)
		w.inMemory(server)
		pass := w.handler
		w.handler = func(s *trust.Fact) { time.Sleep(10 * time.Minute); pass(s) }
		w.start()
		send(t, accept(t, server), logged("slow"))
		time.Sleep(11 * time.Minute)
		w.wantFact("slow")
		if n := server.Connections(); n != 1 {
			t.Errorf("%d connections, want the one", n)
		}
		w.end()
	})
}

// TestDeafServer has a server that takes nothing: the answers wait, the reader
// does not, and in the end the link is given up.
func TestDeafServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serverOptions()
		o.Fault = func(n int) xmppserver.Fault { return xmppserver.Fault{Deaf: n == 1} }
		server := xmppserver.NewUnlistened(o)
		defer server.Close()
		w := newWatched(t, testConfig("server:5347"), nil)
		w.inMemory(server)
		w.start()
		session := accept(t, server)
		for range 2 * outboundQueue {
			send(t, session, "<iq type='get' id='1' from='a@example.org/r' to='events.example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
		}
		send(t, session, logged("still read"))
		w.wantFact("still read")
		if n := w.counter("eventpusher_iqs_total", "dropped"); n < outboundQueue-2 || n > outboundQueue {
			t.Errorf("%v answers dropped of %d that found no room", n, outboundQueue)
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := w.Status(); got.LastErrorReason != Stalled || got.LastError != "server:5347 took nothing that we wrote for 30s: check the server and the network" {
			t.Errorf("status %+v", got)
		}
		session.Drop()
		accept(t, server)
		w.end()
	})
}

// TestLongAnswersToADeafServer: answers wait within a bound of bytes, whatever ids users give
// their requests.
func TestLongAnswersToADeafServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := serverOptions()
		o.Fault = func(n int) xmppserver.Fault { return xmppserver.Fault{Deaf: n == 1} }
		server := xmppserver.NewUnlistened(o)
		defer server.Close()
		w := newWatched(t, testConfig("server:5347"), nil)
		w.inMemory(server)
		w.start()
		session := accept(t, server)
		const size, requests = 200 << 10, 200
		for range requests {
			send(t, session, "<iq type='get' id='"+strings.Repeat("i", size)+"' from='a@example.org/r' to='events.example.org'><ping xmlns='urn:xmpp:ping'/></iq>")
		}
		send(t, session, logged("still read"))
		w.wantFact("still read")
		kept := requests - int(w.counter("eventpusher_iqs_total", "dropped"))
		if most := outboundBytes/size + 1; kept > most || kept < most-2 { // one is being written
			t.Errorf("%d answers of %d bytes wait", kept, size)
		}
		session.Drop()
		w.end()
	})
}

func TestStopOfADeafServer(t *testing.T) {
	// In real time: while the session writes its goodbye, another of its goroutines
	// waits for a mutex, which would stop the clock of a synctest bubble.
	o := serverOptions()
	o.Fault = func(int) xmppserver.Fault { return xmppserver.Fault{Deaf: true} }
	server := xmppserver.NewUnlistened(o)
	defer server.Close()
	w := newWatched(t, testConfig("server:5347"), nil)
	w.inMemory(server)
	w.start()
	accept(t, server)
	w.end() // returns, although nobody reads
}

// TestReconnectPauses counts attempts in fake time: what may cure itself is tried
// again soon and then rarer, what an operator must cure rarely from the start.
func TestReconnectPauses(t *testing.T) {
	for _, tc := range []struct {
		name     string
		fault    xmppserver.Fault
		level    string
		attempts int // within ten minutes, the longest pauses drawn each time
		lines    int // in the log: the first, then not more than one a minute
		behind   int // attempts that may come after the last line
	}{
		// 0.5+1+2+4 s, then 5 s each: those at 0, 62.5, 122.5 s and so on are logged
		{"drop", xmppserver.Fault{Drop: true}, "WARN", 123, 10, 12},
		// 37.5 s each: every second one is logged
		{"wrong secret", xmppserver.Fault{OtherID: true}, "ERROR", 16, 8, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := serverOptions()
				o.Fault = func(int) xmppserver.Fault { return tc.fault }
				server := xmppserver.NewUnlistened(o)
				defer server.Close()
				var log bytes.Buffer
				w := newWatched(t, testConfig("server:5347"), slog.New(slog.NewTextHandler(&log, nil)))
				w.inMemory(server)
				w.backoff.random = func(n int64) int64 { return n - 1 }
				w.start()
				time.Sleep(10*time.Minute - time.Second)
				synctest.Wait()
				if w.Status().State != Waiting {
					t.Errorf("state %s", w.Status().State)
				}
				w.end()
				if n := server.Connections(); n != tc.attempts {
					t.Errorf("%d attempts, want %d", n, tc.attempts)
				}
				if n := strings.Count(log.String(), "level="+tc.level+` msg="component: not attached`); n != tc.lines {
					t.Errorf("%d lines at level %s for %d attempts, want %d:\n%s", n, tc.level, tc.attempts, tc.lines, &log)
				}
				skipped := tc.lines
				for _, m := range regexp.MustCompile(`not_logged_before=(\d+)`).FindAllStringSubmatch(log.String(), -1) {
					n, _ := strconv.Atoi(m[1])
					skipped += n
				}
				// What came after the last line is not in the log yet.
				if skipped > tc.attempts || skipped < tc.attempts-tc.behind {
					t.Errorf("the log speaks of %d failures, want nearly %d:\n%s", skipped, tc.attempts, &log)
				}
			})
		})
	}
}

// TestTwoInstances lets two links fight for one name at a server that lets the new
// one win, both as impatient as chance allows.
func TestTwoInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		var mu sync.Mutex
		var holder *xmppserver.Session
		var attached []time.Time
		var links []*watched
		for range 2 {
			server := xmppserver.NewUnlistened(serverOptions())
			defer server.Close()
			w := newWatched(t, testConfig("server:5347"), nil)
			w.inMemory(server)
			w.backoff.random = func(int64) int64 { return 0 }
			links = append(links, w)
			go func() {
				for {
					session, err := server.Accept(ctx)
					if err != nil {
						return
					}
					mu.Lock()
					if holder != nil {
						holder.Fail("conflict", "Replaced by a new connection")
					}
					holder = session
					attached = append(attached, time.Now())
					mu.Unlock()
				}
			}()
		}
		for _, w := range links {
			w.start()
			time.Sleep(time.Hour / 2)
		}
		for _, w := range links {
			w.end()
		}
		cancel()
		synctest.Wait()
		for i := 2; i < len(attached); i++ {
			if pause := attached[i].Sub(attached[i-1]); pause < 15*time.Second {
				t.Errorf("attachment %d came %v after the one before, want half of the longest pause at least", i, pause)
			}
		}
		if n := len(attached); n < 100 || n > 122 {
			t.Errorf("%d attachments in half an hour, want one every 15 s", n)
		}
	})
}

// TestRepeatedFailures logs the same failure once a minute and another at once.
func TestRepeatedFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		drop := func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.MessageKey {
				return slog.Attr{}
			}
			return a
		}
		f := &failureLog{to: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: drop}))}
		a := &LinkError{Reason: Refused, Text: "a"}
		for range 130 {
			f.log(a, 1500*time.Millisecond)
			time.Sleep(time.Second)
		}
		f.log(&LinkError{Reason: Refused, Text: "b"}, time.Second)
		f.log(&LinkError{Reason: NotAuthorized, Text: "b", Config: true}, time.Second)
		f.log(a, time.Second)
		want := `level=WARN reason=refused err=a retry_in=1.5s
level=WARN reason=refused err=a retry_in=1.5s not_logged_before=59
level=WARN reason=refused err=a retry_in=1.5s not_logged_before=59
level=WARN reason=refused err=b retry_in=1s not_logged_before=9
level=ERROR reason=not_authorized err=b retry_in=1s
level=WARN reason=refused err=a retry_in=1s
`
		if diff := cmp.Diff(want, log.String()); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

// TestAttached wants the call on every connection before its first stanza, though
// that comes in one segment with the end of the handshake.
func TestAttached(t *testing.T) {
	o := serverOptions()
	o.Fault = func(int) xmppserver.Fault { return xmppserver.Fault{Glue: logged("glued")} }
	server := startServer(t, o)
	cfg := testConfig(server.Addr())
	cfg.ReconnectMin, cfg.ReconnectMax = time.Millisecond, time.Millisecond
	w := newWatched(t, cfg, nil)
	w.began = func() { w.facts <- "attached" }
	w.start()
	for range 3 {
		w.wantFact("attached")
		w.wantFact("glued")
		accept(t, server).Drop()
	}
	w.wantFact("attached")
	w.end()
}

func TestPanicInAttachedCostsOneConnection(t *testing.T) {
	server := startServer(t, serverOptions())
	cfg := testConfig(server.Addr())
	cfg.ReconnectMin, cfg.ReconnectMax = time.Millisecond, time.Millisecond
	w := newWatched(t, cfg, nil)
	first := true
	w.began = func() {
		if first {
			first = false
			panic("bang")
		}
	}
	w.start()
	<-accept(t, server).Done()
	send(t, accept(t, server), logged("after"))
	w.wantFact("after")
	w.end()
}

func TestOldConnectionIsClosedBeforeTheNextDial(t *testing.T) {
	server := startServer(t, serverOptions())
	cfg := testConfig(server.Addr())
	cfg.ReconnectMin, cfg.ReconnectMax = time.Millisecond, time.Millisecond
	w := newWatched(t, cfg, nil)
	var open []*closeSpy
	dial := w.dial
	w.dial = func(ctx context.Context, address string) (net.Conn, error) {
		for i, c := range open {
			if !c.closed.Load() {
				t.Errorf("connection %d is open at the next dial", i)
			}
		}
		conn, err := dial(ctx, address)
		spy := &closeSpy{Conn: conn}
		open = append(open, spy)
		return spy, err
	}
	w.start()
	for range 3 {
		accept(t, server).Drop()
	}
	accept(t, server)
	w.end()
}

// closeSpy notes that somebody has closed the connection.
type closeSpy struct {
	net.Conn
	closed atomic.Bool
}

func (c *closeSpy) Close() error { c.closed.Store(true); return c.Conn.Close() }

func TestNoSecretInAnyOutput(t *testing.T) {
	for _, secret := range []string{testSecret, "a wrong one"} {
		synctest.Test(t, func(t *testing.T) {
			server := xmppserver.NewUnlistened(serverOptions())
			defer server.Close()
			var log bytes.Buffer
			cfg := testConfig("server:5347")
			cfg.Secret = config.Secret(secret)
			w := newWatched(t, cfg, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			heard := &recorder{}
			w.dial = func(context.Context, string) (net.Conn, error) {
				here, there := net.Pipe()
				server.Attach(there)
				heard.Conn = here
				return heard, nil
			}
			w.start()
			time.Sleep(time.Second)
			status, err := json.Marshal(w.Status())
			if err != nil {
				t.Fatal(err)
			}
			w.end()
			_, id, _ := strings.Cut(heard.read.String(), " id='")
			id, _, _ = strings.Cut(id, "'")
			digest := sha1.Sum([]byte(id + secret))
			for _, private := range []string{secret, hex.EncodeToString(digest[:])} {
				if id == "" || strings.Contains(log.String(), private) || strings.Contains(string(status), private) {
					t.Errorf("%q (stream %q) shows:\n%s\n%s", private, id, &log, status)
				}
			}
		})
	}
}

type recorder struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.read.Write(p[:n])
	return n, err
}

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		cfg        config.Component
		hosts      []string
	}{
		{"no hosts", "general.hosts", testConfig("localhost:1"), nil},
		{"no name", "component.name", config.Component{Address: "localhost:1"}, []string{testHost}},
		{"name with a localpart", "component.name", config.Component{Address: "localhost:1", Name: "a@b"}, []string{testHost}},
		{"no port", "component.address", testConfig("localhost"), []string{testHost}},
		{"missing CA file", "component.tls", config.Component{Address: "localhost:1", Name: testName, TLS: &config.TLS{CACertFile: "testdata/none.pem"}}, []string{testHost}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := New(tc.cfg, tc.hosts, Options{}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one about %s", err, tc.want)
			}
		})
	}
	if _, err := New(config.Component{Name: testName}, []string{testHost}, Options{}); err != nil {
		t.Errorf("zero values are not safe: %v", err)
	}
}

// TestServersWordBeforeItCloses has the server close at once after its stream error,
// so that repeating the error to it fails.
func TestServersWordBeforeItCloses(t *testing.T) {
	for range 20 {
		server := startServer(t, serverOptions())
		w := newWatched(t, testConfig(server.Addr()), nil)
		w.dial = func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := dialTCP(ctx, address)
			return &mute{Conn: conn}, err
		}
		ended := make(chan *LinkError, 1)
		go func() {
			_, err := w.connect(w.ctx)
			ended <- err
		}()
		accept(t, server).Fail("conflict", "Replaced by a new connection")
		if got := <-ended; got.Reason != Conflict {
			t.Fatalf("%s: %s", got.Reason, got.Text)
		}
		server.Close()
	}
}

// mute is a connection that takes no more than the handshake.
type mute struct {
	net.Conn
	writes int
}

func (m *mute) Write(b []byte) (int, error) {
	if m.writes++; m.writes > 2 {
		return 0, net.ErrClosed
	}
	return m.Conn.Write(b)
}

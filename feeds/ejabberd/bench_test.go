//go:build linux

package ejabberd_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"eventpusher/internal/harness"
)

// clockTicks is what a second has in /proc/PID/stat on Linux.
const clockTicks = 100

// cpu is what a process has used of all processors.
func cpu(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	// proc(5): utime and stime are the 14th and 15th field; the second may
	// contain spaces but ends at the last parenthesis.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			tb.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks
}

// BenchmarkCost measures what a message between two online users costs the
// server: without a feed, with mod_service_log and with mod_event_feed, in
// turns, so that all three have the same neighbours. An operation is a round of
// messages on each. What counts is
//
//	(feed - none) / (service_log - none), reported as x-service_log.
func BenchmarkCost(b *testing.B) {
	const messages = 5000
	variants := []struct {
		name    string
		options harness.EjabberdOptions
	}{
		{"none", harness.EjabberdOptions{}},
		{"service_log", harness.EjabberdOptions{ServiceLog: true}},
		{"event_feed", harness.EjabberdOptions{EventFeed: true}},
	}
	type lane struct {
		s          *harness.XMPPServer
		alice, bob *harness.Client
	}
	body := strings.Repeat("x", 100)
	round := func(l lane, n int) {
		for i := range n {
			l.alice.Sendf("<message type='headline' to='bob@localhost/desk'><body>%s</body></message>", body)
			if i%100 == 99 {
				l.alice.Ping()
			}
		}
		l.alice.Ping()
		l.bob.Ping()
	}
	var lanes []lane
	for _, v := range variants {
		s := harness.Ejabberd(b, v.options)
		l := lane{s, s.Login(b, "alice", "r1"), s.Login(b, "bob", "desk")}
		l.bob.Presence()
		// The same reader for all; it acknowledges where that is asked for.
		c := attach(b, s)
		c.discard, c.ackEvery = true, 100
		round(l, 500) // warm up
		lanes = append(lanes, l)
	}
	total := make([]time.Duration, len(lanes))
	for b.Loop() {
		for i, l := range lanes {
			before := cpu(b, l.s.PID())
			round(l, messages)
			total[i] += cpu(b, l.s.PID()) - before
		}
	}
	per := func(i int) float64 { return float64(total[i].Microseconds()) / float64(b.N*messages) }
	for i, v := range variants {
		b.ReportMetric(per(i), v.name+"-us/msg")
	}
	b.ReportMetric((per(2)-per(0))/(per(1)-per(0)), "x-service_log")
	b.ReportMetric(per(2)/per(1), "x-total")
}

// BenchmarkMissed measures what it costs the server to say who has missed a message, in
// a room with 1000 members of whom 200 are users without a session: one that is told of
// nobody, and one that is, in turns.
func BenchmarkMissed(b *testing.B) {
	const members, away, messages = 1000, 200, 2000
	users := []string{"alice"}
	for i := range away {
		users = append(users, fmt.Sprintf("user%d", i))
	}
	options := []string{"none", "members-only"}
	servers, alices := make([]*harness.XMPPServer, 2), make([]*harness.Client, 2)
	round := func(i, messages int) {
		for n := range messages {
			alices[i].Sendf("<message id='m%d' type='groupchat' to='club@%s'><body>How are you, number %d? The weather is fine.</body></message>", n, servers[i].MUC, n)
			if n%100 == 99 {
				alices[i].Ping()
			}
		}
		alices[i].Sendf("<iq type='get' id='end' to='club@%s'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>", servers[i].MUC)
		alices[i].Wait("the room", func(text string) bool { return strings.Contains(text, "disco#info") })
	}
	for i, option := range options {
		servers[i] = harness.Ejabberd(b, harness.EjabberdOptions{EventFeed: true, Users: users, EventFeedOptions: "    room_missed: " + option})
		c := attach(b, servers[i])
		c.discard, c.ackEvery = true, 100
		alices[i] = servers[i].Login(b, "alice", "r1")
		alices[i].Join("club", "ally")
		alices[i].MembersOnly("club", true)
		for n := range members {
			alices[i].Affiliate("club", fmt.Sprintf("user%d@%s member", n, map[bool]string{true: "localhost", false: "elsewhere.example"}[n < away]))
		}
		round(i, 200) // warm up
	}
	total := make([]time.Duration, 2)
	for b.Loop() {
		for i, s := range servers {
			before := cpu(b, s.PID())
			round(i, messages)
			total[i] += cpu(b, s.PID()) - before
		}
	}
	for i, option := range options {
		b.ReportMetric(float64(total[i].Microseconds())/float64(b.N*messages), option+"-us/msg")
	}
}

// BenchmarkReplay measures how long a user waits for an answer while 100 000
// events, or EVENT_FEED_REPLAY, are sent again.
func BenchmarkReplay(b *testing.B) {
	events := 100_000
	if n, err := strconv.Atoi(os.Getenv("EVENT_FEED_REPLAY")); err == nil {
		events = n
	}
	for b.Loop() {
		replay(b, events)
	}
}

// A replay of some thousand events while a user chats.
func TestReplay(t *testing.T) {
	t.Parallel()
	if got := replay(t, 3000); got.events < 3000 || got.pings == 0 {
		t.Errorf("%d events, %d pings", got.events, got.pings)
	}
}

type replayed struct{ events, pings int }

// drain takes and acknowledges events as fast as they come, up to the last one
// that is wanted. It parses nothing, so that the user who pings has the
// processors to himself and the server.
func drain(tb testing.TB, s *harness.XMPPServer, source, epoch string, position, last int) {
	conn, err := net.Dial("tcp", s.ComponentAddr(s.Component))
	if err != nil {
		tb.Error(err)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='%s'>", s.Component)
	control := func(verb string, seq int) {
		fmt.Fprintf(conn, "<message from='%s' to='%s'><%s xmlns='%s' source='%s' epoch='%s' seq='%d'/></message>",
			s.Component, s.Domain, verb, feedNS, source, epoch, seq)
	}
	// What begins as these do is followed by the value and a quote.
	const streamID, number = " id='", " seq='"
	said, acked := "", position
	buf, kept := make([]byte, 64<<10), []byte(nil)
	for acked < last {
		n, err := conn.Read(buf)
		if err != nil {
			tb.Errorf("drain at %d: %v", acked, err)
			return
		}
		kept = append(kept, buf[:n]...)
		switch {
		case said == "":
			_, after, _ := bytes.Cut(kept, []byte(streamID))
			if id, _, whole := bytes.Cut(after, []byte("'")); whole {
				digest := sha1.Sum(append(id, s.Secret...))
				fmt.Fprintf(conn, "<handshake>%s</handshake>", hex.EncodeToString(digest[:]))
				said, kept = "handshake", nil
			}
		case said == "handshake":
			if bytes.Contains(kept, []byte("</message>")) {
				control("resume", position)
				said, kept = "resume", nil
			}
		default:
			end := bytes.LastIndex(kept, []byte("</message>"))
			from := bytes.LastIndex(kept[:max(end, 0)], []byte(number))
			if from < 0 {
				continue
			}
			text, _, _ := bytes.Cut(kept[from+len(number):], []byte("'"))
			if seq, _ := strconv.Atoi(string(text)); seq >= acked+100 || seq >= last {
				control("ack", seq)
				acked = seq
			}
			kept = append(kept[:0], kept[end:]...)
		}
	}
}

func replay(tb testing.TB, events int) (got replayed) {
	s := harness.Ejabberd(tb, harness.EjabberdOptions{EventFeed: true})
	c := attach(tb, s)
	c.snapshot("position")
	c.disconnect()

	var senders sync.WaitGroup
	for i := range 4 {
		senders.Go(func() {
			client := s.Login(tb, "alice", fmt.Sprint("r", i))
			for n := range events / 4 {
				client.Send("<message type='headline' to='bob@localhost'><body>What was said while the component was away, about as long as people write</body></message>")
				if n%200 == 199 {
					client.Ping()
				}
			}
			client.Ping()
		})
	}
	senders.Wait()

	carol := s.Login(tb, "carol", "r1")
	var pings []time.Duration
	ping := func() {
		start := time.Now()
		carol.Ping()
		pings = append(pings, time.Since(start))
	}
	for range events / 15 { // about as many as during the replay
		ping()
	}
	quiet := slices.Max(pings)
	pings = nil
	start := time.Now()
	used := cpu(tb, s.PID())
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		drain(tb, s, c.hellos[0].Source, c.epoch, c.last, c.last+events)
	}()
	for running := true; running; {
		ping()
		select {
		case <-drained:
			running = false
		default:
		}
	}
	took := time.Since(start)
	slices.Sort(pings)
	got = replayed{events: events, pings: len(pings)}
	tb.Logf("%d events in %s (%.0f/s), %s CPU; %d pings, median %s, 99%% %s, worst %s; worst of as many before %s",
		got.events, took.Round(time.Millisecond), float64(got.events)/took.Seconds(), cpu(tb, s.PID())-used,
		len(pings), pings[len(pings)/2], pings[len(pings)*99/100], pings[len(pings)-1], quiet)
	if b, ok := tb.(*testing.B); ok {
		b.ReportMetric(float64(pings[len(pings)-1].Microseconds())/1000, "worst-ping-ms")
		b.ReportMetric(float64(got.events)/took.Seconds(), "events/s")
	}
	return got
}

//go:build linux

package prosody_test

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"eventpusher/internal/harness"
)

// drain is a component that reads as fast as it can, without decoding: it
// counts what was forwarded to it and acknowledges every 100 events.
type drain struct {
	*peer
	forwarded atomic.Int64
	ended     chan struct{}
}

// attachDrain connects a drain. With feed it takes part in the protocol.
func attachDrain(b testing.TB, s *harness.XMPPServer, feed bool) *drain {
	b.Helper()
	d := &drain{peer: connect(b, s), ended: make(chan struct{})}
	if feed {
		d.peer.greet()
	}
	b.Cleanup(func() {
		d.conn.Close()
		<-d.ended
	})
	go d.run(feed)
	return d
}

func (d *drain) run(feed bool) {
	defer close(d.ended)
	const word, number = "<forwarded ", " seq='"
	var buffer [64 << 10]byte
	kept := 0 // the end of the last chunk, which may hold the beginning of a word
	acked := 0
	for {
		n, err := d.conn.Read(buffer[kept:])
		if err != nil {
			return
		}
		text := buffer[:kept+n]
		d.forwarded.Add(int64(bytes.Count(text, []byte(word))))
		if i := bytes.LastIndex(text, []byte(number)); feed && i >= 0 {
			digits := text[i+len(number):]
			if end := bytes.IndexByte(digits, '\''); end > 0 {
				if seq, err := strconv.Atoi(string(digits[:end])); err == nil && seq-acked >= 100 {
					acked = seq
					fmt.Fprintf(d.conn, "<message from='events.localhost' to='%s'><ack xmlns='urn:eventpusher:feed:1' source='%s' epoch='%s' seq='%d'/></message>",
						d.host, d.source, d.epoch, seq)
				}
			}
		}
		// Less than a word is kept, so that none is counted twice.
		kept = copy(buffer[:], text[max(0, len(text)-len(word)+1):])
	}
}

// processorTime is what a process has used so far.
func processorTime(b testing.TB, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
	if err != nil {
		b.Fatal(err)
	}
	ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(ns)
}

// What a message from user to user costs Prosody: alone, with mod_firewall and
// the rules of docs/servers, with mod_event_feed. Rounds of the three alternate,
// and the median of each counts.
//
//	go test ./feeds/prosody -run '^$' -bench Cost -benchtime 1x
func BenchmarkCost(b *testing.B) {
	const messages, rounds = 4000, 7
	type contestant struct {
		name   string
		server *harness.XMPPServer
		alice  *harness.Client
		drain  *drain
		micros []float64
	}
	var all []*contestant
	for _, o := range []struct {
		name    string
		options harness.ProsodyOptions
	}{
		{"bare", harness.ProsodyOptions{}},
		{"firewall", harness.ProsodyOptions{FirewallRules: []string{"docs/servers/events.pfw"}}},
		{"feed", harness.ProsodyOptions{EventFeed: true}},
	} {
		o.options.Config = "log = { error = '/dev/null' }"
		c := &contestant{name: o.name, server: harness.Prosody(b, o.options)}
		c.drain = attachDrain(b, c.server, o.options.EventFeed)
		c.alice = c.server.Login(b, "alice", "r1")
		c.server.Login(b, "bob", "desk").Presence()
		all = append(all, c)
	}

	for b.Loop() {
		for round := range rounds {
			for _, c := range all {
				var text strings.Builder
				for i := range messages {
					fmt.Fprintf(&text, "<message id='r%dm%d' type='chat' to='bob@localhost/desk'><body>How are you, number %d? The weather is fine.</body></message>", round, i, i)
				}
				before, had := processorTime(b, c.server.PID()), c.drain.forwarded.Load()
				c.alice.Send(text.String())
				c.alice.Ping()
				for c.name != "bare" && c.drain.forwarded.Load()-had < messages {
					c.alice.Ping()
				}
				if round > 0 { // the first one warms up
					c.micros = append(c.micros, float64((processorTime(b, c.server.PID())-before).Microseconds())/messages)
				}
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	median := make(map[string]float64)
	for _, c := range all {
		sort.Float64s(c.micros)
		median[c.name] = c.micros[len(c.micros)/2]
		b.ReportMetric(median[c.name], c.name+"-µs/msg")
	}
	b.ReportMetric(median["feed"]/median["firewall"], "feed/firewall")
	b.ReportMetric((median["feed"]-median["bare"])/(median["firewall"]-median["bare"]), "added-feed/firewall")
}

// What it costs Prosody to say who has missed a message, in a room with 1000 members of
// whom 200 are users without a session: one that is told of nobody, and one that is, in
// turns.
//
//	go test ./feeds/prosody -run '^$' -bench Missed -benchtime 1x
func BenchmarkMissed(b *testing.B) {
	const members, away, messages, rounds = 1000, 200, 500, 7
	users := []string{"alice"}
	for i := range away {
		users = append(users, fmt.Sprintf("user%d", i))
	}
	options := []string{"none", "members-only"}
	servers, alices := make([]*harness.XMPPServer, 2), make([]*harness.Client, 2)
	for i, option := range options {
		servers[i] = harness.Prosody(b, harness.ProsodyOptions{
			EventFeed: true, Users: users, Config: "log = { error = '/dev/null' }\nevent_feed_room_missed = '" + option + "'",
		})
		attachDrain(b, servers[i], true)
		alices[i] = servers[i].Login(b, "alice", "r1")
		alices[i].Join("club", "ally")
		alices[i].MembersOnly("club", true)
		for n := range members {
			alices[i].Affiliate("club", fmt.Sprintf("user%d@%s member", n, map[bool]string{true: "localhost", false: "elsewhere.example"}[n < away]))
		}
	}
	micros := make([][]float64, 2)
	for b.Loop() {
		for round := range rounds {
			for i, s := range servers {
				before := processorTime(b, s.PID())
				for n := range messages {
					alices[i].Sendf("<message id='r%dm%d' type='groupchat' to='club@%s'><body>How are you, number %d? The weather is fine.</body></message>", round, n, s.MUC, n)
				}
				alices[i].Ping()
				if round > 0 {
					micros[i] = append(micros[i], float64((processorTime(b, s.PID())-before).Microseconds())/messages)
				}
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	for i, option := range options {
		sort.Float64s(micros[i])
		b.ReportMetric(micros[i][len(micros[i])/2], option+"-µs/msg")
	}
}

// A replay of what the ring holds while a user pings: how long the worst ping
// took before and during it, and how long the replay took.
//
//	go test ./feeds/prosody -run '^$' -bench Replay -benchtime 1x
func BenchmarkReplay(b *testing.B) {
	const events = 100_000
	// A goroutine that has to wait for another one would be counted as a slow ping.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	for _, window := range []int{512, events} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			s := harness.Prosody(b, harness.ProsodyOptions{
				EventFeed: true, Config: fmt.Sprintf("log = { error = '/dev/null' }\nevent_feed_window = %d", window),
			})
			alice, bob := s.Login(b, "alice", "r1"), s.Login(b, "bob", "desk")
			for range events / 1000 {
				alice.Send(strings.Repeat("<message type='headline' to='dave@localhost'><body>How are you? The weather is fine here today.</body></message>", 1000))
				alice.Ping()
			}
			// pings pings until done and returns the worst.
			pings := func(done func() bool) time.Duration {
				worst := time.Duration(0)
				for !done() {
					sent := time.Now()
					bob.Ping()
					worst = max(worst, time.Since(sent))
				}
				return worst
			}
			for b.Loop() {
				// What this machine does to a ping without a replay.
				idle := time.Now()
				b.ReportMetric(float64(pings(func() bool { return time.Since(idle) > time.Second }).Microseconds())/1000, "worst-ping-before-ms")
				start := time.Now()
				d := attachDrain(b, s, true)
				b.ReportMetric(float64(pings(func() bool { return d.forwarded.Load() >= events }).Microseconds())/1000, "worst-ping-ms")
				b.ReportMetric(time.Since(start).Seconds(), "replay-s")
			}
		})
	}
}

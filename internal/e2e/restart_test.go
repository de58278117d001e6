package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// pressure is a load whose senders know what the server has accepted: they ask it, by
// stream management (XEP-0198 section 4).
type pressure struct {
	t       *testing.T
	round   int
	clients []*harness.Client
	sent    [][]int // by client
	end     chan struct{}
	sending sync.WaitGroup
}

// press lets users send rate messages a second, numbered in a round, until stop or
// until the server goes.
func press(t *testing.T, server *harness.XMPPServer, round, rate int) *pressure {
	const senders = 4
	p := &pressure{t: t, round: round, sent: make([][]int, senders), end: make(chan struct{})}
	for i := range senders {
		c := server.Login(t, users[i%2], fmt.Sprintf("press%d-%d", round, i))
		c.EnableSM()
		p.clients = append(p.clients, c)
	}
	for i, c := range p.clients {
		p.sending.Go(func() {
			tick := time.NewTicker(senders * time.Second / time.Duration(rate))
			defer tick.Stop()
			for n := i + 1; ; n += senders {
				select {
				case <-p.end:
					return
				case <-tick.C:
				}
				err := c.TrySend(fmt.Sprintf("<message to='%s@localhost' type='chat' id='p%d-%d'><body>%d %d</body><no-store xmlns='urn:xmpp:hints'/></message><r xmlns='urn:xmpp:sm:3'/>",
					users[2+n%2], round, n, round, n))
				if err != nil {
					return // it may or may not have arrived
				}
				p.sent[i] = append(p.sent[i], n)
			}
		})
	}
	return p
}

// stop ends the load and returns the numbers of the messages that the server has
// accepted, which is all unless it has gone meanwhile.
func (p *pressure) stop(gone bool) (accepted []int) {
	p.t.Helper()
	close(p.end)
	p.sending.Wait()
	for i, c := range p.clients {
		if gone {
			c.WaitEnd()
		} else {
			await(p.t, "the acknowledgement of all", func() bool { return handled(c) == len(p.sent[i]) })
		}
		accepted = append(accepted, p.sent[i][:min(handled(c), len(p.sent[i]))]...)
	}
	return accepted
}

var handledCount = regexp.MustCompile(`^<a\b[^>]*\bh=["'](\d+)["']`)

// handled is how many of a client's stanzas the server says to have handled.
func handled(c *harness.Client) (n int) {
	for _, text := range c.Stanzas() {
		if m := handledCount.FindStringSubmatch(text); m != nil {
			n, _ = strconv.Atoi(m[1])
		}
	}
	return n
}

// presences lists what RabbitMQ has been told of a user.
func (w *world) presences(user string) (all []string) {
	for _, d := range w.consumer.All() {
		var p struct {
			User    string `json:"user_id"`
			Present bool
		}
		if d.Exchange != w.exchange("presence") || d.RoutingKey != user {
			continue
		}
		if err := json.Unmarshal(d.Body, &p); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%s %t", p.User, p.Present))
	}
	return all
}

// arrived waits until every service has the messages of a round.
func (w *world) arrived(round int, numbers []int) {
	w.t.Helper()
	missing := func() (list []string) {
		for name, got := range w.received(w.t) {
			n := 0
			for _, number := range numbers {
				if !got.has(round, number) {
					n++
				}
			}
			if n > 0 {
				list = append(list, fmt.Sprintf("%s lacks %d of %d", name, n, len(numbers)))
			}
		}
		return list
	}
	for range 4 {
		w.patiently(func() bool { return len(missing()) == 0 })
	}
	for _, text := range missing() {
		w.t.Errorf("round %d: %s", round, text)
	}
}

// opened tells when a port that is closed now has been opened.
func opened(t *testing.T, addr string) <-chan time.Time {
	at := make(chan time.Time, 1)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-t.Context().Done():
				return
			case <-tick.C:
			}
			if conn, err := net.Dial("tcp", addr); err == nil {
				conn.Close()
				at <- time.Now()
				return
			}
		}
	}()
	return at
}

// TestFeedServerRestart stops the server cleanly under load and starts it again: the
// program is back when it has to be, all that the server had accepted arrives, and who
// is gone is reported.
func TestFeedServerRestart(t *testing.T) {
	acknowledged(t, func(t *testing.T, f flavour) {
		const rate = 500 // messages a second
		server := f.start(t)
		w := newWorld(t, server.ComponentAddr(server.Component), "")
		gone := server.Login(t, "carol", "gone")
		gone.Presence()

		load := press(t, server, 0, rate)
		w.consumer.Wait(rate)
		server.Stop()
		accepted := load.stop(true)
		if len(accepted) < rate/4 {
			t.Errorf("only %d messages accepted before the stop: the load proves nothing", len(accepted))
		}
		await(t, "the end of the link", func() bool { return !w.ready() })
		open := opened(t, server.ComponentAddr(server.Component))
		server.Start()
		await(t, "readiness", w.ready)
		took := time.Since(<-open)
		t.Logf("figures: %s is restarted under %d messages/s: %d accepted before, ready again %v after its port was open",
			f.name, rate, len(accepted), took.Round(time.Millisecond))
		// The default of reconnect_max, and five times as much for what a busy machine adds.
		if took > 6*5*time.Second {
			t.Errorf("it took %v", took)
		}
		load = press(t, server, 1, rate)
		back := server.Login(t, "carol", "back")
		back.Presence()
		await(t, "some messages behind the restart", func() bool { return handled(load.clients[0]) > rate/8 })
		w.arrived(1, load.stop(false))
		w.arrived(0, accepted)
		want := []string{"carol@localhost/gone true", "carol@localhost/gone false", "carol@localhost/back true"}
		w.patiently(func() bool { return len(w.presences("carol@localhost")) >= len(want) })
		if diff := cmp.Diff(want, w.presences("carol@localhost")); diff != "" {
			t.Errorf("presence (-want +got):\n%s", diff)
		}
	})
}

//go:build soak

package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"eventpusher/internal/harness"
)

// TestSoakKill is TestKill with more load and longer rounds.
func TestSoakKill(t *testing.T) {
	killUnderLoad(t, 20, 1000, 500*time.Millisecond, 2*time.Second)
}

// TestSoakFeedKill is TestFeedKill with twenty seconds without the program.
func TestSoakFeedKill(t *testing.T) {
	acknowledged(t, func(t *testing.T, f flavour) { feedKill(t, f, 20*time.Second) })
}

// replayed is how many events the servers' modules keep for TestSoakFeedReplay.
const replayed = 100_000

// TestSoakFeedReplay starts the program when a module has kept 100 000 events, and has
// a user chat and ping while they come. The program is a process of its own, so that
// the user waits for the server and not for Go's scheduler.
func TestSoakFeedReplay(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) *harness.XMPPServer{
		"prosody": func(t *testing.T) *harness.XMPPServer {
			return harness.Prosody(t, harness.ProsodyOptions{EventFeed: true, Users: users,
				Config: "log = { error = '/dev/null' }\nevent_feed_buffer_events = 200000\nevent_feed_buffer_bytes = 256 * 1024 * 1024"})
		},
		"ejabberd": func(t *testing.T) *harness.XMPPServer {
			return harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true, Users: users,
				EventFeedOptions: "    buffer_events: 200000\n    buffer_bytes: 268435456\n"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			w, run := feedProcess(t, server)
			alice, bob, carol := server.Login(t, "alice", "fill"), server.Login(t, "bob", "desk"), server.Login(t, "carol", "pings")
			bob.Presence()
			// Headlines make no event for a service, so that the replay is all that happens.
			for range replayed / 1000 {
				alice.Send(strings.Repeat("<message type='headline' to='dave@localhost'><body>What was said while nobody listened, about as long as people write.</body></message>", 1000))
				alice.Ping()
			}
			var chats []int
			pings := func(done func() bool) (took []time.Duration) {
				for look := time.Now(); ; {
					if time.Since(look) > 100*time.Millisecond {
						if done() {
							slices.Sort(took)
							return took
						}
						look = time.Now()
						chats = append(chats, len(chats)+1)
						carol.Send(fmt.Sprintf("<message type='chat' id='chat%d' to='bob@localhost'><body>0 %[1]d</body></message>", len(chats)))
					}
					began := time.Now()
					carol.Ping()
					took = append(took, time.Since(began))
				}
			}
			quietUntil := time.Now().Add(5 * time.Second)
			quiet := pings(func() bool { return time.Now().After(quietUntil) })
			p := run()
			w.watch(p)
			began := time.Now()
			busy := pings(func() bool {
				all := w.sources()
				return len(all) == 1 && all[0].Committed > replayed
			})
			took := time.Since(began)
			t.Logf("figures: %s sends %d events again in %v (%.0f/s): %d pings, median %v, 99 %% %v, worst %v; without a replay worst %v of %d",
				name, replayed, took.Round(100*time.Millisecond), replayed/took.Seconds(), len(busy), busy[len(busy)/2],
				busy[len(busy)*99/100], busy[len(busy)-1], quiet[len(quiet)-1], len(quiet))
			// A replay in one piece stops Prosody for 13 s.
			if worst := busy[len(busy)-1]; worst > 2*time.Second {
				t.Errorf("a user has waited %v for an answer", worst)
			}
			w.arrived(0, chats)
			if s := w.source(); s.LostEvents+s.Holes+s.UnknownLosses+s.Duplicates != 0 {
				t.Errorf("not all has come, or not once: %+v", s)
			}
			bob.WaitFor(fmt.Sprintf("<body>0 %d</body>", len(chats)))
		})
	}
}

// leastRate is the part of its own rate that RabbitMQ must keep while another
// service is in trouble.
const leastRate = 0.95

// soak is a program under a steady load that the test spoils a service of.
type soak struct {
	*disk
	rate int // messages a second
}

func startSoak(t *testing.T, rate int) *soak {
	t.Helper()
	s := &soak{disk: onDisk(t, build(t), t.TempDir()), rate: rate}
	s.run(t)
	return s
}

// phase sends for a while and returns how many messages a second RabbitMQ has
// given to its consumer meanwhile.
func (s *soak) phase(t *testing.T, lasts time.Duration) (rate float64) {
	t.Helper()
	before, began := len(s.consumer.All()), time.Now()
	s.sent = load(t, s.session, 0, s.sent, s.rate, lasts)
	return float64(len(s.consumer.All())-before) / time.Since(began).Seconds()
}

// settled stops the program once everything has arrived everywhere, none of it as
// a dead letter.
func (s *soak) settled(t *testing.T) {
	t.Helper()
	for _, name := range []string{"http", "sns", "rabbit"} {
		await(t, "everything settled for "+name, func() bool { b := s.backend(name); return b.Waiting+b.InFlight == 0 })
		if b := s.backend(name); b.DeadLetters+b.Shed+b.Lost != 0 {
			t.Errorf("given up: %+v", b)
		}
	}
	s.allOnce(t, s.sent)
	if code := s.p.end(syscall.SIGTERM); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSoakHTTPTrouble lets the HTTP receiver refuse, hang and answer 500 for ten
// seconds each: nothing is lost, and RabbitMQ does not notice.
func TestSoakHTTPTrouble(t *testing.T) {
	s := startSoak(t, 300)
	s.phase(t, 3*time.Second) // connections are made, exchanges declared
	for _, trouble := range []struct {
		name       string
		begin, end func()
	}{
		{"refused", s.sink.Refuse, s.sink.Accept},
		{"hung", s.sink.Hang, func() { s.sink.Answer(http.StatusOK) }},
		{"answering 500", func() { s.sink.Answer(http.StatusInternalServerError) }, func() { s.sink.Answer(http.StatusOK) }},
	} {
		usual := s.phase(t, 10*time.Second)
		trouble.begin()
		delivered := s.backend("http").Delivered
		inTrouble := s.phase(t, 10*time.Second)
		if now := s.backend("http"); now.Delivered > delivered+100 || now.Waiting < 8*s.rate {
			t.Errorf("%s: that was no trouble: %+v", trouble.name, now)
		}
		trouble.end()
		ratio := inTrouble / usual
		t.Logf("figures: http %s for 10 s: RabbitMQ %.1f deliveries/s, before %.1f, ratio %.3f", trouble.name, inTrouble, usual, ratio)
		if ratio < leastRate {
			t.Errorf("%s: RabbitMQ has %.3f of its rate, want %.2f", trouble.name, ratio, leastRate)
		}
		await(t, "what waits for http", func() bool { return s.backend("http").Waiting < s.rate })
	}
	s.settled(t)
	t.Logf("figures: http trouble: %d messages sent, missing: %v", s.sent, t.Failed())
}

// TestSoakSNSOutage stops SNS for twenty seconds.
func TestSoakSNSOutage(t *testing.T) {
	s := startSoak(t, 200)
	usual := s.phase(t, 10*time.Second)
	s.sns.Stop()
	inTrouble := s.phase(t, 20*time.Second)
	if b := s.backend("sns"); b.Waiting < 15*s.rate {
		t.Errorf("that was no outage: %+v", b)
	}
	s.sns.Start()
	began := time.Now()
	s.phase(t, 2*time.Second)
	s.settled(t)
	t.Logf("figures: sns down for 20 s: %d messages sent, missing: %v, all settled %v after it was back; RabbitMQ's ratio %.3f",
		s.sent, t.Failed(), time.Since(began).Round(100*time.Millisecond), inTrouble/usual)
	if inTrouble/usual < leastRate {
		t.Errorf("RabbitMQ has %.3f of its rate, want %.2f", inTrouble/usual, leastRate)
	}
}

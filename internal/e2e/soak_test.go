//go:build soak

package e2e

import (
	"net/http"
	"syscall"
	"testing"
	"time"
)

// TestSoakKill is TestKill with more load and longer rounds.
func TestSoakKill(t *testing.T) {
	killUnderLoad(t, 20, 1000, 500*time.Millisecond, 2*time.Second)
}

// TestSoakFeedKill is TestFeedKill with twenty seconds without the program.
func TestSoakFeedKill(t *testing.T) {
	acknowledged(t, func(t *testing.T, f flavour) { feedKill(t, f, 20*time.Second) })
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

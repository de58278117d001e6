package e2e

import (
	"strings"
	"testing"

	"eventpusher/internal/harness"
)

// TestTurn loads the feed module into a running server under load, while another feed
// counts: no message is lost and none makes an event twice.
func TestTurn(t *testing.T) {
	const rate = 300 // messages a second
	shell := harness.NewErlangShell(t)
	for _, f := range []struct {
		name         string
		start        func() *harness.XMPPServer
		unload, load func(s *harness.XMPPServer)
	}{
		{
			"prosody",
			func() *harness.XMPPServer {
				return harness.Prosody(t, harness.ProsodyOptions{EventFeed: true, Firewall: true, Accounts: true, Users: users})
			},
			func(s *harness.XMPPServer) {
				s.Shell("module", "unload", "event_feed", "localhost")
				s.Shell("module", "unload", "event_feed", "conference.localhost")
			},
			func(s *harness.XMPPServer) { s.Shell("module", "load", "event_feed", "localhost") },
		},
		{
			"ejabberd",
			func() *harness.XMPPServer {
				return harness.Ejabberd(t, harness.EjabberdOptions{EventFeed: true, ServiceLog: true, Users: users, Eval: shell.Eval("")})
			},
			func(*harness.XMPPServer) { shell.Run(`gen_mod:stop_module(<<"localhost">>, mod_event_feed)`) },
			func(*harness.XMPPServer) { shell.Run(`gen_mod:start_module(<<"localhost">>, mod_event_feed)`) },
		},
	} {
		t.Run(f.name, func(t *testing.T) {
			server := f.start()
			f.unload(server)
			w := newWorld(t, server.ComponentAddr(server.Component), "")
			load := press(t, server, 0, rate)
			w.consumer.Wait(rate)
			before := handled(load.clients[0])
			f.load(server)
			await(t, "the event-feed", func() bool {
				_, metrics := w.get("/metrics")
				return strings.Contains(metrics, `eventpusher_feed_authority{class="message",feed="event-feed",host="localhost"} 1`)
			})
			await(t, "some messages after the turn", func() bool { return handled(load.clients[0]) > before+rate/2 })
			accepted := load.stop(false)
			w.arrived(0, accepted)
			for name, got := range w.received(t) {
				if n := got.repeats(0); n > 0 {
					t.Errorf("%s got %d of %d messages twice", name, n, len(accepted))
				}
			}
			_, metrics := w.get("/metrics")
			for line := range strings.Lines(metrics) {
				if strings.HasPrefix(line, "eventpusher_stanzas_total") && strings.Contains(line, "trust") && !strings.HasSuffix(line, " 0\n") {
					t.Logf("figures: %s", strings.TrimSpace(line))
				}
			}
		})
	}
}

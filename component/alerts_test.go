package component

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/component/trust"
	"eventpusher/internal/xmppserver"
)

// TestMissingFeedIsAlerted: a server that comes back without the module, as the positions
// on disk show, is no silence.
func TestMissingFeedIsAlerted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := xmppserver.NewUnlistened(serverOptions())
		defer server.Close()
		k := newKeeper(t)
		k.at["s1"], k.at["s2"] = place("s1", "e1", 7), place("s2", "e1", 9)
		cfg := testConfig("server:5347")
		cfg.MUCHosts = []string{"conference.example.org"}
		cfg.Forwarders = append(cfg.Forwarders, cfg.MUCHosts...)
		w := newWatched(t, cfg, slog.New(slog.DiscardHandler))
		w.registry = prometheus.NewRegistry()
		link, err := New(w.cfg, []string{testHost}, Options{Sink: k, Metrics: NewMetrics(w.registry)})
		if err != nil {
			t.Fatal(err)
		}
		k.link, w.Link = link, link
		w.inMemory(server)
		w.start()
		m := &feedModule{t: t, session: accept(t, server), source: "s1", epoch: "e1"}
		time.Sleep(trust.Patience - time.Second)
		if got := w.Status().Alerts; len(got) > 0 {
			t.Errorf("too early: %+v", got)
		}
		time.Sleep(time.Second)
		if got := w.Status().Alerts; len(got) != 1 || got[0].Partial || !strings.Contains(got[0].Text, "s1, s2") || got[0].Remedy == "" {
			t.Errorf("%+v", got)
		}
		m.hello(8, 8, "")
		m.wantHears("resume s1 e1 7", "snapshot s1")
		m.endSnapshot(8)
		m.acked(8)
		if got := w.Status().Alerts; len(got) != 1 || !got[0].Partial || !strings.Contains(got[0].Text, "s2") {
			t.Errorf("with one of two: %+v", got)
		}
		// The module is not loaded any more when the server comes back.
		m.session.Drop()
		time.Sleep(time.Second)
		accept(t, server)
		delete(k.at, "s1")
		delete(k.at, "s2")
		time.Sleep(trust.Patience)
		if got := w.Status().Alerts; len(got) != 1 || !strings.Contains(got[0].Text, testHost) {
			t.Errorf("of a feed that counted before: %+v", got)
		}
		w.end()
	})
}

package doctor

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"eventpusher/component"
	"eventpusher/config"
	"eventpusher/internal/xmppserver"
)

// watchLog is a log that a test may read at any time.
type watchLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *watchLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *watchLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestWatch has a host whose feed is heard only later: the log says so once, and again when
// it is over; the metric follows.
func TestWatch(t *testing.T) {
	server, err := xmppserver.New(xmppserver.Options{Component: "events.localhost", Secret: "secret", Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{}
	cfg.Component = config.Component{Address: server.Addr(), Name: "events.localhost", Secret: "secret", Forwarders: []string{"localhost"}}
	cfg.General.Hosts = []string{"localhost"}
	link, err := component.New(cfg.Component, cfg.General.Hosts, component.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var log watchLog
	registry := prometheus.NewRegistry()
	w := NewWatch(link, func() *config.Config { return cfg }, registry, slog.New(slog.NewTextHandler(&log, nil)))
	w.after, w.every = 10*time.Millisecond, 10*time.Millisecond
	ctx, stop := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = link.Run(ctx) })
	parts.Go(func() { _ = w.Run(ctx) })
	defer func() {
		stop()
		server.Close()
		parts.Wait()
	}()
	session, err := server.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	examined := make(chan struct{}, 1000)
	parts.Go(func() { // answers all that is asked
		for {
			q, err := session.Receive(ctx)
			if err != nil {
				return
			}
			if q.Type == "get" && q.To == "localhost" {
				examined <- struct{}{}
			}
			_ = session.Send("<iq type='result' id='" + q.ID + "' from='" + q.To + "' to='" + q.From + "'/>") // it may have gone
		}
	})
	wait := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s in\n%s", what, log.String())
			}
		}
	}
	warnings := func() (n float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if labels := m.GetLabel(); labels[0].GetValue() == "WARN" && labels[1].GetValue() == "localhost" {
					n += m.GetGauge().GetValue()
				}
			}
		}
		return n
	}
	wait("warning", func() bool { return strings.Contains(log.String(), "no feed was heard") })
	for range 3 {
		<-examined
	}
	if warnings() != 1 {
		t.Errorf("%v warnings", warnings())
	}
	_ = session.Send("<message from='localhost' to='events.localhost'><hello xmlns='urn:eventpusher:feed:1' source='s' epoch='e' first='1' next='2' hosts='localhost'/></message>" + spoken)
	wait("end", func() bool { return strings.Contains(log.String(), "this is over") })
	if warnings() != 0 {
		t.Errorf("%v warnings at the end", warnings())
	}
	if n := strings.Count(log.String(), "no feed was heard"); n != 1 || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "mod_event_feed") {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

//go:build linux

package rabbit_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"eventpusher/backends/backendtest"
	"eventpusher/config"
	"eventpusher/internal/harness"
)

func TestProbe(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	broker.AddUser("reader", "pw", ".*", "^nothing$", ".*")
	conn := broker.Dial()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.ExchangeDeclare("probed", "topic", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	queue, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(queue.Name, "#", "probed", false, nil); err != nil {
		t.Fatal(err)
	}
	discard := slog.New(slog.DiscardHandler)
	for _, tc := range []struct {
		name     string
		exchange config.Exchange
		change   func(*config.RabbitPool)
		want     []string
	}{
		{"all is well", config.Exchange{Name: "probed", Type: "topic"}, nil, []string{"OK login", "OK may be published to"}},
		{"not there", config.Exchange{Name: "probed_missing", Type: "topic"}, nil, []string{"OK login", "WARN not there yet"}},
		{"of another type", config.Exchange{Name: "probed", Type: "fanout"}, nil, []string{"OK login", "FAIL type"}},
		{"write permission", config.Exchange{Name: "probed", Type: "topic"}, func(p *config.RabbitPool) { p.Username, p.Password = "reader", "pw" },
			[]string{"OK login", "FAIL grant user \"reader\" the write permission"}},
		{"wrong password", config.Exchange{Name: "probed", Type: "topic"}, func(p *config.RabbitPool) { p.Password = "hunter2" }, []string{"FAIL login"}},
		{"no such virtual host", config.Exchange{Name: "probed", Type: "topic"}, func(p *config.RabbitPool) { p.VirtualHost = "none" }, []string{"FAIL virtual host"}},
		{"nobody there", config.Exchange{Name: "probed", Type: "topic"}, func(p *config.RabbitPool) { p.Port = 1 }, []string{"FAIL refused"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pool := poolFor(t, broker, broker.Addr())
			if tc.change != nil {
				tc.change(&pool)
			}
			b := newBackend(t, config.Rabbit{Chat: &tc.exchange}, pool, discard)
			backendtest.WantFindings(t, b.Probe(t.Context()), []string{"hunter2"}, tc.want...)
		})
	}
	// Nothing was created, and nothing was published.
	again, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := again.ExchangeDeclarePassive("probed_missing", "topic", false, false, false, false, nil); err == nil {
		t.Error("the probe has declared an exchange")
	}
	if state, err := ch.QueueDeclarePassive(queue.Name, false, true, true, false, nil); err != nil || state.Messages != 0 {
		t.Errorf("the queue has %d messages, %v", state.Messages, err)
	}
}

// A broker that takes connections and never says a word costs no more than the context
// allows.
func TestProbeOfASilentBroker(t *testing.T) {
	broker := harness.SharedRabbitMQ(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := l.Accept(); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	pool := poolFor(t, broker, l.Addr().String())
	b := newBackend(t, config.Rabbit{Chat: exchange()}, pool, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	backendtest.WantFindings(t, b.Probe(ctx), nil, "FAIL no answer")
	l.Close()
	<-served
}

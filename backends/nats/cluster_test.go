package nats_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/internal/harness"
)

// TestCluster: the server in use is killed and comes back. The events of a conversation,
// each repeated until it is taken, are in the stream once and in order.
func TestCluster(t *testing.T) {
	servers := harness.NATSCluster(t, harness.NATSOptions{})
	urls := make([]string, len(servers))
	for i, s := range servers {
		urls[i] = s.URL()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	watcher := connect(t, strings.Join(urls[1:], ","), natsgo.MaxReconnects(-1))
	retry(ctx, t, func() (err error) { // until the servers have elected a leader; before, nobody answers
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		watcher.stream, err = watcher.js.CreateStream(ctx, jetstream.StreamConfig{Name: streamName, Subjects: []string{"events"}, Replicas: 3})
		return err
	})
	b := build(t, destination(strings.Join(urls, ","), "events"), slog.New(slog.DiscardHandler))
	var want []string
	for n := range 30 {
		switch n {
		case 10:
			servers[0].Kill()
		case 20:
			servers[0].Start()
		}
		e := backendtest.Message(n)
		e.From, e.User = "alice@localhost/res", "alice@localhost"
		want = append(want, e.ID)
		retry(ctx, t, func() error {
			err := publish(t, b, e)[0]
			if reason := backends.Reason(err); reason == "permanent" || reason == "too_large" {
				t.Fatal(err)
			}
			return err
		})
	}
	var got []string
	for _, m := range watcher.messages() {
		got = append(got, m.Header.Get("Nats-Msg-Id"))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// retry repeats an attempt until it succeeds.
func retry(ctx context.Context, t *testing.T, attempt func() error) {
	t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := attempt()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

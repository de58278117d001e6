package nats_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/internal/harness"
)

// TestUnacknowledged: messages that are never acknowledged leave nothing behind that later ones
// would have to wait for.
func TestUnacknowledged(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{})
	broker := connect(t, server.URL())
	broker.create(jetstream.StreamConfig{Subjects: []string{"events"}, NoAck: true})
	b := build(t, destination(server.URL(), "events"), slog.New(slog.DiscardHandler))
	limits := b.Limits()
	for n := range 2*limits.Lanes + 1 { // more than the library lets wait
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		for _, err := range b.Publish(ctx, backendtest.Messages(n*limits.Batch, limits.Batch)) {
			if reason := backends.Reason(err); reason != "timeout" {
				t.Fatalf("%v (%q)", err, reason)
			}
		}
		cancel()
	}
	broker.create(jetstream.StreamConfig{Subjects: []string{"events"}})
	wantErrors(t, publish(t, b, backendtest.Message(0)), "")
}

package nats_test

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/shorten"
	"eventpusher/event"
	"eventpusher/internal/harness"
)

// TestShortened: with too_large = "truncate_body" the stream gets as much of a body as halving
// leaves, and the other events of the batch unchanged.
func TestShortened(t *testing.T) {
	server := harness.NATS(t, harness.NATSOptions{})
	broker := connect(t, server.URL())
	broker.create(jetstream.StreamConfig{Subjects: []string{"events"}})
	b := shorten.New(build(t, destination(server.URL(), "events"), slog.New(slog.DiscardHandler)))
	batch := backendtest.Messages(0, 3)
	batch[1].Body = strings.Repeat("x", 5*largest) // more than the stream takes, and less than the server
	whole := batch[1].Body
	for i, err := range b.Publish(t.Context(), batch) {
		if err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	got := make(map[string]event.Event)
	for _, m := range broker.messages() {
		var e event.Event
		if err := json.Unmarshal(m.Data, &e); err != nil {
			t.Fatal(err)
		}
		got[e.ID] = e
	}
	if cut := got[batch[1].ID]; len(cut.Body) < largest/4 || !strings.HasPrefix(whole, cut.Body) || cut.Metadata[backends.TruncatedKey] != true {
		t.Errorf("%d bytes are left, metadata %v", len(cut.Body), cut.Metadata)
	}
	if e := got[batch[2].ID]; e.Body != batch[2].Body || len(got) != 3 {
		t.Errorf("%d events, %q", len(got), e.Body)
	}
}

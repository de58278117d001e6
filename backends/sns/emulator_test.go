//go:build linux

package sns_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends"
	"eventpusher/backends/backendtest"
	"eventpusher/backends/sns"
	"eventpusher/config"
	"eventpusher/event"
	"eventpusher/internal/harness"
)

// emulated returns a backend for a running emulator.
func emulated(t *testing.T, e *harness.SNSEmulator, change func(*config.SNS)) *sns.Backend {
	t.Helper()
	c := options(e.Endpoint())
	c.Region, c.AccountID = e.Region, e.AccountID()
	if change != nil {
		change(&c)
	}
	b, err := sns.New(sns.Options{Name: sns.Name, Section: c, Hosts: []string{"localhost"}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestEmulatorTakesBatches(t *testing.T) {
	e := harness.SNS(t)
	e.CreateTopic("user_message_sent")
	e.CreateTopic("user_presence_updated")
	b := emulated(t, e, nil)
	batch := backendtest.Messages(0, 12)
	batch[5] = event.Event{ID: "online", Kind: event.UserStatus, From: "alice@localhost/r", User: "alice@localhost", Online: true}
	for i, err := range b.Publish(t.Context(), batch) {
		if err != nil {
			t.Errorf("event %d: %v", i, err)
		}
	}
	got := map[string]backendtest.Delivery{}
	for _, m := range e.WaitMessages("user_message_sent", 11) {
		attributes := map[string]string{}
		for name, a := range m.Attributes {
			attributes[name] = a.Type + ":" + a.Value
		}
		d := delivered(t, m.Message, attributes)
		got[d.ID] = d
	}
	for i, ev := range batch {
		if i == 5 {
			continue
		}
		want := backendtest.Delivery{ID: ev.ID, Body: ev.Body, Metadata: map[string]string{}}
		for key := range ev.Metadata {
			want.Metadata[key] = ev.Metadata.Text(key)
		}
		if diff := cmp.Diff(want, got[ev.ID]); diff != "" {
			t.Errorf("event %d (-want +got):\n%s", i, diff)
		}
	}
	presence := e.WaitMessages("user_presence_updated", 1)
	if presence[0].Message != `{"user_id":"alice@localhost","present":true}` {
		t.Errorf("presence %s", presence[0].Message)
	}
	// 10 and 1 messages; presence alone.
	if batches, singles := len(e.Calls("PublishBatch")), e.Calls("Publish"); batches != 1 || len(singles) != 2 ||
		!strings.Contains(singles[0].Authorization, "/"+e.Region+"/sns/") {
		t.Errorf("%d batches, single calls %v", batches, singles)
	}
}

func TestEmulatorFIFO(t *testing.T) {
	e := harness.SNS(t)
	e.CreateTopic("chat.fifo")
	b := emulated(t, e, func(c *config.SNS) { c.PMMessagesTopic = "chat.fifo" })
	batch := backendtest.Messages(0, 3)
	for range 2 { // the second round is recognised by its ids
		for i, err := range b.Publish(t.Context(), batch) {
			if err != nil {
				t.Errorf("event %d: %v", i, err)
			}
		}
	}
	messages := e.WaitMessages("chat.fifo", 3)
	ids := map[string]bool{}
	for _, m := range messages {
		ids[m.DeduplicationID] = true
	}
	if len(messages) != 3 || !ids[batch[0].ID] || !ids[batch[1].ID] || !ids[batch[2].ID] {
		t.Errorf("%d messages with ids %v, want those of 3 events", len(messages), ids)
	}
}

func TestEmulatorDownAndWithoutTopic(t *testing.T) {
	e := harness.SNS(t)
	b := emulated(t, e, nil)
	batch := backendtest.Messages(0, 2)
	for _, n := range []int{1, 2} {
		for i, err := range b.Publish(t.Context(), batch[:n]) {
			if backends.Reason(err) != "paused" || !strings.Contains(err.Error(), "create the topic") {
				t.Errorf("event %d without a topic: %v (%q), want paused", i, err, backends.Reason(err))
			}
		}
	}
	e.CreateTopic("user_message_sent")
	e.Stop()
	for i, err := range b.Publish(t.Context(), batch) {
		if backends.Reason(err) != "transient" || strings.Count(err.Error(), "127.0.0.1") > 2 {
			t.Errorf("event %d with SNS down: %v (%q), want transient", i, err, backends.Reason(err))
		}
	}
	e.Start()
	for i, err := range b.Publish(t.Context(), batch) {
		if err != nil {
			t.Errorf("event %d with SNS back: %v", i, err)
		}
	}
	e.WaitMessages("user_message_sent", 2)
}

package outbox_test

import (
	"testing"

	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/outboxtest"
)

func TestMemoryKeepsTheContract(t *testing.T) {
	outboxtest.Run(t, func(*testing.T, ...string) outbox.Outbox {
		return outbox.NewMemory(outbox.MemoryOptions{DeadLetters: outbox.NewRing(10_000)})
	})
}

func TestEmbeddedKeepsTheContract(t *testing.T) {
	outboxtest.Run(t, func(t *testing.T, backends ...string) outbox.Outbox {
		e, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: t.TempDir(), Backends: backends})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
		return e
	})
}

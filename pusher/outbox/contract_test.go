package outbox_test

import (
	"testing"

	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/outboxtest"
)

func TestEmbeddedKeepsTheContract(t *testing.T) {
	outboxtest.Run(t, func(t *testing.T, _ ...string) outbox.Outbox { return outboxtest.Open(t) })
}

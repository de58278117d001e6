package jetstream_test

import (
	"fmt"
	"testing"

	"eventpusher/internal/harness"
	"eventpusher/pusher/outbox"
	"eventpusher/pusher/outbox/jetstream"
	"eventpusher/pusher/outbox/outboxtest"
)

func TestKeepsTheContract(t *testing.T) {
	t.Parallel()
	server := harness.NATS(t, harness.NATSOptions{})
	n := 0
	outboxtest.Run(t, func(t *testing.T, backends ...string) outbox.Outbox {
		o := options(t, server, backends...)
		n++
		o.Prefix = fmt.Sprint("CONTRACT", n)
		e, err := jetstream.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		i := &instance{Engine: e, t: t}
		i.hold()
		t.Cleanup(i.close)
		return e
	})
}

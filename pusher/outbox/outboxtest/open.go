package outboxtest

import (
	"testing"

	"eventpusher/pusher/outbox"
)

// Open opens an empty outbox on the disk, which is closed at the end of the test.
func Open(t testing.TB) *outbox.Embedded {
	t.Helper()
	e, _, err := outbox.OpenEmbedded(outbox.EmbeddedOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

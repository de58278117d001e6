//go:build linux

package harness

import (
	"testing"
	"time"
)

// await asks again and again until done, for states that nothing announces. It
// fails the test after WaitLimit.
func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(WaitLimit)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("waited %s in vain for %s", WaitLimit, what)
		}
	}
}

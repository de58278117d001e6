//go:build linux

package rabbit

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"eventpusher/backends"
	"eventpusher/event"
)

// counting counts the writes that reach a connection.
type counting struct {
	io.Writer
	writes atomic.Int32
	fail   error
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	if c.fail != nil {
		return 0, c.fail
	}
	return c.Writer.Write(p)
}

// tap puts a counter into a session's connection.
func tap(s *session) *counting {
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	c := &counting{Writer: s.wire.out}
	s.wire.out = c
	return c
}

// TestBatchInFewWrites: small messages share their writes.
func TestBatchInFewWrites(t *testing.T) {
	b, s, batch := connected(t)
	wide := make([]event.Event, 100)
	for i := range wide {
		wide[i] = batch[0]
	}
	c := tap(s)
	for _, tc := range []struct {
		body string
		most int32
	}{{"hello", 5}, {strings.Repeat("x", 4<<10), 60}} {
		before := c.writes.Load()
		for i := range wide {
			wide[i].Body = tc.body
		}
		for i, err := range b.Publish(t.Context(), wide) {
			if err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
		}
		if n := c.writes.Load() - before; n < 1 || n > tc.most {
			t.Errorf("%d writes for 100 messages of %d bytes, want at most %d", n, len(tc.body), tc.most)
		}
	}
}

// TestWriteThatFails ends the connection: nothing that was held back counts as published.
func TestWriteThatFails(t *testing.T) {
	b, s, batch := connected(t)
	c := tap(s)
	c.fail = errors.New("cable cut")
	if err := b.Publish(t.Context(), batch)[0]; backends.Reason(err) != "transient" {
		t.Errorf("%v (%q), want transient", err, backends.Reason(err))
	}
	select {
	case <-s.gone:
	case <-time.After(time.Minute):
		t.Error("the connection lives on")
	}
	if err := b.Publish(t.Context(), batch)[0]; err != nil {
		t.Errorf("by a new connection: %v", err)
	}
}

package push

import (
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"eventpusher/event"
	"eventpusher/internal/jid"
)

// online returns messages to that many users, who are online.
func online(users int) []event.Event {
	f := fixture{now: time.Unix(1_700_000_000, 0)}
	list := make([]event.Event, users)
	for i := range list {
		e := f.message("1")
		e.User = jid.JID(fmt.Sprintf("user%d@example.org", i))
		e.ID, e.RecipientOffline = fmt.Sprintf("%032x", i), false
		list[i] = e
	}
	return list
}

// atInfo is a backend that logs as a production's does.
func atInfo() *Backend {
	return New(Options{Decider: asMongooseIM, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// TestWantsAllocatesNothing: most messages are for users who are online, and each of
// them is asked about before it is accepted.
func TestWantsAllocatesNothing(t *testing.T) {
	b, list := atInfo(), online(100)
	ask := func() {
		for i := range list {
			if b.Wants(&list[i]) {
				t.Fatal("wants a message to who is online")
			}
		}
	}
	ask()
	if n := testing.AllocsPerRun(10, ask); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkWantsOnline is what push costs a message that it has nothing to do with.
func BenchmarkWantsOnline(b *testing.B) {
	for _, users := range []int{100, 100_000} {
		b.Run(fmt.Sprint(users, " users"), func(b *testing.B) {
			backend, list := atInfo(), online(users)
			for i := range list {
				backend.Wants(&list[i])
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				backend.Wants(&list[i%users])
			}
		})
	}
}

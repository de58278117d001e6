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

// online returns a message to who is online, and users that it may be for.
func online(users int) (event.Event, []jid.JID) {
	f := fixture{now: time.Unix(1_700_000_000, 0)}
	e := f.message("1")
	e.ID, e.RecipientOffline = fmt.Sprintf("%032x", 1), false
	list := make([]jid.JID, users)
	for i := range list {
		list[i] = jid.JID(fmt.Sprintf("user%d@example.org", i))
	}
	return e, list
}

// atInfo is a backend that logs as a production's does.
func atInfo() *Backend {
	return New(Options{Decider: asMongooseIM, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// TestWantsAllocatesNothing: most messages are for users who are online, and each of
// them is asked about before it is accepted.
func TestWantsAllocatesNothing(t *testing.T) {
	b := atInfo()
	e, users := online(100)
	ask := func() {
		for _, e.User = range users {
			if b.Wants(&e) {
				t.Fatal("wants a message to who is online")
			}
		}
	}
	ask()
	if n := testing.AllocsPerRun(10, ask); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkWantsSent is what push costs a message that a user sends, who has read the
// conversation by that.
func BenchmarkWantsSent(b *testing.B) {
	backend := atInfo()
	e, list := online(1000)
	e.Direction, e.To = event.In, "alice@example.org/desk"
	b.ReportAllocs()
	for i := range b.N {
		e.User = list[i%len(list)]
		backend.Wants(&e)
	}
}

// BenchmarkWantsOnline is what push costs a message that it has nothing to do with.
func BenchmarkWantsOnline(b *testing.B) {
	for _, users := range []int{100, 100_000} {
		b.Run(fmt.Sprint(users, " users"), func(b *testing.B) {
			backend := atInfo()
			e, list := online(users)
			for _, e.User = range list {
				backend.Wants(&e)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				e.User = list[i%users]
				backend.Wants(&e)
			}
		})
	}
}

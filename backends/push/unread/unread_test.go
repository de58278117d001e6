package unread

import (
	"testing"
	"time"

	"eventpusher/internal/jid"
)

// TestLate: what a user has read before it came to be counted does not count
// when he has gone again.
func TestLate(t *testing.T) {
	at := func(second int) time.Time {
		return time.UnixMilli(1_700_000_000_000).Add(time.Duration(second) * time.Second)
	}
	u := New()
	expect := func(what string, user, with jid.JID, key string, second, count, total int) {
		t.Helper()
		if c, all := u.Add(&Message{User: user, With: with, Key: key, Time: at(second)}); c != count || all != total {
			t.Errorf("%s: %d of %d, want %d of %d", what, c, all, count, total)
		}
	}
	expect("first", "bob@x", "alice@x", "1", 1, 1, 1)
	u.Back("bob@x", at(3))
	expect("sent before he was back", "bob@x", "alice@x", "2", 2, 1, 1)
	expect("again", "bob@x", "alice@x", "2", 2, 1, 1)
	expect("sent after it", "bob@x", "alice@x", "4", 4, 1, 1)
	expect("late among others", "bob@x", "alice@x", "3", 3, 2, 2)
	expect("somebody else", "eve@x", "alice@x", "1", 1, 1, 1)
	expect("another conversation", "bob@x", "carol@x", "5", 5, 1, 2)
	u.Read("bob@x", "alice@x", at(7))
	expect("sent before he has answered", "bob@x", "alice@x", "6", 6, 1, 2)
	expect("what he has not answered", "bob@x", "carol@x", "6", 6, 2, 2)
	expect("sent after it", "bob@x", "alice@x", "8", 8, 1, 3)
	u.Clear()
	expect("a new turn", "bob@x", "carol@x", "9", 9, 1, 1)
}

package push

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/jid"
)

// TestUnreadLate: what a user has read before it came to be counted does not count
// when he has gone again.
func TestUnreadLate(t *testing.T) {
	at := func(second int) time.Time {
		return time.UnixMilli(1_700_000_000_000).Add(time.Duration(second) * time.Second)
	}
	u := newUnread()
	expect := func(what string, user, with jid.JID, key string, second, count, total int) {
		t.Helper()
		if c, all := u.add(user, with, key, at(second)); c != count || all != total {
			t.Errorf("%s: %d of %d, want %d of %d", what, c, all, count, total)
		}
	}
	expect("first", "bob@x", "alice@x", "1", 1, 1, 1)
	u.back("bob@x", at(3))
	expect("sent before he was back", "bob@x", "alice@x", "2", 2, 1, 1)
	expect("again", "bob@x", "alice@x", "2", 2, 1, 1)
	expect("sent after it", "bob@x", "alice@x", "4", 4, 1, 1)
	expect("late among others", "bob@x", "alice@x", "3", 3, 2, 2)
	expect("somebody else", "eve@x", "alice@x", "1", 1, 1, 1)
	expect("another conversation", "bob@x", "carol@x", "5", 5, 1, 2)
	u.read("bob@x", "alice@x", at(7))
	expect("sent before he has answered", "bob@x", "alice@x", "6", 6, 1, 2)
	expect("what he has not answered", "bob@x", "carol@x", "6", 6, 2, 2)
	expect("sent after it", "bob@x", "alice@x", "8", 8, 1, 3)
	u.clear()
	expect("a new turn", "bob@x", "carol@x", "9", 9, 1, 1)
}

// elsewhereCounted plays the instance that counts.
type elsewhereCounted struct {
	asked []UnreadMessage
	ok    bool
}

func (c *elsewhereCounted) Add(_ context.Context, m *UnreadMessage) (count, total int, ok bool) {
	c.asked = append(c.asked, *m)
	return 7, 9, c.ok
}

// TestUnreadElsewhere takes the number from whoever counts for all, and does without it.
func TestUnreadElsewhere(t *testing.T) {
	f := newFixture(t, asMongooseIM)
	counter := &elsewhereCounted{ok: true}
	f.AttachUnread(counter)
	f.enable(t, "push.example.net", "n", "")
	for _, c := range []struct {
		ok   bool
		want string
	}{{true, "7"}, {false, "1"}} {
		counter.ok = c.ok
		if err := f.publish(t, f.message(c.want)); err != nil {
			t.Fatal(err)
		}
		if got := f.network.take(); len(got) != 1 || !strings.Contains(got[0], "<field var='message-count'><value>"+c.want+"</value></field>") {
			t.Errorf("want the number %s in %q", c.want, got)
		}
	}
	want := []UnreadMessage{
		{User: "bob@example.org", With: "alice@example.org", Key: "e-7", Time: f.now},
		{User: "bob@example.org", With: "alice@example.org", Key: "e-1", Time: f.now},
	}
	if diff := cmp.Diff(want, counter.asked); diff != "" {
		t.Error(diff)
	}
}

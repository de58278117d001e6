package push

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/backends/push/unread"
)

// elsewhereCounted plays the instance that counts.
type elsewhereCounted struct {
	asked []unread.Message
	ok    bool
}

func (c *elsewhereCounted) Add(_ context.Context, m *unread.Message) (count, total int, ok bool) {
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
	want := []unread.Message{
		{User: "bob@example.org", With: "alice@example.org", Key: markOf("e-7").String(), Time: f.now},
		{User: "bob@example.org", With: "alice@example.org", Key: markOf("e-1").String(), Time: f.now},
	}
	if diff := cmp.Diff(want, counter.asked); diff != "" {
		t.Error(diff)
	}
}

//go:build linux

package prosody_test

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func (p *peer) snapshot(id string) {
	p.t.Helper()
	p.control(fmt.Sprintf("<snapshot xmlns='urn:eventpusher:feed:1' source='%s' id='%s'/>", p.source, id))
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	s := start(t, "event_feed_window = 10\nevent_feed_buffer_events = 40")
	alice, bob, carol := s.Login(t, "alice", "r1"), s.Login(t, "bob", "silent"), s.Login(t, "carol", "mobile")
	alice.Presence()
	alice.Send("<presence><show>dnd</show></presence>")
	bob.Ping()
	carol.EnableSM()
	carol.Send("<presence><show>xa</show></presence>")
	carol.Ping()
	carol.Drop()
	until(t, alice, "hibernates", "jid='carol@localhost/mobile'")
	gone := s.Login(t, "bob", "gone")
	gone.Presence()
	gone.CloseStream()

	p := attach(t, s)
	p.hello()
	p.resumeNothing()
	alice.Send("<message id='before' type='headline' to='dave@localhost'/>")
	p.until("before")
	p.snapshot("s&amp;1")
	settleSnapshot := func() []string {
		t.Helper()
		var all []string
		for {
			r := p.event()
			all = append(all, r.line())
			if r.Event.Kind == "snapshot-end" {
				return all
			}
		}
	}
	got := settleSnapshot()
	if len(got) > 2 {
		sort.Strings(got[1 : len(got)-1])
	}
	want := []string{
		"snapshot-start id=s&1",
		"snapshot alice@localhost/r1 id=s&1 <presence dnd>",
		"snapshot bob@localhost/silent id=s&1",
		"snapshot carol@localhost/mobile id=s&1 <presence xa>",
		"snapshot-end id=s&1 count=3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}

	// Far more sessions than the ring holds: nothing is lost for it. The second
	// request ends the first.
	for i := range 70 {
		s.Login(t, "dave", fmt.Sprintf("r%d", i))
		same(t, "event", p.event().Event.Kind, "session-start")
	}
	p.ack = 0
	p.snapshot("one")
	same(t, "first", p.event().Event.ID, "one")
	for range 9 {
		p.event() // and now the window is closed
	}
	p.snapshot("two")
	p.ack = 1
	p.acknowledge(p.last)
	got = settleSnapshot()
	seen := 0
	for _, line := range got {
		if strings.HasPrefix(line, "snapshot ") && strings.Contains(line, "id=two") {
			seen++
		}
	}
	if last := got[len(got)-1]; last != "snapshot-end id=two count=73" || seen != 73 {
		t.Errorf("%d sessions, then %s", seen, last)
	}
	p.silent()
}

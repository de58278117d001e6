//go:build linux

package ejabberd_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"eventpusher/internal/harness"
)

// A session of every kind, step by step on one server.
func TestKinds(t *testing.T) {
	s := harness.Ejabberd(t, harness.EjabberdOptions{
		EventFeed:  true,
		Components: []string{"events.localhost", "other.localhost"},
	})
	c := attach(t, s)
	other := s.AttachComponent(t, "other.localhost")
	var alice, alice2, bob, carol *harness.Client

	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{
			"a session begins", func() { alice = s.Login(t, "alice", "r1") },
			[]string{"session-start alice@localhost/r1"},
		},
		{
			"online, then away", func() {
				alice.Send("<presence/>")
				alice.Send("<presence><show>away</show></presence>")
				alice.Ping()
			},
			[]string{"online alice@localhost/r1 [presence ]", "presence alice@localhost/r1 [presence away]"},
		},
		{
			"directed presence and subscriptions are nobody's status", func() {
				alice.Send("<presence to='bob@localhost'/>")
				alice.Send("<presence to='bob@localhost' type='subscribe'/>")
				alice.Send("<presence to='bob@localhost' type='unavailable'/>")
				alice.Ping()
			},
			nil,
		},
		{
			"offline and offline again", func() {
				alice.Send("<presence type='unavailable'/>")
				alice.Send("<presence type='unavailable'/>")
				alice.Ping()
			},
			[]string{"offline alice@localhost/r1 [presence unavailable]"},
		},
	} {
		got := lines(c.step(step.do))
		if diff := cmp.Diff(step.want, got); diff != "" && len(step.want)+len(got) > 0 {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
	_, _, _, _ = alice2, bob, carol, other
	c.sound()
}

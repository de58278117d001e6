package translator

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
)

func TestSessionsOfTheEventFeed(t *testing.T) {
	const (
		on, off = "alice@localhost/1 user=alice@localhost count=1", "alice@localhost/1 user=alice@localhost count=0"
		first   = "online a/1: online " + on
		last    = "offline a/1: offline " + off
	)
	for _, tc := range []struct {
		name   string
		script []string
		want   []string
	}{
		{"a session", []string{"session-start a/1", "online a/1", "presence a/1", "offline a/1", "session-end a/1"}, []string{first, last}},
		{"per resource", []string{"session-start a/1", "online a/1", "session-start a/2", "online a/2", "offline a/1", "session-end a/1", "offline a/2", "session-end a/2"}, []string{
			first, "online a/2: online alice@localhost/2 user=alice@localhost count=2",
			"offline a/1: offline alice@localhost/1 user=alice@localhost count=1", "offline a/2: offline alice@localhost/2 user=alice@localhost count=0",
		}},
		{"goes and comes", []string{"session-start a/1", "online a/1", "offline a/1", "online a/1", "offline a/1"}, []string{first, last, first, last}},
		{"unavailable twice", []string{"session-start a/1", "online a/1", "offline a/1", "offline a/1", "session-end a/1"}, []string{first, last}},
		{"unavailable of one that never was, as MongooseIM", []string{"session-start a/1", "offline a/1", "offline a/1", "session-end a/1"}, []string{last}},
		{"never available", []string{"session-start a/1", "session-end a/1"}, nil},
		{"hibernation and resumption are silent", []string{"session-start a/1", "online a/1", "hibernate a/1", "resumed a/1", "presence a/1", "hibernate a/1", "resumed a/1"}, []string{first}},
		{"hibernation that expires", []string{"session-start a/1", "online a/1", "hibernate a/1", "offline a/1", "session-end a/1"}, []string{first, last}},
		{"an end without unavailable", []string{"session-start a/1", "online a/1", "session-end a/1"}, []string{first, "session-end a/1: offline " + off + " reconciled"}},
		{"an end of nobody", []string{"session-end a/1"}, nil},

		{"replaced, the old one goes first", []string{"session-start a/1", "online a/1", "offline a/1", "session-end a/1", "session-start a/1", "online a/1", "offline a/1", "session-end a/1"},
			[]string{first, last, first, last}},
		{"replaced, the old one goes later", []string{"session-start a/1", "online a/1", "session-start a/1", "offline a/1", "session-end a/1", "online a/1", "offline a/1", "session-end a/1"},
			[]string{first, last, first, last}},
		{"replaced, the old one goes when the new one has come", []string{"session-start a/1", "online a/1", "session-start a/1", "online a/1", "offline a/1", "session-end a/1", "presence a/1", "offline a/1", "session-end a/1"},
			[]string{first, "online a/1: offline " + off, first, last}},
		{"replaced, the old one ends without unavailable", []string{"session-start a/1", "online a/1", "session-start a/1", "session-end a/1", "online a/1", "offline a/1"},
			[]string{first, "session-end a/1: offline " + off + " reconciled", first, last}},
		{"replaced, the old one was never available", []string{"session-start a/1", "session-start a/1", "online a/1", "session-end a/1", "offline a/1", "session-end a/1"},
			[]string{first, last}},
		{"a second online is none", []string{"session-start a/1", "online a/1", "online a/1"}, []string{first}},

		{"found by an update", []string{"presence a/1", "presence a/1"}, []string{"presence a/1: online " + on + " reconciled"}},
		{"found in a snapshot", []string{"snapshot-start s", "snapshot a/1", "snapshot-end s"}, []string{"snapshot a/1: online " + on + " reconciled"}},
		{"not available in a snapshot", []string{"session-start a/1", "online a/1", "snapshot-start s", "bound a/1", "snapshot-end s"}, []string{first, "bound a/1: offline " + off + " reconciled"}},
		{"bound in a snapshot", []string{"snapshot-start s", "bound a/1", "snapshot-end s", "online a/1"}, []string{first}},
		{"a snapshot without a loss takes nobody away", []string{"session-start a/1", "online a/1", "snapshot-start s", "snapshot-end s", "presence a/1"}, []string{first}},

		{"not of this host", []string{"online x@remote.example/q", "offline conference.localhost/x", "online a"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			st.play(whole...)
			want(t, st.play(tc.script...), tc.want...)
		})
	}
}

func TestReconciliation(t *testing.T) {
	known := []string{"session-start a/1", "online a/1", "session-start a/2", "online a/2", "session-start b/1"}
	const (
		gone1  = "snapshot-end s: offline alice@localhost/1 user=alice@localhost count=1 reconciled"
		online = "online alice@localhost/1 user=alice@localhost count=2"
	)
	for _, tc := range []struct {
		name   string
		script []string
		want   []string
	}{
		{"nothing changed", []string{"lost", "snapshot-start s", "snapshot a/1", "snapshot a/2", "bound b/1", "snapshot-end s"}, nil},
		{"one has gone", []string{"lost", "snapshot-start s", "snapshot a/2", "bound b/1", "snapshot-end s"}, []string{gone1}},
		{"all have gone", []string{"lost", "snapshot-start s", "snapshot-end s"}, []string{
			"snapshot-end s: offline alice@localhost/2 user=alice@localhost count=1 reconciled",
			"snapshot-end s: offline alice@localhost/1 user=alice@localhost count=0 reconciled",
		}},
		{"one has come", []string{"lost", "snapshot-start s", "snapshot a/1", "snapshot a/2", "snapshot b/1", "snapshot-end s"}, []string{
			"snapshot b/1: online bob@localhost/1 user=bob@localhost count=1 unverified reconciled",
		}},
		{"a word after the loss is enough", []string{"lost", "presence a/1", "snapshot-start s", "resumed a/2", "snapshot-end s", "presence a/1"}, nil},
		{"a new session after the loss", []string{"lost", "online a/1"}, []string{
			"online a/1: offline alice@localhost/1 user=alice@localhost count=1 unverified reconciled", "online a/1: " + online + " unverified",
		}},
		{"a new session is bound after the loss", []string{"lost", "session-start a/1", "online a/1"}, []string{
			"session-start a/1: offline alice@localhost/1 user=alice@localhost count=1 unverified reconciled", "online a/1: " + online + " unverified",
		}},
		{"an end after the loss", []string{"lost", "offline a/1", "session-end a/1", "snapshot-start s", "snapshot a/2", "snapshot-end s"}, []string{
			"offline a/1: offline alice@localhost/1 user=alice@localhost count=1 unverified",
		}},
		{"the link is down", []string{"gap", "+48h"}, nil},
		{"nothing was missed", []string{"gap", "resume", "snapshot-start s", "snapshot-end s", "offline a/1"}, []string{
			"offline a/1: offline alice@localhost/1 user=alice@localhost count=1",
		}},
		{"a snapshot goes on over a new link", []string{"lost", "snapshot-start s", "snapshot a/2", "gap", "resume", "bound b/1", "snapshot-end s"}, []string{gone1}},
		{"another snapshot takes its place", []string{"lost", "snapshot-start r", "snapshot-start s", "snapshot-end r", "snapshot a/2", "snapshot-end s"}, []string{gone1}},
		{"abandoned for a loss", []string{"lost", "snapshot-start r", "lost", "snapshot-end r"}, nil},
		{"abandoned for another", []string{"lost", "snapshot-start r", "snapshot-start s", "snapshot-end r"}, nil},
		{"two losses", []string{"lost", "snapshot-start s", "snapshot a/1", "lost", "snapshot-start s", "snapshot a/1", "snapshot-end s", "snapshot-end s"}, []string{
			"snapshot-end s: offline alice@localhost/2 user=alice@localhost count=1 reconciled",
		}},
		{"repeated after a loss it does not count", []string{"snapshot-start s", "snapshot-end s", "lost", "again 2"}, nil},
		{"begun before a loss it does not count", []string{"snapshot-start s", "lost", "again 1", "snapshot-end s"}, nil},
		{"one of two under a resource ends after the loss", []string{"session-start a/1", "lost", "session-end a/1", "snapshot-start s", "snapshot a/2", "bound b/1", "snapshot-end s"}, []string{gone1}},
		{"and the other one lives on", []string{"session-start a/1", "lost", "session-end a/1", "snapshot-start s", "snapshot a/1", "snapshot a/2", "bound b/1", "snapshot-end s"}, nil},
		{"an unknown source", []string{"2:presence c/1", "2:snapshot-start s", "2:snapshot-end s"}, []string{
			"2:presence c/1: online carol@localhost/1 user=carol@localhost count=1 unverified reconciled",
		}},
		{"a source says nothing about another's", []string{"2:lost", "2:snapshot-start s", "2:snapshot-end s"}, nil},
		{"both ends after a loss", []string{"lost", "snapshot-start s", "snapshot a/2", "offline a/2", "snapshot-end s"}, []string{
			"offline a/2: offline alice@localhost/2 user=alice@localhost count=1 unverified",
			"snapshot-end s: offline alice@localhost/1 user=alice@localhost count=0 reconciled",
		}},
		{"stale for too long", []string{"lost", "+24h", "chat c/1 a", "snapshot-start s", "snapshot-end s"}, []string{
			`chat c/1 a: in chat carol@localhost/1 -> alice@localhost user=carol@localhost content "hi" count=0 id=m1 unverified`,
			`chat c/1 a: out chat carol@localhost/1 -> alice@localhost user=alice@localhost content "hi" count=0 id=m1 unverified`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			st.play(whole...)
			st.play(known...)
			want(t, st.play(tc.script...), tc.want...)
		})
	}
}

// A process that has just started, over a feed without a hole, fills its table in
// silence: the one before has told.
func TestSilentFill(t *testing.T) {
	st := newStage()
	want(t, st.play("resume", "snapshot-start s", "snapshot a/1", "bound b/1", "snapshot-end s"))
	if s := st.tr.Stats(); s.Resources != 1 || s.Sessions != 2 || s.Users != 2 {
		t.Errorf("%d resources, %d sessions, %d users; want 1, 2, 2", s.Resources, s.Sessions, s.Users)
	}
	want(t, st.play("offline a/1", "online b/1"), "offline a/1: offline alice@localhost/1 user=alice@localhost count=0",
		"online b/1: online bob@localhost/1 user=bob@localhost count=1")

	st = newStage()
	want(t, st.play("resume", "presence a/1", "offline b/1", "snapshot-start s", "snapshot a/1", "bound b/1", "snapshot-end s", "offline b/1"),
		"offline b/1: offline bob@localhost/1 user=bob@localhost count=0 unverified")

	// Not if something was missed.
	st = newStage()
	want(t, st.play("resume", "lost", "snapshot-start s", "snapshot a/1", "snapshot-end s"),
		"snapshot a/1: online alice@localhost/1 user=alice@localhost count=1 unverified reconciled")
}

func TestSessionsThatMove(t *testing.T) {
	both := []string{"resume", "2:resume", "snapshot-start s", "snapshot-end s", "2:snapshot-start s", "2:snapshot-end s", "session-start a/1", "online a/1", "+10s"}
	const (
		online  = "online alice@localhost/1 user=alice@localhost count=1"
		offline = "offline alice@localhost/1 user=alice@localhost count=0"
	)
	for _, tc := range []struct {
		name   string
		script []string
		want   []string
	}{
		{"in order", []string{"offline a/1", "session-end a/1", "2:session-start a/1", "2:online a/1"}, []string{
			"offline a/1: " + offline, "2:online a/1: " + online}},
		{"the old node is late", []string{"2:session-start a/1", "2:online a/1", "offline a/1", "session-end a/1", "2:offline a/1"}, []string{
			"2:session-start a/1: " + offline, "2:online a/1: " + online, "2:offline a/1: " + offline}},
		{"the new node lost the start", []string{"2:online a/1", "offline a/1", "session-end a/1"}, []string{
			"2:online a/1: " + offline, "2:online a/1: " + online}},
		{"resumed at another node", []string{"hibernate a/1", "+1s", "2:resumed a/1", "offline a/1", "session-end a/1", "2:presence a/1"}, nil},
		{"the old node's snapshot lacks it", []string{"2:resumed a/1", "lost", "snapshot-start s", "snapshot-end s"}, nil},
		{"the new node's snapshot has it", []string{"2:lost", "2:snapshot-start s", "2:snapshot a/1", "2:snapshot-end s", "lost", "snapshot-start s", "snapshot-end s"}, nil},
		{"the new node's snapshot has it without presence", []string{"2:lost", "2:snapshot-start s", "2:bound a/1"}, []string{
			"2:bound a/1: " + offline + " unverified reconciled"}},
		{"what the new node said before is late", []string{"2:session-start a/1", "2:online a/1"}, []string{
			"2:session-start a/1: " + offline, "2:online a/1: " + online}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			st.play(both...)
			want(t, st.play(tc.script...), tc.want...)
			if n := st.tr.Stats().Sessions; n > 1 {
				t.Errorf("%d sessions, want one at most", n)
			}
		})
	}
	t.Run("facts of before the move", func(t *testing.T) {
		st := newStage()
		st.play(both...)
		st.now -= 20 * time.Second // the second node's clock is right, its reports are late
		before := st.tr.Stats().Skipped[SkippedElsewhere]
		want(t, st.play("2:session-start a/1", "2:online a/1", "2:snapshot a/1", "2:offline a/1", "2:session-end a/1"))
		if n := st.tr.Stats().Skipped[SkippedElsewhere] - before; n != 5 {
			t.Errorf("%d facts counted as elsewhere, want 5", n)
		}
	})
}

// Events that the outbox refused are sent again and made again, the same with the
// same ids, whatever the table has learned meanwhile.
func TestSentAgain(t *testing.T) {
	for _, tc := range []struct {
		name   string
		script []string
	}{
		{"coming and going", []string{"session-start a/1", "online a/1", "presence a/1", "offline a/1", "offline a/1", "online a/1", "session-end a/1"}},
		{"coming", []string{"session-start a/1", "online a/1"}},
		{"going", []string{"session-start a/1", "online a/1", "offline a/1", "session-end a/1"}},
		{"a snapshot", []string{"session-start b/1", "online b/1", "lost", "snapshot-start s", "snapshot a/1", "presence c/1", "snapshot-end s", "offline a/1"}},
		{"a new session after a loss", []string{"session-start b/1", "online b/1", "lost", "online b/1", "offline b/1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var told [][]event.Event // by fact
			once := newStage()
			once.play(whole...)
			for _, line := range tc.script {
				if events := once.do(line); line != "lost" {
					told = append(told, events)
				}
			}
			for n := 1; n <= len(told); n++ {
				st := newStage()
				st.play(whole...)
				st.play(tc.script...)
				before := st.tr.Stats()
				st.do("resume")
				again := st.do(fmt.Sprintf("again %d", n))
				if diff := cmp.Diff(slices.Concat(told[len(told)-n:]...), again); diff != "" {
					t.Errorf("the last %d facts, first (-) and again (+):\n%s", n, diff)
				}
				if after := st.tr.Stats(); after.Sessions != before.Sessions || after.Resources != before.Resources {
					t.Errorf("the table had %d sessions and has %d", before.Sessions, after.Sessions)
				}
			}
		})
	}
}

// What was told is remembered for longer than a source can send it again, and not
// for ever.
func TestTellingsAreBounded(t *testing.T) {
	st := newStage()
	st.play(whole...)
	const facts = 3 * tellingsKept
	for i := range facts {
		st.do([]string{"online a/1", "offline a/1"}[i%2])
	}
	if n := len(st.tr.sessions.sources[1].tellings); n < tellingsKept || n > tellingsKept+300 {
		t.Errorf("%d tellings kept, want about %d", n, tellingsKept)
	}
	if got := st.do(fmt.Sprint("again ", tellingsKept)); len(got) != tellingsKept {
		t.Errorf("%d events when %d facts come again", len(got), tellingsKept)
	}
	if got := st.do(fmt.Sprint("again ", facts)); len(got) < tellingsKept || len(got) > tellingsKept+300 {
		t.Errorf("%d events when all facts come again", len(got))
	}
}

// A server that names itself anew all the time does not fill the memory.
func TestSourcesAreBounded(t *testing.T) {
	tr := newTranslator()
	for i := range maxSources + 100 {
		m := module{source: fmt.Sprint("s", i), epoch: "e"}
		tr.Translate(m.report("online", fmt.Sprintf("alice@localhost/%d", i), time.Duration(i)*time.Second), nil)
	}
	s := tr.Stats()
	if n := len(tr.sessions.sources); n != maxSources+1 || len(tr.sessions.byName) != maxSources {
		t.Errorf("%d sources, %d names, want %d", n-1, len(tr.sessions.byName), maxSources)
	}
	if s.Sessions != maxSources || s.Ghosts != 100 {
		t.Errorf("%d sessions, %d ghosts; want %d, 100", s.Sessions, s.Ghosts, maxSources)
	}
	if tr.sessions.byName["s50"] != 0 || tr.sessions.byName["s200"] == 0 {
		t.Error("not the source that was silent for longest has given way")
	}
}

// The event-feed tells of the end of sessions, so none has to give way.
func TestBoundSessionsDoNotGiveWay(t *testing.T) {
	st := newStage()
	st.play(whole...)
	for i := range 3 * DefaultMaxResources {
		st.do(fmt.Sprintf("session-start a/%d", i))
		st.do(fmt.Sprintf("online a/%d", i))
	}
	if s := st.tr.Stats(); s.Resources != 3*DefaultMaxResources || s.Ghosts != 0 {
		t.Errorf("%d resources, %d ghosts", s.Resources, s.Ghosts)
	}
}

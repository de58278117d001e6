package translator

import (
	"testing"

	"eventpusher/event"
)

func TestSettled(t *testing.T) {
	const (
		gone = "settled: offline alice@localhost/1 user=alice@localhost count=0 unverified reconciled"
		on   = "online alice@localhost/1 user=alice@localhost count=1"
	)
	for _, tc := range []struct {
		name           string
		before, script []string
		want           []string
	}{
		{"gone while the link was down", []string{"privilege online a/1"}, []string{"gap", "settled"}, []string{gone}},
		{"told once", []string{"privilege online a/1"}, []string{"gap", "settled", "settled", "privilege offline a/1"}, []string{gone}},
		{"still there", []string{"privilege online a/1"}, []string{"gap", "repeated online a/1", "settled", "privilege offline a/1"}, []string{
			"privilege offline a/1: offline alice@localhost/1 user=alice@localhost count=0 unverified"}},
		{"come meanwhile", nil, []string{"gap", "repeated online a/1", "settled"}, []string{"repeated online a/1: " + on + " unverified reconciled"}},
		{"without a gap", []string{"privilege online a/1"}, []string{"settled"}, nil},
		{"another gap", []string{"privilege online a/1"}, []string{"gap", "repeated online a/1", "gap", "settled"}, []string{gone}},
		{"one of two", []string{"privilege online a/1", "privilege online a/2"}, []string{"gap", "repeated online a/2", "settled"}, []string{
			"settled: offline alice@localhost/1 user=alice@localhost count=1 unverified reconciled"}},
		{"comes back", []string{"privilege online a/1"}, []string{"gap", "settled", "privilege online a/1"}, []string{gone, "privilege online a/1: " + on + " unverified"}},
		{"known by subscription", []string{"direct online a/1"}, []string{"gap", "settled"}, []string{
			"settled: offline alice@localhost/1 user=alice@localhost count=0 reconciled"}},
		{"a feed that repeats nothing", []string{"service_log online a/1"}, []string{"gap", "settled"}, nil},
		{"known by the event-feed", []string{"resume", "snapshot-start s", "snapshot-end s", "online a/1"}, []string{"gap", "settled"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st := newStage()
			st.play(tc.before...)
			want(t, st.play(tc.script...), tc.want...)
		})
	}
}

func TestSettledIsOfOneHost(t *testing.T) {
	st := newStage()
	st.play("privilege online a/1", "gap")
	before := st.tr.Stats()
	if got := st.tr.Settled("other.example", nil, nil); len(got) != 0 {
		t.Errorf("another host's end of snapshot gave %q", showAll(got))
	}
	if got := st.tr.Settled("remote.example", nil, nil); len(got) != 0 {
		t.Errorf("a foreign host's end of snapshot gave %q", showAll(got))
	}
	kept := event.Event{ID: "kept"}
	got := st.tr.Settled("localhost", nil, []event.Event{kept})
	if len(got) != 2 || got[0].ID != "kept" || len(got[1].ID) != 32 {
		t.Fatalf("%+v", got)
	}
	e := got[1]
	if e.Packet != "<presence xmlns='jabber:client' from='alice@localhost/1' type='unavailable'/>" || e.Dialect != "privilege" ||
		e.Host != "localhost" || !e.Time.Equal(start) {
		t.Errorf("%+v", e)
	}
	after := st.tr.Stats()
	if after.Events != before.Events+1 || after.Resources != 0 || after.Users != 0 {
		t.Errorf("%+v after %+v", after, before)
	}
}

// On a stock ejabberd mod_service_log says who comes, and a subscription to any node of
// ours says who has gone.
func TestEndsBySubscription(t *testing.T) {
	st := newStage()
	want(t, st.play("service_log online a/1", "service_log online a/2", "direct offline a/1", "direct offline a/1", "direct offline a/2", "service_log online a/1", "gap", "settled"),
		"service_log online a/1: online alice@localhost/1 user=alice@localhost count=1 unverified",
		"service_log online a/2: online alice@localhost/2 user=alice@localhost count=2 unverified",
		// Sessions of who has not granted a subscription may have ended unseen.
		"direct offline a/1: offline alice@localhost/1 user=alice@localhost count=1 unverified",
		"direct offline a/2: offline alice@localhost/2 user=alice@localhost count=0",
		"service_log online a/1: online alice@localhost/1 user=alice@localhost count=1 unverified",
	)
	out := st.do("chat b/1 a")[1]
	if out.SessionCount != 1 || !out.Unverified || out.RecipientOffline {
		t.Errorf("%s", show(&out))
	}
}

// A host whose feed gets better: the sessions known from the lesser one become the
// event-feed's, and those that it does not know have gone.
func TestFromALesserFeed(t *testing.T) {
	st := newStage()
	st.play("service_log online a/1", "service_log online a/2", "service_log online b/1", "service_log online c/1")
	want(t, st.play("resume", "presence a/1", "online c/1", "snapshot-start s", "snapshot a/1", "snapshot b/1", "snapshot c/1", "snapshot-end s",
		"offline a/1", "session-end a/1", "session-start b/1", "online b/1", "offline b/1", "session-end b/1"),
		"snapshot-end s: offline alice@localhost/2 user=alice@localhost count=1 reconciled",
		"offline a/1: offline alice@localhost/1 user=alice@localhost count=0",
		"online b/1: offline bob@localhost/1 user=bob@localhost count=0",
		"online b/1: online bob@localhost/1 user=bob@localhost count=1",
	)
}

package translator

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"eventpusher/event"
)

func TestAccountRemoved(t *testing.T) {
	for name, tc := range map[string]struct {
		user   string
		reason Reason
		made   bool
	}{
		"a user":                  {"bob@localhost", 0, true},
		"a session":               {"bob@localhost/1", SkippedForeign, false},
		"a host":                  {"localhost", SkippedForeign, false},
		"elsewhere":               {"bob@remote.example", SkippedForeign, false},
		"a room":                  {"tea@conference.localhost", SkippedForeign, false},
		"somebody never heard of": {"zoe@localhost", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage()
			st.play("resume", "session-start b/1", "online b/1")
			before := st.tr.Stats()
			s := st.modules["1"].report("account-removed", tc.user, 0)
			events := st.tr.Translate(s, nil)
			after := st.tr.Stats()
			if after.Sessions != 1 || after.Resources != 1 {
				t.Errorf("the presence table has %+v", after)
			}
			if !tc.made {
				if len(events) != 0 || after.Skipped[tc.reason] != before.Skipped[tc.reason]+1 {
					t.Errorf("%v, counted %+v", events, after)
				}
				return
			}
			want := []event.Event{{
				ID: events[0].ID, Kind: event.Removed, From: s.Report.User, User: s.Report.User, Time: start, Host: "localhost", Dialect: "event-feed",
			}}
			if diff := cmp.Diff(want, events); diff != "" || len(events[0].ID) != 32 {
				t.Errorf("%q (-want +got):\n%s", events[0].ID, diff)
			}
			again := st.do("again 1")
			if diff := cmp.Diff(events, again); diff != "" {
				t.Errorf("sent again (-first +again):\n%s", diff)
			}
		})
	}
}

// TestAccountRemovedAndSessions: servers end the sessions of an account before they tell
// of its end (Prosody) or after (ejabberd), and nothing is left of them.
func TestAccountRemovedAndSessions(t *testing.T) {
	end := []string{"offline b/1", "session-end b/1", "session-end b/2"}
	for name, script := range map[string][]string{
		"before": append(append([]string{}, end...), "account-removed b"),
		"after":  append([]string{"account-removed b"}, end...),
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage()
			st.play(whole...)
			st.play("session-start b/1", "online b/1", "session-start b/2")
			st.play(script...)
			if s := st.tr.Stats(); s.Users != 0 || s.Sessions != 0 || s.Resources != 0 {
				t.Errorf("the presence table has %+v", s)
			}
			var kinds []string
			for _, e := range st.seen[len(st.seen)-2:] {
				kinds = append(kinds, e.Kind.String()+" "+e.Type)
			}
			want := []string{"user_status offline", "account_removed "}
			if name == "after" {
				want[0], want[1] = want[1], want[0]
			}
			if diff := cmp.Diff(want, kinds); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestTimeOfAccountRemoved: of a report that comes at once it is the receipt's, since
// what was asked for before was received before; of one that comes late the server's.
func TestTimeOfAccountRemoved(t *testing.T) {
	for name, tc := range map[string]struct {
		at, want time.Time
	}{
		"now":                    {start, start},
		"a moment ago":           {start.Add(-prompt + time.Millisecond), start},
		"while we were away":     {start.Add(-prompt), start.Add(-prompt)},
		"long ago":               {start.Add(-reportKept), start.Add(-reportKept)},
		"longer than we believe": {start.Add(-reportKept - 1), start},
		"a clock that is ahead":  {start.Add(time.Minute), start},
		"a clock that is wrong":  {start.Add(time.Hour), start},
		"no time":                {time.Time{}, start},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStage()
			s := st.modules["1"].report("account-removed", "bob@localhost", 0)
			s.Report.At = tc.at
			events := st.tr.Translate(s, nil)
			if len(events) != 1 || !events[0].Time.Equal(tc.want) {
				t.Errorf("%v, want %v", events, tc.want)
			}
		})
	}
}

package doctor_test

import (
	"testing"
	"time"

	"eventpusher/internal/doctor"
	"eventpusher/internal/finding"
	"eventpusher/pusher"
	"eventpusher/pusher/outbox"
)

// noLetters is an outbox without dead letters.
type noLetters struct{}

func (noLetters) List(outbox.LetterFilter) ([]outbox.DeadLetter, error) { return nil, nil }

func TestWaiting(t *testing.T) {
	for name, c := range map[string]struct {
		status pusher.BackendStatus
		want   string
	}{
		"nothing":            {pusher.BackendStatus{State: pusher.Closed}, "OK 0 events to deliver, 0 parked, breaker closed"},
		"an old failure":     {pusher.BackendStatus{State: pusher.Closed, Waiting: 1, LastError: "503"}, "OK 1 event to deliver, 0 parked, breaker closed"},
		"parked":             {pusher.BackendStatus{State: pusher.Closed, Waiting: 80, Parked: 80, OldestAge: pusher.Age(time.Hour), LastError: "503"}, "WARN 80 events to deliver, 80 parked, breaker closed, the oldest for 1h0m0s: 503"},
		"parked, restarted":  {pusher.BackendStatus{State: pusher.Closed, Waiting: 2, Parked: 1, OldestAge: pusher.Age(time.Minute)}, "WARN 2 events to deliver, 1 parked, breaker closed"},
		"slow":               {pusher.BackendStatus{State: pusher.Closed, Waiting: 2, OldestAge: pusher.Age(time.Hour)}, "WARN 2 events to deliver, 0 parked, breaker closed, the oldest for 1h0m0s"},
		"its breaker opened": {pusher.BackendStatus{State: pusher.Open, Parked: 1, LastError: "503"}, "WARN 0 events to deliver, 1 parked, breaker open: 503"},
		"paused":             {pusher.BackendStatus{State: pusher.Paused, Waiting: 3, Parked: 1, LastError: "401"}, "FAIL 3 events to deliver, 1 parked, breaker paused: 401"},
	} {
		t.Run(name, func(t *testing.T) {
			c.status.Name = "hook"
			list := doctor.Waiting(pusher.Status{Backends: []pusher.BackendStatus{c.status}}, noLetters{})
			if got := string(list[0].Level) + " " + list[0].Text; got != c.want || len(list) != 2 || list[1].Level != finding.OK {
				t.Errorf("%v\nwant %s", list, c.want)
			}
		})
	}
}

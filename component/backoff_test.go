package component

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	const low, high, rare = 500 * time.Millisecond, 5 * time.Second, 30 * time.Second
	type step struct {
		config bool
		reason Reason
		lived  time.Duration
		want   time.Duration
	}
	for _, tc := range []struct {
		name   string
		random func(int64) int64
		steps  []step
	}{
		{"doubles up to the longest pause", func(n int64) int64 { return n - 1 }, []step{
			{want: low}, {want: 2 * low}, {want: 4 * low}, {want: 8 * low}, {want: high}, {want: high}}},
		{"never nothing", func(int64) int64 { return 0 }, []step{{want: low / 4}, {want: low / 4}}},
		{"full jitter", func(n int64) int64 { return n / 2 }, []step{{want: low / 2}, {want: low}, {want: 2 * low}}},
		{"a long life starts anew, a short one does not", func(n int64) int64 { return n - 1 }, []step{
			{want: low}, {want: 2 * low}, {lived: settled - 1, want: 4 * low}, {lived: settled, want: low}, {want: 2 * low}}},
		{"replaced", func(n int64) int64 { return n - 1 }, []step{
			{reason: Conflict, lived: 1, want: rare}, {reason: Conflict, lived: 1, want: rare}, {reason: Closed, lived: 1, want: high}}},
		{"replaced after a long life", func(n int64) int64 { return n - 1 }, []step{
			{reason: Conflict, lived: time.Hour, want: rare}, {want: high}, {lived: time.Hour, want: low}}},
		{"replaced, shortest", func(int64) int64 { return 0 }, []step{{reason: Conflict, lived: time.Hour, want: rare / 2}}},
		{"the name is taken", func(n int64) int64 { return n - 1 }, []step{{reason: Conflict, want: low}, {reason: Conflict, want: 2 * low}}},
		{"configuration does not end the series", func(n int64) int64 { return n - 1 }, []step{
			{want: low}, {config: true, want: rare + rare/4}, {want: 2 * low}}},
		{"configuration is slow at once", func(n int64) int64 { return n - 1 }, []step{
			{config: true, want: rare + rare/4}, {config: true, want: rare + rare/4}, {want: low}}},
		{"configuration, shortest", func(int64) int64 { return 0 }, []step{{config: true, want: rare}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBackoff(low, high)
			b.random = tc.random
			for i, s := range tc.steps {
				if got := b.next(&LinkError{Reason: s.reason, Config: s.config}, s.lived); got != s.want {
					t.Errorf("step %d: %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

// A life is short below half a minute, however impatient the configuration is.
func TestBackoffOfAShortMaximum(t *testing.T) {
	b := newBackoff(time.Second, 4*time.Second)
	b.random = func(n int64) int64 { return n - 1 }
	for i, want := range []time.Duration{1, 2, 4, 4} {
		if got := b.next(&LinkError{Reason: Closed}, settled-1); got != want*time.Second {
			t.Errorf("step %d: %v, want %v", i, got, want*time.Second)
		}
	}
	if got := b.next(&LinkError{Reason: Closed}, settled); got != time.Second {
		t.Errorf("after a long life: %v, want 1s", got)
	}
}

func TestBackoffNeverOverflows(t *testing.T) {
	b := newBackoff(time.Hour, 100*time.Hour)
	for range 200 {
		if d := b.next(&LinkError{Reason: Closed}, 0); d < 0 || d > 100*time.Hour {
			t.Fatalf("pause %v", d)
		}
	}
}

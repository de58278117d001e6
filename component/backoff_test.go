package component

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	const low, high = 500 * time.Millisecond, 30 * time.Second
	type step struct {
		config bool
		lived  time.Duration
		want   time.Duration
	}
	for _, tc := range []struct {
		name   string
		random func(int64) int64
		steps  []step
	}{
		{"doubles up to the longest pause", func(n int64) int64 { return n - 1 }, []step{
			{want: low}, {want: 2 * low}, {want: 4 * low}, {want: 8 * low}, {want: 16 * low}, {want: 32 * low}, {want: high}, {want: high}}},
		{"never nothing", func(int64) int64 { return 0 }, []step{{want: low / 4}, {want: low / 4}}},
		{"full jitter", func(n int64) int64 { return n / 2 }, []step{{want: low / 2}, {want: low}, {want: 2 * low}}},
		{"a long life starts anew, a short one does not", func(n int64) int64 { return n - 1 }, []step{
			{want: low}, {want: 2 * low}, {lived: high - 1, want: 4 * low}, {lived: high, want: low}, {want: 2 * low}}},
		{"configuration is slow at once", func(n int64) int64 { return n - 1 }, []step{
			{config: true, want: high + high/4}, {config: true, want: high + high/4}, {want: low}}},
		{"configuration, shortest", func(int64) int64 { return 0 }, []step{{config: true, want: high}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBackoff(low, high)
			b.random = tc.random
			for i, s := range tc.steps {
				if got := b.next(s.config, s.lived); got != s.want {
					t.Errorf("step %d: %v, want %v", i, got, s.want)
				}
			}
		})
	}
}

func TestBackoffNeverOverflows(t *testing.T) {
	b := newBackoff(time.Hour, 100*time.Hour)
	for range 200 {
		if d := b.next(false, 0); d < 0 || d > 100*time.Hour {
			t.Fatalf("pause %v", d)
		}
	}
}

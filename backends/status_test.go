package backends_test

import (
	"net/http"
	"testing"
	"time"

	"eventpusher/backends"
)

func TestAskedPause(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, tc := range []struct {
		name, value, date string
		want              time.Duration
	}{
		{"absent", "", "", 0},
		{"seconds", "120", "", 2 * time.Minute},
		{"spaces", " 120 ", "", 2 * time.Minute},
		{"zero", "0", "", 0},
		{"negative", "-5", "", 0},
		{"a year", "31536000", "", 24 * time.Hour},
		{"beyond int64", "99999999999999999999999", "", 24 * time.Hour},
		{"below int64", "-99999999999999999999999", "", 0},
		{"date", at(90 * time.Second), "", 90 * time.Second},
		{"date in the past", at(-time.Hour), "", 0},
		{"date far off", at(300 * 24 * time.Hour), "", 24 * time.Hour},
		{"date by the receiver's clock", at(time.Hour), at(59 * time.Minute), time.Minute},
		{"date beside a broken Date", at(time.Minute), "yesterday", time.Minute},
		{"fraction", "1.5", "", 0},
		{"words", "later", "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := http.Header{}
			h.Set("Retry-After", tc.value)
			h.Set("Date", tc.date)
			if got := backends.AskedPause(h, now); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

package component

import (
	"context"
	"log/slog"
	"time"
)

// failureEvery is how often the same failure of the link is mentioned.
const failureEvery = time.Minute

// failureLog logs why the link is down: what is new at once, what was said last only
// once in a while. One goroutine at a time.
type failureLog struct {
	to      *slog.Logger
	reason  Reason
	text    string
	last    time.Time
	skipped int
}

// log says what only an operator can cure at error level.
func (f *failureLog) log(err *LinkError, pause time.Duration) {
	now := time.Now()
	if err.Reason == f.reason && err.Text == f.text && now.Sub(f.last) < failureEvery {
		f.skipped++
		return
	}
	level := slog.LevelWarn
	if err.Config {
		level = slog.LevelError
	}
	attrs := []slog.Attr{
		slog.String("reason", string(err.Reason)), slog.String("err", err.Text), slog.Duration("retry_in", pause.Round(time.Millisecond)),
	}
	if f.skipped > 0 {
		attrs = append(attrs, slog.Int("not_logged_before", f.skipped))
	}
	f.reason, f.text, f.last, f.skipped = err.Reason, err.Text, now, 0
	f.to.LogAttrs(context.Background(), level, "component: not attached to the XMPP server", attrs...)
}

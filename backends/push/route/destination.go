package route

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"eventpusher/backends"
)

const (
	// tripFailures in a row let a destination rest for firstRest. Then one notification at a
	// time is sent. The rest doubles with each that fails, up to longestRest; for the
	// operator's destinations it stays at firstRest.
	tripFailures = 5
	firstRest    = 5 * time.Second
	longestRest  = 10 * time.Minute
	// tripOwners is how many users the failures have to concern where the destination is the
	// operator's: what one user has registered must not hold up the others.
	tripOwners = 3
)

// destination is one destination. Its fields belong to the mutex of Routes.
type destination struct {
	key   Key
	quick bool // the last answer came within slowAfter
	slow  int  // places of the pool

	failures int      // in a row
	owners   []string // of these failures, at most tripOwners
	asked    time.Duration
	tripped  bool
	probing  bool
	rest     time.Duration
	until    time.Time
}

// resting returns nil if a notification may be sent.
func (d *destination) resting(now time.Time) error {
	switch {
	case !d.tripped:
		return nil
	case d.probing:
		return backends.Wait(firstRest/2+rand.N(firstRest), ErrResting)
	case now.Before(d.until):
		left := d.until.Sub(now)
		return backends.Wait(left+rand.N(max(left/4, firstRest/4)), ErrResting)
	}
	return nil
}

// answered notes an answer. The function that it returns writes to the log; it may be nil.
func (d *destination) answered(p *pass, err error, now time.Time, log *slog.Logger) func() {
	if aboutOne(err) {
		d.failures, d.owners, d.asked = 0, d.owners[:0], 0
		if d.tripped {
			d.tripped, d.rest = false, 0
			return d.says(log, slog.LevelInfo, "push: a destination works again", nil)
		}
		return nil
	}
	if errors.As(err, new(*backends.ElsewhereError)) {
		return nil // it says nothing of others
	}
	d.failures++
	if len(d.owners) < tripOwners && !slices.Contains(d.owners, p.owner) {
		d.owners = append(d.owners, p.owner)
	}
	var after *backends.RetryAfterError
	if errors.As(err, &after) {
		d.asked = max(d.asked, min(after.After, longestRest))
	}
	switch {
	case d.tripped && !p.probe: // it was sent before
		return nil
	case d.tripped:
		if d.key.Chosen {
			d.rest = min(2*d.rest, longestRest)
		}
		d.until = now.Add(d.pause())
		return nil
	case !d.trips(err):
		return nil
	}
	d.tripped, d.rest = true, firstRest
	d.until = now.Add(d.pause())
	return d.says(log, slog.LevelWarn, "push: a destination fails; its notifications wait", err)
}

// pause returns for how long the destination rests: what it has asked for counts once it
// has asked several users' notifications.
func (d *destination) pause() time.Duration {
	if len(d.owners) < tripOwners {
		return d.rest
	}
	return max(d.rest, d.asked)
}

// trips reports whether a destination that has failed rests.
func (d *destination) trips(err error) bool {
	if d.key.Chosen {
		// One that says nothing holds a lane for long.
		silent := errors.Is(err, context.DeadlineExceeded) && d.failures > 1
		return silent || d.failures >= tripFailures
	}
	return d.failures >= tripFailures && len(d.owners) >= tripOwners
}

// says returns what writes a line. What users choose is told at debug only, since they could
// fill the log.
func (d *destination) says(log *slog.Logger, level slog.Level, message string, err error) func() {
	if d.key.Chosen {
		level = slog.LevelDebug
	}
	attrs := []slog.Attr{slog.String("destination", d.key.String())}
	if err != nil {
		attrs = append(attrs, slog.Any("err", err))
	}
	return func() { log.LogAttrs(context.Background(), level, message, attrs...) }
}

// aboutOne reports whether an answer is about one notification, which shows that the
// destination works.
func aboutOne(err error) bool {
	switch backends.Reason(err) {
	case "", "gone", "permanent", "too_large":
		return true
	}
	return false
}

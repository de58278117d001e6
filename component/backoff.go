package component

import (
	"math/rand/v2"
	"time"
)

// backoff says how long to wait before the next attempt: full jitter over an
// exponential ceiling, so that many components do not return to a restarted
// server at the same moment.
type backoff struct {
	min, max time.Duration
	ceiling  time.Duration       // of the pause after the next failure
	random   func(n int64) int64 // in [0,n); rand.Int64N outside tests
}

func newBackoff(min, max time.Duration) *backoff {
	return &backoff{min: min, max: max, ceiling: min, random: rand.Int64N}
}

// next returns the pause after a failure. A stream that had lived for at least
// max ends the series of failures.
// What only an operator can cure is tried again rarely: after max and up to a
// quarter more.
func (b *backoff) next(config bool, lived time.Duration) time.Duration {
	if lived >= b.max || config {
		b.ceiling = b.min
	}
	if config {
		return b.max + time.Duration(b.random(int64(b.max/4)+1))
	}
	// A pause of nothing would be a busy loop against a server that drops us at once.
	pause := max(b.min/4, time.Duration(b.random(int64(b.ceiling)+1)))
	if b.ceiling < b.max/2 {
		b.ceiling *= 2
	} else {
		b.ceiling = b.max
	}
	return pause
}

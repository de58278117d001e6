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

// rare is the pause where trying again soon does no good.
func (b *backoff) rare() time.Duration { return 6 * b.max }

// settled is how long a stream must have lived at least to end a series of failures.
const settled = 30 * time.Second

// next returns the pause after a failure of a stream that had lived for so long,
// zero if it was never established. A long life ends the series of failures, unless
// another connection took our place.
//
// What only an operator can cure is tried again rarely: after rare and up to a
// quarter more. So is a stream that was replaced, after half of that to all of it: where
// the new connection wins (Prosody's kick_old), two instances would throw each other
// out as fast as they return, and one that is being relieved would come back.
func (b *backoff) next(failed *LinkError, lived time.Duration) time.Duration {
	replaced := failed.Reason == Conflict && lived > 0
	switch {
	case failed.Config:
		return b.rare() + time.Duration(b.random(int64(b.rare()/4)+1))
	case replaced:
		b.ceiling = b.max
		return b.rare()/2 + time.Duration(b.random(int64(b.rare()-b.rare()/2)+1))
	case lived >= max(b.max, settled):
		b.ceiling = b.min
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

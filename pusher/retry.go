package pusher

import (
	"errors"
	"math/rand/v2"
	"time"

	"eventpusher/backends"
)

// The common retry schedule: full jitter under an exponential ceiling.
const (
	retryBase    = 100 * time.Millisecond
	retryCap     = 30 * time.Second
	retryLongest = time.Hour // the longest pause that a service may ask for
)

// delay returns how long an event rests after its failures-th counted failure
// (from 1), and whether that is the service's own wish.
func delay(limits *backends.Limits, failures int, err error) (pause time.Duration, firm bool) {
	switch {
	case failures <= limits.QuickRetries && limits.QuickDelay != nil:
		pause = max(limits.QuickDelay(failures), 0)
	default:
		pause = rand.N(retryCeiling(failures - limits.QuickRetries))
	}
	var after *backends.RetryAfterError
	if errors.As(err, &after) && after.After > 0 {
		return max(pause, min(after.After, retryLongest)), true
	}
	return pause, false
}

// retryCeiling returns the longest pause before the n-th retry of the common schedule.
func retryCeiling(n int) time.Duration {
	ceiling := retryBase
	for ; n > 1 && ceiling < retryCap; n-- {
		ceiling *= 2
	}
	return min(ceiling, retryCap)
}

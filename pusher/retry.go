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
func delay(limits *backends.Limits, failures int, err error) (pause time.Duration, asked bool) {
	switch {
	case failures <= limits.QuickRetries && limits.QuickDelay != nil:
		pause = max(limits.QuickDelay(failures), 0)
	default:
		pause = rand.N(retryCeiling(failures - limits.QuickRetries))
	}
	if asked := askedPause(err); asked > 0 {
		return max(pause, asked), true
	}
	return pause, false
}

// askedPause returns the pause that the service asked for, 0 when it did not.
func askedPause(err error) time.Duration {
	var after *backends.RetryAfterError
	if errors.As(err, &after) {
		return min(after.After, retryLongest)
	}
	return 0
}

// retryCeiling returns the longest pause before the n-th retry of the common schedule.
func retryCeiling(n int) time.Duration {
	ceiling := retryBase
	for ; n > 1 && ceiling < retryCap; n-- {
		ceiling *= 2
	}
	return min(ceiling, retryCap)
}

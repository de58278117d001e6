package sns

import (
	"math/rand/v2"
	"time"
)

// maxQuickDelay bounds the doubling; MongooseIM's has no bound.
const maxQuickDelay = time.Hour

// quickDelay returns MongooseIM's pause before retry n, counted from 1, with
// publish_retry_time_ms as unit: with k = n-1 it lies between (2^k-1)*unit and
// 2^k*unit - 1 ms, so 0-49, 50-99, 150-199 ms for 50 ms. A unit of 0, at which
// MongooseIM crashes, means no pause.
func quickDelay(n int, unit time.Duration) time.Duration {
	ms := unit.Milliseconds()
	if ms < 1 || n < 1 {
		return 0
	}
	ceiling := ms
	for range n - 1 {
		if ceiling *= 2; ceiling > maxQuickDelay.Milliseconds() {
			return maxQuickDelay
		}
	}
	return time.Duration(ceiling-1-rand.Int64N(ms)) * time.Millisecond
}

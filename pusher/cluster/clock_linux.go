package cluster

import (
	"time"

	"golang.org/x/sys/unix"
)

// boot returns the time since the machine was started. Steps of the wall clock do not
// change it, and unlike Go's monotonic clock it goes on while the machine is suspended
// (CLOCK_BOOTTIME, clock_gettime(2)).
func boot() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return monotonic()
	}
	return time.Duration(t.Nano())
}

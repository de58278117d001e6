package backendtest

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Timer adds up what a contender in a benchmark takes.
type Timer struct {
	wall, cpu time.Duration // cpu is that of the whole process
}

// Run runs the contender for a turn.
func (t *Timer) Run(b *testing.B, turn func()) {
	b.Helper()
	began, used := time.Now(), processorTime(b)
	turn()
	t.wall += time.Since(began)
	t.cpu += processorTime(b) - used
}

// Report reports the rate of a backend after that many events, and its ratio to the rate of the
// bare client, which has taken turns with it. ratio is by the clock, and depends on what else the
// machine does; cpu is by the processor time of this process, and does not.
func Report(b *testing.B, ours, theirs *Timer, events int) {
	b.ReportMetric(float64(theirs.wall)/float64(ours.wall), "ratio")
	b.ReportMetric(float64(theirs.cpu)/float64(ours.cpu), "cpu")
	b.ReportMetric(float64(events)/ours.wall.Seconds(), "msg/s")
	b.ReportMetric(float64(ours.wall.Nanoseconds())/float64(events), "ns/op")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

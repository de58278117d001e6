package pushtest

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// StartSink runs a server that takes everything, for benchmarks.
func StartSink(t testing.TB) *Server {
	s := &Server{}
	s.start(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	return s
}

// lanes is how many calls Measure makes at once.
const lanes = 64

// Measure calls send b.N times and reports how many a second, and the CPU time that
// each takes, which a busy machine does not change. That and the allocations are those
// of both ends.
func Measure(b *testing.B, send func() error) {
	b.Helper()
	if err := send(); err != nil { // connects
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	var done atomic.Int64
	var senders sync.WaitGroup
	for range lanes {
		senders.Go(func() {
			for done.Add(1) <= int64(b.N) {
				if err := send(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	senders.Wait()
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/push")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "push/s")
}

// cpuTime is what the process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

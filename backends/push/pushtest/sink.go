package pushtest

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// StartSink runs a server that takes everything, for benchmarks.
func StartSink(t testing.TB) *Server {
	s := &Server{}
	s.start(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	return s
}

// lanes is how many calls Measure makes at once.
const lanes = 64

// Measure calls send b.N times and reports how many a second. What b says of
// allocations counts both ends.
func Measure(b *testing.B, send func() error) {
	b.Helper()
	if err := send(); err != nil { // connects
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
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
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "push/s")
}

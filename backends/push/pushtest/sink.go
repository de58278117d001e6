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

// Sink takes everything, for benchmarks, and grants an access token to whoever asks at
// TokenPath.
type Sink struct {
	Server
	taken atomic.Int64
}

// StartSink runs a sink for as long as the test.
func StartSink(t testing.TB) *Sink {
	s := &Sink{}
	s.start(t, s.serve)
	return s
}

// RunSink runs a sink until end, in a process that is no test. The authority to trust is
// written to the directory.
func RunSink(dir string) (s *Sink, end func(), err error) {
	s = &Sink{}
	end, err = s.open(dir, s.serve)
	return s, end, err
}

// Taken returns how many requests were taken, those for tokens aside.
func (s *Sink) Taken() int { return int(s.taken.Load()) }

func (s *Sink) serve(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if r.URL.Path == TokenPath {
		writeJSON(w, http.StatusOK, map[string]any{"access_token": "ya29.sink", "expires_in": 3600, "token_type": "Bearer"})
		return
	}
	s.taken.Add(1)
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

package store

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"eventpusher/backends/push/notify"
	"eventpusher/config"
	"eventpusher/internal/jid"
)

// fillDevices makes n devices and returns their nodes and secrets.
func fillDevices(tb testing.TB, s *DeviceLists, n int) []Credentials {
	tb.Helper()
	all := make([]Credentials, n)
	var workers errgroup.Group
	workers.SetLimit(256)
	for i := range all {
		workers.Go(func() (err error) {
			d := Device{Owner: jid.JID(fmt.Sprintf("user%d@example.org", i/2)), App: "chat", Target: notify.Target{Kind: notify.FCM, Address: config.Secret(fmt.Sprintf("%0160d", i))}}
			all[i], err = s.Put(tb.Context(), d, time.Now())
			return err
		})
	}
	if err := workers.Wait(); err != nil {
		tb.Fatal(err)
	}
	return all
}

// resident returns the memory of the process in RAM, in MiB, files that are mapped
// included.
func resident(tb testing.TB) float64 {
	tb.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		tb.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}

// BenchmarkVerify looks devices up among 100 000 and checks their secrets. It also says
// how much more memory the process has for them.
func BenchmarkVerify(b *testing.B) {
	before := resident(b)
	s := newDevices(b, 0)
	all := fillDevices(b, s, 100_000)
	for _, c := range all {
		if _, err := s.Get(b.Context(), c.Node); err != nil {
			b.Fatal(err)
		}
	}
	grown := resident(b) - before
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		c := &all[rand.IntN(len(all))]
		if _, err := s.Verify(b.Context(), c.Node, c.Secret); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(grown, "MiB-RSS")
}

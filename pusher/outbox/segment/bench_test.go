package segment

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const eventSize = 600

// BenchmarkAppend appends packs and, in turns with that, writes the same bytes to
// a plain file and syncs it: "x-bare" compares the medians of the same minutes on
// the same disk.
func BenchmarkAppend(b *testing.B) {
	for _, events := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("pack=%d", events), func(b *testing.B) {
			payload := noise(rand.New(rand.NewPCG(1, 2)), events*eventSize)
			l := mustOpen(b, Options{Dir: b.TempDir(), disk: osDisk{}})
			f, err := osDisk{}.Open(filepath.Join(b.TempDir(), "bare"), os.O_RDWR|os.O_CREATE)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			var ours, bare []time.Duration
			var off int64
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				if _, err := l.Append(payload, events); err != nil {
					b.Fatal(err)
				}
				between := time.Now()
				if _, err := f.WriteAt(payload, off); err != nil {
					b.Fatal(err)
				}
				if err := f.Datasync(); err != nil {
					b.Fatal(err)
				}
				ours, bare = append(ours, between.Sub(start)), append(bare, time.Since(between))
				off += int64(len(payload))
			}
			slices.Sort(ours)
			slices.Sort(bare)
			median := ours[len(ours)/2]
			b.ReportMetric(float64(median)/float64(bare[len(bare)/2]), "x-bare")
			b.ReportMetric(float64(median.Microseconds()), "p50-µs")
			b.ReportMetric(float64(ours[len(ours)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(bare[len(bare)*99/100].Microseconds()), "bare-p99-µs")
			b.ReportMetric(float64(events)/median.Seconds(), "events/s")
		})
	}
}

// BenchmarkAppendCPU is what Append costs beside waiting for the disk.
func BenchmarkAppendCPU(b *testing.B) {
	for _, events := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("pack=%d", events), func(b *testing.B) {
			payload := noise(rand.New(rand.NewPCG(1, 2)), events*eventSize)
			l := mustOpen(b, Options{Dir: b.TempDir()})
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)))
			for b.Loop() {
				if _, err := l.Append(payload, events); err != nil {
					b.Fatal(err)
				}
				if l.Size() > 256<<20 {
					if _, err := l.Trim(l.Next()); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// million writes a log of a million events in packs of 32.
func million(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	l := mustOpen(b, Options{Dir: dir})
	payload := noise(rand.New(rand.NewPCG(1, 2)), 32*eventSize)
	for l.Next() <= 1_000_000 {
		mustAppendOnly(b, l, payload)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	return dir
}

func mustAppendOnly(b *testing.B, l *Log, payload []byte) {
	if _, err := l.Append(payload, 32); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMillion opens a log of a million events, and reads it.
func BenchmarkMillion(b *testing.B) {
	dir := million(b)
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			l, found, err := Open(Options{Dir: dir})
			if err != nil || len(found.Cuts) > 0 {
				b.Fatalf("%+v, %v", found, err)
			}
			_ = l.Close()
		}
	})
	l := mustOpen(b, Options{Dir: dir})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(l.Size())
		b.ReportAllocs()
		for b.Loop() {
			readWhole(b, l)
		}
		b.ReportMetric(1e6*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("seek", func(b *testing.B) { // to the end of a full segment, the furthest
		for b.Loop() {
			r, err := l.Reader(l.segments[1].first - 1)
			if err != nil {
				b.Fatal(err)
			}
			_ = r.Close()
		}
	})
}

func readWhole(b *testing.B, l *Log) {
	r, err := l.Reader(1)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	events := 0
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			b.Fatal(err)
		}
		events += p.Events
	}
	if events < 1_000_000 {
		b.Fatalf("read %d events", events)
	}
}

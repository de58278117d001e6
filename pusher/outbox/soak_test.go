//go:build soak

package outbox_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"eventpusher/internal/jid"
	"eventpusher/pusher/outbox"
)

// alone runs the test in a process of its own, so that no other test's memory is
// measured, and reports whether this is that process.
func alone(t *testing.T) bool {
	t.Helper()
	const marker = "EVENTPUSHER_SOAK_ALONE"
	if os.Getenv(marker) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), marker+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if _, figures, ok := strings.Cut(line, "figures: "); ok {
			t.Logf("figures: %s", strings.TrimSpace(figures))
		}
	}
	return false
}

// mostRSS bounds the anonymous memory with a million events waiting, in MiB.
const mostRSS = 128

// TestSoakMillionWaiting lets 1 000 000 events wait for three backends, starts
// anew and delivers them all.
func TestSoakMillionWaiting(t *testing.T) {
	if !alone(t) {
		return
	}
	few := backlog(t, 1000)
	many := backlog(t, 1_000_000)
	t.Logf("figures: 1 000 000 events waiting: RssAnon %.0f MiB, restart %v, then %.0f deliveries/s at %.0f ns of CPU (RssAnon %.0f MiB); appended %.0f events/s at %.0f ns (1000 waiting: %.0f ns)",
		many.waitingRSS, many.open.Round(time.Millisecond), many.drainRate, many.drainCPU, many.drainRSS, many.appendRate, many.appendCPU, few.appendCPU)
	if many.waitingRSS >= mostRSS || many.drainRSS >= mostRSS {
		t.Errorf("RssAnon is %.0f MiB with all waiting and %.0f MiB after the drain, want below %d", many.waitingRSS, many.drainRSS, mostRSS)
	}
	if many.open >= time.Second {
		t.Errorf("the restart took %v", many.open)
	}
	if many.appendCPU > 1.5*few.appendCPU {
		t.Errorf("an event costs %.0f ns with a million waiting and %.0f ns with a thousand", many.appendCPU, few.appendCPU)
	}
}

// TestSoakParked starts with as many parked events as there may be.
func TestSoakParked(t *testing.T) {
	if !alone(t) {
		return
	}
	for _, keys := range []int{10, outbox.DefaultParkedEvents} {
		parkedAtStart(t, keys)
	}
}

func parkedAtStart(t *testing.T, keys int) {
	t.Helper()
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{ParkAttempts: 1}}
	parkMany(t, o, keys)
	heap() // what finalizers and pools keep goes with the second collection
	before := heap()
	began := time.Now()
	e, found, err := outbox.OpenEmbedded(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Reader("a", func() {})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	used := float64(int64(heap())-int64(before)) / (1 << 20)
	t.Logf("figures: %d events of %d conversations parked: start %v, %.0f MiB of memory", outbox.DefaultParkedEvents, keys, took.Round(time.Millisecond), max(used, 0))
	if found.Backends[0].Parked != outbox.DefaultParkedEvents || r.Stats().Parked != outbox.DefaultParkedEvents {
		t.Errorf("found %+v", found)
	}
	if took >= 5*time.Second || used >= mostRSS {
		t.Errorf("the start took %v and %.0f MiB", took, used)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// parkMany fills an outbox with events of so many conversations that are parked.
func parkMany(t *testing.T, o outbox.EmbeddedOptions, keys int) {
	t.Helper()
	const size = 1000
	e, _, err := outbox.OpenEmbedded(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.Reader("a", func() {})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < outbox.DefaultParkedEvents; n += size {
		p := benchPack(n, size, 1)
		for i := range p.Entries {
			user := fmt.Sprintf("user%d@example.org", (n+i)%keys)
			ev := p.Entries[i].Event
			ev.User, ev.From = jid.JID(user), jid.JID(user+"/phone")
		}
		if err := e.Append(p); err != nil {
			t.Fatal(err)
		}
		// Once a conversation is parked, what follows joins it by itself.
		for r.Stats().Parked < n+size {
			items, _, _ := r.Take(nil, size, false)
			items = r.Load(items)
			for _, it := range items {
				if err := r.Settle([]outbox.Settlement{{Item: it, Outcome: outbox.Retry, Delay: 24 * time.Hour}}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

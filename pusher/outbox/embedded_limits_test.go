package outbox_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"eventpusher/pusher/outbox"
)

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestEmbeddedBacklogStaysOnDisk lets far more events wait than a window holds.
func TestEmbeddedBacklogStaysOnDisk(t *testing.T) {
	const events, size = 200_000, 500
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{WindowEvents: 1000}}
	d := openDurable(t, o, "behind", "ahead")
	before := heap()
	for n := 0; n < events; n += size {
		d.append(t, benchPack(n, size, 3))
		d.drain(t, "ahead") // nobody else waits for the one that is behind
	}
	if used := int64(heap()) - int64(before); used > 16<<20 {
		t.Errorf("%d events that wait take %d bytes of memory", events, used)
	}
	if s := d.readers["behind"].Stats(); s.Waiting != events {
		t.Errorf("waiting: %+v", s)
	}
	d.Crash()

	d = openDurable(t, o, "behind", "ahead")
	if n := d.found.Backends[1].Waiting; n != events {
		t.Errorf("found %d events waiting, want %d", n, events)
	}
	last := make(map[string]string)
	r := d.readers["behind"]
	for n := 0; n < events; {
		items := d.takeWait(t, "behind", 256)
		for _, it := range items {
			if key := it.Event.Key(); it.Event.ID <= last[key] {
				t.Fatalf("%s after %s", it.Event.ID, last[key])
			} else {
				last[key] = it.Event.ID
			}
		}
		deliver(t, r, items)
		if n += len(items); n > events {
			t.Fatal("more than there were")
		}
	}
	if s := r.Stats(); s.Waiting != 0 {
		t.Errorf("afterwards: %+v", s)
	}
	if used := int64(heap()) - int64(before); used > 16<<20 {
		t.Errorf("after the drain %d bytes of memory are in use", used)
	}
	d.close(t)
}

func TestEmbeddedShedsOnlyTheSlowest(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), MaxSize: 2 << 20}
	d := openDurable(t, o, "slow", "quick")
	var told, episodes atomic.Int64
	d.OnShed(func(backend string, events int, episode bool) {
		if backend != "slow" {
			t.Errorf("%s was robbed", backend)
		}
		told.Add(int64(events))
		if episode {
			episodes.Add(1)
		}
	})
	const size = 100
	appended := 0
	for ; appended < 12_000; appended += size {
		// What is given up is given up in the background; Append may have to wait for it.
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			err := d.Append(benchPack(appended, size, 3))
			if err == nil {
				break
			}
			if !errors.Is(err, outbox.ErrFull) || time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
		if got := d.drain(t, "quick"); len(got) != size {
			t.Fatalf("quick got %d events, want %d", len(got), size)
		}
	}
	for deadline := time.Now().Add(patience); d.LogSize() > o.MaxSize; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log stays at %d bytes", d.LogSize())
		}
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	s := d.readers["slow"].Stats()
	if s.Shed == 0 || int64(s.Shed) != told.Load() || episodes.Load() != 1 || s.Waiting != appended-int(s.Shed) {
		t.Errorf("%+v, told of %d events in %d episodes", s, told.Load(), episodes.Load())
	}
	d.Crash()

	d = openDurable(t, o, "slow", "quick")
	if got := d.readers["slow"].Stats(); got.Shed != s.Shed {
		t.Errorf("after a restart %d were given up, before %d", got.Shed, s.Shed)
	}
	got := d.drain(t, "slow")
	if first := fmt.Sprintf("%032x", s.Shed); len(got) != appended-int(s.Shed) || got[0] != first {
		t.Errorf("%d events are left, the first %s; want %d, %s", len(got), got[0], appended-int(s.Shed), first)
	}
	d.close(t)
}

func TestEmbeddedLetsSourcesWait(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), MaxSize: 1 << 20}
	d := openDurable(t, o, "slow")
	var err error
	seq := 0
	for ; err == nil && seq < 10_000; seq += 100 {
		p := benchPack(seq, 100, 1)
		p.Positions = []outbox.Position{{Source: "node", Epoch: "e", Seq: uint64(seq)}}
		err = d.Append(p)
	}
	if !errors.Is(err, outbox.ErrFull) {
		t.Fatalf("at the limit: %v", err)
	}
	if got := d.Positions()[0].Seq; got != uint64(seq-200) {
		t.Errorf("position %d, want that of the last pack taken, %d", got, seq-200)
	}
	if s := d.readers["slow"].Stats(); s.Shed != 0 {
		t.Errorf("%d events were given up for a source that can wait", s.Shed)
	}
	d.drain(t, "slow")
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	p := benchPack(seq, 100, 1)
	p.Positions = []outbox.Position{{Source: "node", Epoch: "e", Seq: uint64(seq)}}
	d.append(t, p)
	d.close(t)
}

// TestEmbeddedSurvivesADiskThatIsFull uses the limit for the size of files, as
// the kernel's own way to refuse a write. The limit is the whole process's, so
// the test has one of its own.
func TestEmbeddedSurvivesADiskThatIsFull(t *testing.T) {
	const alone = "OUTBOX_TEST_FULL_DISK"
	if os.Getenv(alone) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout="+patience.String())
		cmd.Env = append(os.Environ(), alone+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	signal.Ignore(unix.SIGXFSZ)
	t.Cleanup(func() { signal.Reset(unix.SIGXFSZ) })
	var free unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &free); err != nil {
		t.Fatal(err)
	}
	limit := func(bytes uint64) {
		l := free
		l.Cur = min(bytes, free.Cur)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { limit(free.Cur) })

	o := outbox.EmbeddedOptions{Dir: t.TempDir()}
	d := openDurable(t, o, "a")
	d.append(t, benchPack(0, 100, 1))
	limit(1)
	p := benchPack(100, 100, 1)
	p.Positions = []outbox.Position{{Source: "node", Epoch: "e", Seq: 2}}
	if err := d.Append(p); !errors.Is(err, unix.EFBIG) {
		t.Errorf("append to a full disk: %v", err)
	}
	if err := d.Err(); !errors.Is(err, unix.EFBIG) {
		t.Errorf("Err: %v", err)
	}
	if err := d.Bury(outbox.DeadLetter{Event: chat("x", "x")}); !errors.Is(err, unix.EFBIG) {
		t.Errorf("a dead letter on a full disk: %v", err)
	}
	if len(d.Positions()) != 0 {
		t.Errorf("positions of what was not taken: %v", d.Positions())
	}
	items := take(d.readers["a"], 10, false)
	if len(items) != 10 {
		t.Errorf("took %d while the disk is full", len(items))
	}
	deliver(t, d.readers["a"], items)

	limit(free.Cur)
	d.append(t, p)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := d.Bury(outbox.DeadLetter{Event: chat("x", "x")}); err != nil {
		t.Error(err)
	}
	if got := d.drain(t, "a"); len(got) != 190 {
		t.Errorf("%d events, want 190", len(got))
	}
	d.close(t)
	d = openDurable(t, o, "a")
	if s := d.readers["a"].Stats(); s.Waiting != 0 {
		t.Errorf("left: %+v", s)
	}
	d.close(t)
}

// TestEmbeddedBoundsWhatIsDeliveredAgain keeps the outbox from saving what was
// delivered.
func TestEmbeddedBoundsWhatIsDeliveredAgain(t *testing.T) {
	o := outbox.EmbeddedOptions{Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{Redelivery: 10}}
	d := openDurable(t, o, "a")
	d.append(t, benchPack(0, 100, 1))
	release := d.BlockSaves()
	r := d.readers["a"]
	delivered := 0
	var held []*outbox.Item
	for range 20 {
		items := take(r, 4, false)
		if len(items) == 0 {
			break
		}
		if held == nil {
			held = items // in flight all the time
			continue
		}
		deliver(t, r, items)
		delivered += len(items)
	}
	if delivered+len(held) != o.Redelivery {
		t.Errorf("%d delivered and %d in flight without a save, want %d in all", delivered, len(held), o.Redelivery)
	}
	if !r.Stats().Coming {
		t.Error("it looks as if there were nothing to wait for")
	}
	release()
	deliver(t, r, held)
	if got := d.drain(t, "a"); len(got) != 90 {
		t.Errorf("%d events afterwards, want 90", len(got))
	}
	d.close(t)
}

// A window that is full of what has failed, and would be for an hour, does not keep
// from another conversation what comes after that.
func TestFullWindowOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := openDurable(t, outbox.EmbeddedOptions{
			Dir: t.TempDir(), WindowLimits: outbox.WindowLimits{WindowEvents: 8, ParkAttempts: 1000},
		}, "b")
		r := d.readers["b"]
		for n := range 8 {
			d.append(t, pack(1, chat(fmt.Sprint("peer", n), "1")))
		}
		items, _, _ := r.Take(nil, 8, false)
		items = r.Load(items)
		for _, it := range items {
			settle(t, r, outbox.Settlement{Item: it, Outcome: outbox.Retry, Delay: time.Hour, Asked: true})
		}
		items, next, _ := r.Take(nil, 8, false)
		items = r.Load(items)
		synctest.Wait()
		for len(d.woken) > 0 {
			<-d.woken
		}
		began := time.Now()
		d.append(t, pack(1, chat("healthy", "healthy")))
		// As a lane does, which asks again only when it is told to or when Take has said so.
		for len(items) == 0 {
			select {
			case <-d.woken:
			case <-time.After(time.Until(next)):
			}
			items, next, _ = r.Take(nil, 1, false)
			items = r.Load(items)
		}
		if items[0].Event.ID != "healthy" || time.Since(began) > time.Minute {
			t.Errorf("%s came after %v", items[0].Event.ID, time.Since(began))
		}
		d.close(t)
	})
}

// A delivery that hangs keeps the oldest file. Giving up what comes after it would free
// nothing, however often it is done.
func TestShedsNoMoreThanFreesFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const file = 32 << 10
		o := outbox.EmbeddedOptions{
			Dir: t.TempDir(), MaxSize: 10 * file, WindowLimits: outbox.WindowLimits{WindowEvents: 100},
		}
		d := openDurable(t, o.Quick(time.Millisecond, file), "slow")
		r := d.readers["slow"]
		d.append(t, benchPack(0, 1, 1))
		synctest.Wait()
		hangs, _, _ := r.Take(nil, 1, false)
		hangs = r.Load(hangs)
		n := 1
		for ; d.LogSize() < 10*file+file/2; n++ {
			d.append(t, benchPack(n, 1, 1))
		}
		perFile := n / 10
		time.Sleep(time.Minute)
		if s := r.Stats(); s.Shed > uint64(2*perFile) {
			t.Errorf("%d of %d events were given up for nothing, while a file has %d", s.Shed, n, perFile)
		}
		deliver(t, r, hangs)
		time.Sleep(time.Minute)
		s := r.Stats()
		if s.Shed == 0 || s.Shed > uint64(2*perFile) || s.Waiting != n-1-int(s.Shed) || d.LogSize() > 10*file {
			t.Errorf("in the end %+v of %d events, %d bytes", s, n, d.LogSize())
		}
		d.close(t)
	})
}
